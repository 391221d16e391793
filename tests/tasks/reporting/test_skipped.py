import pytest

from darkroom.tasks.reporting.skipped import describe_skipped, hints


def test_files_that_are_not_images_are_described_by_suffix():
    counts = {"not_image": 12, "excluded": 2, "outside": 1_000}
    suffixes = {"txt": 5, "": 3, "db": 1, "a": 1, "b": 1, "c": 1}
    assert describe_skipped(counts, suffixes) == (
        "2 excluded, 12 not image (5 .txt, 3 without suffix, 1 .db, 1 .a, 1 .b, 1 more suffix), 1,000 outside"
    )
    assert describe_skipped({"hidden": 1}, {}) == "1 hidden"
    assert describe_skipped({"not_image": 1}, {"\x1b[31m": 1}) == "1 not image (1 .�[31m)"
    assert describe_skipped({"not_image_by_content": 1}, {"txt": 1}) == "1 not image by content (1 .txt)"


@pytest.mark.parametrize("reason", ["outside", "linked_folder"])
def test_skipped_links_give_a_hint_about_follow_symlinks(reason):
    [hint] = hints({reason: 1}, {})
    assert hint.startswith("`follow_symlinks=True` ")


@pytest.mark.parametrize("suffix", ["", "1", "jpg_large", "jpg?w=600", "jpg~", "…"])
def test_suffixes_that_images_may_have_give_a_hint_about_by_content(suffix):
    [hint] = hints({"not_image": 2}, {"txt": 1, suffix: 1})
    assert hint.startswith("`by_content=True` ")


@pytest.mark.parametrize("counts", [{"not_image": 1}, {"hidden": 3, "special": 1}, {}])
def test_other_reasons_have_no_hint(counts):
    assert not list(hints(counts, {"txt": 1}))


def test_by_content_is_not_offered_when_it_is_on():
    assert not list(hints({"not_image_by_content": 1}, {"": 1}))
