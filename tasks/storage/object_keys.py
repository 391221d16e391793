"""Translate paths in a store to keys in a bucket, and back."""

from __future__ import annotations

import re

from darkroom.tasks.storage.store_errors import Denied, PathTooLong

MAX_KEY_BYTES = 1_024
"""Limit of S3 and Google; Azure's is in characters."""

_SHIFT = 0xEF00
"""The client refuses control characters in keys: they become private-use characters, as bytes that are not UTF-8 do in
`naming`, which does not use U+EF00 to U+EF1F and U+EF7F."""

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
"""By the suffix of an object's name, lower case; `application/octet-stream` for others."""


def to_key(path: str) -> str:
    """Return the key of a path, relative to the store's prefix."""
    return path if path.isprintable() else path.translate(_CONTROL)


def to_path(key: str) -> str:
    """Return the path of a key; the inverse of `to_key`."""
    return key.translate(_SHIFTED) if _MATCH_SHIFTED.search(key) else key


def check_key(path: str, location: str, where: str) -> str:
    """Return the key of a path.

    Args:
        path: the path.
        location: the store's location, `scheme://bucket/prefix`.
        where: the object's location, for error messages.

    Raises:
        Denied: a segment is empty, `.` or `..`, for which the client would use another key, or fail.
        PathTooLong: the key is too long for any store.
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
