import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.unlisted import below

folders = st.lists(st.sampled_from(["a", "b", "a b", "a!", "a0", "é", "\uefff"]), max_size=3).map("/".join)


def rows_below(paths, unlisted, scratch):
    with sql.connect(scratch) as db:
        db.register("rows", pa.table({"path": pa.array(paths, pa.string())}))
        found = below(db, "path", unlisted)
        query = f"SELECT path FROM (SELECT path FROM rows) {found.join} WHERE {found.condition}"
        everything = f"SELECT count(*) FROM (SELECT path FROM rows) {found.join}"
        assert db.execute(everything).fetchall() == [(len(paths),)], "no row is lost or there twice"
        return {path for (path,) in db.execute(query).fetchall()}


@given(st.sets(folders, max_size=8), st.sets(folders.map(lambda folder: f"{folder}/1.jpg".lstrip("/")), max_size=12))
def test_exactly_the_paths_below_a_folder_are_found(tmp_path_factory, unlisted, paths):
    expected = {path for path in paths for folder in unlisted if not folder or path.startswith(f"{folder}/")}
    assert rows_below(sorted(paths), unlisted, tmp_path_factory.getbasetemp()) == expected


def test_a_row_without_a_path_is_below_nothing(tmp_path):
    assert rows_below([None, "a/b"], ["a"], tmp_path) == {"a/b"}
    assert rows_below([None, "a/b"], [""], tmp_path) == {"a/b"}


@pytest.mark.timeout(60)
def test_ten_thousand_folders_are_found_in_little_time_and_memory(tmp_path):
    unlisted = [f"closed-{number}" for number in range(10_000)]
    paths = [f"closed-{number}/{image}.jpg" for number in range(0, 20_000, 2) for image in range(5)]
    tracemalloc.start()
    found = rows_below(paths, unlisted, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 25_000
    assert peak < 100e6
