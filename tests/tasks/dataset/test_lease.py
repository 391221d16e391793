import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from darkroom.tasks.dataset import lease as lease_module
from darkroom.tasks.dataset.lease import STALE_SECONDS, Lease, hold_lease, read_lease
from darkroom.tasks.errors import DestinationError, LeaseError, SettingsError
from darkroom.tasks.storage.store_errors import Failed
from tests.needs import needs
from tests.places import destination_at
from tests.tasks.helpers import unprivileged

ROOT = Path(__file__).resolve().parents[3]

HOLD_FOREVER = """
import sys, time
from darkroom.tasks.dataset.layout import open_destination
from darkroom.tasks.dataset.lease import hold_lease
with hold_lease(open_destination(sys.argv[1]), "theirs"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def other_holder(place):
    """Run another process on this machine that holds the lease until it is killed."""
    command = [sys.executable, "-c", HOLD_FOREVER, str(place.root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def elsewhere(age=0.0, **changes):
    """Return the lease of a run on another machine, whose last heartbeat is `age` seconds old."""
    now = time.time()
    lease = Lease("theirs", "far-away", 4711, "other-boot|1|2", since=now - 3600, heartbeat=now - age)
    return replace(lease, **changes)


def put(place, lease):
    place.store.put(".darkroom/lease.json", json.dumps(asdict(lease)).encode())


def try_to_hold(place):
    with hold_lease(place, "mine") as held:
        return held.lease


def test_a_lease_names_its_holder_and_is_given_back(place):
    with hold_lease(place, "r1") as held:
        lease = read_lease(place)
        assert lease == held.lease
        assert (lease.run_id, lease.host, lease.pid) == ("r1", socket.gethostname(), os.getpid())
        assert lease.is_live()
        assert abs(lease.since - time.time()) < 60
        held.check()
    assert read_lease(place) is None


def test_a_lease_is_given_back_when_its_run_fails(place):
    with pytest.raises(ZeroDivisionError), hold_lease(place, "r1"):
        raise ZeroDivisionError
    assert read_lease(place) is None
    assert try_to_hold(place)


def test_a_second_run_fails_with_the_holder_and_since_when(place):
    with hold_lease(place, "first") as held:
        with pytest.raises(LeaseError) as caught, hold_lease(place, "second"):
            pass
        assert read_lease(place) == held.lease
    message = str(caught.value)
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.lease.since))
    for expected in ("first", socket.gethostname(), str(os.getpid()), since, str(place.root), "another destination"):
        assert expected in message


def test_a_run_in_another_process_keeps_others_out_until_it_dies(place):
    with other_holder(place) as process:
        with pytest.raises(LeaseError, match=rf"run theirs on .* \(process {process.pid}\)"):
            try_to_hold(place)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LeaseError):
            try_to_hold(place)
        process.kill()
        # Dead, but not yet reaped by its parent: a zombie holds nothing.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}/stat").exists()
        assert not read_lease(place).is_live()
        process.wait()
        assert not read_lease(place).is_live()
        assert try_to_hold(place).run_id == "mine"


def test_a_process_that_got_the_number_of_a_dead_holder_does_not_hold(place):
    with hold_lease(place, "r1") as held:
        boot, namespace, start = held.lease.process.split("|")
        impostor = replace(held.lease, process=f"{boot}|{namespace}|{int(start) - 1}")
    assert held.lease.is_live()
    assert not impostor.is_live()


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


def test_invalid_leases_count_as_none(place):
    lease = asdict(elsewhere())
    place.work.mkdir(parents=True)
    for nonsense in (
        b"", b"[]", b"null", b"7", b'"x"', b"{}", b"{", b"\xff\xfe", json.dumps(lease).encode("utf-16"),
        *(json.dumps(lease | change).encode() for change in (
            {"pid": "7"}, {"pid": None}, {"host": 7}, {"run_id": []}, {"process": None}, {"since": "long ago"},
            {"heartbeat": None}, {"heartbeat": float("nan")}, {"since": 1e300}, {"since": float("inf")}, {"since": -1},
        )),
    ):  # fmt: skip
        (place.work / "lease.json").write_bytes(nonsense)
        assert read_lease(place) is None, nonsense
    assert try_to_hold(place).run_id == "mine"


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


RACERS, ROUNDS = 4, 40


def race(root, barrier, wins):
    """Try to get the lease in every round, at the same time as the others; record the rounds won."""
    place = destination_at(Path(root))
    lease_module.STALE_SECONDS = 0.05
    for number in range(ROUNDS):
        if number % 2 and barrier.wait() == 0:
            put(place, elsewhere(age=2 * STALE_SECONDS))  # something to take over
        barrier.wait()
        try:
            with hold_lease(place, str(number)):
                wins.put(number)
                barrier.wait()
        except LeaseError:
            barrier.wait()
        barrier.wait()


@pytest.mark.timeout(60)
def test_exactly_one_of_runs_that_start_together_gets_the_lease(place):
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(RACERS, timeout=50), context.SimpleQueue()
    racers = [context.Process(target=race, args=(str(place.root), barrier, wins)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    won = []
    while not wins.empty():
        won.append(wins.get())
    wins.close()
    assert sorted(won) == list(range(ROUNDS))
    assert read_lease(place) is None


def test_an_unreadable_lease_is_an_error(open_path):
    place = destination_at(open_path / "dest")
    put(place, elsewhere())
    (place.work / "lease.json").chmod(0)
    with unprivileged(), pytest.raises(SettingsError, match=r"lease\.json can't be read\. Grant this user"):
        read_lease(place)
    place.work.chmod(0)
    with unprivileged(), pytest.raises(SettingsError, match=r"\.darkroom can't be read\. Grant this user"):
        read_lease(place)


def test_a_file_or_folder_in_the_place_of_a_lease_is_named(place):
    (place.work / "lease.json").mkdir(parents=True)
    for look in (read_lease, try_to_hold):
        with pytest.raises(SettingsError, match=r"lease\.json is a folder where Darkroom has a file\. Move it away"):
            look(place)
    shutil.rmtree(place.work)
    place.work.touch()
    for look in (read_lease, try_to_hold):
        with pytest.raises(SettingsError, match=r"\.darkroom is a file where Darkroom has a folder\. Move it away"):
            look(place)


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
