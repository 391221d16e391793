"""The article's two ways: `python -m benchmarks.article loop|pool SOURCE`.

Both list the images of SOURCE, load and resize each, write nothing, and print the number of resized images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np


def loop(paths: Iterable[Path]) -> int:
    """Load and resize one image after the other, and return the number of resized images."""
    return sum(_load_and_resize(path) is not None for path in paths)


def pool(paths: Iterable[Path]) -> int:
    """Load and resize images in a process per core, which send the pixels back; return the number of resized images."""
    with ProcessPoolExecutor() as executor:
        return sum(image is not None for image in executor.map(_load_and_resize, paths))


def _load_and_resize(path: Path) -> np.ndarray | None:
    image = cv2.imread(str(path))
    return None if image is None else cv2.resize(image, (600, 600))


WAYS: dict[str, Callable[[Iterable[Path]], int]] = {"loop": loop, "pool": pool}


def main() -> None:
    """Process the folder named on the command line."""
    way, source = sys.argv[1:]
    print(WAYS[way](sorted(path for path in Path(source).rglob("*") if path.is_file())))


if __name__ == "__main__":
    main()
