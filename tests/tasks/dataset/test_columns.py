import secrets

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset import ranges, sql
from darkroom.tasks.dataset.columns import FURTHER_ROWS_SQL, open_columns, write_columns


@pytest.fixture
def opened(tmp_path):
    def open_table(table):
        pq.write_table(pa.table(table), tmp_path / "columns.parquet")
        with sql.connect(tmp_path) as db:
            columns = open_columns(db, tmp_path / "columns.parquet")
            return columns, sql.rows(db, "FROM columns ORDER BY source_path")

    return open_table


def test_no_columns(tmp_path, opened):
    with sql.connect(tmp_path) as db:
        assert open_columns(db, None).digest == ""
        assert sql.rows(db, "FROM columns") == []
    assert opened({"source_path": ["a"]})[0].digest == ""


def test_the_digest_changes_with_names_types_and_values_alone(opened):
    first, rows = opened({"source_path": ["a", "b"], "label": ["x", None]})
    assert first.schema == pa.schema([pa.field("label", pa.string())])
    assert rows == [{"source_path": "a", "label": "x"}, {"source_path": "b", "label": None}]
    assert opened({"source_path": ["b", "a"], "label": [None, "x"]})[0].digest == first.digest
    others = [
        {"source_path": ["a", "b"], "label": [None, "x"]},
        {"source_path": ["a", "b"], "name": ["x", None]},
        {"source_path": ["a"], "label": ["x"]},
        {"source_path": ["a", "b"], "label": pa.array(["x", None], pa.large_string())},
    ]
    assert len({first.digest, *(opened(table)[0].digest for table in others)}) == 5


def test_a_row_counts_once_for_each_1000_bytes(tmp_path):
    pq.write_table(pa.table({"source_path": ["a", "b"], "text": ["é" * 1000, "short"]}), tmp_path / "columns.parquet")
    with sql.connect(tmp_path) as db:
        open_columns(db, tmp_path / "columns.parquet")
        assert sql.rows(db, FURTHER_ROWS_SQL) == [{"source_path": "a"}] * 2


@pytest.mark.slow
def test_values_that_exceed_the_memory_are_written_in_the_order_of_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "MEMORY_LIMIT", "150MB")
    monkeypatch.setattr(ranges, "ROW_GROUP_ROWS", 12_000)
    paths = [f"{number * 7919 % 12_000:05}.jpg" for number in range(12_000)]
    schema = pa.schema({"source_path": pa.string(), "text": pa.string()})
    with pq.ParquetWriter(tmp_path / "rows.parquet", schema) as rows:
        for start in range(0, 12_000, 500):
            texts = [secrets.token_hex(10_000) for _ in range(500)]
            rows.write_table(pa.table({"source_path": paths[start : start + 500], "text": texts}))
    with sql.connect(tmp_path) as db:
        write_columns(db, f"FROM {sql.parquet(tmp_path / 'rows.parquet')}", tmp_path / "columns.parquet")
    written = pq.read_table(tmp_path / "columns.parquet", columns=["source_path"])
    assert written["source_path"].to_pylist() == sorted(paths)
