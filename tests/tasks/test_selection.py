import pytest

from darkroom.tasks.patterns import DEFAULT_EXCLUDE
from darkroom.tasks.selection import MAX_SUFFIXES, OTHER_SUFFIXES, Selection
from darkroom.tasks.settings import Rules


def why(path, **rules):
    return Selection(Rules(**rules)).why_skipped(path)


@pytest.mark.parametrize("pattern", DEFAULT_EXCLUDE)
def test_every_default_pattern_excludes_at_any_depth_and_can_be_negated(pattern):
    path = pattern.replace("*", "x")
    for where in (path, f"a/b/{path}"):
        assert why(where) == "excluded"
        assert why(where, exclude=[f"!{pattern}"]) != "excluded"


@pytest.mark.parametrize(
    "path", ["eaDir/", "recycle/", "my @eaDir/", "a.jpg", "a/_a.jpg", "Trash/", "thumbnails/", "lost/", "#1/"]
)
def test_other_names_are_listed(path):
    assert why(path) is None


@pytest.mark.parametrize("path", ["a/./", "a/../", "a//", "a//b.jpg", "a/../b.jpg"])
def test_path_segments_that_only_object_keys_can_have_are_not_hidden(path):
    assert why(path) is None


@pytest.mark.parametrize("path", ["@eaDir.jpg", "lost+found.jpg", "#recycle.jpg"])
def test_patterns_of_folders_exclude_no_files(path):
    assert why(path) is None


@pytest.mark.parametrize(
    ("pattern", "excluded", "listed"),
    [
        ("*.png", ["a.png", "a/b.png", "a.png/"], ["a.PNG", "a.png.jpg"]),
        ("raw/", ["raw/", "a/raw/"], ["raw.jpg", "rawer/"]),
        ("/raw/", ["raw/"], ["a/raw/"]),
        ("a/*.jpg", ["a/b.jpg"], ["a/b/c.jpg", "x/a/b.jpg"]),
        ("a/**/c.jpg", ["a/c.jpg", "a/b/c.jpg", "a/b/b/c.jpg"], ["c.jpg"]),
        ("#tmp/", ["#tmp/"], ["tmp/"]),
        ("IMG_[0-4]*.jpg", ["IMG_123.jpg"], ["IMG_523.jpg"]),
        ("two words.jpg", ["two words.jpg"], ["two.jpg"]),
    ],
)
def test_patterns_are_those_of_gitignore(pattern, excluded, listed):
    assert {why(path, exclude=[pattern]) for path in excluded} == {"excluded"}
    assert {why(path, exclude=[pattern]) for path in listed} <= {None, "not_image"}


def test_the_last_pattern_that_matches_decides():
    assert why("a/b.jpg", exclude=["*.jpg", "!a/*.jpg"]) is None
    assert why("a/b.jpg", exclude=["!a/*.jpg", "*.jpg"]) == "excluded"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("a/b.jpg", None), ("a/b/c.png", None), ("b.jpg", "not_included"), ("b/", None), ("b/x.png", None)],
)
def test_paths_that_match_no_include_pattern_are_left_out(path, reason):
    assert why(path, include=["/a/", "*.png"]) == reason


def test_exclude_overrides_include_and_include_adds_no_hidden_or_other_files():
    assert why("a/b.jpg", include=["*.jpg"], exclude=["b.*"]) == "excluded"
    assert why(".b.jpg", include=["*.jpg"]) == "hidden"
    assert why("b.txt", include=["*.txt"]) == "not_image"


def test_a_path_is_left_out_if_it_or_a_folder_above_it_is():
    selection = Selection(Rules(exclude=["/raw/"], include=["*.jpg"]))
    assert {path: selection.leaves_out(path) for path in ("raw/a/b.jpg", ".git/b.jpg", "a/b.jpg", "a/b.png")} == {
        "raw/a/b.jpg": True, ".git/b.jpg": True, "a/b.jpg": False, "a/b.png": True
    }  # fmt: skip


def test_files_that_are_no_images_are_counted_by_suffix():
    selection = Selection(Rules())
    for path in ("a.txt", "b/c.TXT", "README", "a.b/notes", "x.a-very-long-suffix-of-someone", "hidden/.txt"):
        selection.skip(path)
    assert selection.not_images == {"txt": 2, "": 2, OTHER_SUFFIXES: 1}


def test_numbered_suffixes_do_not_fill_the_memory():
    selection = Selection(Rules())
    for number in range(10 * MAX_SUFFIXES):
        selection.skip(f"frame.{number}")
    assert len(selection.not_images) == MAX_SUFFIXES + 1
    assert selection.not_images.total() == 10 * MAX_SUFFIXES
