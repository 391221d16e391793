"""Small files that claim, or unpack to, far more than their size, each with its expected outcome."""

from __future__ import annotations

import struct
from functools import cache

from tests.fuzz.desktop_bombs import desktop_bombs
from tests.fuzz.outcomes import SIDE, UNKNOWN, UNSUPPORTED, Bomb
from tests.fuzz.samples import samples
from tests.fuzz.web_bombs import web_bombs


@cache
def bombs() -> dict[str, Bomb]:
    """Return bombs by name, `format/variant`."""
    groups = {"none": _no_images()} | web_bombs() | desktop_bombs()
    return {f"{name}/{what}": bomb for name, group in groups.items() for what, bomb in group.items()}


def _no_images() -> dict[str, Bomb]:
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    return {
        "one zero": (b"\0", UNKNOWN),
        "zeros": (bytes(100_000), UNKNOWN),
        "page": (page, UNKNOWN),
        "page with a picture": (page + samples()["jpeg/420"], UNKNOWN),
        "archive": (b"PK\3\4" + bytes(100), UNKNOWN),
        "text": ("Grüße".encode("utf-16"), UNKNOWN),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNSUPPORTED),
        "photoshop": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, SIDE, SIDE, 8, 3), UNSUPPORTED),
        "postscript": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\nsystemdict /quit get exec",
            UNSUPPORTED,
        ),
    }
