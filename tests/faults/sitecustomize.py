"""A file system whose files fail by their names. Python imports this as it starts where this folder is on PYTHONPATH.

`eio-2.jpg` can't be read the first two times, `slow.jpg` takes a second, `hang.jpg` for ever: the read does not return.
Nor does that of the file that TEST_HANGING_READ names, or the write of `hang-write.jpg`.
"""

import collections
import errno
import os
import re
import time

import darkroom.tasks.storage.local

HOURS = 10_000
PAUSES = {"slow.jpg": 1, "hang.jpg": HOURS, os.environ.get("TEST_HANGING_READ"): HOURS}
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
        time.sleep(HOURS)
    return replace_file(folder, name, data, **options)


darkroom.tasks.storage.local.replace_file = faulty_replace_file
