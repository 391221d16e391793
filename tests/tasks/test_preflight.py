import os
import re
import signal

import pytest

from darkroom.tasks.dataset.layout import open_destination
from darkroom.tasks.errors import DarkroomError, InvalidSettingError, SettingsError
from darkroom.tasks.preflight import check_compute, check_kept_destination, check_locations, check_recipe, check_sample
from darkroom.tasks.settings import Compute, Recipe, Rules
from tests.places import destination_at
from tests.tasks.helpers import SMALL, publish_rows, row, unprivileged


def refusal(source, destination):
    with pytest.raises(SettingsError) as caught:
        check_locations(str(source), str(destination))
    return str(caught.value)


def test_good_locations_come_back_absolute(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert check_locations("source", "there") == (str(source), open_destination(f"{tmp_path}/there"))
    assert check_locations("./source/", "new/deeper") == (str(source), open_destination(f"{tmp_path}/new/deeper"))
    assert not (tmp_path / "new").exists()


def test_a_destination_whose_path_begins_like_the_sources_is_accepted(tmp_path):
    (tmp_path / "data").mkdir()
    check_locations(str(tmp_path / "data"), str(tmp_path / "data-small"))


def test_a_source_that_does_not_exist(tmp_path, source):
    message = refusal(tmp_path / "gone", tmp_path / "dest")
    assert message == f"source: {tmp_path}/gone does not exist. Give the folder or the list of the images."
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refusal(tmp_path / "dangling", source).startswith(f"source: {tmp_path}/dangling is not a folder.")


def test_a_source_that_is_a_file(tmp_path):
    (tmp_path / "a.jpg").touch()
    message = refusal(tmp_path / "a.jpg", tmp_path / "dest")
    assert message == (
        f"source: {tmp_path}/a.jpg is not a folder. Give the folder that holds the images, or a list of them whose "
        "name ends with .txt, .csv or .parquet."
    )


def test_a_list_that_may_not_be_read(open_path):
    (open_path / "list.csv").touch(mode=0o000)
    with unprivileged():
        message = refusal(open_path / "list.csv", open_path / "dest")
    assert message == f"source: {open_path}/list.csv can't be read. Grant this user permission to read it."


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_source_that_may_not_be_read(open_path, mode):
    (open_path / "source").mkdir()
    (open_path / "source").chmod(mode)
    with unprivileged():
        message = refusal(open_path / "source", open_path / "dest")
    assert message.startswith(f"source: {open_path}/source can't be read. Grant")


def test_a_source_below_a_folder_that_may_not_be_entered(open_path):
    (open_path / "secret/source").mkdir(parents=True)
    (open_path / "secret").chmod(0)
    with unprivileged():
        assert refusal(open_path / "secret/source", open_path / "dest").startswith("source: ")


@pytest.mark.parametrize("name", ["images/mine/a.jpg", "runs/notes.txt", "images", "runs"])
def test_a_folder_with_other_files_is_no_destination(source, tmp_path, name):
    path = tmp_path / "project" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    used = tmp_path / "project" / name.partition("/")[0]
    message = refusal(source, tmp_path / "project")
    assert message.startswith(f"destination: {used} holds something that no run of Darkroom has made")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("trace", [".darkroom", "manifest.parquet", "runs/1.parquet"])
def test_a_folder_that_runs_have_filled_is_a_destination(source, place, trace):
    for path in (place.images / "a.jpg", place.root / trace / "x" if trace == ".darkroom" else place.root / trace):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (place.root / "notes.txt").touch()
    check_locations(str(source), str(place.root))


def test_a_destination_that_is_a_file(source, tmp_path):
    (tmp_path / "file").touch()
    assert refusal(source, tmp_path / "file") == (
        f"destination: {tmp_path}/file is not a folder. Give another one, or move that away."
    )
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "destination: " in refusal(source, tmp_path / "dangling")


def test_a_destination_below_a_file(source, tmp_path):
    (tmp_path / "file").touch()
    message = refusal(source, tmp_path / "file/a/b")
    assert message == f"destination: {tmp_path}/file is not a folder, so that {tmp_path}/file/a/b can't be made in it."


@pytest.mark.parametrize(("name", "mode"), [("", 0o555), ("new/deeper", 0o555), ("new", 0o000), ("new/deeper", 0o666)])
def test_a_destination_that_may_not_be_written(open_path, name, mode):
    (open_path / "source").mkdir()
    (open_path / "parent").mkdir()
    (open_path / "parent").chmod(mode)
    with unprivileged():
        message = refusal(open_path / "source", open_path / "parent" / name)
    assert message == (
        f"destination: {open_path}/parent can't be written to. Grant this user permission, or give another."
    )


def test_the_same_folder_as_source_and_destination(source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    assert "source and destination are the same folder" in refusal(source, f"{source}/.")
    assert "source and destination are the same folder" in refusal(tmp_path / "link", source)


@pytest.mark.parametrize("below", ["dest", "a/b/dest"])
def test_a_destination_inside_the_source(source, tmp_path, below):
    (tmp_path / "link").symlink_to(source)
    for destination in (source / below, tmp_path / "link" / below, source / "x/.." / below):
        message = refusal(source, destination)
        assert message.startswith("destination: ")
        assert "lies inside the source" in message
    assert "lies inside the source" in refusal(tmp_path / "link", source / below)


def test_a_source_inside_the_destination(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to(source)
    for given_source in (source, tmp_path / "elsewhere/link"):
        message = refusal(given_source, tmp_path)
        assert message.startswith(f"source: {given_source} lies inside the destination")
        assert "Use a destination that does not contain the source." in message


@pytest.mark.parametrize("odd", ["[a]*?'", "new\nline", "100%", "é", " "])
def test_odd_names_are_fine(tmp_path, odd):
    (tmp_path / odd).mkdir()
    source, place = check_locations(str(tmp_path / odd), str(tmp_path / f"{odd}2"))
    assert os.path.samefile(source, tmp_path / odd)
    assert place.location == f"{tmp_path}/{odd}2"


def test_a_destination_of_the_same_recipe_or_none_is_fine(place):
    check_recipe(place, SMALL, Rules())
    publish_rows(place, [row("a.jpg")])
    check_recipe(place, SMALL.model_copy(), Rules())


def test_another_recipe_is_refused_with_the_differences(place):
    publish_rows(place, [row("a.jpg")])
    with pytest.raises(SettingsError) as caught:
        check_recipe(place, Recipe(width=9, height=6, fit="cover"), Rules())
    assert str(caught.value) == (
        f"destination: {place.root} belongs to another recipe (`width` 8 → 9, `fit` fill → cover). Use another "
        "destination, or set `rebuild=True` to make all of its images again."
    )


def test_other_versions_of_codec_libraries_are_refused_with_a_message_of_their_own(place, monkeypatch):
    publish_rows(place, [row("a.jpg")])
    monkeypatch.setattr("darkroom.tasks.settings.pixel_versions", lambda: {"pillow": "99"})
    with pytest.raises(SettingsError, match=r"\(Darkroom or its codec libraries have other versions"):
        check_recipe(place, SMALL, Rules())


def test_rebuild_allows_another_recipe(place):
    publish_rows(place, [row("a.jpg")])
    check_recipe(place, Recipe(width=9), Rules(rebuild=True))


def test_a_damaged_manifest_stops_even_a_rebuild(place):
    place.manifest.write_bytes(b"PAR1 but not really")
    with pytest.raises(DarkroomError, match="damaged"):
        check_recipe(place, Recipe(width=9), Rules(rebuild=True))


@pytest.mark.parametrize("name", ["images", "runs", ".darkroom"])
def test_a_link_in_the_destination_is_refused(tmp_path, name):
    source, root = tmp_path / "source", tmp_path / "dest"
    source.mkdir()
    root.mkdir()
    (root / name).symlink_to(source)
    with pytest.raises(SettingsError, match="is a symbolic link"):
        check_locations(str(source), str(root))


@pytest.mark.parametrize("name", ["images", "runs", "findings"])
def test_a_destination_that_runs_have_written_to(tmp_path, name):
    place = destination_at(tmp_path / "dest")
    for folder in (tmp_path, tmp_path / "dest"):
        with pytest.raises(SettingsError, match="is not a destination of Darkroom"):
            check_kept_destination(str(folder))
    publish_rows(place, [row("a.jpg")])
    assert check_kept_destination(place.location).location == place.location
    (place.root / name).mkdir(exist_ok=True)
    (place.root / name).rename(tmp_path / name)
    (place.root / name).symlink_to(tmp_path / name)
    with pytest.raises(SettingsError, match="is a symbolic link"):
        check_kept_destination(str(place.root))


def test_a_destination_whose_lease_may_not_be_written(open_path):
    place = destination_at(open_path / "dest")
    publish_rows(place, [row("a.jpg")])
    place.work.chmod(0o555)
    with unprivileged(), pytest.raises(SettingsError, match="can't be written to"):
        check_kept_destination(str(place.root))


@pytest.mark.parametrize("sample", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_sample_must_be_above_0_and_at_most_1(sample):
    with pytest.raises(SettingsError, match="give a number above 0 and up to 1"):
        check_sample(sample)
    check_sample(1)
    check_sample(1e-9)


@pytest.mark.parametrize("name", ["nonsense", "nonsense.Cls", "distributed.NoSuchCluster"])
def test_a_cluster_class_that_does_not_exist_is_an_error(name):
    with pytest.raises(SettingsError, match="cluster_class"):
        check_compute(Compute(cluster_class=name))


def test_a_cluster_class_that_exists_is_fine():
    check_compute(Compute(cluster_class="distributed.LocalCluster"))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (
            {"cluster_kwargs": {"n_worker": 3}},
            "`cluster_kwargs`: distributed.LocalCluster has no argument 'n_worker'; did you mean 'n_workers'?",
        ),
        (
            {"cluster_class": "distributed.LocalCluster", "adapt_kwargs": {"minimun": 1}},
            "`adapt_kwargs`: the method 'adapt' of distributed.LocalCluster has no argument 'minimun'; "
            "did you mean 'minimum'?",
        ),
        (
            {"cluster_kwargs": {"args": 1}},
            "`cluster_kwargs`: distributed.LocalCluster has no argument 'args'.",
        ),
        (
            {"cluster_class": "distributed.SpecCluster", "cluster_kwargs": {"xyz": 1}},
            "`cluster_kwargs`: distributed.SpecCluster has no argument 'xyz'.",
        ),
    ],
)
def test_arguments_that_a_cluster_class_does_not_have_are_refused(compute, message):
    with pytest.raises(InvalidSettingError) as caught:
        check_compute(Compute(**compute))
    assert str(caught.value) == message


def test_a_path_column_is_refused_if_the_source_is_no_list(source, place):
    with pytest.raises(InvalidSettingError, match=r"`path_column=url` is for lists of images, and .+ is none"):
        check_locations(str(source), place.location, Rules(path_column="url"))


def test_the_columns_of_a_list_are_checked_if_the_rules_are_known(tmp_path, place):
    (tmp_path / "l.csv").write_text("a,b\n1.jpg,2\n")
    check_locations(str(tmp_path / "l.csv"), place.location)
    check_locations(str(tmp_path / "l.csv"), place.location, Rules(path_column="a"))
    with pytest.raises(SettingsError, match=r"the columns a, b, of which none is called path or .*"):
        check_locations(str(tmp_path / "l.csv"), place.location, Rules())


@pytest.mark.parametrize("argument", ["n_workers", "memory_limit", "death_timeout", "resources", "dashboard_address"])
def test_arguments_of_the_local_cluster_and_its_workers_are_fine(argument):
    check_compute(Compute(cluster_kwargs={argument: None}))


def test_a_destination_where_no_folder_can_be_made_is_refused(source):
    message = refusal(source, "/proc/foo/dataset")
    assert re.match(r"destination: /proc(/foo/dataset can't be made in /proc \(.+\)| can't be written to)\.", message)


def test_the_handler_of_ctrl_c_is_restored_after_the_module_of_a_cluster_class_replaced_it(tmp_path, monkeypatch):
    (tmp_path / "takes_ctrl_c.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit())\nclass Cluster: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    check_compute(Compute(cluster_class="takes_ctrl_c.Cluster"))
    assert signal.getsignal(signal.SIGINT) is before
