"""A lease is taken over once its holder is dead, or has been silent for long enough."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from darkroom.tasks.dataset import lease as lease_module
from darkroom.tasks.dataset.lease import STALE_SECONDS, read_lease
from darkroom.tasks.errors import LeaseError
from tests.needs import needs
from tests.tasks.dataset.leases import ROOT, elsewhere, other_holder, put, try_to_hold


@pytest.fixture
def hasty(monkeypatch):
    """Leases are stale after a moment without a heartbeat."""
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.4)


ELSEWHERE = ["other-boot|1|2", "far-away:4711:99", ""]


@pytest.mark.parametrize("process", ELSEWHERE)
@pytest.mark.parametrize("age", [0, STALE_SECONDS - 5])
def test_a_holder_on_another_machine_whose_heartbeat_is_fresh_keeps_others_out_at_once(place, process, age):
    theirs = elsewhere(age, process=process)
    put(place, theirs)
    assert theirs.is_live()
    with pytest.raises(LeaseError, match="far-away"):
        try_to_hold(place)
    assert read_lease(place) == theirs


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("process", ELSEWHERE)
@pytest.mark.parametrize("age", [STALE_SECONDS + 1, -3600])
def test_a_remote_lease_without_heartbeats_is_taken_over_whatever_the_clocks(place, process, age):
    theirs = elsewhere(age, process=process)
    put(place, theirs)
    assert not theirs.is_live()
    assert try_to_hold(place).run_id == "mine"


@pytest.mark.parametrize("age", [7200, -7200])
def test_a_live_holder_whose_clock_is_wrong_is_never_taken_over(place, age, monkeypatch):
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 6)  # a run watches the holder only until its next heartbeat
    theirs = elsewhere(age)
    put(place, theirs)
    ended = threading.Event()

    def beat():
        heartbeat = theirs.heartbeat
        while not ended.wait(0.05):
            heartbeat += 0.05
            put(place, replace(theirs, heartbeat=heartbeat))

    holder = threading.Thread(target=beat)
    holder.start()
    try:
        for _ in range(3):
            with pytest.raises(LeaseError, match="in use by run theirs on far-away"):
                try_to_hold(place)
    finally:
        ended.set()
        holder.join()
    assert lease_module._LEASE.validate_json((place.work / "lease.json").read_bytes()).run_id == "theirs"


@pytest.mark.usefixtures("hasty")
def test_a_lease_that_is_given_back_while_it_is_watched_is_free(place):
    put(place, elsewhere(age=7200))
    giving_back = threading.Timer(0.1, (place.work / "lease.json").unlink)
    giving_back.start()
    assert try_to_hold(place).run_id == "mine"
    giving_back.join()


LOOK = """
import sys
from darkroom.tasks.dataset.layout import open_destination
from darkroom.tasks.dataset.lease import read_lease
lease = read_lease(open_destination(sys.argv[1]))
print(lease.is_near(), lease.is_live())
"""


@pytest.mark.parametrize("hidepid", [1, 2])
def test_a_holder_that_proc_does_not_show_is_judged_by_its_heartbeat(place, hidepid):
    if os.geteuid():
        pytest.skip("only root can mount, and be another user")
    unshare = [needs("unshare", "util-linux"), "--mount", "sh", "-ec"]
    script = f'mount -t proc -o hidepid={hidepid} none /proc; exec "$@"'
    powerless = [
        needs("setpriv", "util-linux"),
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--regid=65534",
        "--clear-groups",
    ]
    command = [*unshare, script, "", *powerless, sys.executable, "-c", LOOK, str(place.root)]

    def look():
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    with subprocess.Popen(["sleep", "600"], user=65534) as process:
        try:
            identity = lease_module._process_identity(process.pid)
            lease = replace(elsewhere(), pid=process.pid, process=identity)
            put(place, lease)
            assert look() == ["False", "True"]
            put(place, replace(lease, heartbeat=time.time() - 2 * STALE_SECONDS))
            assert look() == ["False", "False"]
        finally:
            process.kill()
    put(place, lease)
    assert look() == ["True", "False"], "it is sure to have ended"


def test_a_hidden_holder_is_not_taken_over_while_its_heart_beats(place, monkeypatch):
    with other_holder(place):
        hidden = replace(read_lease(place), heartbeat=time.time() - 2 * STALE_SECONDS)
        monkeypatch.setattr(lease_module, "_is_hidden", lambda pid: pid == hidden.pid)
        monkeypatch.setattr(lease_module, "STALE_SECONDS", 20.0)
        monkeypatch.setattr(lease_module.time, "sleep", lambda _: put(place, replace(hidden, heartbeat=time.time())))
        put(place, hidden)
        with pytest.raises(LeaseError, match="is in use by run theirs"):
            try_to_hold(place)
