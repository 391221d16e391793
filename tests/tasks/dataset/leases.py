"""Other holders of a lease: of another process, or of a run on another machine."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from darkroom.tasks.dataset.lease import Lease, hold_lease

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
