import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks.dataset import ranges


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), max_size=40))
def test_every_path_is_in_one_range_and_ranges_ascend(paths):
    with duckdb.connect() as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ROW_GROUP_ROWS", 5)
        db.execute("CREATE TABLE paths (source_path VARCHAR)")
        if paths:
            db.executemany("INSERT INTO paths VALUES (?)", [[path] for path in paths])
        cut = [
            [path for (path,) in db.execute(f"FROM paths WHERE {within} ORDER BY 1").fetchall()]
            for within in ranges.path_ranges(db, "SELECT source_path FROM paths")
        ]
    assert [path for each in cut for path in each] == sorted(paths, key=str.encode)
    assert len(cut) <= max(1, -(-len(paths) // 5))
