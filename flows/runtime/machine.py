"""Check, before anything is started, that the machine has what every run needs."""

from __future__ import annotations

import os
import resource
import tempfile

from darkroom.flows.runtime.database import prefect_home
from darkroom.tasks.errors import SettingsError

FILE_BYTES = 256 << 20
"""Size that a file must be allowed: the memory shared with codec processes, and Prefect's database, are files."""

SOCKET_PATH_BYTES = 108
"""Limit of Linux on the path of a Unix socket, with the zero at its end; other systems have 104."""

SOCKET_NAME_BYTES = 40
"""What multiprocessing appends to the temporary folder, such as `/pymp-abcdefgh/listener-abcdefgh`, rounded up."""

SEMAPHORES = "/dev/shm"  # noqa: S108 - the system's
"""Linux's folder of semaphores."""

PROBE_BYTES = 64 << 10


def check_working_folder() -> None:
    """Raise `SettingsError` if the working directory is gone, or this user may not enter it."""
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
    """Raise `SettingsError` if temporary files, files of `FILE_BYTES` or semaphores can't be created."""
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
        multiprocessing.get_context("fork").Lock()  # it is unlinked at once
    except OSError as error:
        raise SettingsError(
            f"{SEMAPHORES} can't be written to: {os.strerror(error.errno or 0)}. Worker processes need it for "
            "semaphores: mount it as a tmpfs that this user can write to."
        ) from error


def shorten_socket_paths() -> None:
    """Move multiprocessing's Unix sockets to another folder if the temporary folder's path is too long for them.

    Raises:
        SettingsError: there is no other temporary folder.
    """
    if len(os.fsencode(tempfile.gettempdir())) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES:
        return
    import multiprocessing.util  # here, as it registers an exit handler; see `cluster.warm_up`

    before = tempfile.tempdir
    for folder in ("/tmp", "/var/tmp", SEMAPHORES):  # noqa: S108 - only to make a folder of this user's in it
        if os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                multiprocessing.util.get_temp_dir()  # created once, for all sockets of this process
            finally:
                tempfile.tempdir = before
            return
    raise SettingsError(
        f"TMPDIR: {before} is too long for the sockets that are made in it. Set TMPDIR to a folder whose path has at "
        f"most {SOCKET_PATH_BYTES - SOCKET_NAME_BYTES} bytes."
    )


def check_prefect_home() -> None:
    """Raise `SettingsError` if a local Prefect server couldn't write its database to `PREFECT_HOME`."""
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
