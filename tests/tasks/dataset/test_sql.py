import os

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.integrity import find_damage
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.storage.local import LocalFolder

ODD_FOLDERS = ["[a]*?'", "a*", "a?", "[ab]", "{a,b}", 'quote"', "back\\slash", "per%cent;--", "é\n", "status=ok", "~"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_is_quoted(value):
    assert duckdb.sql(f"SELECT {sql.text(value)}").fetchall() == [(value,)]


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_paths_are_taken_literally(tmp_path, name):
    for folder in ("a", "ab", "aa", "b", name):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"x": [folder]}), tmp_path / folder / "t.parquet")
    with sql.connect(tmp_path) as db:
        query = f"FROM {sql.parquet(tmp_path / name / 't.parquet', tmp_path / 'b' / 't.parquet')}"
        rows = [row for batch in sql.stream(db, query, 10) for row in batch.to_pylist()]
        sql.copy(db, query, tmp_path / name / "copy.parquet")
    assert rows == [{"x": name}, {"x": "b"}]
    assert pq.read_table(tmp_path / name / "copy.parquet", partitioning=None).to_pylist() == rows
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["copy.parquet", "t.parquet"]


def test_columns_that_older_files_lack_are_null(tmp_path):
    schema = pa.schema([("path", pa.string()), ("seen", pa.timestamp("us", tz="UTC")), ("size", pa.int64())])
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    pq.write_table(pa.table({"path": ["a"], "size": [1]}), old)
    pq.write_table(pa.table({"path": ["b"], "seen": [0], "size": [2]}, schema=schema), new)
    expected = {
        (): [],
        (old,): [("a", None, 1)],
        (new,): [("b", "1970", 2)],
        (new, old): [("a", None, 1), ("b", "1970", 2)],
        (old, new): [("a", None, 1), ("b", "1970", 2)],
    }
    with sql.connect(tmp_path) as db:
        for files, rows in expected.items():
            sql.view(db, "found", files, schema)
            assert db.execute("DESCRIBE found").fetchall()[1][:2] == ("seen", "TIMESTAMP WITH TIME ZONE")
            assert db.execute("SELECT path, strftime(seen, '%Y'), size FROM found ORDER BY path").fetchall() == rows


def test_a_stream_comes_in_batches_of_at_most_so_many_rows(tmp_path):
    with sql.connect(tmp_path) as db:
        batches = list(sql.stream(db, "SELECT i FROM range(10000) AS t(i) ORDER BY i", 4096))
    assert max(batch.num_rows for batch in batches) <= 4096
    assert [value for batch in batches for value in batch.column(0).to_pylist()] == list(range(10000))
    assert len(batches) > 1


def test_work_beyond_the_memory_limit_spills_to_the_scratch_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "MEMORY_LIMIT", "40MB")
    with sql.connect(tmp_path) as db:
        db.execute("SET threads = 1")
        rows = 0
        for batch in sql.stream(db, "SELECT md5(i::VARCHAR) AS h FROM range(1500000) AS t(i) ORDER BY h", 65_536):
            rows += batch.num_rows
            if rows == batch.num_rows:
                assert list((tmp_path / "spill").iterdir())
    assert rows == 1_500_000


def test_times_are_utc(tmp_path):
    with sql.connect(tmp_path) as db:
        [(text,)] = db.execute("SELECT (TIMESTAMPTZ '2026-01-01 00:00:00+00')::VARCHAR").fetchall()
    assert text == "2026-01-01 00:00:00+00"


@pytest.mark.parametrize("query", ["SELECT y FROM {}", "SELECT x::DATE FROM {}", "SELECT error('x') FROM {}"])
def test_errors_of_duckdb_become_darkroom_errors(tmp_path, query):
    pq.write_table(pa.table({"x": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DarkroomError, match=r"The destination's files|is damaged"), sql.connect(tmp_path) as db:
        db.execute(query.format(sql.parquet(tmp_path / "t.parquet"))).fetchall()


def test_a_sealed_copy_is_whole_even_without_rows(tmp_path):
    for rows in (0, 200_000):
        with sql.connect(tmp_path) as db:
            sql.copy_sealed(db, f"SELECT i FROM range({rows}) AS t(i) ORDER BY i", tmp_path / "t.parquet")
        assert find_damage(LocalFolder(os.fsencode(tmp_path)), "t.parquet") is None
        assert pq.read_table(tmp_path / "t.parquet")["i"].to_pylist() == list(range(rows))
