"""Images anywhere, by address: a path, or the URL of a file, of a web server's file or of an object in a bucket.

An address becomes a path of the source, below which its output goes: `a/b.jpg` stays, `https://host/b.jpg` becomes
`https:/host/b.jpg`, and `/data/b.jpg` outside the folder becomes `file:/data/b.jpg`.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from darkroom.tasks.storage.bucket_checks import SCHEMES
from darkroom.tasks.storage.local import LocalFolder
from darkroom.tasks.storage.local_listing import Links
from darkroom.tasks.storage.naming import path_to_text, text_to_path
from darkroom.tasks.storage.store import Batches, Object, Place, Skip, Skipped, Source, Store, Version

WEB_SCHEMES = ("http", "https")

_ROUTES = {f"{scheme}:" for scheme in (*WEB_SCHEMES, *SCHEMES, "file")}


class Addresses(Source):
    """The images of a list of addresses; each request goes to the store of its address.

    Args:
        location: that of the list, in a folder or a bucket; relative paths in it are relative to where it lies.
        excluded: the location of the outputs, which are never read.
    """

    is_remote = True  # as some of its addresses may be

    def __init__(self, location: str, excluded: str | None = None) -> None:
        self._location = location
        self._folder = posixpath.dirname(_as_path(location))
        self._excluded = _as_path(excluded) if excluded else None

    @property
    def location(self) -> str:
        """Where the list is."""
        return self._location

    def local(self, scratch: Path) -> Path:
        """Return a local file that is the list: a copy in `scratch` if it lies in a bucket."""
        name = path_to_text(os.fsencode(posixpath.basename(self._location)))
        return self._store().local(name, scratch)

    def to_path(self, address: str) -> str | None:
        """Return the path of an address; None if it is unsafe or lies in the excluded folder.

        A path that ends with `/` is that of a folder, or of the prefix of a bucket.
        """
        path = self._to_path(address)
        return None if path is None or self._is_excluded(path) else _checked(path)

    def _to_path(self, address: str) -> str | None:
        scheme, mark, rest = address.partition("://")
        if not mark:
            return self._file_path(address)
        scheme = scheme.lower()
        if scheme == "file":
            return self._file_path(unquote(rest)) if rest.startswith("/") else None
        if scheme in WEB_SCHEMES:
            return f"{scheme}:/{_without_fragment(rest)}" if _is_plain(address) else None
        return f"{scheme}:/{rest}" if scheme in SCHEMES else None

    def _file_path(self, address: str) -> str | None:
        """Return the path of an absolute path, or of one that is relative to the list."""
        whole = posixpath.normpath(posixpath.join(self._folder, address))
        inside = posixpath.relpath(f"/{whole}", f"/{self._folder}") if _is_in(whole, self._folder) else ""
        is_local = whole.startswith("/")
        if inside and inside.partition("/")[0] not in _ROUTES:
            path = inside
        elif is_local:
            path = f"file:{whole}"
        elif _is_in(whole, "/".join(self._folder.split("/")[:2])):  # the list's bucket
            path = whole
        else:
            return None
        if "\0" in path:
            return None
        return (path_to_text(os.fsencode(path)) if is_local else path) + ("/" if address.endswith("/") else "")

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
        """Yield all files of a folder or a bucket's prefix, whose path ends with `/`, by their paths in this source.

        One that is not there counts as one that can't be listed: its files are unknown, not gone.
        """
        import pyarrow as pa

        store, rest = self._route(prefix)
        start = prefix.removesuffix(rest)
        inner, is_there = Skipped(), _is_folder(store, rest)

        def leave_out(path: str) -> str | None:
            is_excluded = path.endswith("/") and self._is_excluded(start + path)
            return "in_destination" if is_excluded else skip(path) if skip else None

        try:
            for batch in store.list(rest.rstrip("/"), skip=leave_out, skipped=inner if skipped else None):
                paths = pa.array([start + path for path in batch["path"].to_pylist()], pa.string())
                yield batch.set_column(0, batch.schema.field("path"), paths)
                is_there = True
        finally:
            if skipped:
                skipped.counts.update(inner.counts)
                skipped.unreadable.extend(start + folder for folder in inner.unreadable)
        if skipped and not (is_there or inner.counts):
            skipped.counts["unreadable_folder"] += 1
            skipped.unreadable.append(prefix.rstrip("/"))

    def _is_excluded(self, path: str) -> bool:
        """Return whether a path leads into the excluded folder."""
        is_routed = path.partition("/")[0] in _ROUTES
        whole = path.removeprefix("file:") if is_routed else f"{self._folder.rstrip('/')}/{path}"
        return _is_in(whole.rstrip("/"), self._excluded)

    def _store(self) -> Store:
        """Return the store of the folder or prefix that has the list."""
        is_local = self._folder.startswith("/")
        return _local(self._folder, self._excluded) if is_local else _bucket(self._folder.replace(":/", "://", 1))

    def _route(self, path: str) -> tuple[Source, str]:
        """Return the store that has a path, and the path there."""
        scheme, _, rest = path.partition("/")
        if scheme not in _ROUTES:
            return self._store(), path
        if scheme == "file:":
            return _local("/", self._excluded), rest
        host, _, rest = rest.partition("/")
        if scheme.removesuffix(":") in WEB_SCHEMES:
            return _web(f"{scheme}//{host}"), rest
        return _bucket(f"{scheme}//{host}"), rest


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a list that is a text file in UTF-8."""
    with file.open(encoding="utf-8-sig") as lines:
        yield from (line.rstrip("\n") for line in lines)


def _as_path(location: str) -> str:
    """Return a location as addresses in it begin in this source: `s3:/bucket/prefix` for that of a bucket."""
    return location.replace("://", ":/", 1)


def _is_folder(store: Source, path: str) -> bool:
    """Return whether a store has a folder, which may be empty; False for a bucket, which has none."""
    return isinstance(store, LocalFolder) and os.path.isdir(os.path.join(store.root, text_to_path(path)))


@cache
def _local(folder: str, excluded: str | None) -> Store:
    outputs = os.fsencode(excluded) if excluded and excluded.startswith("/") else None
    return LocalFolder(os.fsencode(folder), links=Links.ALL, excluded=outputs)  # the list is the user's choice of files


@cache
def _web(location: str) -> Source:
    from darkroom.tasks.storage.http_store import HttpStore

    return HttpStore(location)


@cache
def _bucket(location: str) -> Store:
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
