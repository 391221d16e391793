"""The conformance suite of stores, run for each implementation, like `StoreTests` of zarr-python."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest

from darkroom.tasks.storage.object_keys import to_path
from darkroom.tasks.storage.store import ABSENT, Skipped, exists, list_schema, local_if_there, unused_name
from darkroom.tasks.storage.store_errors import Conflict, NotFound, StorageError, TooLarge

ODD = ["new\nline", "quote'\".jpg", "100%.jpg", "é🐈", "\uefff\uef80", " ", "*[a]?{b}", "-rf", "a/b c/d"]


class StoreTests:
    """Subclasses provide the fixture `store`, and access to its objects that bypasses the store."""

    def contents(self, store):
        """Return all objects by path, bypassing the store."""
        raise NotImplementedError

    def plant(self, store, path, data):
        """Create an object, bypassing the store."""
        raise NotImplementedError

    def listed(self, store, prefix="", **options):
        batches = list(store.list(prefix, **options))
        assert all(batch.schema.equals(list_schema()) for batch in batches)
        return {row["path"]: row for batch in batches for row in batch.to_pylist()}

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3 << 20])
    def test_an_object_is_read_with_its_version(self, store, size):
        data = os.urandom(size)
        self.plant(store, "a/b.jpg", data)
        found = store.get("a/b.jpg")
        assert bytes(found.data) == data
        assert found.version == store.head("a/b.jpg")
        assert found.version.size == size
        assert abs(datetime.now(UTC) - found.version.mtime) < timedelta(minutes=5)
        with store.open("a/b.jpg") as file:
            assert file.read() == data
            file.seek(size // 2)
            assert file.read() == data[size // 2 :]

    def test_the_first_bytes_of_an_object(self, store):
        self.plant(store, "a/b", b"12345")
        assert [store.get_start("a/b", size) for size in (3, 5, 4096)] == [b"123", b"12345", b"12345"]
        self.plant(store, "empty", b"")
        assert store.get_start("empty", 10) == b""
        with pytest.raises(NotFound):
            store.get_start("gone", 10)

    def test_an_object_is_read_into_given_memory(self, store):
        self.plant(store, "a", b"data")
        memory = bytearray(100)
        found = store.get_into("a", lambda size: memoryview(memory)[10 : 10 + size])
        assert bytes(found.data) == b"data" == memory[10:14]
        assert found.data.obj is memory

    def test_an_object_larger_than_allowed_is_not_read(self, store):
        self.plant(store, "a", b"12345")
        assert len(store.get("a", max_bytes=5).data) == 5
        with pytest.raises(TooLarge, match="5 bytes") as caught:
            store.get("a", max_bytes=4)
        assert (caught.value.path, caught.value.transient) == ("a", False)

    def test_an_object_that_does_not_exist(self, store, tmp_path):
        self.plant(store, "folder/a", b"x")
        for path in ("gone", "gone/b", "folder", "folder/b"):
            for look in (store.get, store.open, store.head, lambda path: store.local(path, tmp_path)):
                with pytest.raises(NotFound) as caught:
                    look(path)
                assert caught.value.path == path
            assert not exists(store, path)
            assert local_if_there(store, path, tmp_path) is None
        with pytest.raises(NotFound):
            store.move("gone", "elsewhere")

    def test_a_local_file_has_the_bytes(self, store, tmp_path):
        self.plant(store, "a/x.parquet", b"one")
        self.plant(store, "b/x.parquet", b"other")
        files = [store.local(path, tmp_path) for path in ("a/x.parquet", "b/x.parquet")]
        assert [file.read_bytes() for file in files] == [b"one", b"other"]

    @pytest.mark.parametrize("durable", [False, True])
    def test_a_put_replaces_an_object_whole(self, store, durable):
        for data in (b"some data", b"", b"x" * (1 << 20), memoryview(b"view")[1:]):
            version = store.put("a/b/c.jpg", data, durable=durable)
            assert self.contents(store) == {"a/b/c.jpg": bytes(data)}
            assert version == store.head("a/b/c.jpg") == store.get("a/b/c.jpg").version
        store.flush()

    def test_odd_names_are_kept(self, store):
        for path in ODD:
            store.put(path, path.encode("utf-8", "surrogatepass"))
        assert self.contents(store).keys() == set(ODD)
        assert self.listed(store).keys() == set(ODD)
        for path in ODD:
            assert bytes(store.get(path).data).decode() == path

    def test_a_put_that_expects_no_object_never_replaces_one(self, store):
        store.put("a/lease", b"first", expected=ABSENT)
        with pytest.raises(Conflict):
            store.put("a/lease", b"second", expected=ABSENT)
        assert bytes(store.get("a/lease").data) == b"first"

    def test_only_the_expected_version_is_replaced(self, store):
        first = store.put("a", b"1")
        second = store.put("a", b"2", expected=first)
        for stale in (first, ABSENT):
            with pytest.raises(Conflict) as caught:
                store.put("a", b"3", expected=stale)
            assert caught.value.path == "a"
        store.put("a", b"4", expected=second)
        assert bytes(store.get("a").data) == b"4"
        with pytest.raises(Conflict):
            store.put("b", b"5", expected=second)
        assert not exists(store, "b")

    def test_versions_of_puts_in_quick_succession_differ(self, store):
        versions = [store.put("a", b"--", expected=ABSENT)]
        for number in range(50):
            versions.append(store.put("a", b"%02d" % number, expected=versions[-1]))
        assert len(set(versions)) == 51
        assert store.head("a") == versions[-1]

    def test_exactly_one_of_concurrent_conditional_puts_succeeds(self, store):
        version, barrier = ABSENT, Barrier(4)

        def put(data):
            barrier.wait(30)
            try:
                return store.put("lease", data, expected=version)
            except Conflict:
                return None

        with ThreadPoolExecutor(4) as pool:
            for number in range(20):  # new bytes each time: an etag may be their hash
                won = list(filter(None, pool.map(put, (b"%d %d" % (number, each) for each in range(4)))))
                assert len(won) == 1
                [version] = won
                assert store.head("lease") == version

    def test_a_finished_file_becomes_an_object(self, store):
        store.put("a/table.parquet", b"former")
        with store.scratch("a") as scratch:
            file = scratch / "new"
            file.write_bytes(b"table")
            store.put_file("a/table.parquet", file)
            store.put_file("new/folder/table", _written(scratch / "more", b"more"))
        assert self.contents(store) == {"a/table.parquet": b"table", "new/folder/table": b"more"}

    def test_scratch_is_removed_even_after_an_error(self, store):
        with pytest.raises(ZeroDivisionError), store.scratch("work") as scratch:
            _written(scratch / "file", b"x")
            raise ZeroDivisionError
        assert not scratch.exists()
        assert self.contents(store) == {}

    def test_a_moved_object_is_only_at_its_new_path(self, store):
        self.plant(store, "a/b/c", b"data")
        store.move("a/b/c", "kept/a/b/c")
        assert self.contents(store) == {"kept/a/b/c": b"data"}
        assert list(store.children("")) == ["kept/"]

    def test_deleted_objects_are_gone_and_others_stay(self, store):
        for path in ("a/b/c", "a/d", "e"):
            self.plant(store, path, b"x")
        store.delete(iter(["a/b/c", "gone", "gone/b", "a", "e/x"]))
        assert self.contents(store).keys() == {"a/d", "e"}
        store.delete(["a/d"])
        assert list(store.children("")) == ["e"]

    def test_everything_below_a_prefix_is_deleted(self, store):
        for path in ("a/b/c", "a/d", "ab/e"):
            self.plant(store, path, b"x")
        store.delete_below("a")
        store.delete_below("gone")
        assert self.contents(store).keys() == {"ab/e"}

    def test_a_listing_has_every_object_with_its_version(self, store):
        for path in ("a/1", "a/b/22", "ab/333", "4444"):
            self.plant(store, path, path.encode())
        found = self.listed(store)
        assert {path: row["size"] for path, row in found.items()} == {path: len(path) for path in self.contents(store)}
        for path, row in found.items():
            version = store.head(path)
            assert (row["size"], row["mtime"], row["etag"]) == (version.size, version.mtime, version.etag)
            assert row["ctime"] == version.ctime
        assert self.listed(store, "a").keys() == {"a/1", "a/b/22"}
        assert self.listed(store, "gone") == {}

    def test_a_listing_leaves_out_skipped_paths(self, store):
        for path in ("a.jpg", "b.txt", "c/d.jpg", ".git/e.jpg", "c/f.txt"):
            self.plant(store, path, b"x")
        skipped = Skipped()

        def skip(path):
            return "hidden" if path.startswith(".") else "text" if path.endswith(".txt") else None

        assert self.listed(store, skip=skip, skipped=skipped).keys() == {"a.jpg", "c/d.jpg"}
        assert (skipped.counts, skipped.unreadable) == ({"hidden": 1, "text": 2}, [])

    def test_children_are_the_names_directly_below(self, store):
        for path in ("a/1", "a/b/2", "a/b/3", "c"):
            self.plant(store, path, b"x")
        assert sorted(store.children("")) == ["a/", "c"]
        assert sorted(store.children("a")) == sorted(store.children("a/")) == ["1", "b/"]
        assert list(store.children("gone")) == []

    def test_a_store_without_objects_is_empty(self, store):
        assert store.is_empty()
        self.plant(store, "a/b", b"")
        assert not store.is_empty()

    def test_an_unused_name_has_the_lowest_free_number(self, store):
        assert unused_name(store, "runs", "r", ".parquet") == "r.parquet"
        for name in ("r.parquet", "r.2.parquet", "r.4.parquet"):
            self.plant(store, f"runs/{name}", b"x")
        assert unused_name(store, "runs", "r", ".parquet") == "r.3.parquet"
        self.plant(store, "quarantine/check/images/a.jpg", b"x")
        assert unused_name(store, "quarantine", "check") == "check.2"

    @pytest.mark.parametrize("path", ["../outside", "a/../../outside", "a//b", "./a", ""])
    def test_no_path_leads_outside(self, store, tmp_path, path):
        before = sorted(tmp_path.rglob("*"))
        try:
            store.put(path, b"x")
        except StorageError:
            pass
        else:
            assert path in self.contents(store)
        assert [each for each in sorted(tmp_path.rglob("*")) if each not in before] == []


def split(store):
    """Return a store's bucket, and the prefix of its keys there."""
    bucket, _, prefix = store.location.partition("://")[2].partition("/")
    return bucket, f"{prefix}/" if prefix else ""


class BucketTests(StoreTests):
    """Subclasses provide the fixture `store`, and `server`, whose buckets tests access."""

    def contents(self, store):
        bucket, start = split(store)
        return {to_path(key.removeprefix(start)): data for key, data in self.server.contents(bucket).items()}

    def plant(self, store, path, data):
        bucket, start = split(store)
        self.server.plant(bucket, start + path, data)

    def test_objects_beside_the_prefix_are_not_listed(self, store):
        bucket, start = split(store)
        self.plant(store, "a.jpg", b"x")
        self.server.plant(bucket, "some/prefixed/other.jpg", b"beside it")
        beside = set() if start else {"some/prefixed/other.jpg"}
        assert self.listed(store).keys() == {"a.jpg", *beside}


def _written(file, data):
    file.write_bytes(data)
    return file
