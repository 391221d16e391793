import os

import pytest

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.locations import absolute, open_source, open_store


def test_a_location_becomes_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("a/../b", "source") == f"{tmp_path}/b"
    assert absolute("~/x", "source") == "/home/me/x"
    assert absolute("/a//b/", "source") == "/a/b"


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        *((url, "only local folders") for url in ("s3://bucket/a", "gs://b", "file:///tmp", "https://x")),
        ("", "it is empty"),
        ("~nosuchuser/x", "names a user"),
        ("/data/\udcff", "not UTF-8"),
    ],
)
def test_a_location_that_is_none_is_refused_by_the_name_of_its_setting(location, problem):
    with pytest.raises(SettingsError, match=f"^destination: .*{problem}"):
        absolute(location, "destination")


def test_stores_of_the_same_location_are_equal(tmp_path):
    assert open_store(str(tmp_path), outputs="images") == open_store(f"{tmp_path}/.", outputs="images")
    assert hash(open_source(str(tmp_path))) == hash(open_source(f"{tmp_path}/"))
    assert open_source(str(tmp_path)).location == str(tmp_path)


def test_a_source_follows_links_as_its_settings_say(tmp_path):
    followed = open_source(str(tmp_path), follow_symlinks=True, destination="/dest")
    assert (followed.links, followed.excluded) == (Links.ALL, os.fsencode("/dest"))
    assert open_source(str(tmp_path)).links is Links.INSIDE
