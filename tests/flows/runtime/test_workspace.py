"""What a run leaves of its workspace, and a preview of its temporary destination."""

from pathlib import Path

import pytest

from darkroom.flows.runtime.workspace import open_workspace, preview_destination
from darkroom.tasks.dataset.claim import claim_shard
from tests.places import destination_at
from tests.tasks.helpers import make_job, publish_rows, row


def leave(workspace, job, *, begun, fails):
    with open_workspace(workspace, job):
        if begun:
            claim_shard(workspace, 0, "001-1-1")
        if fails:
            raise ZeroDivisionError


@pytest.mark.parametrize("begun", [False, True])
def test_a_workspace_is_left_only_once_outputs_may_have_been_written(place, begun):
    job = make_job(place)
    leave(place.workspace("run"), job, begun=begun, fails=False)
    assert place.workspaces() == []
    with pytest.raises(ZeroDivisionError):
        leave(place.workspace("run"), job, begun=begun, fails=True)
    assert len(place.unfinished()) == begun


def test_a_failed_verification_leaves_no_workspace(place):
    with pytest.raises(ZeroDivisionError), open_workspace(place.workspace("run", "verify")):
        raise ZeroDivisionError
    assert place.workspaces("verify") == []


@pytest.mark.parametrize("published", [False, True])
def test_a_preview_stays_if_it_was_published(published, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with preview_destination() as folder:
        if published:
            publish_rows(destination_at(folder), [row("a.jpg")])
    assert Path(folder).exists() is published
