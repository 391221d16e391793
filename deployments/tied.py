"""Run a module that is told to end when the process that started it dies, however that dies (on Linux).

`python -m deployments.tied PARENT MODULE …`, where PARENT is the number of that process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from tasks.child import PR_SET_PDEATHSIG


def main() -> None:
    """Become the module."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(1)  # it has died meanwhile
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606 - this interpreter


if __name__ == "__main__":
    main()
