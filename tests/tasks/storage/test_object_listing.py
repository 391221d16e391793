from darkroom.tasks.storage.object_store import open_object_store
from darkroom.tasks.storage.store import Skipped


def paths(location, prefix="", **options):
    return [path for batch in open_object_store(location).list(prefix, **options) for path in batch["path"].to_pylist()]


def test_objects_come_in_the_order_of_keys(s3, bucket):
    keys = ["b.jpg", "a/1.jpg", "a.jpg", "a/é.jpg", "a-b.jpg", *(f"many/{number:04d}" for number in range(1100))]
    for key in keys:
        s3.plant(bucket, f"x/{key}", b"x")
    assert paths(f"s3://{bucket}/x") == sorted(keys, key=str.encode)


def test_markers_of_folders_are_no_objects(s3, bucket):
    for key in ("x/", "x/a/", "x/empty.jpg", "x/both.jpg", "x/both.jpg/", "x/full.jpg/", "x/a/b.jpg/"):
        s3.plant(bucket, key, b"")
    for key in ("x/full.jpg", "x/full.jpg/inside.jpg"):
        s3.plant(bucket, key, b"x")
    assert paths(f"s3://{bucket}/x") == ["both.jpg", "empty.jpg", "full.jpg", "full.jpg/inside.jpg"]
    assert paths(f"s3://{bucket}", "x") == ["x/both.jpg", "x/empty.jpg", "x/full.jpg", "x/full.jpg/inside.jpg"]
    assert paths(f"s3://{bucket}", "x/full.jpg") == ["x/full.jpg/inside.jpg"]


def test_a_skipped_folder_is_counted_once(s3, bucket):
    for key in ("a/.git/1", "a/.git/b/2", "a/.hidden", "a/c/.hidden", "a/c/3"):
        s3.plant(bucket, key, b"x")
    skipped, asked = Skipped(), []

    def skip(path):
        asked.append(path)
        return "hidden" if path.removesuffix("/").rpartition("/")[2].startswith(".") else None

    assert paths(f"s3://{bucket}", "a", skip=skip, skipped=skipped) == ["a/c/3"]
    assert skipped.counts == {"hidden": 3}
    assert asked == ["a/.git/", "a/.hidden", "a/c/", "a/c/.hidden", "a/c/3"]
