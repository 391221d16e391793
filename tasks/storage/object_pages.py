"""The pages of a bucket's listing, which goes on around keys that the object-store client refuses.

The client fails on a page in which a key has an empty, `.` or `..` segment or a control character. Then the keys before
it are listed folder by folder, then that key, without size and time, and the listing goes on after all keys with the
same beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, InvalidPathError

from darkroom.tasks.storage.object_client import CUT_TRIES, Client, is_cut_short
from darkroom.tasks.storage.store import Skipped

if TYPE_CHECKING:
    from obstore import ObjectMeta

PAGE_ROWS = 1_000
"""Rows of a page of S3 and Google; Azure has 5,000."""

_REFUSED = re.compile(r'[Pp]ath "(.*?)"(?: contained|: Encountered)', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WRONG = re.compile(rf"(^|(?<=/))(/|\.{{1,2}}/|\.{{1,2}}$)|{_CONTROL.pattern}")
"""Matches the part of a key that the client refuses."""

_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
        pa.field("size", pa.int64()),
        pa.field("e_tag", pa.string()),
    ]
)


class Pages:
    """Lists the objects of a client.

    Args:
        client: the store's client.
        skipped: collects the folders with refused keys, whose listing may be incomplete.
    """

    def __init__(self, client: Client, skipped: Skipped | None) -> None:
        self._client = client
        self._skipped = skipped

    def below(self, prefix: str, after: str | None = None, refused: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield pages of the keys below a prefix and after a key; `refused` is the key where the last listing failed.

        Raises:
            BaseError: the store can't be listed; or, without `skipped`, the client refuses a key.
        """
        try:
            for batch in self._pages(prefix, after):
                after = batch["path"][-1].as_py()
                yield batch
        except InvalidPathError as error:
            found = _REFUSED.search(str(error))
            if not self._skipped or not found:
                raise
            yield from self._around(prefix, after or "", self._relative(found[1]), refused)

    def _pages(self, prefix: str, after: str | None) -> Iterator[pa.RecordBatch]:
        """Yield pages of a client's listing; continue after an answer that was cut short."""
        for tried in range(1, CUT_TRIES + 1):
            stream = obstore.list(self._client, prefix or None, offset=after, chunk_size=PAGE_ROWS, return_arrow=True)
            try:
                for page in stream:
                    batch = pa.record_batch(page)
                    after = batch["path"][-1].as_py()
                    yield batch
            except BaseError as error:
                if tried == CUT_TRIES or not is_cut_short(error):
                    raise
            else:
                return

    def _around(self, prefix: str, after: str, bad: str, refused: str | None) -> Iterator[pa.RecordBatch]:
        """Yield pages of the keys below a prefix and after a key, around a refused key."""
        if bad == refused:  # again: this store ignores the start of a listing
            self._note(prefix)
            return
        yield from self._between(prefix, after, bad)
        if not _CONTROL.search(bad):  # whose path would be another key's
            yield pa.RecordBatch.from_pylist([{"path": bad}], _SCHEMA)
        after = self._note_refused(bad)
        with suppress(FileNotFoundError):
            yield _batch([obstore.head(self._client, after)])
        yield from self.below(prefix, after, bad)

    def _relative(self, key: str) -> str:
        start = self._client.prefix or ""
        return key.removeprefix(f"{start}/") if start else key

    def _note_refused(self, key: str) -> str:
        """Record a refused key and those with the same beginning; return the least key after them."""
        wrong = _WRONG.search(key)
        end = wrong.end() if wrong else len(key)
        begin, last = key[: end - 1], key[end - 1 : end]
        self._note(key[:end])
        return begin + {"/": "0", "\x7f": "\x80"}.get(last, " " if last < " " else f"{last}0")

    def _note(self, folder: str) -> None:
        if self._skipped and folder not in self._skipped.unreadable:
            self._skipped.counts["unreadable_folder"] += 1
            self._skipped.unreadable.append(folder)

    def _between(self, prefix: str, after: str, bad: str) -> Iterator[pa.RecordBatch]:
        """Yield pages of the keys below a prefix, after a key and before a refused one."""
        try:
            level = obstore.list_with_delimiter(self._client, prefix or None)
        except InvalidPathError:
            self._note(prefix)
            return
        objects: dict[str, ObjectMeta] = {each["path"]: each for each in level["objects"]}
        folders = {f"{each}/" for each in level["common_prefixes"]}
        for key in sorted([*objects, *folders - {f"{prefix}/", "/"}], key=str.encode):
            if key in objects:
                if after < key < bad:
                    yield _batch([objects[key]])
            elif bad.startswith(key):
                yield from self._between(key.removesuffix("/"), after, bad)
            elif key < bad and (key > after or after.startswith(key)):
                yield from self.below(key.removesuffix("/"), after if after.startswith(key) else None)


def _batch(objects: list[ObjectMeta]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{name: each[name] for name in _SCHEMA.names} for each in objects], _SCHEMA)  # type: ignore[literal-required]
