"""Images anywhere, by address: a path, or the URL of a file, of a web server's file or of an object in a bucket.

An address becomes a path of the source, below which its output goes: `a/b.jpg` stays, `https://host/b.jpg` becomes
`https:/host/b.jpg`, and `/data/b.jpg` outside the folder becomes `file:/data/b.jpg`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from urllib.parse import unquote, urlsplit

from darkroom.tasks.storage.bucket_checks import SCHEMES
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.naming import path_to_text
from darkroom.tasks.storage.store import Batches, Object, Place, Skip, Skipped, Source, Version

WEB_SCHEMES = ("http", "https")

_ROUTES = {f"{scheme}:" for scheme in (*WEB_SCHEMES, *SCHEMES, "file")}


class Addresses(Source):
    """The images of a list of addresses; each request goes to the store of its address.

    Args:
        file: the list; relative paths in it are relative to its folder.
        excluded: a folder whose files are never read.
    """

    is_remote = True  # as some of its addresses may be

    def __init__(self, file: str, excluded: str | None = None) -> None:
        self._file = file
        self._folder = os.path.dirname(file)
        self._excluded = excluded

    @property
    def location(self) -> str:
        """The list's path."""
        return self._file

    def lines(self) -> Iterator[str]:
        """Yield the lines of the list, a text file in UTF-8."""
        with open(self._file, encoding="utf-8-sig") as file:
            yield from (line.rstrip("\n") for line in file)

    def to_path(self, address: str) -> str | None:
        """Return the path of an address; None if it is unsafe or lies in the excluded folder.

        A path that ends with `/` is that of a folder, or of the prefix of a bucket.
        """
        scheme, mark, rest = address.partition("://")
        if not mark:
            return self._local_path(address)
        scheme = scheme.lower()
        if scheme == "file":
            return self._local_path(unquote(rest)) if rest.startswith("/") else None
        if scheme in WEB_SCHEMES:
            return _checked(f"{scheme}:/{_without_fragment(rest)}") if _is_plain(address) else None
        return _checked(f"{scheme}:/{rest}") if scheme in SCHEMES else None

    def _local_path(self, address: str) -> str | None:
        whole = os.path.normpath(os.path.join(self._folder, address))
        if "\0" in address or _is_in(whole, self._excluded):
            return None
        inside = os.path.relpath(whole, self._folder) if _is_in(whole, self._folder) else ""
        path = inside if inside and inside.partition("/")[0] not in _ROUTES else f"file:{whole}"
        return _checked(path_to_text(os.fsencode(path)) + ("/" if address.endswith("/") else ""))

    def where(self, path: str) -> str:
        """Return an address."""
        store, rest = self._route(path)
        return store.where(rest)

    def get_into(self, path: str, place: Place, *, max_bytes: int = sys.maxsize) -> Object:
        """Read the object at an address into memory that `place` returns."""
        store, rest = self._route(path)
        return store.get_into(rest, place, max_bytes=max_bytes)

    def get_start(self, path: str, size: int) -> bytes:
        """Return the first bytes of the object at an address."""
        store, rest = self._route(path)
        return store.get_start(rest, size)

    def head(self, path: str) -> Version:
        """Return the version of the object at an address."""
        store, rest = self._route(path)
        return store.head(rest)

    def list(self, prefix: str = "", *, skip: Skip | None = None, skipped: Skipped | None = None) -> Batches:
        """Yield all files of a folder or a bucket's prefix, whose path ends with `/`, by their paths in this source."""
        import pyarrow as pa

        store, rest = self._route(prefix)
        start = prefix.removesuffix(rest)

        def leave_out(path: str) -> str | None:
            return "in_destination" if self._is_excluded(start + path) else skip(path) if skip else None

        for batch in store.list(rest.rstrip("/"), skip=leave_out, skipped=skipped):
            paths = pa.array([start + path for path in batch["path"].to_pylist()], pa.string())
            yield batch.set_column(0, batch.schema.field("path"), paths)

    def _is_excluded(self, path: str) -> bool:
        """Return whether a path is that of the excluded folder."""
        local = path.removeprefix("file:") if path.startswith("file:/") else f"{self._folder}/{path}"
        return path.endswith("/") and local.rstrip("/") == self._excluded

    def _route(self, path: str) -> tuple[Source, str]:
        """Return the store that has a path, and the path there."""
        scheme, _, rest = path.partition("/")
        if scheme not in _ROUTES:
            return _local(self._folder), path
        if scheme == "file:":
            return _local("/"), rest
        host, _, rest = rest.partition("/")
        return _remote(f"{scheme}//{host}"), rest


@cache
def _local(folder: str) -> Source:
    return LocalFolder(os.fsencode(folder), links=Links.ALL)  # the list is the user's choice of files


@cache
def _remote(location: str) -> Source:
    if location.startswith(WEB_SCHEMES):
        from darkroom.tasks.storage.http_store import HttpStore

        return HttpStore(location)
    from darkroom.tasks.storage.object_store import open_object_store

    return open_object_store(location)


def _is_plain(url: str) -> bool:
    """Return whether a URL has a host, and no user name or password, which would stand in the manifest."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.path) and "@" not in parts.netloc and not url.endswith("/")
    except ValueError:
        return False


def _without_fragment(url: str) -> str:
    return url.partition("#")[0]


def _checked(path: str) -> str | None:
    """Return a path, unless it has an empty, `.` or `..` segment, which no output's path can have."""
    segments = path.removesuffix("/").split("/")
    return path if {"", ".", ".."}.isdisjoint(segments) else None


def _is_in(path: str, folder: str | None) -> bool:
    return folder is not None and (path == folder or path.startswith(folder.rstrip("/") + "/"))
