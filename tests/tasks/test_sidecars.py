"""Sidecars of images in tar archives, from the archives to the manifest."""

import pytest

from darkroom.tasks import sidecars
from darkroom.tasks.discover import discover
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.tar_members import MAX_SIDECAR_BYTES
from tests.tasks.helpers import manifest_rows, prepare, write_image
from tests.tasks.shards import run
from tests.tasks.storage.test_tar_members import tar

TARS = Rules(tar_members=True)


@pytest.fixture
def image(tmp_path):
    write_image(tmp_path / "image.jpg")
    return (tmp_path / "image.jpg").read_bytes()


def columns(place, *names):
    return {path: tuple(row.get(name) for name in names) for path, row in manifest_rows(place).items()}


def test_sidecars_are_columns_named_by_their_extension(source, place, image, monkeypatch):
    monkeypatch.setattr(sidecars, "PENDING_BYTES", 1000)  # so small that some are written before the end
    files = {
        "1.jpg": image,
        "1.seg.jpg": image,
        "1.cls": b"7",
        "1.json": b'{"a": 1}',
        "deep.er/2.JPG": image,
        "deep.er/2.TXT": "é\n".encode(),
        "deep.er/1.txt": b"of no image",
        "3.jpg": image,
        "3.txt": b"\xff",
        "3.json": b" " * (MAX_SIDECAR_BYTES + 1),
        "3.npy": b"x",
        "3.cls": b"",
        ".txt": b"of no sample",
        "4.jpg": image,
        "4.v2.txt": b"another extension",
        "5.jpg": image,
        "5.txt": b"first",
    }
    (source / "x.tar").write_bytes(tar({**files, "./5.txt": b"last"}))
    (source / "y.tar").write_bytes(tar({"1.jpg": image, "1.txt": b"y's"}))
    write_image(source / "1.jpg")
    run(source, place, rules=TARS)
    assert columns(place, "cls", "json", "txt") == {
        "1.jpg": (None, None, None),
        "x.tar/1.jpg": ("7", '{"a": 1}', None),
        "x.tar/1.seg.jpg": ("7", '{"a": 1}', None),
        "x.tar/3.jpg": ("", None, None),
        "x.tar/4.jpg": (None, None, None),
        "x.tar/5.jpg": (None, None, "last"),
        "x.tar/deep.er/2.JPG": (None, None, "é\n"),
        "y.tar/1.jpg": (None, None, "y's"),
    }
    assert prepare(source, place, run_id="again", rules=TARS)[2].nothing_to_do


def test_a_listing_counts_files_that_cannot_be_sidecars(source, place, image):
    files = {"1.jpg": image, "1.txt": b"\xff", "1.json": b" " * (MAX_SIDECAR_BYTES + 1), "1.cls": b"1"}
    (source / "x.tar").write_bytes(tar(files))
    workspace = place.workspace("run")
    listing = discover(open_source(str(source), TARS), workspace, TARS)
    assert listing.skipped.counts == {"undecodable_sidecar": 1, "not_image": 1}
    assert listing.not_images == {"json": 1}


def test_a_changed_sidecar_is_published_without_processing_its_image_again(source, place, image):
    (source / "x.tar").write_bytes(tar({"1.jpg": image, "1.cls": b"1", "2.jpg": image}))
    run(source, place, rules=TARS)
    before = manifest_rows(place)
    (source / "x.tar").write_bytes(tar({"1.jpg": image, "1.cls": b"10", "2.jpg": image}))
    run(source, place, rules=TARS, run_id="next")
    after = manifest_rows(place)
    assert columns(place, "cls") == {"x.tar/1.jpg": ("10",), "x.tar/2.jpg": (None,)}
    assert {row["run_id"] for row in after.values()} == {row["run_id"] for row in before.values()}
    (source / "x.tar").write_bytes(tar({"1.jpg": image, "2.jpg": image}))
    run(source, place, rules=TARS, run_id="last")
    assert all("cls" not in row for row in manifest_rows(place).values())


@pytest.mark.parametrize("left", [10, 1030, 1100, 2000], ids=str)
def test_the_sidecar_values_of_a_damaged_archive_are_kept(source, place, image, left):
    whole = tar({"1.cls": b"x" * 520, "1.jpg": image, "1.json": b"{}"})
    (source / "x.tar").write_bytes(whole)
    (source / "y.tar").write_bytes(tar({"1.jpg": image, "1.txt": b"y"}))
    run(source, place, rules=TARS)
    (source / "x.tar").write_bytes(whole[:left])
    assert not prepare(source, place, run_id="same", rules=TARS)[2].has_new_columns
    (source / "y.tar").write_bytes(tar({"1.jpg": image, "1.txt": b"new"}))
    run(source, place, rules=TARS, run_id="next")
    values = columns(place, "cls", "json", "txt")
    assert values == {"x.tar/1.jpg": ("x" * 520, "{}", None), "y.tar/1.jpg": (None, None, "new")}
    (source / "x.tar").write_bytes(tar({"1.jpg": image, "1.json": b"[]"}))
    run(source, place, rules=TARS, run_id="last")
    assert columns(place, "cls", "json", "txt")["x.tar/1.jpg"] == (None, "[]", None)


def test_archives_in_a_bucket(s3, place, image):
    bucket = s3.make_bucket()
    s3.plant(bucket, "x.tar", tar({"1.jpg": image, "1.cls": b"7"}))
    run(f"s3://{bucket}", place, rules=TARS)
    assert columns(place, "cls") == {"x.tar/1.jpg": ("7",)}
