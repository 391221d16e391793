"""A holder writes heartbeats, and notices at each whether it still has its lease."""

import logging
import threading
from dataclasses import replace

import pytest

from darkroom.tasks.dataset import lease as lease_module
from darkroom.tasks.dataset.lease import hold_lease, read_lease
from darkroom.tasks.errors import DestinationError, LeaseError
from darkroom.tasks.storage.store_errors import Failed
from tests.tasks.dataset.leases import elsewhere, put


def test_the_heartbeat_is_written_and_changes_nothing_else(place, monkeypatch):
    written = threading.Event()
    write = lease_module._write

    def write_and_note(*arguments):
        write(*arguments)
        if threading.current_thread().name == "lease":
            written.set()

    monkeypatch.setattr(lease_module, "_write", write_and_note)
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.01)
    with hold_lease(place, "r1") as held:
        assert written.wait(30)
        held.check()
        lease = read_lease(place)
    assert lease.heartbeat > held.lease.heartbeat
    assert replace(lease, heartbeat=held.lease.heartbeat) == held.lease
    assert read_lease(place) is None


class NeverStopped:
    """An event that is never set, so that each wait ends with a heartbeat."""

    def wait(self, _seconds):
        return False


def test_a_run_whose_lease_was_taken_over_notices_and_leaves_it_alone(place, caplog):
    theirs = elsewhere()
    with hold_lease(place, "mine") as held:
        put(place, theirs)
        with pytest.raises(LeaseError, match=r"taken over by run theirs on far-away.*journal, which the next run"):
            held.check()
        held.check_noted()
        with caplog.at_level(logging.ERROR):
            lease_module._beat(held, NeverStopped())
        assert "The lease is lost" in caplog.text
        with pytest.raises(LeaseError, match=r"taken over by run theirs on far-away.*journal, which the next run"):
            held.check_noted()
        assert read_lease(place) == theirs
    assert read_lease(place) == theirs


def test_a_run_whose_lease_was_removed_notices(place):
    with hold_lease(place, "mine") as held:
        (place.work / "lease.json").unlink()
        with pytest.raises(DestinationError, match=r"lease\.json is missing\. It was moved or removed"):
            held.check()
        lease_module._beat(held, NeverStopped())
        with pytest.raises(DestinationError, match=r"lease\.json is missing\. It was moved or removed"):
            held.check_noted()


def test_a_later_lease_of_the_same_process_is_another(place):
    with hold_lease(place, "one") as first:
        pass
    with hold_lease(place, "two") as second:
        with pytest.raises(LeaseError):
            first.check()
        second.check()


def test_a_heartbeat_that_cannot_be_written_is_retried(place, monkeypatch, caplog):
    tries = iter([Failed("lease.json", "Input/output error", ""), LeaseError("over")])

    def fail(*_):
        raise next(tries)

    with hold_lease(place, "mine") as held, monkeypatch.context() as patch:
        patch.setattr(lease_module, "_write", fail)
        lease_module._beat(held, NeverStopped())
    assert "could not be written" in caplog.text
    assert next(tries, None) is None
