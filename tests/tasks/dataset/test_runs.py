import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset.layout import RUNS
from darkroom.tasks.dataset.manifest import RunRecord, read_info, write_table
from darkroom.tasks.dataset.runs import newest_run, sort_runs
from tests.places import destination_at
from tests.tasks.helpers import NOON, after, publish_rows, row, unprivileged


def change_record(place, run_id, **record):
    """Change the record in a run's file."""
    file = place.runs / f"{run_id}.parquet"
    metadata = {"schema_version": "1", "run_id": run_id}
    if record:
        metadata["run"] = RunRecord(**record).model_dump_json()
    write_table(file, iter(pq.read_table(file).to_batches()), metadata)


@pytest.fixture
def nights(place):
    """Write three runs of a destination, with the file times of a copy in another order."""
    for number, run_id in enumerate(("b", "c", "a")):
        publish_rows(place, [row(f"{number}.jpg", processed_at=after(number))], run_id=run_id)
        change_record(place, run_id, started_at=after(number), seconds=1.0)
        os.utime(place.runs / f"{run_id}.parquet", (-number, -number))
    return place


def newest_first(place):
    return [path.removeprefix(f"{RUNS}/").removesuffix(".parquet") for path in sort_runs(place).newest_first]


def test_runs_are_ordered_by_their_recorded_start(nights):
    assert newest_first(nights) == ["a", "c", "b"]
    change_record(nights, "b", started_at=after(10))
    assert newest_first(nights) == ["b", "a", "c"]


def test_runs_of_early_versions_are_ordered_by_their_last_image(nights):
    for run_id in "abc":
        change_record(nights, run_id)
    assert newest_first(nights) == ["a", "c", "b"]


def test_the_newest_run_is_the_one_that_the_manifest_names(nights):
    info = read_info(nights)
    assert newest_run(nights, info) == "runs/a.parquet"
    assert newest_run(nights, replace(info, run_file="b.parquet")) == "runs/b.parquet"
    for run_file in ("", "removed.parquet"):
        assert newest_run(nights, replace(info, run_file=run_file)) == "runs/a.parquet"
    for path in nights.runs.iterdir():
        path.unlink()
    assert newest_run(nights, info) is None


def test_runs_that_cannot_be_ordered_are_named(open_path):
    place = destination_at(open_path / "dest")
    for run_id in ("whole", "secret", "damaged", "newer"):
        publish_rows(place, [row("a.jpg")], run_id=run_id)
    change_record(place, "whole", started_at=NOON)
    (place.runs / "secret.parquet").chmod(0)
    (place.runs / "damaged.parquet").write_bytes(b"x")
    write_table(place.runs / "newer.parquet", iter([]), {"schema_version": "99"})
    with unprivileged():
        found = sort_runs(place)
    assert found.newest_first == ("runs/whole.parquet",)
    assert (found.denied, found.unreadable) == (
        ("runs/secret.parquet",),
        ("runs/damaged.parquet", "runs/newer.parquet"),
    )
