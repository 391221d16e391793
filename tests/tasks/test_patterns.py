import pytest

from darkroom.tasks.patterns import compile_patterns


@pytest.mark.parametrize("pattern", ["", "  ", "/", "!", "./a", "a/../b", "[", "\\"])
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    with pytest.raises(ValueError, match=r"pattern '.*'"):
        compile_patterns(["*.jpg", pattern])


def test_the_last_match_decides_and_a_hash_is_a_character():
    patterns = compile_patterns(["*.jpg", "!keep.jpg", "#tmp/"])
    assert [patterns.match_file(path) for path in ("a/b.jpg", "a/keep.jpg", "#tmp/x")] == [True, False, True]
