"""Three nights of one dataset, as `make nights` shows them: each ends exactly as it should.

`IMAGES=5000 make nights` does it with more images.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from harness import Api, Ended, darkroom, manifest_rows, run_id_of, save

from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe, Rules
from data.generate import photo

IMAGES = int(os.environ.get("IMAGES", "400"))
RECIPE = Recipe(width=128, height=96, fit="cover")
OPTIONS = ("--width", "128", "--height", "96", "--fit", "cover")
HTML = b"<html>404 not found</html>"


@dataclass
class Dataset:
    """A source, and checks of its destination."""

    source: Path
    destination: Path
    seed: int = 0

    def write(self, path: str) -> None:
        """Write an image that differs from all others."""
        self.seed += 1
        save(self.source / path, photo(160, 120, seed=self.seed), quality=90)

    def run(self, api: Api, night: str, *options: str) -> Ended:
        command = ("run", self.source, self.destination, *OPTIONS, *options)
        ended = darkroom(*command, environment=api.environment, seconds=600)
        print(f"\n{night}\n{ended.out}{ended.err}")
        return ended

    def attempted(self) -> dict[str, str]:
        """Return the status that the run that published the manifest gave each image it attempted."""
        table = pq.read_table(self.destination / "runs" / f"{run_id_of(self.destination)}.parquet")
        return dict(zip(table["source_path"].to_pylist(), table["status"].to_pylist(), strict=True))

    def check(self, broken: dict[str, str]) -> None:
        """Check that outputs and manifest match the source: nothing more, nothing less, to the byte."""
        rows = manifest_rows(self.destination)
        sources = {str(path.relative_to(self.source)): path for path in self.source.rglob("*") if path.is_file()}
        assert list(rows) == sorted(sources, key=str.encode)
        outputs = {}
        for name, path in sources.items():
            data = path.read_bytes()
            row = rows[name]
            assert row["source_sha256"] == hashlib.sha256(data).hexdigest()
            assert row["error_code"] == broken.get(name)
            if name not in broken:
                outputs[row["file_name"]] = transform(data, RECIPE, Rules().max_pixels).data
                assert row["output_sha256"] == hashlib.sha256(outputs[row["file_name"]]).hexdigest()
        images = self.destination / "images"
        found = {str(path.relative_to(self.destination)): path for path in images.rglob("*") if path.is_file()}
        assert {name: path.read_bytes() for name, path in found.items()} == outputs

    def state(self) -> dict[Path, tuple[int, int]]:
        """Return inode and time of change of each file and folder outside the working state."""
        visible = [path for path in self.destination.rglob("*") if ".darkroom" not in path.parts]
        return {path: (path.stat().st_ino, path.stat().st_ctime_ns) for path in visible}


def test_three_nights(api: Api, tmp_path: Path):
    dataset = Dataset(tmp_path / "photos", tmp_path / "dataset")
    names = [f"{number // 100:03d}/{number:06d}.jpg" for number in range(IMAGES)]
    for name in names:
        dataset.write(name)

    ended = dataset.run(api, f"night 1: {IMAGES} images")

    assert ended.code == 0
    assert f"{IMAGES:,} made, 0 failed, 0 unchanged at" in ended.out
    assert dataset.attempted() == dict.fromkeys(names, "ok")
    dataset.check(broken={})

    percent = IMAGES // 100
    new = [f"new/{number:03d}.jpg" for number in range(3 * percent)]
    changed, deleted = names[5::100][:percent], names[50::100][:percent]
    broken = {"new/cut.jpg": "decode.truncated", "new/page.jpg": "decode.unknown_format"}
    for name in [*new, *changed]:
        dataset.write(name)
    for name in deleted:
        (dataset.source / name).unlink()
    (dataset.source / "new/cut.jpg").write_bytes((dataset.source / names[0]).read_bytes()[:2000])
    (dataset.source / "new/page.jpg").write_bytes(HTML)

    night = f"night 2: {len(new)} new, {len(changed)} changed, {len(deleted)} deleted, {len(broken)} broken"
    # Two of eighteen are more than the tenth that may fail.
    ended = dataset.run(api, night, "--max-failure-ratio", "0.2")

    unchanged = IMAGES - len(changed) - len(deleted)
    assert ended.code == 0
    assert (
        f"{len(new) + len(changed):,} made, 2 failed, {unchanged:,} unchanged, {len(deleted):,} deleted at" in ended.out
    )
    assert dataset.attempted() == dict.fromkeys([*new, *changed], "ok") | dict.fromkeys(broken, "failed")
    dataset.check(broken)

    before = dataset.state()

    ended = dataset.run(api, "night 3: nothing")

    assert ended.code == 0
    assert f"Nothing to do: {unchanged + len(new) + len(changed) + len(broken):,} images unchanged." in ended.out
    assert dataset.state() == before
