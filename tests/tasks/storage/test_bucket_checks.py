import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.bucket_checks import bucket_location, check_bucket_destination, check_bucket_source, is_url
from darkroom.tasks.storage.object_store import open_object_store
from darkroom.tasks.storage.store import Absent, Version
from darkroom.tasks.storage.store_errors import Denied
from tests.tasks.storage.memory import MemoryStore


def test_urls_become_canonical():
    assert bucket_location("s3://b/a b/", "source") == "s3://b/a b"
    assert bucket_location("gs://b/", "source") == bucket_location("gs://b", "source") == "gs://b"
    assert is_url("https://x")
    assert not is_url("/a/b")


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://x/y", "no URL of an object store"),
        ("s3://", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("az://b//a", "empty, . or .. segment"),
        ("gs://b/a/../c", "empty, . or .. segment"),
        ("s3://b/a\nb", "control character"),
    ],
)
def test_other_urls_are_refused(location, words):
    with pytest.raises(SettingsError, match=f"^destination: .*{words}"):
        bucket_location(location, "destination")


def test_an_empty_or_missing_source_is_refused(s3):
    bucket = s3.make_bucket()
    with pytest.raises(SettingsError, match=f"no object below s3://{bucket}/photos/"):
        check_bucket_source(open_object_store(f"s3://{bucket}/photos"))
    s3.plant(bucket, "photos/a.jpg", b"x")
    check_bucket_source(open_object_store(f"s3://{bucket}/photos"))
    with pytest.raises(SettingsError, match="the bucket of s3://no-such-bucket does not exist"):
        check_bucket_source(open_object_store("s3://no-such-bucket"))


def test_checking_a_destination_leaves_nothing_in_it(s3):
    bucket = s3.make_bucket()
    check_bucket_destination(open_object_store(f"s3://{bucket}/out"))
    assert s3.contents(bucket) == {}
    with pytest.raises(SettingsError, match="the bucket of s3://no-such-bucket/out does not exist"):
        check_bucket_destination(open_object_store("s3://no-such-bucket/out"))


class Careless(MemoryStore):
    """Ignores one kind of condition, as old S3-compatible servers do."""

    location = "s3://careless/out"

    def __init__(self, ignored):
        super().__init__()
        self.ignored = ignored

    def put(self, path, data, *, expected=None, durable=False):
        ignores = isinstance(expected, self.ignored) and (path in self.objects)
        return super().put(path, data, expected=None if ignores else expected, durable=durable)


def test_a_store_that_ignores_conditions_is_refused():
    for ignored in (Absent, Version):
        store = Careless(ignored)
        with pytest.raises(SettingsError, match=r"s3://careless/out ignores the conditions of requests"):
            check_bucket_destination(store)
        assert store.objects == {}


def test_refused_credentials_are_reported():
    store = Careless(())
    store.fail("", Denied, times=9)
    with pytest.raises(SettingsError, match=r"Set AWS_ACCESS_KEY_ID and .*permission to list it"):
        check_bucket_source(store)
    with pytest.raises(SettingsError, match="permission to read, write and delete there"):
        check_bucket_destination(store)
