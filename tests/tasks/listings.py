"""Listings of sources, made and read as tests need them."""

import pyarrow.parquet as pq

from darkroom.tasks import discover as discover_module
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.locations import open_source
from tests.places import destination_at, disk


def discover(source, listing, rules=Rules(), **options):  # noqa: B008 - frozen
    """List a source as a run does, and move the listing to a path."""
    workspace = destination_at(listing.parent / "lister").workspace("run")
    found = discover_module.discover(open_source(str(source), rules, **options), workspace, rules)
    disk(workspace, "listing").rename(listing)
    return found


def listed(listing):
    """Return the rows of a listing by path, and check that no path occurs twice."""
    rows = pq.read_table(listing).to_pylist()
    paths = [row["source_path"] for row in rows]
    assert len(set(paths)) == len(paths)
    return {row["source_path"]: row for row in rows}


def touch(path, data=b"data"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
