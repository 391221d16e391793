"""A decoder that some images really bring down. Python imports this as it starts where this folder is on PYTHONPATH.

An image is poison by its last bytes, `poison:` and one of the kinds below. Each that is met is noted in the file that
`PYTHON_POISON_LOG` names, with the process that met it.
"""

import ctypes
import hashlib
import itertools
import os
import signal
import struct
import sys
import time

import tasks.imaging

MARK = b"poison:"
LOG = os.environ.get("PYTHON_POISON_LOG")  # with a beginning that the careful lane's child is given


def note(what):
    if LOG:
        where = "child" if "tasks.child" in sys.orig_argv else "worker"
        with open(LOG, "a") as log:
            log.write(f"{what} {where} {os.getpid()}\n")


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # any thread may take the signal, and this one would be at the next image by then


def abort():
    os.abort()


def leave():
    os._exit(3)


def fall():
    """End as the kernel's choice does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def fall_once():
    """End so in one process, and come out well in the next."""
    with open(LOG) as log:
        if log.read().count("fall_once ") == 1:
            fall()


def spin():
    """An endless loop in C that never lets go of the interpreter's lock."""
    sum(itertools.repeat(0))


def grind():
    """An endless loop in C, as far as anyone cares to wait, outside of the interpreter's lock."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)


def sleep():
    """A wait in C for what never comes, with the interpreter's lock held."""
    ctypes.PyDLL(None).pause()


def eat():
    """Take memory, and touch it, as long as there is any."""
    eaten = []
    try:
        while True:
            eaten.append(b"x" * (16 << 20))
            time.sleep(0.01)
    except MemoryError:
        note(f"ate {len(eaten) * 16}")
        raise


def overflow():
    """Allocate more than there can be, in one piece that is never touched."""
    bytearray(1 << 46)


def babble():
    """Say what the worker does not expect, as a decoder might that an image has taken over."""
    os.write(int(sys.argv[1]), struct.pack("!QQ", 1 << 60, 1 << 60))


def break_later():
    """Come out well, and leave the process such that the next image falls."""
    tasks.imaging.broken = True


POISON = (crash, abort, leave, fall, fall_once, spin, grind, sleep, eat, overflow, babble, break_later)
KINDS = {each.__name__.encode(): each for each in POISON}
decode = tasks.imaging.transform


def transform(data, recipe, max_pixels):
    kind = data.rpartition(MARK)[2] if MARK in data[-32:] else b""
    if kind in KINDS:
        note(kind.decode())
        KINDS[kind]()
    elif getattr(tasks.imaging, "broken", False):
        crash()
    return decode(data, recipe, max_pixels)


tasks.imaging.transform = transform
