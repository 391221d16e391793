"""Find what a machine lacks that every run needs, before anything is started."""

from __future__ import annotations

import os
import resource
import tempfile

from darkroom.flows.runtime.database import prefect_home
from darkroom.tasks.errors import SettingsError

FILE_BYTES = 256 << 20
"""What files must be able to grow to: the memory that workers share with codec processes, and Prefect's database."""

SOCKET_PATH_BYTES = 108
"""Limit of Linux on the path of a Unix socket, with the zero at its end; other systems have 104."""

SOCKET_NAME_BYTES = 40
"""What multiprocessing adds to the temporary folder, as in `/pymp-abcdefgh/listener-abcdefgh`, and some more."""

SEMAPHORES = "/dev/shm"  # noqa: S108 - the system's
"""The folder in which Linux has semaphores."""

PROBE_BYTES = 64 << 10


def check_working_folder() -> None:
    """Make sure that the working directory is there, and that processes can be started in it.

    Raises:
        SettingsError: it isn't, or this user may not enter it.
    """
    try:
        folder = os.getcwd()
        if not os.access(folder, os.X_OK):
            raise SettingsError(
                f"The working directory, {folder}, may not be entered by this user. Change to another one with 'cd'."
            )
    except FileNotFoundError:
        raise SettingsError(
            "The working directory was removed. Change to one that exists with 'cd', and give the same command again."
        ) from None


def check_machine() -> None:
    """Make sure that temporary files, files of some size and semaphores can be made.

    Raises:
        SettingsError: one of them can't.
    """
    _check_file_size()
    _check_temporary_folder()
    _check_semaphores()


def _check_file_size() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > soft):
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and soft < FILE_BYTES:
        raise SettingsError(
            f"Files may not grow beyond {soft:,} bytes here (ulimit -f), and a run needs {FILE_BYTES:,}. Raise that "
            "limit, as with 'ulimit -f unlimited'."
        )


def _check_temporary_folder() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SettingsError(
            f"{error.strerror}. Free some space in one of them, or set TMPDIR to a folder that this user can write to."
        ) from error


def _check_semaphores() -> None:
    import multiprocessing

    try:
        multiprocessing.get_context("fork").Lock()  # which is unlinked at once
    except OSError as error:
        raise SettingsError(
            f"{SEMAPHORES} can't be written to: {os.strerror(error.errno or 0)}. Worker processes need it for "
            "semaphores: mount it as a tmpfs that this user can write to."
        ) from error


def shorten_socket_paths() -> None:
    """Let multiprocessing put its Unix sockets elsewhere if the path of the temporary folder is too long for them.

    Raises:
        SettingsError: there is no other temporary folder.
    """
    if _fits(tempfile.gettempdir()):
        return
    import multiprocessing.util  # here, as it registers an exit handler; see `cluster.warm_up`

    before = tempfile.tempdir
    for folder in ("/tmp", "/var/tmp", SEMAPHORES):  # noqa: S108 - only to make a folder of this user's in it
        if os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                multiprocessing.util.get_temp_dir()  # which it makes once, for all sockets of this process
            finally:
                tempfile.tempdir = before
            return
    raise SettingsError(
        f"TMPDIR: {before} is too long for the sockets that are made in it. Set TMPDIR to a folder whose path has at "
        f"most {SOCKET_PATH_BYTES - SOCKET_NAME_BYTES} bytes."
    )


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES


def check_prefect_home() -> None:
    """Make sure that a local Prefect server can write its database.

    Raises:
        SettingsError: `PREFECT_HOME` can't be made or written to, or is full.
    """
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise SettingsError(
            f"PREFECT_HOME: {home} can't be written to: {os.strerror(error.errno or 0)}. Make it a folder with some "
            "room that this user can write to, or set PREFECT_HOME to another."
        ) from error
