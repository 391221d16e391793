import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.columns import FURTHER_ROWS_SQL, open_columns


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
