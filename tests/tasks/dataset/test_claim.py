"""Only the latest of several attempts at a shard may write."""

import pytest

from darkroom.tasks.dataset import claim as claim_module
from darkroom.tasks.dataset.claim import LOOK_SECONDS, ReplacedError, claim_shard, let_attempts_end
from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.store_errors import Denied
from tests.places import destination_at
from tests.tasks.helpers import make_job, open_workspace
from tests.tasks.storage.memory import MemoryStore


@pytest.fixture(params=["disk", "memory"])
def workspace(request, tmp_path):
    place = destination_at(tmp_path / "dest") if request.param == "disk" else Destination(MemoryStore())
    return open_workspace(place, make_job(place))


def test_an_attempt_holds_its_shard_until_a_later_one_begins(workspace):
    first, other = claim_shard(workspace, 0, "001-7-1"), claim_shard(workspace, 1, "001-7-2")
    first.check()
    second = claim_shard(workspace, 0, "002-8-1")
    assert (first.resumed, second.resumed, other.resumed) == (False, True, False)
    with pytest.raises(ReplacedError, match="Run run has ended, or has given shard 1 to another worker"):
        first.check()
    second.check()
    other.check()


def test_an_earlier_attempt_that_begins_late_is_refused(workspace):
    tenth = claim_shard(workspace, 0, "010-7-1")
    with pytest.raises(ReplacedError):
        claim_shard(workspace, 0, "009-8-1")
    tenth.check()


def test_an_attempt_that_dask_gives_to_another_worker_goes_on_there(workspace):
    lost = claim_shard(workspace, 0, "001-9-1")
    claim_shard(workspace, 0, "001-8-2").check()
    with pytest.raises(ReplacedError):
        lost.check()


def test_the_end_of_a_run_ends_its_attempts(workspace):
    claim = claim_shard(workspace, 0, "001-7-1")
    workspace.remove()
    with pytest.raises(ReplacedError):
        claim.check()


def test_a_claim_that_cannot_be_read_is_not_taken_for_lost():
    store = MemoryStore()
    place = Destination(store)
    claim = claim_shard(open_workspace(place, make_job(place)), 0, "001-7-1")
    store.fail("children", Denied)
    with pytest.raises(SettingsError):
        claim.check()


@pytest.fixture
def bucket(monkeypatch):
    """Return a workspace in a remote store, and the time, which passes only when tests or waits change it."""
    store, clock = MemoryStore(), [100.0]
    store.is_remote = True
    monkeypatch.setattr(claim_module, "_now", lambda: clock[0])
    monkeypatch.setattr(claim_module.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    place = Destination(store)
    return open_workspace(place, make_job(place)), clock


def looks(workspace):
    return sum(operation == "children" for operation, _ in workspace.store.calls)


def test_a_look_into_a_bucket_stays_valid_for_a_while(bucket):
    workspace, clock = bucket
    claim = claim_shard(workspace, 0, "001-7-1")
    claim.check()
    before = looks(workspace)
    for _ in range(50):
        clock[0] += LOOK_SECONDS / 100
        claim.check()
    assert looks(workspace) == before
    clock[0] += LOOK_SECONDS
    claim.check()
    assert looks(workspace) == before + 1
    claim.check(look=True)
    assert looks(workspace) == before + 2


def test_an_attempt_that_replaces_another_waits_until_that_has_looked(bucket):
    workspace, clock = bucket
    first = claim_shard(workspace, 0, "001-7-1")
    assert clock == [100.0]
    first.check()
    second = claim_shard(workspace, 0, "002-8-1")
    second.check()
    assert clock == [100.0 + LOOK_SECONDS]
    for _ in range(2):  # a lost claim stays lost
        with pytest.raises(ReplacedError):
            first.check()


def test_only_attempts_in_a_bucket_need_time_to_end(bucket, tmp_path):
    workspace, clock = bucket
    let_attempts_end(destination_at(tmp_path / "dest").store)
    assert clock == [100.0]
    let_attempts_end(workspace.store)
    assert clock == [100.0 + LOOK_SECONDS]
