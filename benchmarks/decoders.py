"""Measure memory and time of one image of every format against the stated bounds: `python -m benchmarks.decoders`.

Each image is transformed in a fresh process of its own, once with the default recipe and once to an output as large
as itself, which takes most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.measure import ROOT
from darkroom.tasks.imaging.limits import BYTES_PER_PIXEL
from darkroom.tasks.imaging.transform import configure_codecs, transform
from darkroom.tasks.settings import Recipe
from darkroom.tasks.worker.orders import Orders
from data.photos import encoded, photo

SIZES = ("600×600", "as large")


def recipe(size: str, side: int) -> Recipe:
    """Return the recipe for square pictures of `side` pixels a side."""
    # Ten pixels less, so that it is resampled.
    return Recipe() if size == "600×600" else Recipe(width=side - 10, height=side - 10, format="png", filter="lanczos")


def files(side: int) -> dict[str, bytes]:
    """Return a square picture of `side` pixels a side in every format, by name."""
    pixels = photo(side, side, 1)
    image, deep = Image.fromarray(pixels), pixels.astype(np.uint16) * 257
    clear = np.dstack((pixels, pixels[:, ::-1, 0]))
    fast = {"speed": 10}
    return {
        "jpeg": encoded(image, "JPEG", quality=85),
        "jpeg, progressive 4:4:4": encoded(image, "JPEG", quality=85, progressive=True, subsampling=0),
        "jpeg, CMYK": encoded(image.convert("CMYK"), "JPEG", quality=85, progressive=True),
        "png": encoded(image, "PNG", compress_level=1),
        "png, transparent": encoded(Image.fromarray(clear), "PNG", compress_level=1),
        "png, 16 bits": cv2.imencode(".png", np.dstack((deep, deep[:, :, :1])))[1].tobytes(),
        "gif": encoded(image.quantize(256), "GIF"),
        "tiff": encoded(image, "TIFF"),
        "tiff, LZW, 16 bits": cv2.imencode(".tiff", deep)[1].tobytes(),
        "webp": encoded(image, "WEBP", method=0),
        "webp, transparent": encoded(Image.fromarray(clear), "WEBP", lossless=True, method=0, quality=0),
        "avif": encoded(image, "AVIF", **fast),
        "avif, transparent": encoded(Image.fromarray(clear), "AVIF", subsampling="4:4:4", **fast),
        "jpeg2000": encoded(image, "JPEG2000"),
        "jpeg2000, transparent": encoded(Image.fromarray(clear), "JPEG2000"),
        "bmp": encoded(image, "BMP"),
        "ppm, own white": f"P6 {side} {side} 200\n".encode() + np.minimum(pixels, 200).tobytes(),
    }


def measure(path: Path, chosen: Recipe) -> tuple[float, float]:
    """Return the peak of memory above what this process held before, in bytes, and processor seconds."""
    configure_codecs()
    data = path.read_bytes()
    transform(encoded(Image.new("RGBA", (32, 32)), "PNG"), Recipe(), 1 << 20)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    transform(data, chosen, 1 << 40)
    return _memory("VmHWM") - before, time.process_time() - started


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) << 10


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoders", description=__doc__)
    parser.add_argument("--side", type=int, default=4000, help="pixels of each side (default: 4000)")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(Path(options.one[0]), recipe(options.one[1], options.side))))
        return
    pixels = options.side**2
    orders = Orders(max_pixels=pixels, max_image_seconds=60)
    print(f"{'':24} {'bytes a pixel':>22} {'µs a pixel':>16}   bound: {BYTES_PER_PIXEL} bytes a pixel, and some")
    print(f"{'':24} {'600×600':>11}{'as large':>11} {'600×600':>8}{'as large':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files(options.side).items():
            path = Path(folder, "image")
            path.write_bytes(data)
            peaks, seconds = zip(*(_measured_apart(path, size, options.side) for size in SIZES), strict=True)
            over = "   OVER" if max(peaks) > orders.memory_for(pixels, len(data)) else ""
            memory = "".join(f"{peak / pixels:11.1f}" for peak in peaks)
            took = "".join(f"{each * 1e6 / pixels:8.3f}" for each in seconds)
            print(f"{name:24} {memory} {took}{over}", flush=True)


def _measured_apart(path: Path, size: str, side: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.decoders", "--side", str(side), "--one", str(path), size]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    peak, seconds = json.loads(output)
    return peak, seconds


if __name__ == "__main__":
    main()
