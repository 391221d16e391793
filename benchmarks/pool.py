"""The pool that the flow is compared with: `python -m benchmarks.pool SOURCE DEST`.

A careful pool of one process per core, which does to each image all that a shard does (read, hash, transform,
write beside the target and rename, hash the output) and sends nothing back but the hashes. No Prefect, no
Dask, no journal, no manifest. Prints the number of outputs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.independent import list_files
from darkroom.flows.runtime.cluster import local_workers
from darkroom.tasks.errors import ImageError
from darkroom.tasks.imaging.transform import configure_codecs, transform
from darkroom.tasks.settings import Compute, Recipe, Rules
from darkroom.tasks.storage.naming import output_name

CHUNK_IMAGES = 8
"""Images that a process is handed at a time."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the outputs of one source."""

    source: Path
    outputs: Path
    recipe: Recipe
    rules: Rules

    def __call__(self, name: str) -> tuple[str, str] | None:
        """Make one output and return the hashes of image and output; None if the image is broken."""
        try:
            data = (self.source / name).read_bytes()
            source_sha256 = hashlib.sha256(data).hexdigest()
            made = transform(data, self.recipe, self.rules.max_pixels)
        except ImageError:
            return None
        output = self.outputs / output_name(name, self.recipe.format)
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        temporary.write_bytes(made.data)
        temporary.replace(output)
        return source_sha256, hashlib.sha256(made.data).hexdigest()


def work(source: Path, destination: Path) -> int:
    """Make the outputs of all images of a folder, and return the number of outputs."""
    names = list_files(source)
    maker = Maker(source, destination / "images", Recipe(), Rules())
    with ProcessPoolExecutor(local_workers(Compute()), initializer=configure_codecs) as executor:
        return sum(hashes is not None for hashes in executor.map(maker, names, chunksize=CHUNK_IMAGES))


if __name__ == "__main__":
    print(work(*map(Path, sys.argv[1:])))
