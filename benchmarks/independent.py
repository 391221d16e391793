"""A pool without any of Darkroom's code: `python -m benchmarks.independent SOURCE DEST`.

What an experienced engineer writes in an hour: a process per core decodes each JPEG with simplejpeg at the scale that
Darkroom's default recipe takes, resizes it with OpenCV, encodes it and writes it. It reads JPEGs only, and checks,
hashes, syncs and records nothing. Prints the number of outputs.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import simplejpeg

SIDE = 600
QUALITY = 90
CHUNK_IMAGES = 8
"""Images that a process gets at a time."""


def resize_jpeg(data: bytes) -> bytes:
    """Resize a JPEG to `SIDE` × `SIDE` pixels."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    eighths = choose_eighths(height, width)
    smallest = (height * eighths // 8, width * eighths // 8) if eighths < 8 else (0, 0)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=smallest[0], min_width=smallest[1])
    shrinks = min(pixels.shape[:2]) >= SIDE
    resized = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return bytes(simplejpeg.encode_jpeg(resized, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))


def choose_eighths(height: int, width: int) -> int:
    """Return N of the smallest scale N/8, of those that libjpeg-turbo is fast at, with twice the output's size."""
    return next((eighths for eighths in (1, 2, 4) if min(height, width) * eighths // 8 >= 2 * SIDE), 8)


def make_outputs(names: list[str], source: Path, destination: Path) -> int:
    """Make the outputs of some files, and return their number."""
    for name in names:
        output = destination / name
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(resize_jpeg((source / name).read_bytes()))
    return len(names)


def list_files(source: Path) -> list[str]:
    """Return the paths of all files below a folder."""
    return sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())


def main() -> None:
    """Process the folder named on the command line."""
    source, destination = map(Path, sys.argv[1:])
    names = list_files(source)
    chunks = [names[start : start + CHUNK_IMAGES] for start in range(0, len(names), CHUNK_IMAGES)]
    one_thread = partial(cv2.setNumThreads, 1)
    with ProcessPoolExecutor(os.cpu_count(), initializer=one_thread) as executor:
        print(sum(executor.map(partial(make_outputs, source=source, destination=destination), chunks)))


if __name__ == "__main__":
    main()
