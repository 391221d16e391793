"""What can still be seen of an image file that is broken, found out in a process of its own.

Run as a program, it decodes one file from standard input. Such a file has already been too much for one
decoder: here it may crash, hang or grow only a child, which has little time and memory.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from contextlib import suppress

MEMORY_BYTES = 1 << 30
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO", "JPEG2000", "AVIF")
"""Formats that Pillow decodes by itself; some others it would hand to a program."""

ENVIRONMENT = ("PATH", "PYTHON", "LD_", "DYLD_")
"""What the child gets of the environment, by how the names begin."""


def preview(data: bytes, side: int, seconds: float) -> tuple[int, int, bytes] | None:
    """Return width, height and RGB bytes of what a broken image file still shows, or None if that is nothing.

    Args:
        data: the file.
        side: the picture is at most so many pixels wide and high.
        seconds: how long it may take.
    """
    try:
        done = subprocess.run(  # noqa: S603 - this file, by this interpreter
            # -P: the modules beside this one aren't meant to be found by their bare names.
            [sys.executable, "-P", __file__, str(side)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Whatever an image makes of the child, it finds no credentials.
            env={name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT)},
            timeout=seconds,
            check=True,
        )
        header, _, pixels = done.stdout.partition(b"\n")
        width, height = map(int, header.split())
    except (subprocess.SubprocessError, ValueError):
        return None
    fits = 0 < width <= side and 0 < height <= side and len(pixels) == 3 * width * height
    return (width, height, pixels) if fits else None


def main() -> None:
    """Decode standard input and write `width height`, a newline and RGB bytes to standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from PIL import Image, ImageFile, ImageOps

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    side = int(sys.argv[1])
    with Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            sys.exit("too many pixels")
        image.draft(None, (2 * side, 2 * side))
        image.load()
        shown = image.convert("RGB")
    if shown.getcolors(1):
        sys.exit("nothing to be seen")
    shown.thumbnail((side, side))
    with suppress(Exception):  # what its metadata says is as doubtful as its pixels
        shown = ImageOps.exif_transpose(shown)
    sys.stdout.buffer.write(b"%d %d\n" % shown.size + shown.tobytes())


if __name__ == "__main__":
    main()
