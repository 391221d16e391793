"""Check the URLs of buckets before any work starts."""

from __future__ import annotations

import re
from contextlib import suppress
from uuid import uuid4

from darkroom.tasks.errors import SettingsError
from darkroom.tasks.storage.local_files import TEMPORARY_PREFIX
from darkroom.tasks.storage.store import ABSENT, Store, Version
from darkroom.tasks.storage.store_errors import Conflict, Denied, NotFound, StorageError

SCHEMES = ("s3", "gs", "az")

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""The most frequent environment variables of each store; docs/buckets.md has all."""


def is_url(location: str) -> bool:
    """Return whether a location is a URL of any scheme."""
    return "://" in location


def bucket_location(location: str, setting: str) -> str:
    """Return a bucket's URL without a trailing slash; raise `SettingsError` if it is no URL of a bucket."""
    scheme, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in SCHEMES:
        raise SettingsError(
            f"{setting}: {location!r} is no URL of an object store. Give s3://bucket/prefix, gs://bucket/prefix or "
            "az://container/prefix, or a folder."
        )
    if not _BUCKET.fullmatch(bucket):
        raise SettingsError(f"{setting}: {location!r} names no bucket. Give {scheme}://bucket/prefix.")
    prefix = prefix.removesuffix("/")
    if prefix and not ({"", ".", ".."}.isdisjoint(prefix.split("/")) and prefix.isprintable()):
        raise SettingsError(
            f"{setting}: the prefix of {location!r} has an empty, . or .. segment or a control character, which the "
            "object-store client refuses. Use another prefix."
        )
    return f"{scheme}://{bucket}/{prefix}" if prefix else f"{scheme}://{bucket}"


def check_bucket_source(store: Store) -> None:
    """Raise `SettingsError` if a source can't be listed, or is empty."""
    try:
        is_empty = store.is_empty()
    except StorageError as error:
        raise _refusal(store, "source", error, "list it") from error
    if is_empty:
        raise SettingsError(f"source: there is no object below {store.location}/. Give the prefix of the images.")


def check_bucket_list(store: Store, name: str) -> None:
    """Raise `SettingsError` if a list of images is not there, or can't be read."""
    try:
        store.head(name)
    except NotFound as error:
        raise SettingsError(
            f"source: there is no object {store.where(name)}. A URL that ends so is that of a list of images; images "
            f"below a prefix of this name are read with the source {store.location} and `include` /{name}/."
        ) from error
    except StorageError as error:
        raise _refusal(store, "source", error, "read it") from error


def check_bucket_destination(store: Store) -> None:
    """Raise `SettingsError` if a destination can't be written to, or lacks the conditional requests of leases."""
    probe = f"{TEMPORARY_PREFIX}{uuid4()}"  # if this is interrupted, the next run removes it
    try:
        version = store.put(probe, b"1", expected=ABSENT)
        ignored = _is_put(store, probe, ABSENT) or _is_put(store, probe, Version(1, None, '"another"', generation="1"))
        store.put(probe, b"3", expected=store.head(probe) if ignored else version)
        store.delete([probe])
    except StorageError as error:
        with suppress(StorageError):
            store.delete([probe])
        raise _refusal(store, "destination", error, "read, write and delete there") from error
    if ignored:
        raise SettingsError(
            f"destination: the store of {store.location} ignores the conditions of requests (If-None-Match, If-Match), "
            "so that two runs could write to it at a time. Use another store, or a newer version of this one."
        )


def _is_put(store: Store, path: str, expected: object) -> bool:
    with suppress(Conflict):
        store.put(path, b"2", expected=expected)  # type: ignore[arg-type]
        return True
    return False


def _refusal(store: Store, setting: str, error: StorageError, needed: str) -> SettingsError:
    scheme = store.location.partition("://")[0]
    if isinstance(error, Denied):
        return SettingsError(
            f"{setting}: {store.location} can't be used: {error.reason}. Set {_CREDENTIALS[scheme]}, and grant them "
            f"permission to {needed}."
        )
    if isinstance(error, NotFound):
        return SettingsError(f"{setting}: the bucket of {store.location} does not exist. Make it, or give another one.")
    return SettingsError(
        f"{setting}: {store.location} can't be used: {error.reason}. See docs/buckets.md for the environment "
        "variables to set, such as the endpoint's."
    )
