import io
import os
import tarfile

import pytest

from darkroom.tasks.selection import Selection
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.storage.naming import path_to_text
from darkroom.tasks.storage.object_store import open_object_store
from darkroom.tasks.storage.store import Skipped
from darkroom.tasks.storage.store_errors import Failed, NotFound, TooLarge
from darkroom.tasks.storage.tar_members import OPEN_ARCHIVES, TarMembers

FILES = {"./a/1.jpg": b"one", "a/1.cls": b"7", "a/2.jpg": b"2" * 3000, "__MACOSX/3.jpg": b"three", "empty.jpg": b""}


def tar(files, **options):
    """Return the bytes of an archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **options) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.jpg").write_bytes(b"plain")
    (tmp_path / "sub/x.tar").write_bytes(tar(FILES))
    return tmp_path


@pytest.fixture
def source(folder):
    return TarMembers(LocalFolder(os.fsencode(folder)))


def listed(source, rules=Rules()):  # noqa: B008 - frozen
    skipped = Skipped()
    batches = list(source.list(skip=Selection(rules).skip, skipped=skipped))
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}, skipped


def test_the_files_of_an_archive_are_listed_by_the_rules(source):
    rows, skipped = listed(source)
    assert rows.keys() == {"b.jpg", "sub/x.tar/a/1.jpg", "sub/x.tar/a/2.jpg", "sub/x.tar/empty.jpg"}
    assert skipped.counts == {"not_image": 1, "excluded": 1}
    row = rows["sub/x.tar/a/2.jpg"]
    assert (row["size"], row["etag"]) == (3000, None)
    assert row["mtime"] == source.head("sub/x.tar/a/2.jpg").mtime
    assert row["ctime"] is not None
    assert listed(source, Rules(exclude=["x.tar/"]))[0].keys() == {"b.jpg"}
    assert listed(source, Rules(include=["a/2.jpg"]))[0].keys() == set()
    assert listed(source, Rules(include=["/sub/x*.tar/"]))[0].keys() == rows.keys() - {"b.jpg"}
    assert listed(source, Rules(include=["2.jpg"]))[0].keys() == {"sub/x.tar/a/2.jpg"}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_files_are_read_from_archives_of_each_format(source, folder, tar_format):
    long = "é" * (20 if tar_format == tarfile.USTAR_FORMAT else 120) + ".jpg"
    (folder / "y.tar").write_bytes(tar({long: b"data"}, format=tar_format))
    for path, data in {"b.jpg": b"plain", "sub/x.tar/a/1.jpg": b"one", f"y.tar/{long}": b"data"}.items():
        assert bytes(source.get(path).data) == data
        assert source.head(path) == source.get(path).version
        assert source.get_start(path, 2) == data[:2]
    with pytest.raises(NotFound):
        source.get("sub/x.tar/gone.jpg")
    with pytest.raises(TooLarge, match="3,000 bytes"):
        source.get("sub/x.tar/a/2.jpg", max_bytes=2999)


def test_a_bucket(s3, folder):
    bucket = s3.make_bucket()
    s3.plant(bucket, "x.tar", (folder / "sub/x.tar").read_bytes())
    source = TarMembers(open_object_store(f"s3://{bucket}"))
    rows, _ = listed(source)
    assert rows.keys() == {"x.tar/a/1.jpg", "x.tar/a/2.jpg", "x.tar/empty.jpg"}
    assert bytes(source.get("x.tar/a/2.jpg").data) == b"2" * 3000
    assert rows["x.tar/a/1.jpg"]["etag"] == source.get("x.tar/a/1.jpg").version.etag


def test_only_the_last_few_archives_stay_open(source, folder):
    for number in range(OPEN_ARCHIVES + 3):
        (folder / f"{number}.tar").write_bytes(tar({"a.jpg": bytes([number])}))
    for number in [*range(OPEN_ARCHIVES + 3), 0]:
        assert bytes(source.get(f"{number}.tar/a.jpg").data) == bytes([number])
    assert len(source._archives) == OPEN_ARCHIVES


def test_members_that_lead_out_of_an_archive_are_not_listed(source, folder):
    with tarfile.open(folder / "sub/x.tar", "w") as archive:
        for name in ("../a.jpg", "/b.jpg", "a/../../c.jpg", "..", "d/../e.jpg"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert listed(source)[0].keys() == {"b.jpg", "sub/x.tar/e.jpg"}


@pytest.mark.parametrize("cut", [512 + 3 + 100, 2 * 512 + 100, 6 * 512, 6 * 512 + 100, 7 * 512 + 200])
def test_no_member_of_an_archive_cut_short_counts_as_gone(source, folder, cut):
    (folder / "sub/x.tar").write_bytes(tar({"1.jpg": b"1", "2.jpg": b"2", "3.jpg": b"3" * 700})[:cut])
    rows, skipped = listed(source)
    assert skipped.unreadable == ["sub/x.tar"]
    assert skipped.counts["damaged_archive"] == 1
    for path in rows.keys() - {"b.jpg"}:
        if path.endswith("3.jpg") or cut < 2 * 512:
            continue
        assert bytes(source.get(path).data) == path[-5:-4].encode()


@pytest.mark.parametrize("data", [b"", b"no archive", bytes(300)])
def test_a_file_that_is_no_archive_is_unreadable(source, folder, data):
    (folder / "sub/x.tar").write_bytes(data)
    rows, skipped = listed(source)
    assert rows.keys() == {"b.jpg"}
    assert skipped.unreadable == ["sub/x.tar"]
    with pytest.raises(Failed, match="it is no tar archive, or damaged"):
        source.get("sub/x.tar/a.jpg")


def test_a_listing_reads_sidecars_if_they_are_wanted(source, folder):
    files = {**FILES, "a/1.TXT": b"one", "a/1.npy": b"x", ".cls": b"x", "a/2.json": b"2" * 700}
    (folder / "sub/x.tar").write_bytes(tar(files))
    (folder / "cut.tar").write_bytes(tar({"1.jpg": b"1", "1.txt": b"2" * 700})[: 3 * 512 + 100])
    seen = {}
    source.on_sidecar = seen.__setitem__
    _, skipped = listed(source)
    assert seen == {"sub/x.tar/a/1.cls": b"7", "sub/x.tar/a/1.TXT": b"one", "sub/x.tar/a/2.json": b"2" * 700}
    assert skipped.counts == {"not_image": 1, "hidden": 1, "excluded": 1, "damaged_archive": 1}


def test_hard_links_are_files_and_other_links_are_counted(folder, source):
    links = {
        "b.jpg": (tarfile.LNKTYPE, "a.jpg"),
        "c.jpg": (tarfile.SYMTYPE, "a.jpg"),
        "d.jpg": (tarfile.LNKTYPE, "gone"),
    }
    made = io.BytesIO(tar({"a.jpg": b"one"}))
    with tarfile.open(fileobj=made, mode="a") as archive:
        for name, (kind, target) in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    (folder / "sub/x.tar").write_bytes(made.getvalue())
    rows, skipped = listed(source)
    assert rows.keys() == {"b.jpg", "sub/x.tar/a.jpg", "sub/x.tar/b.jpg"}
    assert bytes(source.get("sub/x.tar/b.jpg").data) == b"one"
    assert skipped.counts == {"special": 2}


def test_a_folder_may_be_named_like_an_archive(folder, source):
    (folder / "y.tar").mkdir()
    (folder / "y.tar/c.jpg").write_bytes(b"plain")
    assert "y.tar/c.jpg" in listed(source)[0]
    assert bytes(source.get("y.tar/c.jpg").data) == b"plain"
    assert source.head("y.tar/c.jpg").size == 5


def test_a_name_that_is_not_utf_8_is_kept(folder, source):
    (folder / "sub/x.tar").write_bytes(tar({"caf\udce9.jpg": b"one"}, format=tarfile.GNU_FORMAT))
    path = "sub/x.tar/" + path_to_text(b"caf\xe9.jpg")
    assert path in listed(source)[0]
    assert bytes(source.get(path).data) == b"one"


def with_size(size):
    """Return an archive of a whole image and one whose header states a size."""
    data = bytearray(tar({"a.jpg": b"one", "b.jpg": b"two"}))
    header = data[1024:1536]
    header[124:136] = (
        b"\x80" + size.to_bytes(11, "big") if size >= 0 else b"\xff" + (256**11 + size).to_bytes(11, "big")
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    return bytes(data)


@pytest.mark.parametrize("size", [2**70, 2**62, 10**6, -253])
def test_of_an_archive_with_an_impossible_size_the_files_before_it_are_listed(folder, source, size):
    (folder / "sub/x.tar").write_bytes(with_size(size))
    rows, skipped = listed(source)
    assert rows["sub/x.tar/a.jpg"]["size"] == 3
    assert skipped.unreadable == ["sub/x.tar"]


@pytest.mark.parametrize("header", [{"size": "9" * 23}, {"GNU.sparse.map": "a,b"}])
def test_extended_headers_that_make_no_sense_are_damage(folder, source, header):
    (folder / "sub/x.tar").write_bytes(tar({"a.jpg": b"one"}, format=tarfile.PAX_FORMAT, pax_headers=header))
    _, skipped = listed(source)
    assert skipped.unreadable == ["sub/x.tar"]
