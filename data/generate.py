"""Make the sample dataset: `python data/generate.py`.

Or a plain corpus for measurements: `python data/generate.py --count 1000 --size 500x375 DEST`.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

if not __package__:  # for a script, Python searches modules in this folder instead of the project's root
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.formats import ENCODERS, kind_by_suffix, oriented_jpeg
from data.photos import CORPUS_QUALITY, all_or_nothing, photo, threads, write_corpus

SAMPLE_COUNT = 240
CAMERA_SIZE = (4000, 3000)
COMMON_SIZES = (
    (200, 150),
    (320, 240),
    (500, 375),
    (500, 375),  # twice as common as the others
    (640, 480),
    (800, 533),
    (1024, 768),
    (1600, 1067),
)
PHOTO_ORIENTATIONS = (None, None, 1, 1, 3, 6, 6, 8)

BROKEN = ("inbox/cut short.jpg", "inbox/error page.jpg", "inbox/empty.png")
"""The images of the sample dataset that no decoder can read in full; each is broken in its own way."""

BROKEN_KINDS = ("cut short", "error page", "empty")

NOT_IMAGES = {
    "notes.txt": b"Shot on several cameras; some came by mail.\n",
    "2024/shot list.csv": b"roll,frames\n1,36\n2,24\n",
    ".DS_Store": b"\0\0\0\1Bud1",
    "2025/.hidden notes": b"not for publication\n",
}

AWKWARD_NAMES = (
    "a.jpg",
    "a.png",
    "a.png.jpg",  # collides with the usual name of the output of a.png
    "A.JPG",
    "a.jpg.webp",
    "two  spaces.jpg",
    " leading space.jpg",
    "-leading-dash.jpg",
    "--force.png",
    "100%.jpg",
    "%2e%2e%2fescaped.jpg",
    'it\'s "quoted".jpg',
    "back\\slash.jpg",
    "new\nline.jpg",
    "tab\there.png",
    "question?and#hash&more;.jpg",
    "[brackets] {braces} *.jpg",
    "$HOME `id` $(id).jpg",
    "many.dots...jpg",
    "Zażółć gęślą jaźń.jpg",
    "nai\u0308ve.jpg",  # a letter followed by a combining mark
    "日本語の写真.webp",
    "שלום.jpg",
    "emoji 🦊🏔️.jpg",
    "long " + "and longer " * 17 + "name.jpg",
    "SHOUTING.JPEG",
)


@dataclass(frozen=True)
class Sample:
    """One image of the sample dataset: its path, its kind, its size when upright, and its EXIF tag."""

    path: str
    kind: str
    width: int
    height: int
    orientation: int | None = None

    def scaled(self, scale: float) -> Sample:
        """Return the same image at `scale` times its width and height."""
        width, height = (max(1, round(side * scale)) for side in (self.width, self.height))
        return replace(self, width=width, height=height)

    def encode(self, seed: int) -> bytes:
        """Return the file's bytes."""
        upright = Image.fromarray(photo(self.width, self.height, seed))
        return oriented_jpeg(upright, self.orientation) if self.orientation else ENCODERS[self.kind](upright)


def write_sample(folder: Path, count: int = SAMPLE_COUNT, *, seed: int = 0, scale: float = 1) -> list[Path]:
    """Write the sample dataset of `count` images to `folder` and return the images' paths, sorted.

    The special images are always among them; the others are ordinary photos. `folder` appears when all are
    written. On a file system that ignores case, `A.JPG` is left out because of `a.jpg`.

    Raises:
        FileExistsError: `folder` already holds something.
        ValueError: `count` is smaller than the number of special images.
    """
    samples = [sample.scaled(scale) for sample in sample_plan(count, seed)]
    with all_or_nothing(folder) as unfinished, threads() as pool:
        if not _distinguishes_case(unfinished):
            samples = [sample for sample in samples if not sample.path.endswith("/A.JPG")]
        for name, content in NOT_IMAGES.items():
            _write(unfinished / name, content)

        def write(sample: Sample) -> None:
            _write(unfinished / sample.path, sample.encode(_seed_of(sample.path, seed)))

        list(pool.map(write, sorted(samples, key=lambda sample: -sample.width)))
    return sorted(folder / sample.path for sample in samples)


def sample_plan(count: int = SAMPLE_COUNT, seed: int = 0) -> list[Sample]:
    """Return the `count` images of the sample dataset: the special ones, then ordinary photos."""
    special = [*_awkward_names(), *_orientations(), *_formats(), *_camera(), *_broken()]
    if count < len(special):
        raise ValueError(f"a sample dataset has at least {len(special)} images, not {count}")
    return special + _ordinary(count - len(special), np.random.default_rng(seed))


def _awkward_names() -> list[Sample]:
    return [Sample(f"awkward names/{name}", kind_by_suffix(name), 320, 240) for name in AWKWARD_NAMES]


def _orientations() -> list[Sample]:
    return [Sample(f"orientations/orientation {n}.jpg", "jpeg", 500, 375, n) for n in range(1, 9)]


def _formats() -> list[Sample]:
    names = {
        "grey.jpg": "grey jpeg",
        "grey.png": "grey png",
        "cmyk.jpg": "cmyk jpeg",
        "progressive.jpg": "progressive jpeg",
        "16 bits.png": "16-bit png",
        "transparent.png": "rgba png",
        "transparent.webp": "rgba webp",
        "palette.png": "palette png",
        "animated.gif": "animated gif",
        "a png by content.jpg": "png",
    }
    samples = [Sample(f"formats/{name}", kind, 400, 300) for name, kind in names.items()]
    return [*samples, Sample("formats/one pixel high.png", "png", 640, 1)]


def _camera() -> list[Sample]:
    width, height = CAMERA_SIZE
    return [
        Sample("camera/DSC_0001.JPG", "jpeg", width, height, 1),
        Sample("camera/DSC_0002.JPG", "jpeg", height, width, 6),
        Sample("camera/DSC_0003.JPG", "jpeg", height, width, 8),
    ]


def _broken() -> list[Sample]:
    return [Sample(path, kind, 640, 480) for path, kind in zip(BROKEN, BROKEN_KINDS, strict=True)]


def _ordinary(count: int, rng: np.random.Generator) -> list[Sample]:
    """Return `count` photos in one folder per month, most of them JPEGs of the sizes that web pages use."""
    samples = []
    for number in range(count):
        suffix = rng.choice([".jpg", ".png", ".webp"], p=[0.76, 0.12, 0.12])
        sizes = COMMON_SIZES if suffix == ".jpg" else COMMON_SIZES[:5]
        width, height = (int(side) for side in sizes[rng.integers(len(sizes))] - rng.integers(0, 8, 2))
        orientation = PHOTO_ORIENTATIONS[rng.integers(len(PHOTO_ORIENTATIONS))] if suffix == ".jpg" else None
        if orientation in {6, 8}:
            width, height = height, width
        month = number * 18 // count
        path = f"{2024 + month // 12}/{month % 12 + 1:02}/IMG_{number:04}{suffix}"
        samples.append(Sample(path, kind_by_suffix(path), width, height, orientation))
    return samples


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _distinguishes_case(folder: Path) -> bool:
    probe = folder / "case"
    probe.touch()
    try:
        return not (folder / "CASE").exists()
    finally:
        probe.unlink()


def _seed_of(path: str, seed: int) -> int:
    """Return a seed for an image that depends only on its path and `seed`, not on the other images."""
    return zlib.crc32(path.encode(), seed)


def main(arguments: list[str] | None = None) -> None:
    """Write the sample dataset or a plain corpus; exit with a message if that fails."""
    options = _parser().parse_args(arguments)
    try:
        if options.count is None:
            paths = write_sample(options.folder, seed=options.seed)
        else:
            paths = write_corpus(
                options.folder, options.count, options.size, seed=options.seed, quality=options.quality
            )
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    total = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} images, {total / 1e6:.1f} MB, in {options.folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make the sample dataset or, with --count, a plain corpus of JPEGs of one size. "
        "The same options give the same bytes."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).with_name("sample"),
        metavar="DEST",
        help="folder to make; must be new or empty (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other photos (default: 0)")
    corpus = parser.add_argument_group("a plain corpus")
    corpus.add_argument("--count", type=_positive, help="number of JPEGs")
    corpus.add_argument(
        "--size", type=_size, default=(500, 375), metavar="WxH", help="their size in pixels (default: 500x375)"
    )
    corpus.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        default=CORPUS_QUALITY,
        metavar="1-100",
        help="their JPEG quality (default: %(default)s)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return _positive(width), _positive(height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500x375") from error


if __name__ == "__main__":
    main()
