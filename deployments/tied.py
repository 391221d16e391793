"""Run a module that gets SIGTERM when its parent process dies (on Linux).

`python -m darkroom.deployments.tied PARENT MODULE …`, where PARENT is the parent's process id.
"""

from __future__ import annotations

import os
import signal
import sys

from darkroom.tasks.worker.orphan import end_with_parent


def main() -> None:
    """Replace this process by the module."""
    parent, *command = sys.argv[1:]
    end_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before the line above
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606 - this interpreter


if __name__ == "__main__":
    main()
