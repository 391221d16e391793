"""Generate pictures from a seed that cost an encoder what photographs do."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

CORPUS_QUALITY = 94  # gives 500×375 pixels about 110 kB, as such pictures have on the web
NEGATIVES = 8  # photos of which a corpus has variations
FILES_PER_FOLDER = 1000
GRAIN_TILE = 251  # prime, so that it does not repeat in step with the blocks of an encoder or the scale of a resize


def photo(width: int, height: int, seed: int) -> Pixels:
    """Return a landscape of `height` × `width` × RGB: sky above, ground below, so that its orientation shows.

    Smooth light, hard edges, texture at every scale and sensor grain give a JPEG of it the size of a
    photograph's. The same arguments give the same pixels.
    """
    rng = np.random.default_rng([seed, width, height])
    picture = _scene(rng, width, height)
    relief = _texture(rng, width, height)
    cv2.add(picture, cv2.merge([relief] * 3), dst=picture, dtype=cv2.CV_8U)
    return _add_grain(picture, rng)


def _scene(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Return sky, sun and three ranges of hills, all with hard outlines."""
    top, bottom = rng.integers((40, 90, 150), (110, 160, 230)), rng.integers((170, 150, 130), (240, 220, 200))
    fade = np.linspace(0, 1, height)[:, None, None]
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = top * (1 - fade) + bottom * fade
    sun = tuple(int(n) for n in rng.uniform((0.1, 0.08), (0.9, 0.25)) * (width, height))
    cv2.circle(picture, sun, max(2, min(width, height) // 14), (255, 244, 214), cv2.FILLED, cv2.LINE_AA)
    for distance in (0.4, 0.55, 0.75):
        ridge = distance + 0.05 * np.cumsum(rng.normal(size=24)) / 2
        outline = np.column_stack([np.linspace(-1, width, 24), ridge * height]).astype(np.int32)
        corners = np.array([[width, height], [-1, height]], np.int32)
        colour = rng.integers((30, 50, 20), (140, 130, 90)).tolist()
        cv2.fillPoly(picture, [np.vstack([outline, corners])], colour, cv2.LINE_AA)
    return picture


def _texture(rng: np.random.Generator, width: int, height: int) -> NDArray[np.int16]:
    """Return light and shade of `height` × `width`, finer and stronger towards the ground.

    The sizes of its details are fractions of the frame, so that more pixels have less detail each, as with a lens.
    """
    relief = np.zeros((height, width), np.float32)
    cells = 4
    while cells < 2 * width and cells <= 1024:
        octave = rng.standard_normal((cells * height // width + 1, cells), dtype=np.float32)
        relief += cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC) * (10 + cells**0.4)
        cells *= 2
    ground = np.clip(np.linspace(-0.6, 1.4, height, dtype=np.float32), 0.1, 1)[:, None]
    levels: NDArray[np.int16] = np.rint(relief * ground).astype(np.int16)
    return levels


def _add_grain(picture: Pixels, rng: np.random.Generator, strength: float = 5.0) -> Pixels:
    """Add sensor noise of `strength` levels (standard deviation) to `picture`, in place, and return it."""
    height, width = picture.shape[:2]
    tile = np.rint(rng.normal(0, strength, (GRAIN_TILE, GRAIN_TILE, 3))).astype(np.int16)
    grain = np.tile(tile, (-(-height // GRAIN_TILE), -(-width // GRAIN_TILE), 1))[:height, :width]
    cv2.add(picture, grain, dst=picture, dtype=cv2.CV_8U)
    return picture


def write_corpus(
    folder: Path, count: int, size: tuple[int, int], *, seed: int = 0, quality: int = CORPUS_QUALITY
) -> list[Path]:
    """Write `count` JPEGs of `size` (width, height), no two alike, to `folder`; return their paths in order.

    They are variations of a few photos, a thousand in each sub-folder. `folder` appears when all are written.

    Raises:
        FileExistsError: `folder` already holds something.
    """
    width, height = size
    names = [f"{number // FILES_PER_FOLDER:03}/{number:06}.jpg" for number in range(count)]
    with all_or_nothing(folder) as unfinished, threads() as pool:
        for parent in {PurePosixPath(name).parent for name in names}:
            (unfinished / parent).mkdir(parents=True)
        roomy = partial(photo, width * 9 // 8, height * 9 // 8)
        negatives = list(pool.map(roomy, range(seed, seed + min(NEGATIVES, count))))

        def write(number: int) -> None:
            rng = np.random.default_rng([seed, number])
            picture = _variation(negatives[number % len(negatives)], width, height, rng)
            (unfinished / names[number]).write_bytes(encoded(Image.fromarray(picture), "JPEG", quality=quality))

        list(pool.map(write, range(count)))
    return [folder / name for name in names]


def _variation(negative: Pixels, width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Return a variation of `negative` with random crop, mirroring, brightness and grain."""
    left, top = rng.integers(negative.shape[1] - width + 1), rng.integers(negative.shape[0] - height + 1)
    cut = negative[top : top + height, left : left + width]
    mirrored = cut[:, ::-1] if rng.random() < 0.5 else cut
    levels = np.clip(np.arange(256)[:, None] * rng.uniform(0.85, 1.15, 3), 0, 255)
    lit: Pixels = cv2.LUT(np.ascontiguousarray(mirrored), levels.astype(np.uint8)[None]).astype(np.uint8)
    return _add_grain(lit, rng, strength=2.0)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Encode `image` with Pillow; `file_format` and `options` are those of `Image.save`."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that is renamed to it on success and removed on failure."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists; delete it to make it again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as room:
        unfinished = Path(room, folder.name)
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(folder)


def threads() -> ThreadPoolExecutor:
    """Return a pool of threads, which work in parallel: NumPy and the codecs release the interpreter's lock."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
