"""Open the stores of locations that users name, and check these before any work starts."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.bucket_checks import (
    bucket_location,
    check_bucket_destination,
    check_bucket_list,
    check_bucket_source,
    is_url,
)
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.store import Source, Store

SHORTENED = re.compile(r"(s3|gs|az):/(?!/)")
"""A bucket's URL with one slash, as `pathlib.Path` shortens it."""

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
"""What the name of a list of images ends with."""


def absolute(location: str, setting: str) -> str:
    """Return the absolute location that a setting names.

    Raises:
        SettingsError: it is empty, no text, not UTF-8, or a URL of anything but a bucket.
    """
    if not location:
        raise SettingsError(f"{setting}: no location is given. Give a folder, or the URL of a bucket.")
    if not isinstance(location, str):
        raise SettingsError(f"{setting}: give a text or a path, not {location!r}.")
    if shortened := SHORTENED.match(location):
        url = f"{shortened[1]}://{location[shortened.end() :]}"
        raise SettingsError(f"{setting}: {location} lacks a slash. Give {url!r}, as text, not as a path.")
    try:
        location.encode()
    except UnicodeEncodeError:
        message = f"{setting}: {location!r} is not UTF-8. Rename that folder, or link to it from another."
        raise SettingsError(message) from None
    if is_url(location):
        return bucket_location(location, setting)
    try:
        return os.path.abspath(Path(location).expanduser())
    except RuntimeError as error:
        raise SettingsError(f"{setting}: {location!r} names a user that this machine does not have.") from error


def open_source(location: str, rules: Rules, destination: str | None = None) -> Source:
    """Return the source at a location.

    Args:
        location: its location.
        rules: decide which links are followed, and whether archives are opened.
        destination: the location of the outputs, into which no link is followed.
    """
    location = absolute(location, "source")
    if is_list(location):
        from darkroom.tasks.storage.addresses import Addresses

        return Addresses(location, destination)
    store = _bucket(location) if is_url(location) else _source_folder(location, rules, destination)
    if not rules.tar_members:
        return store
    from darkroom.tasks.storage.tar_members import TarMembers

    return TarMembers(store)


def _source_folder(location: str, rules: Rules, destination: str | None) -> Store:
    return LocalFolder(
        os.fsencode(location),
        links=Links.ALL if rules.follow_symlinks else Links.INSIDE,
        excluded=os.fsencode(destination) if destination and not is_url(destination) else None,
    )


def is_list(location: str) -> bool:
    """Return whether a source is a list of images, and not a folder or a bucket's prefix.

    A URL is one by its name alone: a bucket may have both an object and a prefix of a name.
    """
    if not location.endswith(LIST_SUFFIXES):
        return False
    return "/" in location.partition("://")[2] if is_url(location) else not os.path.isdir(location)


def open_store(location: str, *, outputs: str) -> Store:
    """Return the store of a destination, whose outputs lie below the prefix `outputs`."""
    location = absolute(location, "destination")
    return _bucket(location) if is_url(location) else LocalFolder(os.fsencode(location), outputs=outputs)


def _bucket(location: str) -> Store:
    from darkroom.tasks.storage.object_store import open_object_store  # its client takes 0.1 s to import

    return open_object_store(location)


def check_source(location: str, *, tar_members: bool = False) -> None:
    """Raise `SettingsError` if a source can't be listed, or is a list with the setting `tar_members`."""
    if tar_members and is_list(location):
        raise SettingsError(
            f"source: {location} is a list of images, and of those no archives are read. Unset `tar_members`, or give "
            "the folder or the prefix that has the archives."
        )
    if is_url(location):
        if is_list(location):
            folder, _, name = location.rpartition("/")
            check_bucket_list(_bucket(folder), name)
        else:
            check_bucket_source(_bucket(location))
        return
    if not os.path.lexists(location):
        raise SettingsError(f"source: {location} does not exist. Give the folder or the list of the images.")
    if is_list(location):
        if not os.access(location, os.R_OK):
            raise SettingsError(f"source: {location} can't be read. Grant this user permission to read it.")
        return
    if not os.path.isdir(location):
        raise SettingsError(
            f"source: {location} is not a folder. Give the folder that holds the images, or a list of them whose name "
            f"ends with {', '.join(LIST_SUFFIXES[:-1])} or {LIST_SUFFIXES[-1]}."
        )
    if not os.access(location, os.R_OK | os.X_OK):
        raise SettingsError(f"source: {location} can't be read. Grant this user permission to list it.")


def check_destination(location: str) -> None:
    """Raise `SettingsError` if a destination can't be written to, or created."""
    if is_url(location):
        check_bucket_destination(_bucket(location))
        return
    if os.path.lexists(location) and not os.path.isdir(location):
        raise SettingsError(f"destination: {location} is not a folder. Give another one, or move that away.")
    existing = next(path for path in (Path(location), *Path(location).parents) if os.path.exists(path))
    if not existing.is_dir():
        raise SettingsError(f"destination: {existing} is not a folder, so that {location} can't be made in it.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsError(
            f"destination: {existing} can't be written to. Grant this user permission, or give another."
        )
    if not os.path.isdir(location):
        _check_takes_folders(existing, location)


def _check_takes_folders(existing: Path, location: str) -> None:
    """Raise `SettingsError` if no folder can be created in an existing one, as in /proc, whatever its permissions."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".darkroom-", dir=existing))
    except OSError as error:
        raise SettingsError(
            f"destination: {location} can't be made in {existing} ({os.strerror(error.errno or 0)}). Give another one."
        ) from error


def check_links(destination: str, folders: Iterable[str]) -> None:
    """Raise `SettingsError` if one of a destination's own folders is a symbolic link."""
    if is_url(destination):  # buckets have no links
        return
    for folder in folders:
        path = os.path.join(destination, folder)
        if os.path.islink(path):
            raise SettingsError(
                f"destination: {path} is a symbolic link, whose target would be written to and deleted from. "
                "Replace it by a folder, or make the destination itself the link."
            )


def check_apart(source: str, destination: str) -> None:
    """Raise `SettingsError` if source and destination are the same, or one lies in the other."""
    real_source, real_destination = (
        Path(location) if is_url(location) else Path(location).resolve() for location in (source, destination)
    )
    if real_source == real_destination:
        raise SettingsError(f"source and destination are the same folder, {source}. Use another destination.")
    if real_source in real_destination.parents:
        raise SettingsError(
            f"destination: {destination} lies inside the source, so that outputs would be taken for "
            "sources. Use a destination outside it."
        )
    if real_destination in real_source.parents:
        raise SettingsError(
            f"source: {source} lies inside the destination, which belongs to Darkroom. Use a destination "
            "that does not contain the source."
        )
