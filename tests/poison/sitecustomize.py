"""A decoder that really crashes, hangs or runs out of memory on some images: on poison.

Python imports this module at startup if PYTHONPATH has its folder. An image is poison if it ends with `poison:` and one
of the kinds below. Codec processes log each poison that they decode, with their process id, to the file that
`PYTHON_POISON_LOG` names.
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
LOG = os.environ.get("PYTHON_POISON_LOG")  # codec processes inherit variables that begin with PYTHON, and few others
IS_CODEC_PROCESS = "darkroom.tasks.worker.codec_server" in sys.orig_argv


def note(what):
    if LOG:
        with open(LOG, "a") as log:
            log.write(f"{what} {os.getpid()}\n")


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # another thread may take the signal; meanwhile, this one must not go on to the next image


def abort():
    os.abort()


def exit_early():
    os._exit(3)


def oom_kill():
    """Die as if the kernel's out-of-memory killer had chosen this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def oom_kill_once():
    """Die like `oom_kill` in the first process, and decode the image in the next."""
    with open(LOG) as log:
        if log.read().count("oom_kill_once ") == 1:
            oom_kill()


def spin():
    """Loop forever in C without ever releasing the GIL."""
    sum(itertools.repeat(0))


def spin_without_gil():
    """Loop in C, with the GIL released, for longer than any test waits."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)


def sleep():
    """Wait in C, with the GIL held, for a signal that never comes."""
    ctypes.PyDLL(None).pause()


def nap():
    """Take a second and a half, as a large image may, and then decode the image."""
    time.sleep(1.5)


def eat():
    """Allocate memory, and touch it, until there is none left."""
    eaten = []
    try:
        while True:
            eaten.append(b"x" * (16 << 20))
            time.sleep(0.01)
    except MemoryError:
        note(f"ate {len(eaten) * 16}")
        raise


def overflow():
    """Allocate more memory than any machine has, in one piece, without touching it."""
    bytearray(1 << 46)


def send_garbage():
    """Send a message that the worker does not expect, as a decoder might that a hostile image controls."""
    os.write(codec_process.channel.fileno(), b"?")


def unknown_status():
    """Answer with a status that does not exist."""
    codec_process.MADE = b"?"


def bad_offset():
    """Answer with an offset beyond the end of the shared memory."""

    def finish(self, image, output, answer):
        finish_well(self, image, output, answer)
        self.head.entries[image].last = 1 << 40

    finish_well, shared_batch.SharedBatch.finish = shared_batch.SharedBatch.finish, finish


def grow_memory():
    """Try to grow the shared memory of all batches beyond what can be mapped, and abort."""
    for batch in filter(lambda each: isinstance(each, shared_batch.SharedBatch), gc.get_objects()):
        try:
            os.ftruncate(batch.descriptor, 1 << 60)
        except OSError:
            note("refused")
    os.abort()


def break_later():
    """Decode the image, but leave the process such that it crashes at the next one."""
    codec_process.broken = True


def raise_bug():
    """Raise an exception that only a bug in Darkroom could raise."""
    raise ZeroDivisionError("a bug in Darkroom")


POISON = (crash, abort, exit_early, oom_kill, oom_kill_once, spin, spin_without_gil, sleep, nap, eat, overflow)
POISON += (send_garbage, unknown_status, bad_offset, grow_memory, break_later, raise_bug)
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
