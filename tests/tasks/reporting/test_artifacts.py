import re

from hypothesis import example, given
from hypothesis import strategies as st
from prefect.client.schemas.actions import ArtifactCreate

from darkroom.tasks.reporting.artifacts import artifact_key


@given(
    st.text(st.characters(codec="utf-8")).map(lambda name: f"/data/{name}"), st.sampled_from(["summary", "progress"])
)
@example("/", "summary")
@example("", "summary")
@example("s3://bucket/out", "summary")
@example("/data/\udcff", "summary")
@example("/data/ÄÖÜ", "failures")
@example("/data/" + "x" * 300, "failures")
@example("/data/My_Data.Set (2)", "summary")
def test_prefect_accepts_every_artifact_key(destination, kind):
    key = artifact_key(destination, kind)
    assert re.fullmatch("[a-z0-9-]+", key)
    assert ArtifactCreate(key=key).key == key
    assert key.endswith(f"-{kind}")


def test_artifact_keys_are_readable_and_distinct():
    assert artifact_key("/data/photos-600", "summary") == "data-photos-600-summary"
    assert artifact_key("s3://bucket/out", "failures") == "s3-bucket-out-failures"
    assert re.fullmatch("mnt-my-data-[0-9a-f]{6}-summary", artifact_key("/mnt/My Data", "summary"))
    keys = {artifact_key(path, "summary") for path in ("/a/data", "/b/data", "/a/DATA", "/a/фото", "/a/кино", "/")}
    assert len(keys) == 6
    deep = "/deep" * 30
    assert artifact_key(f"/a{deep}", "summary") != artifact_key(f"/b{deep}", "summary")
