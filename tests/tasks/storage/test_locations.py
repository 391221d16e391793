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
    is_list,
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
        ("", "no location is given"),
        ("s3:/bucket/photos", "Give 's3://bucket/photos', as text, not as a path"),
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


def test_a_list_is_known_by_its_name_and_in_a_bucket_there_is_one(s3, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    lists = {"/a/b.txt", "s3://b/c.csv", "gs://b/c/d.parquet"}
    others = {f"{tmp_path}/folder.csv", "s3://b.csv", "s3://b/csv", "/a/b.json"}
    assert set(filter(is_list, lists | others)) == lists
    with pytest.raises(SettingsError, match="list of images, and of those no archives are read"):
        check_source("/a/b.txt", tar_members=True)
    bucket = s3.make_bucket()
    s3.plant(bucket, "lists/a.txt", b"x.jpg")
    check_source(f"s3://{bucket}/lists/a.txt")
    with pytest.raises(SettingsError, match=rf"no object s3://{bucket}/lists/b\.txt\. .* and `include` /b\.txt/\."):
        check_source(f"s3://{bucket}/lists/b.txt")


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
