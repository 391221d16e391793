"""Outputs are compared with their rows."""

import hashlib
import os
import shutil
import threading
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from darkroom.tasks import compare as compare_module
from darkroom.tasks.compare import check_shard
from darkroom.tasks.imaging.formats.foreign import refusal
from darkroom.tasks.recover import Recovered, clear_verifications, recover
from darkroom.tasks.reporting.findings import FINDINGS_SCHEMA
from darkroom.tasks.reporting.status import read_status
from darkroom.tasks.settings import Recipe
from darkroom.tasks.storage import local as storage
from darkroom.tasks.survey import check_settled
from darkroom.tasks.worker.shared_batch import Operation
from tests.contents import files, flip_bit
from tests.places import destination_at, disk
from tests.tasks.helpers import SMALL, manifest_rows, parts_of, write_image, write_output
from tests.tasks.shards import cut_small_shards, shard_of
from tests.tasks.verifying import begin, kinds, make, put_manifest, read_again, verify


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        Recipe(width=30, height=20, color="gray"),
        Recipe(width=9, height=9, format="png"),
        Recipe(width=9, height=9, format="png", color="gray", fit="inside"),
        Recipe(width=9, height=9, format="webp", quality=1),
        Recipe(width=9, height=9, format="webp", color="gray", fit="contain"),
        Recipe(width=9, height=9, format="jpeg", quality=100, fit="outside"),
    ],
)
def test_intact_outputs_have_no_findings_and_verifying_changes_nothing(source, place, recipe):
    write_image(source / "a.jpg", 80, 60, seed=1)
    write_image(source / "b.png", 7, 5, seed=2, image_format="PNG")
    alpha = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(alpha).save(source / "alpha.png")
    alpha[:, :, 3] = 255
    Image.fromarray(alpha).save(source / "opaque.png")
    (source / "broken.jpg").write_bytes(b"x")
    make(source, place, recipe=recipe)
    before = files(place.root)

    report, found = verify(place)

    assert found == {}
    assert (report.outputs, report.reread, report.findings_file, report.succeeded) == (4, 4, "", True)
    assert files(place.root) == before


def test_kinds_of_damage_are_distinguished(nine):
    images, rows = nine.images, manifest_rows(nine)
    flip_bit(images / "0.jpg")
    os.truncate(images / "1.jpg", 100)
    (images / "2.jpg").write_bytes((images / "2.jpg").read_bytes() + b"more")
    other = (images / "8.jpg").read_bytes().ljust(rows["3.jpg"]["output_bytes"], b"\0")[: rows["3.jpg"]["output_bytes"]]
    (images / "3.jpg").write_bytes(other)
    (images / "4.jpg").unlink()
    (images / "5.jpg").unlink()
    os.mkfifo(images / "5.jpg")
    shutil.copy(images / "6.jpg", nine.root / "elsewhere")
    (images / "6.jpg").unlink()
    (images / "6.jpg").symlink_to(nine.root / "elsewhere")
    (images / "7.jpg").unlink()
    (images / "7.jpg").mkdir()
    write_output(nine, "images/7.jpg/inner.jpg")
    write_output(nine, "images/new/notes.txt", b"")
    write_output(nine, "images/new/.darkroom-12-3", b"half")
    write_output(nine, "images/.hidden", b"1")
    (images / "link").symlink_to(nine.root)
    before = sorted(str(path) for path in nine.root.rglob("*"))

    report, found = verify(nine)

    sizes = {number: rows[f"{number}.jpg"]["output_bytes"] for number in range(9)}
    assert found == {
        "0.jpg": ("damaged", "other bytes than were written: jpeg, 8 × 6 pixels"),
        "1.jpg": ("damaged", f"100 bytes instead of {sizes[1]}"),
        "2.jpg": ("damaged", f"{sizes[2] + 4} bytes instead of {sizes[2]}"),
        "3.jpg": ("damaged", "other bytes than were written: jpeg, 8 × 6 pixels"),
        "4.jpg": ("missing", "there is no such file"),
        "5.jpg": ("damaged", "it is no regular file"),
        "6.jpg": ("damaged", "it is no regular file"),
        "7.jpg": ("missing", "there is no such file"),
        "7.jpg/inner.jpg": ("foreign", "10 bytes"),
        "new/notes.txt": ("foreign", "0 bytes"),
        "new/.darkroom-12-3": ("foreign", "left over by an interrupted write"),
        ".hidden": ("foreign", "1 byte"),
        "link": ("foreign", "it is no regular file"),
    }
    assert list(report.counts.items()) == [("damaged", 6), ("missing", 2), ("foreign", 5)]
    assert report.headline() == "6 damaged, 2 missing, 5 foreign; 9 outputs, 3 of them read again."
    assert [finding.kind for finding in report.findings] == ["damaged"] * 6 + ["missing"] * 2 + ["foreign"] * 5
    kept = nine.root / report.findings_file
    assert pq.read_schema(kept).names == FINDINGS_SCHEMA.names
    kept.unlink()
    kept.parent.rmdir()
    assert sorted(str(path) for path in nine.root.rglob("*") if path.name != "verify") == before


def test_no_flipped_bit_is_missed(source, place):
    for number in range(30):
        write_image(source / f"{number:02}.jpg")
    make(source, place)
    size = (place.images / "00.jpg").stat().st_size
    for number in range(1, 30):
        flip_bit(place.images / f"{number:02}.jpg", at=number * (size - 1) // 29)
    assert kinds(verify(place)[1]) == {f"{number:02}.jpg": "damaged" for number in range(1, 30)}


def test_only_bytes_with_the_right_hash_are_decoded(nine, submitted):
    submitted.clear()
    flip_bit(nine.images / "0.jpg")
    (nine.images / "1.jpg").write_bytes(bytes(manifest_rows(nine)["1.jpg"]["output_bytes"]))
    _, found = verify(nine)
    assert found["1.jpg"] == ("damaged", "other bytes than were written: no image")
    decoded = [data for operation, data in submitted if operation is not Operation.DESCRIBE]
    assert sorted(decoded) == sorted((nine.images / f"{number}.jpg").read_bytes() for number in range(2, 9))


def test_files_that_differ_from_their_rows(nine):
    junk = b"<html>"
    (nine.images / "4.jpg").write_bytes(junk)
    rows = manifest_rows(nine)
    rows["0.jpg"] |= {"width": 7}
    rows["1.jpg"] |= {"height": 7}
    rows["2.jpg"] |= {"channels": 1}
    rows["3.jpg"] |= {"format": "png"}
    rows["4.jpg"] |= {"output_bytes": len(junk), "output_sha256": hashlib.sha256(junk).hexdigest()}
    put_manifest(nine, rows.values())
    real = "jpeg, 8 × 6 pixels, 3 channels, where the manifest says "
    assert verify(nine)[1] == {
        "0.jpg": ("damaged", real + "jpeg, 7 × 6 pixels, 3 channels"),
        "1.jpg": ("damaged", real + "jpeg, 8 × 7 pixels, 3 channels"),
        "2.jpg": ("damaged", real + "jpeg, 8 × 6 pixels, 1 channels"),
        "3.jpg": ("damaged", real + "png, 8 × 6 pixels, 3 channels"),
        "4.jpg": ("damaged", "the bytes that were written are no image: " + refusal(junk).message),
    }


def test_an_output_that_vanishes_or_changes_before_it_is_read(nine):
    workspace, found = begin(nine)
    (nine.images / "0.jpg").unlink()
    (nine.images / "1.jpg").write_bytes(b"other")
    read_again(workspace, found)
    recorded = [each for part in parts_of(workspace) for each in pq.read_table(part).to_pylist()]
    assert [(each["file_name"], each["kind"], each["present"]) for each in recorded] == [
        ("images/0.jpg", "missing", False),
        ("images/1.jpg", "damaged", True),
    ]


ODD_NAMES = [
    b"new\nline.jpg",
    b"quote'\".jpg",
    b"[a]*?.jpg",
    b"back\\.darkroom-x.jpg",
    b"{:,} %s.jpg",
    b"\xff\xfe.jpg",
    "é🐈\uefff.jpg".encode(),
    b"x.png.jpg/y.jpg",
]


@pytest.mark.parametrize("name", ["dest", "[a]*?'", "status=ok"])
def test_outputs_with_odd_names_are_verified_like_others(source, tmp_path, name):
    place = destination_at(tmp_path / name)
    for number, raw in enumerate(ODD_NAMES):
        image = source / os.fsdecode(raw)
        write_image(image, seed=number)
    make(source, place)
    assert verify(place)[1] == {}
    rows = list(manifest_rows(place).values())
    assert len(rows) == len(ODD_NAMES)
    for each in rows:
        output = place.path(each["file_name"])
        flip_bit(output)
        output.with_name(output.name + "\n*").write_bytes(b"x")
    _, found = verify(place)
    names = [each["file_name"].removeprefix("images/") for each in rows]
    assert kinds(found) == dict.fromkeys(names, "damaged") | {f"{each}\n*": "foreign" for each in names}


def test_another_attempt_at_a_shard_has_the_same_result(nine, monkeypatch):
    cut_small_shards(monkeypatch)
    for number in (0, 5, 6):
        flip_bit(nine.images / f"{number}.jpg")
    workspace, found = begin(nine, workers=4)
    assert len(found.shards) > 4
    first = read_again(workspace, found)
    parts = {path.name: path.read_bytes() for path in parts_of(workspace)}
    assert len(parts) > 2
    again = shard_of(nine, found, run_id="check", kind="verify", attempt=2)
    result = check_shard(again)
    assert asdict(result) | {"seconds": 0} == asdict(first[0]) | {"seconds": 0}
    assert {path.name: path.read_bytes() for path in parts_of(workspace)} == parts
    assert (sum(each.done for each in first), sum(each.failed for each in first)) == (9, 3)
    assert result.describe().startswith(f"{result.done} read again, {result.failed} not as they should be; ")


def test_the_next_run_removes_the_workspace_of_a_dead_verification(nine):
    workspace, _ = begin(nine, run_id="dead")
    assert read_status(nine).unfinished.runs == 0
    assert check_settled(nine).rows == 9
    assert recover(nine) == Recovered()
    assert not disk(workspace, "path").exists()
    clear_verifications(nine)


def test_a_run_treats_an_irregular_file_as_a_damaged_output(source, nine):
    target = nine.images / "0.jpg"
    size = target.stat().st_size
    target.unlink()
    target.symlink_to("x" * size)
    assert make(source, nine, run_id="next") == {"damaged": 1}
    assert verify(nine)[1] == {}


def test_outputs_in_a_bucket_are_read_concurrently(nine, monkeypatch):
    monkeypatch.setattr(storage.LocalFolder, "is_remote", True)
    together, read = threading.Barrier(9), compare_module.read_output

    def meet(store, planned):
        together.wait(60)
        return read(store, planned)

    monkeypatch.setattr(compare_module, "read_output", meet)
    workspace, found = begin(nine)
    assert [result.failed for result in read_again(workspace, found)] == [0]


@pytest.mark.parametrize("ahead", [1, 4, 8, 9])
def test_each_output_is_read_once_however_many_are_read_ahead(nine, monkeypatch, ahead):
    names, read = [], compare_module.read_output
    monkeypatch.setattr(compare_module, "AHEAD", ahead)
    monkeypatch.setattr(compare_module, "read_output", lambda *args: names.append(args[1].file_name) or read(*args))
    workspace, found = begin(nine)
    read_again(workspace, found)
    assert sorted(names) == [f"images/{number}.jpg" for number in range(9)]
