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


def test_a_path_that_is_there_more_often_has_a_smaller_range():
    with duckdb.connect() as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "ROW_GROUP_ROWS", 10)
        wide = "SELECT unnest(repeat(['z'], 20)) AS source_path UNION ALL SELECT 'a' || i FROM range(20) r(i)"
        cut = list(ranges.path_ranges(db, wide))
    assert cut == ["source_path < 'a18'", "source_path >= 'a18' AND source_path < 'z'", "source_path >= 'z'"]
