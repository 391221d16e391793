"""The images that are measured on: generated ones, and real ones if `../shared/corpus` exists."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT
from data.photos import all_or_nothing, write_corpus

CACHE = Path(__file__).parent / ".cache"
"""The folder in which measurements keep corpora for the next ones."""

SHARED = ROOT.parent / "shared" / "corpus"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Different images, and the two numbers of images at which each contender is timed.

    Time that does not grow with the number of images shows in the difference. If a size is
    larger than the number of different images, each is used several times, under several names.
    """

    name: str
    describes: str
    write: Callable[[Path], object]
    """Writes the different images to a new folder."""

    sizes: tuple[int, int]
    version: str
    """Changes with what `write` writes."""

    def folder(self, images: int) -> Path:
        """Return a folder of `images` images, created if missing, with every byte in the page cache."""
        folder = CACHE / f"{self.name}-{self.version}" / str(images)
        if not folder.exists():
            with all_or_nothing(folder) as unfinished:
                _multiply(sorted(self.different().rglob("*.*")), unfinished, images)
        for path in folder.rglob("*.*"):
            path.read_bytes()
        return folder

    def different(self) -> Path:
        """Return the folder of the different images, created if missing."""
        folder = CACHE / f"{self.name}-{self.version}" / "different"
        if not folder.exists():
            self.write(folder)
        return folder


def corpora(*, quick: bool) -> list[Corpus]:
    """Return the corpora to measure on; with `quick`, a few generated images."""
    few = 20 if quick else 1
    small, camera = 1000 // few, 40 // (few // 2 or 1)
    found = [
        Corpus(
            "small",
            f"{small:,} generated JPEGs of 500×375",
            lambda folder: write_corpus(folder, small, (500, 375)),
            (1000 // few, 8000 // few),
            f"{small}",
        ),
        Corpus(
            "camera",
            f"{camera} generated JPEGs of 4000×3000",
            lambda folder: write_corpus(folder, camera, (4000, 3000)),
            (160 // few, 480 // few),
            f"{camera}",
        ),
    ]
    if quick:
        return found
    if (SHARED / "imagenet").is_dir():
        found.append(_shared("imagenet", (1000, 4000)))
    if (SHARED / "camera").is_dir():
        found.append(_shared("camera", (160, 480)))
    return found


def _shared(name: str, sizes: tuple[int, int]) -> Corpus:
    source = SHARED / name
    count = sum(1 for _ in source.iterdir())
    return Corpus(
        f"shared-{name}",
        f"{count} images of {source.relative_to(ROOT.parent)}",
        lambda folder: _copy(source, folder),
        sizes,
        f"{count}",
    )


def _copy(source: Path, folder: Path) -> None:
    with all_or_nothing(folder) as unfinished:
        for path in source.iterdir():
            shutil.copyfile(path, unfinished / path.name)


def _multiply(different: list[Path], folder: Path, images: int) -> None:
    """Link files until there are `images` names, with a sub-folder for each pass over the files."""
    for number in range(images):
        turn, which = divmod(number, len(different))
        link = folder / f"{turn:03}" / different[which].name
        link.parent.mkdir(exist_ok=True)
        os.link(different[which], link)
