"""A decoder that some images really bring down. Python imports this as it starts where this folder is on PYTHONPATH.

An image is poison by its last bytes, `poison:` and one of the kinds below. Each that is met is noted in the file that
`PYTHON_POISON_LOG` names, with the process that met it.
"""

import ctypes
import gc
import hashlib
import itertools
import os
import signal
import sys
import time

MARK = b"poison:"
LOG = os.environ.get("PYTHON_POISON_LOG")  # with a beginning that codec processes are given
IS_CODEC_PROCESS = "darkroom.tasks.worker.codec_server" in sys.orig_argv


def note(what):
    if LOG:
        with open(LOG, "a") as log:
            log.write(f"{what} {os.getpid()}\n")


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


def nap():
    """Take a second and a half, as a large image may."""
    time.sleep(1.5)


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
    os.write(codec_process.channel.fileno(), b"?")


def lie():
    """Answer what makes no sense."""
    codec_process.MADE = b"?"


def wander():
    """Answer with an output that lies where there is no memory."""

    def finish(self, image, output, answer):
        finish_well(self, image, output, answer)
        self.head.entries[image].last = 1 << 40

    finish_well, shared_batch.SharedBatch.finish = shared_batch.SharedBatch.finish, finish


def swell():
    """Try to make the memory of all batches larger than anyone can map, and end."""
    for batch in filter(lambda each: isinstance(each, shared_batch.SharedBatch), gc.get_objects()):
        try:
            os.ftruncate(batch.descriptor, 1 << 60)
        except OSError:
            note("refused")
    os.abort()


def break_later():
    """Come out well, and leave the process such that the next image falls."""
    codec_process.broken = True


def stumble():
    """Meet a mistake of ours."""
    raise ZeroDivisionError("a bug of ours")


POISON = (crash, abort, leave, fall, fall_once, spin, grind, sleep, nap, eat, overflow)
POISON += (babble, lie, wander, swell, break_later, stumble)
KINDS = {each.__name__.encode(): each for each in POISON}


def poisoned_transform(data, recipe, max_pixels, allow):
    kind = bytes(data[-32:]).rpartition(MARK)[2] if MARK in bytes(data[-32:]) else b""
    if kind in KINDS:
        allow(40 * 30)
        note(kind.decode())
        KINDS[kind]()
    elif getattr(codec_process, "broken", False):
        crash()
    return transform(data, recipe, max_pixels, allow)


def poisoned_serve(channel):
    codec_process.channel = channel
    serve(channel)


if IS_CODEC_PROCESS:
    from darkroom.tasks.imaging.transform import transform
    from darkroom.tasks.worker import codec_process, shared_batch
    from darkroom.tasks.worker.codec_process import serve

    codec_process.transform = poisoned_transform
    codec_process.serve = poisoned_serve
