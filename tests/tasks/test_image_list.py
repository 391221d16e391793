"""Lists of images as sources, from the listing to the manifest."""

import resource
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darkroom.tasks.errors import DestinationError, SettingsError
from darkroom.tasks.image_list import check_list, list_entries
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.locations import open_source
from darkroom.tasks.storage.store import Skipped
from darkroom.tasks.storage.store_errors import writing
from tests.places import disk
from tests.tasks.helpers import manifest_rows, prepare, write_image
from tests.tasks.shards import run
from tests.web_server import Answer, web_server

TEXTS = {
    "plain": "a.jpg\nb.jpg\n",
    "Windows": "\ufeffa.jpg\r\nb.jpg",
    "blank lines and one twice": "\na.jpg\n  \n\nb.jpg\n./a.jpg\n",
}


@pytest.fixture
def images(source):
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/d.png", "sub/note.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (source / name).write_text("no image")
        else:
            write_image(source / name, seed=len(name), image_format="PNG" if name.endswith("png") else "JPEG")
    return source


def listed(file, place, **rules):
    """Return the paths of the images that a list names, and the workspace with their listing."""
    workspace, _, _ = prepare(file, place, rules=Rules(**rules))
    return pq.read_table(disk(workspace, "listing"))["source_path"].to_pylist(), workspace


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_file_has_an_address_on_each_line(images, place, text):
    (images / "list.txt").write_text(text, newline="")
    assert sorted(listed(images / "list.txt", place)[0]) == ["a.jpg", "b.jpg"]


def test_files_that_exist_are_listed_with_their_version_and_others_without(images, place):
    (images / "list.txt").write_text("a.jpg\ngone.jpg\n")
    _, workspace = listed(images / "list.txt", place)
    found, gone = pq.read_table(disk(workspace, "listing")).to_pylist()
    assert found["source_size"] == (images / "a.jpg").stat().st_size
    assert found["source_ctime"] is not None
    assert (gone["source_path"], gone["source_size"], gone["source_mtime"]) == ("gone.jpg", None, None)


def test_folders_are_listed_by_the_rules_and_nothing_twice(images, place):
    (images / "list.txt").write_text("sub/\nsub/deep/\nsub/c.jpg\n")
    paths, _ = listed(images / "list.txt", place, exclude=["c.jpg"])
    assert sorted(paths) == ["sub/c.jpg", "sub/deep/d.png"], "a file that is named is listed whatever the rules say"


def test_limit_ends_the_listing(images, place):
    (images / "list.txt").write_text("a.jpg\nb.jpg\nsub/\n")
    assert len(listed(images / "list.txt", place, limit=1)[0]) == 1


@pytest.mark.parametrize(
    ("name", "content", "rules", "message"),
    [
        (
            "l.csv",
            "a,b\n1.jpg,2\n",
            {},
            r"the columns a, b, of which none is called path or url or .* as `path_column`\.",
        ),
        ("l.csv", "a,b\n1.jpg,2\n", {"path_column": "c"}, r"the columns a, b, of which none is called c\."),
        ("l.csv", "a,b\n1.jpg,2\n", {"path_column": "b"}, r"column 'b' of .* holds no text, but BIGINT"),
        ("l.parquet", "no Parquet", {}, r"can't be read as a list of images: .*"),
        ("l.csv", b"a,b\n\xff\xfe.jpg,1\n", {}, r"can't be read as a list of images: .*utf-8 encoded\.$"),
        ("l.csv", "path,label\n1.jpg,2\n3.jpg\n", {}, r"l\.csv have different numbers of values"),
        (
            "l.csv",
            'path,label\n1.jpg,2\n"3.jpg,4\n5.jpg,6,7\n',
            {},
            r"needs the same number of values in each line, clo",
        ),
        ("l.txt", b"\xff\xfea.jpg", {}, r"can't be read as a list of images: .*utf-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(source, place, name, content, rules, message):
    (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=message):
        listed(source / name, place, **rules)
    if not name.endswith(".txt"):  # found before anything starts
        with pytest.raises(SettingsError, match=message):
            check_list(str(source / name), rules.get("path_column"))


def test_signs_that_are_no_csv_are_kept(images, place):
    (images / "#b.jpg").write_bytes((images / "a.jpg").read_bytes())
    (images / "list.csv").write_text("path,caption\n#b.jpg,'Stop'\na.jpg,a dog\n")
    run(images / "list.csv", place)
    rows = manifest_rows(place)
    assert {path: (row["status"], row["caption"]) for path, row in rows.items()} == {
        "#b.jpg": ("ok", "'Stop'"),
        "a.jpg": ("ok", "a dog"),
    }


def test_a_label_that_changes_is_published_whatever_its_column_is_called(images, place):
    for label in ("cat", "dog"):
        (images / "list.csv").write_text(f"path,c,label\na.jpg,1,{label}\n")
        run(images / "list.csv", place, run_id=label)
        assert manifest_rows(place)["a.jpg"]["label"] == label


def test_images_of_a_listed_folder_that_is_gone_stay(images, place):
    (images / "list.txt").write_text("sub/\na.jpg\n")
    run(images / "list.txt", place)
    (images / "sub").rename(images.parent / "elsewhere")
    _, _, plan = prepare(images / "list.txt", place, run_id="next")
    assert (plan.deleted, plan.nothing_to_do) == (0, True)


def test_the_last_line_of_a_list_decides_on_types_too(images, place):
    lines = ["path,label", *(f"{number}.jpg,{number}" for number in range(30_000)), "a.jpg,none"]
    (images / "list.csv").write_text("\n".join(lines))
    assert len(listed(images / "list.csv", place, limit=1)[0]) == 1


def test_further_columns_are_columns_of_the_manifest(images, place):
    table = {
        "n": [1, 2, 3],
        "url": ["sub/c.jpg", "a.jpg", "gone.jpg"],
        "Width": [7, 8, 9],
        "tags": [["x", "y"], [], None],
    }
    pq.write_table(pa.table(table), images / "list.parquet")
    run(images / "list.parquet", place)
    rows = manifest_rows(place)
    assert [(path, row["status"], row["n"], row["list_Width"], row["tags"]) for path, row in rows.items()] == [
        ("a.jpg", "ok", 2, 8, []),
        ("gone.jpg", "failed", 3, 9, None),
        ("sub/c.jpg", "ok", 1, 7, ["x", "y"]),
    ]
    assert rows["sub/c.jpg"]["url"] == "sub/c.jpg"
    assert rows["sub/c.jpg"]["width"] == 8


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_a_list_in_a_bucket(s3, source, place, tmp_path, kind):
    bucket = s3.make_bucket()
    for number, key in enumerate(["lists/a.jpg", "b.jpg", "lists/sub/c.jpg"]):
        write_image(tmp_path / "image.jpg", seed=number)
        s3.plant(bucket, key, (tmp_path / "image.jpg").read_bytes())
    write_image(source / "d.jpg", seed=9)
    addresses = ["a.jpg", f"s3://{bucket}/b.jpg", "sub/", str(source / "d.jpg")]
    if kind == "parquet":
        pq.write_table(pa.table({"url": addresses, "label": list("abcd")}), tmp_path / "list.parquet")
    else:
        lines = addresses if kind == "txt" else ["url,label", *(map(",".join, zip(addresses, "abcd", strict=True)))]
        (tmp_path / f"list.{kind}").write_text("\n".join(lines))
    s3.plant(bucket, f"lists/list [1].{kind}", (tmp_path / f"list.{kind}").read_bytes())
    run(f"s3://{bucket}/lists/list [1].{kind}", place)
    rows = manifest_rows(place)
    assert list(rows) == ["a.jpg", f"file:{source}/d.jpg", f"s3:/{bucket}/b.jpg", "sub/c.jpg"]
    assert {row["status"] for row in rows.values()} == {"ok"}
    if kind != "txt":
        assert (rows["a.jpg"]["label"], rows["sub/c.jpg"]["label"]) == ("a", None)
    assert prepare(f"s3://{bucket}/lists/list [1].{kind}", place, run_id="again")[2].nothing_to_do


@contextmanager
def full_disk(size):
    """Make writes beyond a file size in bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("in_bucket", [False, True])
def test_a_full_scratch_disk_is_not_reported_as_an_unreadable_list(s3, images, place, in_bucket):
    text = "\n".join(f"{number}.jpg" for number in range(2000))
    (images / "list.txt").write_text(text)
    file = str(images / "list.txt")
    if in_bucket:
        bucket = s3.make_bucket()
        s3.plant(bucket, "list.txt", text.encode())
        file = f"s3://{bucket}/list.txt"
    workspace, skipped = place.workspace("run"), Skipped()
    entries = list_entries(open_source(file, Rules()), None, workspace, lambda _: None, skipped)
    full = pytest.raises(DestinationError, match=r"File too large\. Free some space")
    with full, full_disk(1000), writing(place.location):
        list(entries)


def test_changed_columns_are_published_even_if_no_image_is_processed(images, place):
    file = images / "list.csv"
    file.write_text("path,label\na.jpg,cat\nb.jpg,dog\n")
    run(file, place)
    assert prepare(file, place, run_id="same")[2].nothing_to_do
    file.write_text("path,label\na.jpg,cat\nb.jpg,wolf\n")
    workspace, job, plan = prepare(file, place, run_id="other")
    assert (plan.images, plan.nothing_to_do) == (0, False)
    publish(workspace, job, ended=True)
    close_workspace(workspace)
    assert [row["label"] for row in manifest_rows(place).values()] == ["cat", "wolf"]
    file.write_text("path\na.jpg\n")
    run(file, place, run_id="less", rules=Rules(max_delete_ratio=1))
    [row] = manifest_rows(place).values()
    assert "label" not in row


def test_images_of_a_web_server(source, place, tmp_path):
    write_image(tmp_path / "image.jpg")
    data = (tmp_path / "image.jpg").read_bytes()
    with web_server() as web:
        web.answers["/a.jpg?v=1"] = Answer(data, headers={"ETag": '"1"'})
        web.answers["/b"] = Answer(data, heads=False)
        addresses = [f"{web.url}/{path}" for path in ("a.jpg?v=1", "b", "gone.jpg")]
        (source / "list.txt").write_text("\n".join(addresses))
        run(source / "list.txt", place)
        rows = {row["source_path"].rpartition("/")[2]: row for row in manifest_rows(place).values()}
        assert {name: row["error_code"] for name, row in rows.items()} == {
            "a.jpg?v=1": None,
            "b": None,
            "gone.jpg": "source.not_found",
        }
        assert all((place.root / row["file_name"]).is_file() for row in rows.values() if row["status"] == "ok")
        _, _, plan = prepare(source / "list.txt", place, run_id="again")
        assert plan.reasons == {"changed": 1, "retry": 1}, "an image is read again if HEAD gives it no version"
