"""List a bucket in the order of keys, without skipped objects and folder markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from darkroom.tasks.storage.object_client import Client
from darkroom.tasks.storage.object_keys import SHIFTED_PATTERN, to_key, to_path
from darkroom.tasks.storage.object_pages import Pages
from darkroom.tasks.storage.store import Skip, Skipped, list_schema

PAGES_AT_ONCE = 16
"""Number of pages, of a thousand objects each, in a batch."""


def list_keys(
    client: Client, prefix: str, skip: Skip | None, skipped: Skipped | None, is_empty: Callable[[str], bool]
) -> Iterator[pa.RecordBatch]:
    """Yield the objects below a prefix, as batches of `list_schema`.

    Args:
        client: the store's client.
        prefix: the path of a folder; all objects if empty.
        skip: returns why to leave out an object or folder.
        skipped: collects the number of skipped paths, and the folders that can't be listed.
        is_empty: returns whether an object exists and is empty: a listed path may only be the marker of a folder.

    Raises:
        BaseError, ValueError: the store can't be listed, or, without `skipped`, a folder in it.
    """
    prefix = prefix.removesuffix("/")
    chosen = _Chosen(f"{prefix}/" if prefix else "", skip, skipped, is_empty)
    pages: list[pa.RecordBatch] = []
    for page in Pages(client, skipped).below(to_key(prefix)):
        if (found := chosen.of(_as_listing(page))).num_rows:
            pages.append(found)
        if len(pages) == PAGES_AT_ONCE:
            yield pa.concat_batches(pages)
            pages = []
    if pages:
        yield pa.concat_batches(pages)


def _as_listing(page: pa.RecordBatch) -> pa.RecordBatch:
    paths = page["path"].cast(pa.string())
    if pc.any(pc.match_substring_regex(paths, SHIFTED_PATTERN)).as_py():
        paths = pa.array(map(to_path, paths.to_pylist()), pa.string())
    # Answers to requests for one object have no fractions of seconds.
    mtime = pc.floor_temporal(page["last_modified"], unit="second").cast(pa.timestamp("us", tz="UTC"))
    nulls = pa.nulls(page.num_rows, pa.timestamp("us", tz="UTC"))
    columns = [paths, page["size"].cast(pa.int64()), mtime, nulls, _quoted(page["e_tag"].cast(pa.string()))]
    return pa.record_batch(columns, schema=list_schema())


def _quoted(etags: pa.Array) -> pa.Array:
    """Return etags with quotes, as in answers for single objects: Azure's listings leave them out."""
    return pc.if_else(pc.ends_with(etags, '"'), etags, pc.binary_join_element_wise('"', etags, '"', ""))


class _Chosen:
    """Filters a listing in the order of keys, in which the objects of a folder are adjacent."""

    def __init__(self, start: str, skip: Skip | None, skipped: Skipped | None, is_empty: Callable[[str], bool]) -> None:
        self._start = start
        self._skip = skip
        self._skipped = skipped
        self._is_empty = is_empty
        self._folders: list[tuple[str, bool]] = []
        """The folders of the last object, and whether each is skipped."""

        self._empty: set[str] = set()

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch without skipped objects and folder markers."""
        paths, sizes = batch["path"].to_pylist(), batch["size"].to_pylist()
        return batch.filter(pa.array(map(self._is_chosen, paths, sizes), pa.bool_()))

    def _is_chosen(self, path: str, size: int | None) -> bool:
        if self._skip and self._is_skipped(path):
            return False
        return size != 0 or self._is_empty_object(path)

    def _is_empty_object(self, path: str) -> bool:
        """Return whether a path is an empty object not seen yet: the client lists the marker `a/` as `a`, too."""
        if path in self._empty or not path or f"{path}/" == self._start or not self._is_empty(path):
            return False
        self._empty.add(path)
        return True

    def _is_skipped(self, path: str) -> bool:
        while self._folders and not path.startswith(self._folders[-1][0]):
            self._folders.pop()
        if self._folders and self._folders[-1][1]:
            return True
        at = len(self._folders[-1][0]) if self._folders else len(self._start)
        while (slash := path.find("/", at)) >= 0:
            at = slash + 1
            self._folders.append((path[:at], self._leaves_out(path[:at])))
            if self._folders[-1][1]:
                return True
        return self._leaves_out(path)

    def _leaves_out(self, path: str) -> bool:
        reason = self._skip(path) if self._skip else None
        if reason and self._skipped:
            self._skipped.counts[reason] += 1
        return bool(reason)
