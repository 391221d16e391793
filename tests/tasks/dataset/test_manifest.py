import json

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks import publish as publish_module
from darkroom.tasks.dataset import ranges, sql
from darkroom.tasks.dataset.manifest import SCHEMA, SCHEMA_VERSION, read_info, read_whole, write_table
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.settings import Recipe
from tests.places import destination_at
from tests.tasks.helpers import (
    SMALL,
    failed_row,
    manifest_rows,
    paths_of,
    publish_rows,
    publish_run,
    row,
)


def test_a_published_manifest_has_its_schema_metadata_order_and_encodings(place):
    publish_rows(place, [row("a.jpg", warnings=["truncated"]), row("b.png"), failed_row("c.jpg", "decode.corrupt")])
    file = pq.ParquetFile(place.manifest)
    assert file.schema_arrow.remove_metadata().equals(SCHEMA)
    footer = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    assert footer["schema_version"] == str(SCHEMA_VERSION)
    assert Recipe.model_validate(json.loads(footer["recipe"])) == SMALL
    assert (footer["recipe_id"], footer["run_id"]) == (SMALL.recipe_id, "run")
    group = file.metadata.row_group(0)
    assert group.sorting_columns == (pq.SortingColumn(0),)
    chunks = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    assert all(chunk.has_column_index and chunk.has_offset_index for chunk in chunks.values())
    dictionaries = {name for name, chunk in chunks.items() if chunk.has_dictionary_page}
    assert {"status", "source_format", "worker", "run_id", "recipe_id"} <= dictionaries
    assert not {"source_path", "source_sha256", "file_name", "output_sha256"} & dictionaries


def test_rows_come_back_as_they_were(place):
    rows = [row("a.jpg", warnings=["truncated", "icc_invalid"], frames=3), failed_row("b.jpg", "source.denied")]
    publish_rows(place, rows)
    assert list(manifest_rows(place).values()) == [dict.fromkeys(SCHEMA.names) | each for each in rows]


def test_row_groups_have_the_documented_size(place, monkeypatch):
    for module in (publish_module, ranges):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 2048)
    rows = [failed_row(f"{number:05d}.jpg", "decode.corrupt") for number in range(5000)]
    publish_rows(place, rows)
    metadata = pq.read_metadata(place.manifest)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert len(sizes) == 3, "as few as are needed, of about the same size: cuts are estimated from a sample"
    assert all(1400 < size < 2048 for size in sizes)
    assert list(manifest_rows(place)) == [row["source_path"] for row in rows]


def test_the_same_file_is_read_by_other_readers(place):
    publish_rows(place, [row("a.jpg"), failed_row("b\n'é.jpg", "decode.corrupt")])
    query = f"SELECT source_path, epoch_us(source_mtime), warnings FROM {sql.parquet(place.manifest)}"
    expected = [("a.jpg", 1793534400000000, []), ("b\n'é.jpg", 1793534400000000, [])]
    assert duckdb.sql(query).fetchall() == expected
    frame = pd.read_parquet(place.manifest)
    assert list(frame["source_path"]) == ["a.jpg", "b\n'é.jpg"]
    assert str(frame["processed_at"].dt.tz) == "UTC"


@settings(max_examples=12)
@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5), min_size=1))
def test_manifest_and_run_files_are_sorted_by_the_bytes_of_paths(tmp_path_factory, names):
    place = destination_at(tmp_path_factory.mktemp("sorted"))
    publish_run(place, [failed_row(name, "decode.corrupt") for name in names])
    expected = sorted(names, key=str.encode)
    assert paths_of(place.manifest) == expected
    assert paths_of(place.runs / "next.parquet") == expected


def test_a_missing_manifest_has_no_info(place):
    assert read_info(place) is None


def test_a_manifest_has_its_info(place):
    publish_rows(place, [row("a.jpg"), row("b.jpg")], run_id="r1")
    info = read_info(place)
    assert (info.rows, info.run_id, info.recipe, info.recipe_id) == (2, "r1", SMALL, SMALL.recipe_id)


@pytest.mark.parametrize(("version", "shown"), [("3", "version 3"), (None, "version unknown")])
def test_the_manifest_of_another_version_is_refused(place, version, shown):
    write_table(place.manifest, iter([]), {"schema_version": version} if version else {})
    for read in (read_info, read_whole):
        with pytest.raises(DarkroomError, match=rf"schema {shown}.*Use the version of Darkroom that wrote it"):
            read(place)
