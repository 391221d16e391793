"""Compare a destination's outputs with a reference decoder: `python -m benchmarks.fidelity [SOURCE DESTINATION]`.

The reference is Pillow, which decodes every source at its full size, turns it upright, converts it to sRGB through its
profile, lays it on white, and averages it over each output pixel's area, which lies where the manifest's `scale_*` and
`offset_*` say. So it shows wrong orientation, colour, depth, transparency, size or position, and what reduced
decoding costs in sharpness. Without folders, the development corpus is prepared first.

Prints SSIM (Wang et al. 2004; luma, Gaussian window of 11 pixels with sigma 1.5) per category, and writes the worst as
pictures: reference, output and their difference.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageCms, ImageOps

from benchmarks.measure import ROOT

CORPUS = ROOT.parent / "shared/corpus"
WINDOW, SIGMA = (11, 11), 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class Comparison:
    """One output beside its reference; pictures are (height, width, 3) RGB, uint8."""

    path: str
    category: str
    ssim: float
    reference: np.ndarray
    output: np.ndarray


def compare(source: Path, destination: Path) -> Iterator[Comparison]:
    """Compare every output whose source the reference can decode."""
    rows = pq.read_table(destination / "manifest.parquet", filters=[("status", "=", "ok")]).to_pylist()
    for row in rows:
        with Image.open(destination / row["file_name"]) as opened:
            output = np.asarray(flatten(opened))
        try:
            reference, visible = place(decode(source / row["source_path"]), row)
        except Exception as error:  # noqa: BLE001 - an independent decoder may fail in any way
            print(f"no reference: {row['source_path']}: {error}")
            continue
        seen = output[visible]
        yield Comparison(row["source_path"], category(row), ssim(reference, seen), reference, seen)


def decode(path: Path) -> Image.Image:
    """Return a picture upright, in sRGB, on white, as RGB of 8 bits."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        upright = Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8))
    if profile and upright.mode in {"RGB", "CMYK"}:
        converted = ImageCms.profileToProfile(
            upright, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, outputMode="RGB"
        )
        upright = converted or upright
    return flatten(upright)


def flatten(image: Image.Image) -> Image.Image:
    """Return a picture as RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


def place(image: Image.Image, row: dict[str, Any]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return the part of a source that is in an output, resampled, and the whole pixels that it covers there.

    Raises:
        ValueError: the manifest's mapping leads out of the source.
    """
    scale, offset = (row["scale_x"], row["scale_y"]), (row["offset_x"], row["offset_y"])
    spans, ends = [], []
    for axis, length in enumerate((row["width"], row["height"])):
        first = max(0, int(np.ceil(offset[axis] - 1e-6)))
        last = min(length, int(np.floor(offset[axis] + image.size[axis] * scale[axis] + 1e-6)))
        if last - first < 1:
            raise ValueError("no whole pixel of the output shows the source")
        spans.append(slice(first, last))
        low, high = ((each - offset[axis]) / scale[axis] for each in (first, last))
        ends.append((max(0.0, low), min(float(image.size[axis]), high)))
    counts = [span.stop - span.start for span in spans]
    if max(scale) <= 1:
        return average(np.asarray(image), ends, counts), (spans[1], spans[0])
    box = (ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    enlarged = image.resize((counts[0], counts[1]), Image.Resampling.BILINEAR, box=box)
    return np.asarray(enlarged), (spans[1], spans[0])


def average(pixels: np.ndarray, ends: list[tuple[float, float]], counts: list[int]) -> np.ndarray:
    """Return the means of (height, width, 3) pixels over equal areas: `counts` of them, across and down, in `ends`."""
    across, down = (
        overlaps(length, *each, count) for length, each, count in zip(pixels.shape[1::-1], ends, counts, strict=True)
    )
    channels = [down @ pixels[:, :, channel].astype(np.float32) @ across.T for channel in range(3)]
    return np.dstack(channels).round().clip(0, 255).astype(np.uint8)


def overlaps(length: int, low: float, high: float, count: int) -> np.ndarray:
    """Return the weight of each of `length` pixels in the means of `count` intervals between `low` and `high`."""
    edges = np.linspace(low, high, count + 1)[:, None]
    pixels = np.arange(length)
    shared = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (shared.clip(0) / np.diff(edges, axis=0)).astype(np.float32)


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean structural similarity of two RGB pictures of one size, by their luma; 1 for the same."""
    x, y = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float64) for each in (first, second))

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, WINDOW, SIGMA)

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))))


def category(row: dict[str, Any]) -> str:
    """Return what kind of picture a row is of: its format, mode, and whether it was turned or has warnings."""
    turned = ", turned" if row["orientation"] not in {None, 1} else ""
    warned = ", with a warning" if row["warnings"] else ""
    reduced = ", reduced" if row["source_format"] == "jpeg" and max(row["scale_x"], row["scale_y"]) < 0.5 else ""
    return f"{row['source_format']} {row['source_mode']}{reduced}{turned}{warned}"


def write_worst(comparisons: list[Comparison], folder: Path) -> None:
    """Write reference, output and their difference, four times as strong, side by side, as PNG files."""
    for number, each in enumerate(comparisons, 1):
        difference = np.clip(cv2.absdiff(each.reference, each.output).astype(np.int32) * 4, 0, 255).astype(np.uint8)
        together = np.hstack((each.reference, each.output, difference))
        Image.fromarray(together).save(folder / f"worst-{number}.png")
        print(f"{folder / f'worst-{number}.png'}  {each.ssim:.4f}  {each.path}")


def main() -> None:
    """Print the table, and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="SOURCE DESTINATION", help="a prepared dataset")
    parser.add_argument("--worst", type=int, default=5, help="number of pictures to write (default: 5)")
    parser.add_argument("--pictures", type=Path, help="where to write them (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if not options.folders:
            from darkroom import preprocess  # here, because importing Prefect takes a second
            from darkroom.tasks.settings import Recipe, Rules

            options.folders = [CORPUS, Path(temporary) / "dataset"]
            # PNG: the losses of JPEG's compression are not to be measured.
            recipe = Recipe(width=256, height=256, fit="inside", format="png")
            preprocess(str(CORPUS), str(options.folders[1]), recipe=recipe, rules=Rules(max_failure_ratio=1))
        if len(options.folders) != 2:
            parser.error("give both folders, the source and its destination, or none")
        if not (options.folders[1] / "manifest.parquet").is_file():
            parser.error(f"{options.folders[1]} has no manifest.parquet: give the destination of a run")
        compared = list(compare(*options.folders))
    groups = defaultdict(list)
    for each in compared:
        groups[each.category].append(each.ssim)
    print(f"\n{'category':44} {'images':>6} {'min':>7} {'5 %':>7} {'median':>7}")
    for name, values in sorted(groups.items(), key=lambda group: min(group[1])):
        low, middle = np.quantile(values, (0.05, 0.5))
        print(f"{name:44} {len(values):6} {min(values):7.4f} {low:7.4f} {middle:7.4f}")
    print()
    folder = options.pictures or Path(tempfile.mkdtemp(prefix="fidelity-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_worst(sorted(compared, key=lambda each: each.ssim)[: options.worst], folder)


if __name__ == "__main__":
    main()
