"""Paths in a store and keys in a bucket: which object a path names, and which keys no path can name."""

from __future__ import annotations

import re

from darkroom.tasks.storage.store_errors import Denied, PathTooLong

MAX_KEY_BYTES = 1_024
"""Of S3 and Google; Azure counts characters."""

_SHIFT = 0xEF00
"""A control character, which the client refuses in keys, becomes a private-use character, as `naming` does with bytes
that are not UTF-8; U+EF00 to U+EF1F and U+EF7F are free there."""

_CONTROL = {number: number + _SHIFT for number in (*range(0x20), 0x7F)}
_SHIFTED = {shifted: number for number, shifted in _CONTROL.items()}

SHIFTED_PATTERN = "[\uef00-\uef1f\uef7f]"
"""Matches paths that `to_path` changes."""

_MATCH_SHIFTED = re.compile(SHIFTED_PATTERN)


CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "jpe": "image/jpeg",
    "jfif": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
"""By the suffix of an object's name, lower case; others are bytes."""


def to_key(path: str) -> str:
    """Return the key of a path, relative to the store's prefix."""
    return path if path.isprintable() else path.translate(_CONTROL)


def to_path(key: str) -> str:
    """Return the path that `to_key` made a key of."""
    return key.translate(_SHIFTED) if _MATCH_SHIFTED.search(key) else key


def check_key(path: str, location: str, where: str) -> str:
    """Return the key of an object's path.

    Args:
        path: the path.
        location: the store's, as `scheme://bucket/prefix`.
        where: where the object is, as users write it.

    Raises:
        Denied: the client would name another object, or refuse it: a segment is empty, `.` or `..`.
        PathTooLong: no store has so long keys.
    """
    key = to_key(path)
    if not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise Denied(path, "its key has an empty, . or .. segment, which the object-store client can't ask for", where)
    prefix = location.partition("://")[2].partition("/")[2]
    length = len(f"{prefix}/{key}".encode(errors="surrogatepass")) - (not prefix)
    if length > MAX_KEY_BYTES:
        raise PathTooLong(path, f"its key would have {length:,} of at most {MAX_KEY_BYTES:,} bytes", location)
    return key


def attributes(path: str) -> dict[str, str]:
    """Return what a store is to keep with an object."""
    return {"Content-Type": CONTENT_TYPES.get(path.rpartition(".")[2].lower(), "application/octet-stream")}
