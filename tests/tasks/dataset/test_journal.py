import errno
import os
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset import journal as journal_module
from darkroom.tasks.dataset.claim import claim_shard
from darkroom.tasks.dataset.journal import FLUSH_SECONDS, Journal, count_journalled, finished_paths
from darkroom.tasks.dataset.manifest import SCHEMA
from darkroom.tasks.dataset.rows import ManifestRow
from darkroom.tasks.errors import DestinationError
from darkroom.tasks.storage import local
from tests.places import disk
from tests.tasks.helpers import failed_row, journal_rows, make_job, open_workspace, parts_of, row, write_journal


@pytest.fixture
def workspace(place):
    return open_workspace(place, make_job(place))


def finished(workspace, shard=None):
    return finished_paths(workspace.store, workspace.journal_parts(shard))


def test_a_part_holds_rows_as_they_were_added(workspace):
    rows = [row("b.jpg"), failed_row("a\n'.jpg", "decode.corrupt"), row("é.jpg", warnings=["one", "two"])]
    write_journal(workspace, rows)
    [part] = parts_of(workspace)
    assert pq.read_schema(part).equals(SCHEMA)
    assert journal_rows(workspace) == [dict.fromkeys(SCHEMA.names) | each for each in rows]


def test_finished_images_are_counted_as_far_as_the_journal_can_be_read(workspace):
    write_journal(workspace, [row("a.jpg"), row("b.jpg")])
    write_journal(workspace, [row("c.jpg")], shard=1)
    assert count_journalled(workspace) == 3
    parts_of(workspace)[-1].write_bytes(b"damaged")
    assert count_journalled(workspace) == 2


def test_a_part_is_written_once_it_is_due(workspace, monkeypatch):
    journal = Journal(claim_shard(workspace, 3, "001-9-9"))
    journal.add(ManifestRow(**row("a.jpg")))
    assert workspace.journal_parts() == []
    monkeypatch.setattr(journal_module, "FLUSH_SECONDS", 0.0)
    journal.add(ManifestRow(**row("b.jpg")))
    assert finished(workspace, 3) == {"a.jpg", "b.jpg"}
    journal.add(ManifestRow(**row("c.jpg")))
    assert [path.name for path in parts_of(workspace, 3)] == [
        "000003-001-9-9-000000.parquet",
        "000003-001-9-9-000001.parquet",
    ]
    assert [each["source_path"] for each in journal_rows(workspace)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_no_row_waits_for_longer_than_the_interval(workspace, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: now))
    journal = Journal(claim_shard(workspace, 0, "001-1-1"))
    added = {}
    pauses = [FLUSH_SECONDS / 8] * 24 + [10 * FLUSH_SECONDS] * 2 + [0.0] * 3 + [FLUSH_SECONDS / 2] * 4
    for number, pause in enumerate(pauses):
        now += pause
        journal.add(ManifestRow(**row(f"{number:02}.jpg")))
        added[f"{number:02}.jpg"] = now
        overdue = {path for path, at in added.items() if now - at >= FLUSH_SECONDS}
        assert overdue <= finished(workspace)
    assert len(workspace.journal_parts()) == 3 + 2 + 2, "no more parts than needed"


def test_without_rows_nothing_is_written(workspace):
    journal = Journal(claim_shard(workspace, 0, "001-1-1"))
    journal.flush()
    journal.add(ManifestRow(**row("a.jpg")))
    journal.flush()
    journal.flush()
    assert len(list(disk(workspace, "journal").iterdir())) == 1


def test_a_part_is_there_whole_or_not_at_all(workspace, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    journal = Journal(claim_shard(workspace, 0, "001-1-1"))
    journal.add(ManifestRow(**row("a.jpg")))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.flush()
    assert workspace.journal_parts() == []
    journal.flush()
    assert finished(workspace) == {"a.jpg"}


def test_shards_and_attempts_are_kept_apart(workspace):
    write_journal(workspace, [row("a.jpg")], shard=1)
    write_journal(workspace, [row("b.jpg")], shard=1, attempt="002-1-1")
    write_journal(workspace, [row("c.jpg")], shard=11)
    assert finished(workspace, 1) == {"a.jpg", "b.jpg"}
    assert finished(workspace, 11) == {"c.jpg"}
    assert finished(workspace, 0) == set()
    assert finished(workspace) == {"a.jpg", "b.jpg", "c.jpg"}


def test_a_row_without_a_required_column_is_refused(workspace):
    with pytest.raises(pa.ArrowInvalid, match="run_id"):
        write_journal(workspace, [row("a.jpg", run_id=None)])
    assert workspace.journal_parts() == []


@pytest.mark.parametrize("sync", [True, False])
def test_outputs_are_on_the_disk_before_the_part_that_names_them(workspace, monkeypatch, sync):
    synced = []
    monkeypatch.setattr(
        local, "sync_filesystem", lambda folder: synced.append((os.fsdecode(folder), workspace.journal_parts()))
    )
    workspace.destination.images.mkdir()
    journal = Journal(claim_shard(workspace, 0, "001-1-1"), sync=sync)
    for name in ("a.jpg", "b.jpg"):
        journal.add(ManifestRow(**row(name)))
    journal.flush()
    assert synced == ([(str(workspace.destination.images), [])] if sync else [])
    assert len(workspace.journal_parts()) == 1


def test_outputs_that_cannot_be_synced_are_not_journalled(workspace, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(local, "sync_filesystem", fail)
    workspace.destination.images.mkdir()
    journal = Journal(claim_shard(workspace, 0, "001-1-1"))
    journal.add(ManifestRow(**row("a.jpg")))
    with pytest.raises(DestinationError, match="can't be written to: Input/output error"):
        journal.flush()
    assert not disk(workspace, "journal").exists()
