"""Damage anywhere in the Parquet files that a destination is built on."""

import os
import random
import shutil
from contextlib import suppress
from functools import partial

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks import plan as plan_module
from darkroom.tasks.dataset import integrity
from darkroom.tasks.dataset.integrity import SEAL, find_damage, sealed_writer
from darkroom.tasks.dataset.layout import MANIFEST
from darkroom.tasks.dataset.manifest import read_info, read_record
from darkroom.tasks.dataset.rows import PlannedImage
from darkroom.tasks.errors import DamagedError, SettingsError
from darkroom.tasks.plan import make_plan, read_shard
from darkroom.tasks.preflight import check_manifest
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import Recovered, close_workspace, recover
from darkroom.tasks.reporting.history import read_history
from darkroom.tasks.reporting.status import read_status
from darkroom.tasks.resize import work_shard
from tests.contents import files, flip_bit
from tests.places import destination_at, disk
from tests.tasks.helpers import (
    NOON,
    failed_row,
    make_job,
    manifest_rows,
    open_workspace,
    parts_of,
    prepare,
    publish_rows,
    row,
    unprivileged,
    write_deleted,
    write_image,
    write_journal,
    write_listing,
)
from tests.tasks.shards import shard_of

KINDS = ("manifest", "run file", "journal part", "plan", "deleted", "obsolete")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return an intact file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    source, place = folder / "source", destination_at(folder / "dest")
    many = [row(f"{number:02}.jpg", warnings=["truncated"], width=number) for number in range(40)]
    publish_rows(place, [*many, failed_row("z.jpg", "decode.corrupt")])
    for number in range(5):
        write_image(source / f"{number}.jpg", seed=number)
    workspace, job, _ = prepare(source, place, run_id="next", workers=2)
    write_journal(workspace, [row("0.jpg"), failed_row("1.jpg", "decode.corrupt")])
    publish(workspace, job, ended=True)
    parts = (place.manifest, place.runs / "run.parquet", parts_of(workspace)[0])
    return dict(
        zip(
            KINDS,
            (*parts, disk(workspace, "plan"), disk(workspace, "deleted"), disk(workspace, "obsolete")),
            strict=True,
        )
    )


def damage(path, **options):
    with path.open("rb") as file:
        return integrity.damage(file, **options)


def footer_damage(path):
    return damage(path, footer_only=True)


def footer_of(data):
    """Return the offset of a Parquet file's footer."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def sample_of_bits(data, count):
    """Return bits of all parts of a file: its ends, Darkroom's metadata, the rest of the footer, pages and headers."""
    seed = random.Random(len(data))
    footer, seal = 8 * footer_of(data), 8 * data.rindex(SEAL.encode())
    ends = [*range(32), *range(8 * len(data) - 64, 8 * len(data))]
    marked = range(seal - 64, seal + 8 * (len(SEAL) + 3 + 128 + 8))
    return {
        *ends,
        *seed.sample(marked, count // 4),
        *seed.sample(range(footer, 8 * len(data)), count),
        *seed.sample(range(footer), min(count, footer)),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_and_no_cut_is_missed(whole, tmp_path, kind):
    data, file = whole[kind].read_bytes(), tmp_path / "file"
    file.write_bytes(data)
    assert damage(file) is footer_damage(file) is None
    digits = data.rindex(SEAL.encode()) + len(SEAL) + 3
    for bit in sample_of_bits(data, 700):
        file.write_bytes(flipped(data, bit))
        assert damage(file), f"bit {bit} of {len(data)} bytes"
        # The footer has a digest of its own, and does not depend on that of the whole file.
        if bit // 8 >= footer_of(data) and not digits <= bit // 8 < digits + 64:
            assert footer_damage(file), f"bit {bit} of {len(data)} bytes"
    for end in (*range(0, len(data), len(data) // 40), *range(len(data) - 20, len(data))):
        file.write_bytes(data[:end])
        assert damage(file), end
        assert footer_damage(file), end
    for other in (data + b"\0", data + data, data[::-1], bytes(len(data)), b"PAR1" * 1000):
        file.write_bytes(other)
        assert damage(file)


def test_a_footer_is_read_unchanged_or_refused(whole, tmp_path):
    place = destination_at(tmp_path)
    data = whole["manifest"].read_bytes()
    place.manifest.write_bytes(data)
    info = read_info(place)
    refused = 0
    for bit in sample_of_bits(data, 400):
        place.manifest.write_bytes(flipped(data, bit))
        try:
            assert read_info(place) == info
        except DamagedError as error:
            refused += 1
            assert f"'darkroom rebuild-manifest {place.root}'" in str(error)
        for check in (check_manifest, read_status):
            with pytest.raises(DamagedError, match=r"manifest\.parquet is damaged .*rebuild-manifest"):
                check(place)
    assert refused > 400


def test_a_damaged_run_file_is_named(place):
    publish_rows(place, [row("a.jpg")], run_id="r1")
    publish_rows(place, [row("b.jpg")], run_id="r2")
    file = place.runs / "r2.parquet"
    data = file.read_bytes()
    for bit in (8 * 100, 8 * data.index(b'"started_at"'), 8 * len(data) - 60):
        file.write_bytes(flipped(data, bit))
        assert read_history(place).unreadable == ("r2.parquet",)
        assert [run.run_id for run in read_history(place).runs] == ["r1"]
        status = read_status(place)
        assert (status.last_run, status.statuses) == (None, {"ok": 2})
        assert f"{file} is damaged (" in status.damaged_run
        with pytest.raises(DamagedError, match=r"r2\.parquet is damaged .* Runs go on without it"):
            read_record(place.store, "runs/r2.parquet")


def test_a_damaged_plan_is_never_worked(place):
    workspace = open_workspace(place, make_job(place))
    listing = write_listing(workspace, {f"{number}.jpg": (10**8, NOON) for number in range(6)})
    plan = make_plan(workspace, make_job(place), listing, workers=lambda: 2)
    assert len(plan.shards) > 1
    data = disk(workspace, "plan").read_bytes()
    shards = [read_shard(workspace, number, PlannedImage) for number in range(len(plan.shards))]
    read_at = disk(workspace, "plan").stat()
    for bit in sample_of_bits(data, 150):
        disk(workspace, "plan").write_bytes(flipped(data, bit))
        # Same times: a worker that has checked the whole plan before must still find damage to the rows that it reads.
        os.utime(disk(workspace, "plan"), ns=(read_at.st_atime_ns, read_at.st_mtime_ns))
        for number, rows in enumerate(shards):
            with suppress(DamagedError):
                assert read_shard(workspace, number, PlannedImage) == rows
        plan_module._damage_once.cache_clear()
        for number in range(len(shards)):
            with pytest.raises(DamagedError, match=r"plan\.parquet is damaged .*next run makes a new plan"):
                read_shard(workspace, number, PlannedImage)


def test_images_of_a_damaged_journal_part_are_made_again_by_the_next_attempt(source, place):
    for number in range(4):
        write_image(source / f"{number}.jpg", seed=number)
    workspace, job, plan = prepare(source, place)
    assert work_shard(shard_of(place, plan)).ok == 4
    [part] = parts_of(workspace)
    part.write_bytes(flipped(part.read_bytes(), 8 * part.stat().st_size - 100))

    result = work_shard(shard_of(place, plan, attempt=2))

    assert (result.ok, result.resumed) == (4, 0)
    publish(workspace, job, ended=True)
    assert sorted(manifest_rows(place)) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("kind", ["journal", "deleted", "manifest"])
def test_damaged_files_are_not_published(place, kind):
    publish_rows(place, [row("a.jpg"), row("gone.jpg")])
    job = make_job(place, run_id="next")
    workspace = open_workspace(place, job)
    write_journal(workspace, [row("b.jpg")])
    write_journal(workspace, [row("c.jpg")], shard=1)
    write_deleted(workspace, ["gone.jpg"])
    file = {"journal": parts_of(workspace)[0], "deleted": disk(workspace, "deleted"), "manifest": place.manifest}[kind]
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, 8 * 60))
    before = files(place.root)

    with pytest.raises(DamagedError, match=rf"{file.name} is damaged \(it is not what was written"):
        publish(workspace, job, ended=True)

    assert files(place.root) == before
    if kind == "manifest":
        file.write_bytes(whole)
    lost = {"b.jpg"} if kind == "journal" else set()
    assert recover(place) == Recovered(images=2 - len(lost), damaged_parts=len(lost))
    assert set(manifest_rows(place)) == {"a.jpg", "gone.jpg", "b.jpg", "c.jpg"} - lost


def test_a_damaged_list_of_obsolete_outputs_removes_nothing(place):
    publish_rows(place, [row("a.jpg"), row("gone.jpg")])
    job = make_job(place, run_id="next")
    workspace = open_workspace(place, job)
    write_deleted(workspace, ["gone.jpg"])
    publish(workspace, job, ended=True)
    data = disk(workspace, "obsolete").read_bytes()
    disk(workspace, "obsolete").write_bytes(data.replace(b"gone.jpg", b"a.jpg\0\0\0"))
    assert damage(disk(workspace, "obsolete"))
    close_workspace(workspace)
    assert set(files(place.images)) == {"a.jpg", "gone.jpg"}


def test_a_sealed_file_can_be_copied_and_read_by_any_reader(whole, tmp_path):
    file = tmp_path / "copy.parquet"
    shutil.copyfile(whole["manifest"], file)
    assert damage(file) is None
    table = pq.read_table(file)
    assert pq.read_metadata(file).metadata[SEAL.encode()].decode() != "0" * 128
    assert duckdb.sql(f"SELECT source_path FROM '{file}'").fetchall() == [
        (path,) for path in table["source_path"].to_pylist()
    ]
    assert len(pd.read_parquet(file)) == table.num_rows
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        assert parquet.read().equals(table)


def test_a_seal_among_the_rows_is_not_taken_for_the_files(tmp_path):
    mark = b"\x18" + bytes([len(SEAL)]) + SEAL.encode() + b"\x18\x80\x01" + b"0" * 128
    file = tmp_path / "f.parquet"
    with sealed_writer(file, pa.schema({"x": pa.binary()}), use_dictionary=False, compression="none") as writer:
        writer.write_table(pa.table({"x": [mark, mark + b"z"]}))
        writer.add_key_value_metadata({"a": "b" * 1000, "z": "y" * 1000})
    assert damage(file) is None
    data = file.read_bytes()
    file.write_bytes(flipped(data, 8 * data.index(b"0" * 100)))
    assert damage(file)


def test_a_file_that_may_not_be_read_is_not_called_damaged(open_path):
    place = destination_at(open_path / "dest")
    publish_rows(place, [row("a.jpg")])
    place.manifest.chmod(0)
    with unprivileged():
        for check in (partial(find_damage, place.store, MANIFEST), partial(read_info, place)):
            with pytest.raises(SettingsError, match="Grant this user permission to read it"):
                check()


def test_a_table_of_thousands_of_columns_is_sealed(tmp_path):
    file = tmp_path / "wide.parquet"
    schema = pa.schema([(f"embedding_{number}", pa.float32()) for number in range(3_000)])
    with sealed_writer(file, schema) as writer:
        writer.write_table(schema.empty_table())
    assert damage(file) is None
    flip_bit(file, -70_000)
    assert damage(file) == "its footer is not what was written"
