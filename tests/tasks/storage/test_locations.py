import os

import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.locations import (
    absolute,
    check_apart,
    check_destination,
    check_links,
    check_source,
    open_source,
    open_store,
)


def test_a_location_becomes_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("a/../b", "source") == f"{tmp_path}/b"
    assert absolute("~/x", "source") == "/home/me/x"
    assert absolute("/a//b/", "source") == "/a/b"


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        *((url, "no URL of an object store") for url in ("file:///tmp", "https://x")),
        ("", "it is empty"),
        ("~nosuchuser/x", "names a user"),
        ("/data/\udcff", "not UTF-8"),
    ],
)
def test_refusing_a_location_names_its_setting(location, problem):
    with pytest.raises(SettingsError, match=f"^destination: .*{problem}"):
        absolute(location, "destination")


def test_stores_of_the_same_location_are_equal(tmp_path):
    assert open_store(str(tmp_path), outputs="images") == open_store(f"{tmp_path}/.", outputs="images")
    assert hash(open_source(str(tmp_path), Rules())) == hash(open_source(f"{tmp_path}/", Rules()))
    assert open_source(str(tmp_path), Rules()).location == str(tmp_path)


def test_a_source_follows_links_as_its_settings_say(tmp_path):
    followed = open_source(str(tmp_path), Rules(follow_symlinks=True), "/dest")
    assert (followed.links, followed.excluded) == (Links.ALL, os.fsencode("/dest"))
    assert open_source(str(tmp_path), Rules()).links is Links.INSIDE


def test_a_url_is_a_bucket(s3):
    bucket = s3.make_bucket()
    assert absolute("s3://b/a/", "source") == "s3://b/a"
    store = open_store(f"s3://{bucket}/out", outputs="images")
    store.put("a", b"x")
    assert bytes(open_source(f"s3://{bucket}/out/", Rules()).get("a").data) == b"x"
    check_source(f"s3://{bucket}/out")
    check_destination(f"s3://{bucket}/out")
    check_links(f"s3://{bucket}/out", ["images"])
    assert s3.contents(bucket) == {"out/a": b"x"}


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ("s3://b/a", "s3://b/a", "the same"),
        ("s3://b", "s3://b/out", "lies inside the source"),
        ("s3://b/out/in", "s3://b/out", "lies inside the destination"),
    ],
)
def test_nested_prefixes_are_refused(source, destination, words):
    with pytest.raises(SettingsError, match=words):
        check_apart(source, destination)
    check_apart("s3://b/a", "s3://b/ab")
    check_apart("/b/a", "s3://b/a")
