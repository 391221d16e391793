import os

import pytest

from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.storage.store_errors import Conflict, Throttled
from tests.places import destination_at, disk
from tests.tasks.helpers import after, make_job, open_workspace, row, write_journal
from tests.tasks.storage.memory import MemoryStore


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    return destination_at(tmp_path / "dest") if request.param == "disk" else Destination(MemoryStore())


def begin(place, run_id, seconds):
    return open_workspace(place, make_job(place, run_id=run_id).model_copy(update={"started_at": after(seconds)}))


def test_workspaces_are_ordered_by_when_their_runs_began(place):
    assert place.workspaces() == []
    for run_id, seconds in (("b", 2), ("c", 1), ("a", 3)):
        begin(place, run_id, seconds)
    place.store.put(".darkroom/runs/d/plan.parquet", b"of a run that was being removed")
    place.store.put(".darkroom/runs/a-file", b"no run")
    place.workspace("v", "verify").begin()
    assert [each.run_id for each in place.workspaces()] == ["d", "c", "b", "a"]
    assert [each.run_id for each in place.unfinished()] == ["c", "b", "a"]
    assert [each.run_id for each in place.workspaces("verify")] == ["v"]


def test_file_times_do_not_matter(tmp_path):
    place = destination_at(tmp_path)
    for number, run_id in enumerate("zyx"):
        workspace = begin(place, run_id, number)
        os.utime(disk(workspace, "job"), (-number, -number))
        os.utime(disk(workspace, "path"), (-number, -number))
    assert [each.run_id for each in place.workspaces()] == ["z", "y", "x"]


def test_a_workspace_exists_from_its_beginning_until_it_is_removed(place):
    workspace = begin(place, "run.2", 0)
    assert (workspace.is_open(), workspace.flow_run_id) == (True, "run")
    with pytest.raises(Conflict):
        begin(place, "run.2", 1)
    for _ in range(2):
        workspace.mark_stopped()
    assert workspace.store.head(workspace.stopped).size == 0
    write_journal(workspace, [row("a.jpg")])
    workspace.remove()
    assert not workspace.is_open()
    assert place.workspaces() == []
    assert list(place.store.list(".darkroom/runs")) == []


def test_only_whole_run_files_and_journal_parts_are_listed(place):
    workspace = begin(place, "run", 0)
    names = ("000001-a.parquet", "000001-b.parquet", "000011-a.parquet")
    for name in (*names, "000001-c.parquet.damaged"):
        place.store.put(f"{workspace.journal}/{name}", b"x")
        place.store.put(f"runs/{name}", b"x")
    assert place.run_files() == [f"runs/{name}" for name in names]
    assert workspace.journal_parts() == [f"{workspace.journal}/{name}" for name in names]
    assert workspace.journal_parts(11) == [f"{workspace.journal}/000011-a.parquet"]


def test_a_marker_that_cannot_be_written_is_an_error():
    store = MemoryStore()
    workspace = begin(Destination(store), "run", 0)
    store.fail("put", Throttled, path=workspace.stopped)
    with pytest.raises(Throttled):
        workspace.mark_stopped()
