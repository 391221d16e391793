"""A lease is held by one run at a time, and given back."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from darkroom.tasks.dataset import lease as lease_module
from darkroom.tasks.dataset.lease import STALE_SECONDS, hold_lease, read_lease
from darkroom.tasks.errors import LeaseError, SettingsError
from tests.places import destination_at
from tests.tasks.dataset.leases import elsewhere, other_holder, put, try_to_hold
from tests.tasks.helpers import unprivileged


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
