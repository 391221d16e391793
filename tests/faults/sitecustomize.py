"""A file system on which files fail by their names. Python imports this module at startup if PYTHONPATH has its folder.

The first N reads of `eio-N.jpg` fail with EIO. A read of `slow.jpg` takes a second. A read of `hang.jpg`, or of the
file that TEST_HANGING_READ names, and a write of `hang-write.jpg` never return.
"""

import collections
import errno
import os
import re
import time

import darkroom.tasks.storage.local

FOREVER_SECONDS = 10_000  # longer than any test waits
PAUSES = {"slow.jpg": 1, "hang.jpg": FOREVER_SECONDS, os.environ.get("TEST_HANGING_READ"): FOREVER_SECONDS}
failed = collections.Counter()
read_to_end = darkroom.tasks.storage.local._read_to_end
replace_file = darkroom.tasks.storage.local.replace_file


def faulty_read_to_end(descriptor, view):
    name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    if name in PAUSES:
        time.sleep(PAUSES[name])
    if (fails := re.match(r"eio-(\d+)", name)) and failed[name] < int(fails[1]):
        failed[name] += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return read_to_end(descriptor, view)


darkroom.tasks.storage.local._read_to_end = faulty_read_to_end


def faulty_replace_file(folder, name, data, **options):
    if name == b"hang-write.jpg":
        time.sleep(FOREVER_SECONDS)
    return replace_file(folder, name, data, **options)


darkroom.tasks.storage.local.replace_file = faulty_replace_file
