import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.dataset.manifest import SCHEMA, footer, write_table
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.survey import check_settled
from tests.places import disk
from tests.tasks.helpers import (
    failed_row,
    make_job,
    open_workspace,
    publish_rows,
    row,
    write_output,
)
from tests.tasks.verifying import begin, kinds, put_manifest, verify

FAULTS = [
    ({"status": "odd"}, "its status is neither ok nor failed"),
    ({"file_name": None}, "it names no output"),
    ({"file_name": "images/../manifest.parquet"}, "its output is not below images/"),
    ({"file_name": "/etc/passwd"}, "its output is not below images/"),
    ({"file_name": "images//05.jpg"}, "its output is not below images/"),
    ({"output_sha256": "0" * 63}, "it does not say what its output is"),
    ({"output_bytes": None}, "it does not say what its output is"),
    ({"width": None}, "it does not say what its output is"),
    ({"status": "failed"}, "it failed, and yet names an output"),
    ({"status": "failed", "file_name": None}, "it failed, and does not say why"),
    ({"source_path": "0"}, "it is not in the order of source paths"),
]


def test_rows_that_contradict_themselves(place):
    rows = [row(f"{number:02}.jpg") | change for number, (change, _) in enumerate(FAULTS, 1)]
    doubled = [row("20.jpg"), row("20.jpg", file_name="images/other.jpg")]
    put_manifest(place, [row("00.jpg"), *rows, failed_row("12.jpg", "decode.corrupt"), *doubled, row("21.jpg")])
    found = {name: detail for name, (kind, detail) in verify(place)[1].items() if kind == "invalid_row"}
    names = [(each["file_name"] or each["source_path"]).removeprefix("images/") for each in rows]
    assert found == dict(zip(names, (detail for _, detail in FAULTS), strict=True)) | {
        "other.jpg": "it is not in the order of source paths"
    }


def test_a_manifest_whose_rows_are_out_of_order_over_several_row_groups(place):
    rows = [row(f"{number:04}.jpg") for number in range(1000)]
    rows[500], rows[501] = rows[501], rows[500]
    batches = (pa.RecordBatch.from_pylist(rows[start : start + 100], SCHEMA) for start in range(0, 1000, 100))
    write_table(place.manifest, batches, footer(make_job(place)))
    _, found = verify(place)
    assert [name for name, (kind, _) in found.items() if kind == "invalid_row"] == ["0500.jpg"]
    assert sum(kind == "missing" for kind, _ in found.values()) == 999


def test_an_empty_manifest_names_nothing(place):
    put_manifest(place, [])
    assert verify(place)[1] == {}
    write_output(place, "images/a.jpg")
    report, found = verify(place)
    assert kinds(found) == {"a.jpg": "foreign"}
    assert (report.outputs, report.reread) == (0, 0)


def test_destinations_that_have_no_settled_manifest_are_refused(nine):
    assert check_settled(nine).rows == 9
    whole = nine.manifest.read_bytes()
    nine.manifest.write_bytes(whole[:-1])
    with pytest.raises(DarkroomError, match="is damaged"):
        check_settled(nine)
    nine.manifest.unlink()
    with pytest.raises(DarkroomError, match="is missing"):
        check_settled(nine)
    shutil.rmtree(nine.runs)
    with pytest.raises(DarkroomError, match="No run has published anything"):
        check_settled(nine)
    nine.manifest.write_bytes(whole)
    open_workspace(nine, make_job(nine, run_id="dead"))
    with pytest.raises(DarkroomError, match=r"Run dead did not end.*Start 'darkroom run'"):
        check_settled(nine)


def test_an_images_folder_that_cannot_be_listed(nine):
    nine.images.rename(nine.root / "away")
    nine.images.write_text("a file in its place")
    _, found = verify(nine)
    assert kinds(found) == dict.fromkeys(["images", *(f"{number}.jpg" for number in range(9))], "unreadable")
    nine.images.unlink()
    assert set(kinds(verify(nine)[1]).values()) == {"missing"}


def planned(place, **options):
    """Return the outputs that a verification reads again."""
    workspace, found = begin(place, **options)
    names = pq.read_table(disk(workspace, "plan"))["file_name"].to_pylist() if found.shards else []
    workspace.remove()
    assert len(names) == found.reread
    return set(names)


def test_a_sample_has_the_given_size_and_depends_on_the_run_id(place):
    publish_rows(place, [row(f"{number:02}.jpg") for number in range(20)])
    every = planned(place)
    assert len(every) == 20
    runs = {run_id: planned(place, sample=0.5, run_id=run_id) for run_id in "abcdefghijkl"}
    assert {len(names) for names in runs.values()} == {10}
    assert planned(place, sample=0.5, run_id="a") == runs["a"]
    assert len({frozenset(names) for names in runs.values()}) == len(runs)
    assert set.union(*runs.values()) == every
    assert planned(place, sample=0.7, run_id="a") > runs["a"]
    assert len(planned(place, sample=1e-9)) == 1
    assert len(planned(place, sample=0.051)) == 2


def test_the_whole_list_of_outputs_is_compared_whatever_the_sample(nine):
    (nine.images / "0.jpg").unlink()
    os.truncate(nine.images / "1.jpg", 1)
    write_output(nine, "images/x.jpg")
    report, found = verify(nine, sample=0.01)
    assert kinds(found) == {"0.jpg": "missing", "1.jpg": "damaged", "x.jpg": "foreign"}
    assert report.reread == 1
