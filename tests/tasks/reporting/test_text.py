import pytest

from darkroom.tasks.reporting.text import duration, first_sentence, printable, sufficient_limit


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1:00"), (90, "1:30"), (3599.9, "1:00:00")]
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(20 / 26, "0.77"), (0.29, "0.29"), (0.2001, "0.21"), (0.999, "1"), (1, "1")],
)
def test_the_limit_that_would_have_sufficed(ratio, shown):
    assert sufficient_limit(ratio) == shown


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("One. Two. Three.", ("One.", "Two. Three.")),
        ("one 0.5, v. small and a.b.C.", ("one 0.5, v. small and a.b.C.", "")),
        ("Is it?\nYes", ("Is it?", "Yes")),
        ("", ("", "")),
    ],
)
def test_the_first_sentence(text, split):
    assert first_sentence(text) == split


def test_a_printable_name_keeps_its_spaces():
    assert printable("写真\u3000一 3.04\u202fPM.png") == "写真\u3000一 3.04\u202fPM.png"
    assert printable("a\tb\n\x1b\u2028.png") == "a�b���.png"
