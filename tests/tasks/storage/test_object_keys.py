import pytest

from darkroom.tasks.storage.object_keys import check_key, to_key, to_path
from darkroom.tasks.storage.store_errors import Denied, PathTooLong


def test_control_characters_have_keys_of_their_own():
    path = "".join(map(chr, range(0x80)))
    key = to_key(path)
    assert key.isprintable() or all(ord(each) >= 0xE000 for each in key if not each.isprintable())
    assert to_path(key) == path
    assert to_key("a/ü b.jpg") == to_path("a/ü b.jpg") == "a/ü b.jpg"


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", ".", "a/./b", "../a"])
def test_keys_that_the_client_would_change_are_refused(path):
    with pytest.raises(Denied, match=r"s3://b/x: its key has an empty, \. or \.\. segment"):
        check_key(path, "s3://b", "s3://b/x")


@pytest.mark.parametrize(("location", "longest"), [("s3://b", 1024), ("s3://b/0123456789", 1013)])
def test_the_longest_key(location, longest):
    assert check_key("é" * (longest // 2), location, "")
    with pytest.raises(PathTooLong, match=r"1,025 of at most 1,024 bytes"):
        check_key("x" * (longest + 1), location, "")
