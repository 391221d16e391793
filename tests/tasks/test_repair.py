import errno
import itertools
import os
import shutil
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks import repair as repair_module
from darkroom.tasks.dataset.lease import hold_lease
from darkroom.tasks.errors import DestinationError
from darkroom.tasks.repair import repair
from darkroom.tasks.reporting.findings import collect_findings
from darkroom.tasks.storage.store import unused_name
from tests.contents import files, flip_bit
from tests.tasks.helpers import Killed, Killer, destination_in, manifest_rows, unprivileged, write_image, write_output
from tests.tasks.verifying import begin, kinds, make, read_again, verification, verify


def verify_and_repair(place, run_id="check"):
    """Verify and repair; return the report."""
    with hold_lease(place, run_id) as lease:
        workspace, found = begin(place, run_id=run_id)
        read_again(workspace, found)
        findings = collect_findings(workspace)
        repaired = repair(workspace, findings.file, lease) if findings else None
        workspace.remove()
    return verification(place, workspace, found, findings, repaired=repaired).build_report()


def spoil(place):
    """Cause every kind of damage that a repair handles; return the files that it moves."""
    images = place.images
    flip_bit(images / "0.jpg")
    os.truncate(images / "1.jpg", 100)
    (images / "2.jpg").unlink()
    (images / "3.jpg").unlink()
    write_output(place, "images/3.jpg/inner.jpg")
    write_output(place, "images/deep/er/foreign.txt", b"a user's")
    write_output(place, "images/deep/.darkroom-12-3", b"half")
    write_output(place, "images/\uefff\n.jpg", b"odd")
    moved = ("0.jpg", "1.jpg", "3.jpg/inner.jpg", "deep/er/foreign.txt", os.fsdecode(b"\xff\n.jpg"))
    return {f"images/{name}": (images / name).read_bytes() for name in moved}


def test_after_a_repair_the_next_run_makes_only_damaged_and_missing_outputs(source, nine):
    before, manifest = files(nine.images), nine.manifest.read_bytes()
    moved = spoil(nine)

    report = verify_and_repair(nine)

    assert report.counts == {"damaged": 2, "missing": 2, "foreign": 4}
    assert (report.moved, report.removed, report.problems) == (5, 1, ())
    assert files(nine.root / report.quarantine) == moved
    assert report.quarantine == ".darkroom/quarantine/check"
    assert files(nine.images) == {name: before[name] for name in before if name[0] in "45678"}
    assert not (nine.images / "deep").exists()
    assert nine.manifest.read_bytes() == manifest
    assert report.failure().splitlines() == [
        "2 damaged, 2 missing, 4 foreign; 9 outputs, 0 of them read again.",
        f"Repaired: 5 moved to {nine.root}/.darkroom/quarantine/check, 1 temporary removed.",
        "The next 'darkroom run' makes 4 again.",
    ]
    assert kinds(verify(nine)[1]) == dict.fromkeys(["0.jpg", "1.jpg", "2.jpg", "3.jpg"], "missing")
    shutil.rmtree(nine.findings)
    assert make(source, nine, run_id="next") == {"missing": 4}
    assert files(nine.images) == before
    assert {row["run_id"] for path, row in manifest_rows(nine).items() if path[0] in "45678"} == {"run"}
    assert verify(nine)[1] == {}
    assert files(nine.root / report.quarantine) == moved, "runs leave the quarantine alone"


def test_a_repair_without_findings_changes_nothing(nine):
    before = files(nine.root)
    report = verify_and_repair(nine)
    assert report.succeeded
    assert files(nine.root) == before | {".darkroom/lease.json": b"", ".darkroom/lease.lock": b""}


CHANGES = ("rename", "unlink", "rmdir", "mkdir")


def found_in(place):
    """Verify without repairing; return the workspace and the file of findings."""
    workspace, found = begin(place)
    read_again(workspace, found)
    return workspace, collect_findings(workspace).file


def test_wherever_a_repair_is_interrupted_nothing_is_lost_and_it_can_be_repeated(nine, tmp_path):
    whole = {name: data for name, data in files(nine.images).items() if name[0] in "45678"}
    moved = spoil(nine)
    _, findings = found_in(nine)
    for deaths in itertools.count(1):
        place = destination_in(tmp_path / str(deaths))
        shutil.copytree(nine.root, place.root, dirs_exist_ok=True)
        with hold_lease(place, "check") as lease, pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, deaths, *CHANGES)
            with suppress(Killed):
                repair(place.workspace("check", "verify"), findings, lease)
        verify_and_repair(place, run_id="again")
        kept = [files(folder) for folder in place.quarantine.iterdir()]
        assert dict(item for folder in kept for item in folder.items()) == moved, deaths
        assert sum(map(len, kept)) == len(moved)
        assert files(place.images) == whole
        if killer.left > 0:
            break
    assert deaths > 15


def test_unreadable_files_are_not_moved(open_path):
    source, place = open_path / "source", destination_in(open_path)
    for name in ("a.jpg", "b.jpg", "closed/c.jpg"):
        write_image(source / name)
    make(source, place)
    (place.images / "a.jpg").chmod(0)
    (place.images / "closed").chmod(0)
    flip_bit(place.images / "b.jpg")
    for folder in (place.root, place.work, place.images):
        folder.chmod(0o777)
    with unprivileged():
        report = verify_and_repair(place)
    assert report.counts == {"damaged": 1, "unreadable": 3}
    assert (report.moved, report.problems) == (1, ())
    assert "may be intact" in report.failure()


def test_files_that_cannot_be_moved_are_reported(open_path):
    source, place = open_path / "source", destination_in(open_path)
    for name in ("a.jpg", "b/b.jpg", "b/c.jpg"):
        write_image(source / name)
    make(source, place)
    for name in ("a.jpg", "b/b.jpg", "b/c.jpg"):
        flip_bit(place.images / name)
    (place.images / "b").chmod(0o555)
    for folder in (place.root, place.work, place.images):
        folder.chmod(0o777)
    with unprivileged():
        report = verify_and_repair(place)
    assert report.moved == 1
    assert report.problems == (
        "2 files could not be moved or removed, the first for this reason: images/b/b.jpg: Permission denied.",
    )
    assert {str(path.relative_to(place.images)) for path in place.images.rglob("*.jpg")} == {"b/b.jpg", "b/c.jpg"}


def test_a_quarantine_on_another_disk(source, nine, monkeypatch):
    def rename(*_args):
        raise OSError(errno.EXDEV, "x")

    moved = spoil(nine)
    monkeypatch.setattr(os, "rename", rename)
    report = verify_and_repair(nine)
    assert files(nine.root / report.quarantine) == moved
    assert make(source, nine, run_id="next") == {"missing": 4}


def test_links_are_moved_without_their_targets(source, nine, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(b"0123456789")
    (nine.images / "folder").symlink_to(outside)
    (nine.images / "0.jpg").unlink()
    (nine.images / "0.jpg").symlink_to(outside / "x.jpg")
    report = verify_and_repair(nine)
    assert report.counts == {"damaged": 1, "foreign": 1}
    quarantine = nine.root / report.quarantine / "images"
    assert (quarantine / "folder").readlink() == outside
    assert (quarantine / "0.jpg").readlink() == outside / "x.jpg"
    assert files(outside) == {"x.jpg": b"0123456789"}
    assert make(source, nine, run_id="next") == {"missing": 1}


def test_a_file_in_the_place_of_a_folder(source, place):
    write_image(source / "a/b.jpg")
    make(source, place)
    shutil.rmtree(place.images / "a")
    (place.images / "a").write_bytes(b"in the way")
    report = verify_and_repair(place)
    assert report.counts == {"missing": 1, "foreign": 1}
    assert files(place.root / report.quarantine) == {"images/a": b"in the way"}
    assert make(source, place, run_id="next") == {"missing": 1}
    assert verify(place)[0].outputs == 1
    assert verify(place)[1] == {}


def test_a_second_repair_by_the_same_run_has_files_of_its_own(nine):
    first = spoil(nine)
    verify_and_repair(nine)
    write_output(nine, "images/deep", b"now a file")
    report = verify_and_repair(nine)
    assert report.quarantine == ".darkroom/quarantine/check.2"
    assert report.findings_file == "findings/check.2.parquet"
    assert files(nine.quarantine / "check.2") == {"images/deep": b"now a file"}
    assert files(nine.quarantine / "check") == first
    assert unused_name(nine.store, ".darkroom/quarantine", "check") == "check.3"


def test_a_repair_that_lost_its_lease_stops(nine, monkeypatch):
    monkeypatch.setattr(repair_module, "BATCH_FILES", 1)
    spoil(nine)
    workspace, findings = found_in(nine)
    before = sorted(nine.images.rglob("*"))
    with hold_lease(nine, "check") as lease:
        (nine.work / "lease.json").unlink()
        with pytest.raises(DestinationError, match="moved or removed"):
            repair(workspace, findings, lease)
    assert sorted(nine.images.rglob("*")) == before


def test_file_names_in_damaged_rows_never_lead_out_of_the_destination(nine, tmp_path):
    (tmp_path / "precious.jpg").write_bytes(b"precious")
    workspace, _ = begin(nine)
    rows = [
        {"kind": "invalid_row", "file_name": name, "source_path": "x", "detail": "x", "present": True}
        for name in ("images/../../precious.jpg", str(tmp_path / "precious.jpg"), "../precious.jpg")
    ]
    findings = "findings/made-up.parquet"
    nine.findings.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), nine.path(findings))
    with hold_lease(nine, "check") as lease:
        repaired = repair(workspace, findings, lease)
    assert (repaired.moved, repaired.failed) == (0, 3)
    assert (tmp_path / "precious.jpg").read_bytes() == b"precious"
