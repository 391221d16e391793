import os

import pytest

from darkroom.tasks.storage.addresses import Addresses, read_lines
from darkroom.tasks.storage.store import Skipped
from darkroom.tasks.storage.store_errors import NotFound
from tests.tasks.helpers import unprivileged


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lists").mkdir()
    return tmp_path / "lists"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a//b c.jpg", "a/b c.jpg"),
        ("é\n.jpg", "é\n.jpg"),
        ("\uef80.jpg", "\uefee\uefbe\uef80.jpg"),
        ("{folder}/a.jpg", "a.jpg"),
        ("{above}/other/a.jpg", "file:{above}/other/a.jpg"),
        ("../other/a.jpg", "file:{above}/other/a.jpg"),
        ("file:///data/a%20b.jpg", "file:/data/a b.jpg"),
        ("http:/a.jpg", "file:{folder}/http:/a.jpg"),
        ("sub/", "sub/"),
        ("https://Host.org:8080/a/b.jpg?w=1&h=2#part", "https:/Host.org:8080/a/b.jpg?w=1&h=2"),
        ("HTTP://host/a", "http:/host/a"),
        ("s3://bucket/a/b.jpg", "s3:/bucket/a/b.jpg"),
        ("gs://bucket/a/", "gs:/bucket/a/"),
    ],
)
def test_an_address_has_a_path(folder, address, path):
    names = {"folder": folder, "above": folder.parent}
    assert Addresses(f"{folder}/list.txt").to_path(address.format(**names)) == path.format(**names)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./\uef80.jpg", "\uef80.jpg"),
        ("../c/", "s3:/bucket/c/"),
        ("../../other/a.jpg", None),
        ("../../../a.jpg", None),
        ("/data/\uef80.jpg", "file:/data/\uefee\uefbe\uef80.jpg"),
        ("http:/a.jpg", "s3:/bucket/lists/http:/a.jpg"),
        ("s3://other/a.jpg", "s3:/other/a.jpg"),
        ("https://host/a.jpg", "https:/host/a.jpg"),
        ("out/images/a.jpg", None),
        ("s3://bucket/lists/out/images/a.jpg", None),
    ],
)
def test_an_address_in_a_list_in_a_bucket(address, path):
    source = Addresses("s3://bucket/lists/list.txt", excluded="s3://bucket/lists/out")
    assert source.to_path(address) == path
    assert Addresses("s3://bucket/list.txt").to_path("../other/a.jpg") is None


@pytest.mark.parametrize(
    "address",
    [
        *["ftp://host/a.jpg", "data://x", "https://", "https:///a.jpg", "https://host", "https://host/", "https://[/a"],
        *["https://user:secret@host/a.jpg", "https://host/a//b.jpg", "https://host/../a.jpg", "https://host/a/"],
        *["s3://bucket//a.jpg", "file://host/a.jpg", "a\0b.jpg", ".", "{folder}/out/images/a.jpg", "out/"],
    ],
)
def test_an_unusable_address_has_no_path(folder, address):
    source = Addresses(f"{folder}/list.txt", excluded=f"{folder}/out")
    assert source.to_path(address.format(folder=folder)) is None


def test_files_are_read_wherever_they_are(folder):
    (folder.parent / "other").mkdir()
    (folder.parent / "other/a.jpg").write_bytes(b"other")
    (folder / "a.jpg").write_bytes(b"own")
    (folder / "link.jpg").symlink_to(folder.parent / "other/a.jpg")
    source = Addresses(f"{folder}/list.txt")
    paths = [source.to_path(address) for address in ("a.jpg", "../other/a.jpg", "link.jpg")]
    assert [bytes(source.get(path).data) for path in paths] == [b"own", b"other", b"other"]
    assert source.head("a.jpg").size == 3
    assert source.get_start("a.jpg", 2) == b"ow"
    with pytest.raises(NotFound):
        source.get("gone.jpg")


def test_a_folder_is_listed_without_the_excluded_one(folder):
    for path in ("photos/a.jpg", "photos/deep/b.jpg", "photos/out/images/c.jpg", "d.jpg"):
        os.makedirs(os.path.dirname(folder / path), exist_ok=True)
        (folder / path).write_bytes(b"1")
    source, skipped = Addresses(f"{folder}/list.txt", excluded=f"{folder}/photos/out"), Skipped()

    def listed(address):
        batches = source.list(source.to_path(address), skipped=skipped)
        return sorted(path for batch in batches for path in batch["path"].to_pylist())

    assert listed("photos/") == ["photos/a.jpg", "photos/deep/b.jpg"]
    assert skipped.counts == {"in_destination": 1}
    other = Addresses(f"{folder}/photos/list.txt", excluded=f"{folder}/photos/out")
    found = [path for batch in other.list(other.to_path("../")) for path in batch["path"].to_pylist()]
    assert sorted(found) == [f"file:{folder}/{path}" for path in ("d.jpg", "photos/a.jpg", "photos/deep/b.jpg")]


def test_an_object_and_a_prefix_of_a_bucket(s3, tmp_path):
    s3.client.create_bucket(Bucket="listed")
    s3.plant("listed", "a/b.jpg", b"data")
    source = Addresses(f"{tmp_path}/list.txt")
    assert bytes(source.get(source.to_path("s3://listed/a/b.jpg")).data) == b"data"
    for prefix in ("s3://listed/a/", "s3://listed/"):
        assert [batch["path"].to_pylist() for batch in source.list(source.to_path(prefix))] == [["s3:/listed/a/b.jpg"]]


def test_a_list_in_a_bucket_and_what_it_leads_to(s3, tmp_path):
    bucket = s3.make_bucket()
    s3.plant(bucket, "lists/list.txt", b"\xef\xbb\xbfa.jpg\r\n../b.jpg")
    s3.plant(bucket, "lists/a.jpg", b"own")
    s3.plant(bucket, "b.jpg", b"other")
    source = Addresses(f"s3://{bucket}/lists/list.txt")
    addresses = list(read_lines(source.local(tmp_path)))
    assert addresses == ["a.jpg", "../b.jpg"]
    paths = [source.to_path(address) for address in addresses]
    assert [bytes(source.get(path).data) for path in paths] == [b"own", b"other"]
    assert [source.where(path) for path in paths] == [f"s3://{bucket}/lists/a.jpg", f"s3://{bucket}/b.jpg"]


def test_a_listed_folder_that_cannot_be_listed_is_named_by_its_path_in_this_source(open_path):
    for name in ("data/x.jpg", "data/closed/y.jpg"):
        (open_path / name).parent.mkdir(parents=True, exist_ok=True)
        (open_path / name).touch()
    (open_path / "data/closed").chmod(0)
    source, skipped, found = Addresses(f"{open_path}/lists/l.txt"), Skipped(), []
    with unprivileged():
        for address in ("../data/", "../gone/"):
            for batch in source.list(source.to_path(address), skipped=skipped):
                found += batch["path"].to_pylist()
    assert found == [f"file:{open_path}/data/x.jpg"]
    assert skipped.unreadable == [f"file:{open_path}/data/closed", f"file:{open_path}/gone"]
    assert skipped.counts == {"unreadable_folder": 2}


def test_a_prefix_of_a_bucket_without_objects_is_unreadable(s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.make_bucket()
    s3.plant(bucket, "photos/a.jpg", b"x")
    source, skipped = Addresses("/lists/l.txt"), Skipped()
    assert [len(batch) for batch in source.list(source.to_path(f"s3://{bucket}/photos/"), skipped=skipped)] == [1]
    assert list(source.list(source.to_path(f"s3://{bucket}/gone/"), skipped=skipped)) == []
    assert skipped.unreadable == [f"s3:/{bucket}/gone"]


def test_links_in_a_listed_folder_do_not_lead_to_the_outputs(folder):
    (folder / "dest/images").mkdir(parents=True)
    (folder / "dest/images/out.jpg").touch()
    (folder / "sub").mkdir()
    (folder / "sub/former").symlink_to(folder / "dest/images")
    source = Addresses(f"{folder}/l.txt", str(folder / "dest"))
    assert list(source.list("sub/", skipped=Skipped())) == []
