import pytest

from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.reporting.failed_images import read_failed
from darkroom.tasks.reporting.figures import FailedImage
from tests.tasks.helpers import failed_row, make_job, open_workspace, publish_rows, row


def test_failed_images_are_listed_by_path_and_filtered_by_code(place):
    denied = failed_row("c.jpg", "source.denied", error_message=None)
    publish_rows(place, [row("a.jpg"), failed_row("d.jpg", "decode.corrupt"), denied], run_id="r1")
    publish_rows(place, [failed_row("b.jpg", "decode.corrupt")], run_id="r2")
    assert [(each.source_path, each.error_code) for each in read_failed(place)] == [
        ("b.jpg", "decode.corrupt"),
        ("c.jpg", "source.denied"),
        ("d.jpg", "decode.corrupt"),
    ]
    assert list(read_failed(place, ["source.denied"])) == [
        FailedImage(source_path="c.jpg", error_code="source.denied", error_message="")
    ]


def test_no_manifest_has_no_failures_and_a_damaged_one_is_an_error(place):
    open_workspace(place, make_job(place))
    assert list(read_failed(place)) == []
    place.manifest.write_bytes(b"x" * 100)
    with pytest.raises(DarkroomError, match="damaged"):
        list(read_failed(place))
