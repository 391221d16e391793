"""Whole runs from and to buckets of a real S3 server."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import Api, darkroom, save

from darkroom.tasks.imaging.transform import transform
from darkroom.tasks.settings import Recipe, Rules
from darkroom.tasks.storage.object_keys import MAX_KEY_BYTES
from darkroom.tasks.storage.object_store import open_object_store
from data.generate import photo
from tests.azure_server import azure_server
from tests.contents import files
from tests.fault_proxy import Fault, fault_proxy
from tests.gcs_server import gcs_server
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

TwoBuckets = Callable[[Path], AbstractContextManager[tuple[dict[str, str], list[str]]]]

WHOLE = ["a.jpg", "a.jpg/inside.jpg", "b/é ü.png", "sub/page.jpg", "x/" + "y" * 200 + "/" + "z" * 200 + ".jpg"]
PAGE = b"<html>not found</html>"


class Dataset:
    """A source and a destination, each in a folder or in a bucket."""

    def __init__(self, api: Api, s3: S3Server, folder: Path, source: str, destination: str) -> None:
        self.environment = api.environment | s3.environment
        self.s3, self.bucket, self.folder = s3, s3.make_bucket(), folder
        self.source = f"s3://{self.bucket}/photos" if source == "bucket" else str(folder / "photos")
        self.destination = f"s3://{self.bucket}/out" if destination == "bucket" else str(folder / "out")
        self.images: dict[str, bytes] = {}

    def add(self, path: str, data: bytes) -> None:
        self.images[path] = data
        if self.source.startswith("s3://"):
            self.s3.plant(self.bucket, f"photos/{path}", data)
        else:
            file = self.folder / "photos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    def remove(self, path: str) -> None:
        del self.images[path]
        if self.source.startswith("s3://"):
            self.s3.client.delete_object(Bucket=self.bucket, Key=f"photos/{path}")
        else:
            (self.folder / "photos" / path).unlink()

    def run(self) -> str:
        options = ("--max-failure-ratio", "1", "--max-delete-ratio", "1")
        ended = darkroom("run", self.source, self.destination, *options, environment=self.environment)
        assert ended.code == 0, ended.err
        return ended.out

    def published(self) -> dict[str, bytes]:
        """Return the files or objects of the destination, by path."""
        if self.destination.startswith("s3://"):
            found = self.s3.contents(self.bucket)
            return {key.removeprefix("out/"): data for key, data in found.items() if key.startswith("out/")}
        return files(Path(self.destination))

    def check(self, failed: dict[str, str]) -> None:
        """Check that manifest and outputs match the source, and that no working state is left."""
        found = self.published()
        rows = {row["source_path"]: row for row in pq.read_table(io.BytesIO(found["manifest.parquet"])).to_pylist()}
        assert rows.keys() == self.images.keys()
        assert {path: row["error_code"] for path, row in rows.items() if row["error_code"]} == failed
        wanted = {}
        for path, data in self.images.items():
            assert rows[path]["source_sha256"] == hashlib.sha256(data).hexdigest()
            assert (rows[path]["source_etag"] is not None) == self.source.startswith("s3://")
            if path not in failed:
                wanted[rows[path]["file_name"]] = transform(data, Recipe(), Rules().max_pixels).data
        assert {path: data for path, data in found.items() if path.startswith("images/")} == wanted
        working = {path for path in found if path.startswith(".") and not path.endswith(".lock")}
        assert working == {".darkroom/lease.json"}


@pytest.mark.parametrize(
    ("source", "destination"), [each for each in product(("folder", "bucket"), repeat=2) if "bucket" in each]
)
def test_from_and_to_buckets(api: Api, s3: S3Server, tmp_path: Path, source: str, destination: str):
    dataset = Dataset(api, s3, tmp_path, source, destination)
    for seed, path in enumerate(WHOLE):
        if path != "a.jpg/inside.jpg" or source == "bucket":
            dataset.add(path, PAGE if "page" in path else encoded(tmp_path, path, seed))
    failed = {"sub/page.jpg": "decode.unknown_format"}

    dataset.run()
    dataset.check(failed)
    before = dataset.published()
    assert "Nothing to do" in dataset.run()
    assert {path: data for path, data in dataset.published().items() if "lease" not in path} == {
        path: data for path, data in before.items() if "lease" not in path
    }

    dataset.add("a.jpg", encoded(tmp_path, "a.jpg", 77))
    dataset.add("new/c.jpg", encoded(tmp_path, "c.jpg", 78))
    dataset.remove("b/é ü.png")
    assert "2 made" in dataset.run()
    dataset.check(failed)
    verified = darkroom("verify", dataset.destination, environment=dataset.environment)
    assert (verified.code, "As the manifest says" in verified.out) == (0, True), verified.err


STRANGE = ["a//b.jpg", "a/../c.jpg", "a/./d.jpg", "//e.jpg"]


@pytest.mark.parametrize("destination", ["folder", "bucket"])
def test_keys_that_are_no_file_names_are_rows_and_touch_nothing_else(
    api: Api, s3: S3Server, tmp_path: Path, destination: str
):
    dataset = Dataset(api, s3, tmp_path, "bucket", destination)
    longest = f"l/{'x' * (MAX_KEY_BYTES - len('photos/l/.jpg'))}.jpg"
    for seed, path in enumerate(["a/b.jpg", "c.jpg", "a/d.jpg", "e.jpg", longest]):
        dataset.add(path, encoded(tmp_path, "a.jpg", seed))
    dataset.run()
    dataset.check({longest: "write.path_too_long"})
    before = {path: data for path, data in dataset.published().items() if path.startswith("images/")}
    for path in [*STRANGE, "folder/"]:
        s3.plant(dataset.bucket, f"photos/{path}", b"" if path.endswith("/") else dataset.images["c.jpg"])

    dataset.run()

    found = dataset.published()
    rows = {row["source_path"]: row for row in pq.read_table(io.BytesIO(found["manifest.parquet"])).to_pylist()}
    assert {path: rows[path]["error_code"] for path in STRANGE} == dict.fromkeys(STRANGE, "source.denied")
    assert "empty, . or .. segment" in rows["a//b.jpg"]["error_message"]
    assert rows.keys() == {*dataset.images, *STRANGE}
    assert {path: data for path, data in found.items() if path.startswith("images/")} == before


MOST_OTHER_REQUESTS = 55
"""Most requests of a rerun with nothing to do beside its two listings: for lease, manifest and working folders."""


def test_a_rerun_with_nothing_to_do_costs_the_two_listings(api: Api, s3: S3Server, tmp_path: Path):
    dataset, image = Dataset(api, s3, tmp_path, "bucket", "bucket"), encoded(tmp_path, "a.jpg", 0)
    for number in range(1_010):
        dataset.add(f"{number:04d}.jpg", image)
    assert "1,010 made" in dataset.run()
    with fault_proxy(s3.url) as proxy:
        dataset.environment["AWS_ENDPOINT_URL"] = proxy.url
        assert "Nothing to do" in dataset.run()

    pages = [request for request in proxy.requests if "list-type=2" in request and "delimiter" not in request]
    of_source = [page for page in pages if "prefix=photos%2F" in page]
    of_outputs = [page for page in pages if "prefix=out%2Fimages%2F" in page]
    assert len(of_outputs) == 2
    assert len(of_source) == 2 + 2  # two of them only check whether the source is empty
    assert len(proxy.requests) - 4 <= MOST_OTHER_REQUESTS


def encoded(folder: Path, path: str, seed: int) -> bytes:
    file = folder / f"encoded.{path.rpartition('.')[2]}"
    save(file, photo(160, 120, seed=seed), quality=90)
    return file.read_bytes()


def test_problems_of_buckets_are_reported_before_anything_starts(api: Api, s3: S3Server, tmp_path: Path):
    bucket = s3.make_bucket()
    s3.plant(bucket, "photos/a.jpg", b"x")
    environment = api.environment | s3.environment
    for arguments, words in [
        (
            ("s3://no-such-bucket/x", str(tmp_path / "out")),
            "source: the bucket of s3://no-such-bucket/x does not exist.",
        ),
        ((f"s3://{bucket}/gone", str(tmp_path / "out")), f"source: there is no object below s3://{bucket}/gone/."),
        ((f"s3://{bucket}/photos", "s3://no-such-bucket"), "destination: the bucket of s3://no-such-bucket does not"),
        ((f"s3://{bucket}", f"s3://{bucket}/out"), "lies inside the source"),
        (("ftp://x/y", str(tmp_path / "out")), "is no URL of an object store"),
    ]:
        ended = darkroom("run", *arguments, environment=environment)
        assert ended.code != 0
        assert words in ended.err
        assert "Traceback" not in ended.err
    assert s3.keys(bucket) == ["photos/a.jpg"]
    assert not (tmp_path / "out").exists()


def test_a_token_that_expires_before_the_source_is_listed_is_the_source_s(api: Api, s3: S3Server, tmp_path: Path):
    dataset = Dataset(api, s3, tmp_path, "bucket", "folder")
    dataset.add("a.jpg", encoded(tmp_path, "a.jpg", 1))
    with fault_proxy(s3.url) as proxy:  # the first two requests look whether there is anything
        proxy.choose = lambda number: None if number <= 2 else Fault((403, "ExpiredToken"))
        dataset.environment["AWS_ENDPOINT_URL"] = proxy.url
        ended = darkroom("run", dataset.source, dataset.destination, environment=dataset.environment)
    assert ended.code != 0
    assert f"source: {dataset.source}/ can't be read: the store refuses these credentials (ExpiredToken)." in ended.err
    assert "Traceback" not in ended.err


@contextmanager
def two_buckets_of_azure(folder: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Provide the environment of a server's clients, and two buckets."""
    with azure_server(folder) as server:
        yield server.environment, [f"az://{server.make_container()}" for _ in range(2)]


@contextmanager
def two_buckets_of_google(_folder: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Provide the environment of a server's clients, and two buckets."""
    with gcs_server() as server:
        yield server.environment, [f"gs://{server.make_bucket()}" for _ in range(2)]


@pytest.mark.parametrize("two_buckets", [two_buckets_of_azure, two_buckets_of_google])
def test_from_and_to_other_clouds(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_buckets: TwoBuckets):
    with two_buckets(tmp_path) as (environment, buckets):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        source, destination = (open_object_store(f"{bucket}/x") for bucket in buckets)
        images = {f"sub/{number}.jpg": encoded(tmp_path, "a.jpg", number) for number in range(5)}
        for path, data in images.items():
            source.put(path, data)

        def run(*arguments: str) -> str:
            ended = darkroom(*arguments, environment=api.environment | environment)
            assert ended.code == 0, ended.err
            return ended.out

        assert "5 made, 0 failed" in run("run", source.location, destination.location)
        assert "Nothing to do" in run("run", source.location, destination.location)
        source.delete(["sub/0.jpg"])
        source.put("sub/1.jpg", images["sub/2.jpg"])
        assert "1 made, 0 failed, 3 unchanged, 1 deleted" in run("run", source.location, destination.location)
        assert "As the manifest says: 4 outputs" in run("verify", destination.location)
        assert sorted(destination.children("images/sub")) == [f"{number}.jpg" for number in range(1, 5)]
        made = transform(images["sub/2.jpg"], Recipe(), Rules().max_pixels).data
        assert destination.get("images/sub/1.jpg").data == destination.get("images/sub/2.jpg").data == made


def test_a_store_that_fails_now_and_then_costs_no_image(api: Api, s3: S3Server, tmp_path: Path):
    dataset = Dataset(api, s3, tmp_path, "bucket", "bucket")
    for number in range(40):
        dataset.add(f"{number:02d}.jpg", encoded(tmp_path, "a.jpg", number))
    kinds: list[tuple[int, str] | str] = ["lost", (500, "InternalError"), "reset", (503, "SlowDown"), "cut"]
    with fault_proxy(s3.url) as proxy:
        proxy.choose = lambda number: None if number % 9 else Fault(kinds[number // 9 % len(kinds)])
        dataset.environment["AWS_ENDPOINT_URL"] = proxy.url

        assert "40 made, 0 failed" in dataset.run()

    assert len(proxy.requests) > 9 * len(kinds)
    dataset.check({})
