"""Keys that the object-store client refuses, in pages with others."""

import pytest
from obstore.exceptions import InvalidPathError

from darkroom.tasks.storage.object_client import connect
from darkroom.tasks.storage.object_pages import Pages
from darkroom.tasks.storage.object_store import open_object_store
from darkroom.tasks.storage.store import Skipped
from darkroom.tasks.storage.store_errors import StorageError


def listed(location, skipped):
    return [path for batch in open_object_store(location).list(skipped=skipped) for path in batch["path"].to_pylist()]


@pytest.mark.parametrize(
    ("strange", "unreadable"),
    [
        (["b/c//x.jpg", "b/c//y.jpg"], ["b/c", "b/c//"]),
        (["b/c/./x.jpg"], ["b/c", "b/c/./"]),
        (["b/c/../x.jpg", "b/c/.."], ["b/c", "b/c/.."]),
        (["b/c/tab\tx.jpg"], ["b/c", "b/c/tab\t"]),
        (["b/c/del\x7f.jpg"], ["b/c", "b/c/del\x7f"]),
        (["/x.jpg"], ["", "/"]),
        (["//x.jpg", "/x.jpg"], ["", "/"]),
    ],
)
def test_other_objects_are_listed_and_incomplete_folders_are_noted(s3, bucket, strange, unreadable):
    whole = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/b/1.jpg", "b/c/z.jpg", "b/d.jpg", "c/0.jpg", "c/d/e.jpg"]
    for key in [*whole, *strange]:
        s3.plant(bucket, f"p/{key}", b"x")
    skipped = Skipped()
    first = [key for key in [min(strange)] if key.isprintable()]  # listing goes on after all keys with its beginning
    assert sorted(listed(f"s3://{bucket}/p", skipped)) == sorted([*whole, *first])
    assert sorted(skipped.unreadable) == sorted(unreadable)
    assert skipped.counts["unreadable_folder"] == len(unreadable)


def test_strange_keys_on_many_pages(s3, bucket):
    whole = [f"{folder}/{number:03d}.jpg" for folder in "abcd" for number in range(400)]
    for key in [*whole, "a//x", "b/./x", "d//x", "d//y"]:
        s3.plant(bucket, key, b"x")
    skipped = Skipped()
    assert sorted(listed(f"s3://{bucket}", skipped)) == sorted([*whole, "a//x", "b/./x", "d//x"])
    assert set(skipped.unreadable) >= {"a//", "b/./", "d//"}


def test_the_object_behind_refused_keys_is_listed(s3, bucket):
    for key in ("a//x", "a/0", "a/1"):
        s3.plant(bucket, key, b"x")
    assert listed(f"s3://{bucket}", Skipped()) == ["a//x", "a/0", "a/1"]


def test_slashes_at_the_beginning_of_a_bucket(s3, bucket):
    for key in ("//x", "/y", "a/0"):
        s3.plant(bucket, key, b"x")
    skipped = Skipped()
    assert listed(f"s3://{bucket}", skipped) == ["//x", "a/0"]
    assert skipped.unreadable == ["/"]


def test_a_refused_key_is_an_error_unless_skipped_paths_are_collected(s3, bucket):
    s3.plant(bucket, "a//x", b"x")
    with pytest.raises(StorageError, match="invalid path"):
        listed(f"s3://{bucket}", None)
    with pytest.raises(InvalidPathError):
        list(Pages(connect("s3", bucket, "").patient, None).below(""))
