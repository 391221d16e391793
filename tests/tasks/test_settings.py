import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom.tasks import settings as settings_module
from darkroom.tasks.errors import InvalidSettingError
from darkroom.tasks.settings import Compute, Job, Recipe, Rules

OTHER = {
    "width": 601,
    "height": 601,
    "fit": "cover",
    "upscale": False,
    "filter": "area",
    "format": "png",
    "quality": 91,
    "background": "#000000",
    "color": "gray",
    "damage": "tolerant",
    "jpeg_decoding": "full",
}


def test_the_default_recipe_makes_jpegs_of_600_by_600_pixels():
    recipe = Recipe()
    assert (recipe.width, recipe.height, recipe.fit, recipe.format) == (600, 600, "fill", "jpeg")


def test_equal_recipes_have_the_same_id_however_they_are_written():
    assert Recipe(width=600, quality=90).recipe_id == Recipe().recipe_id
    assert Recipe.model_validate_json(Recipe().model_dump_json()).recipe_id == Recipe().recipe_id


def test_every_field_changes_the_id():
    assert OTHER.keys() == Recipe.model_fields.keys()
    ids = {Recipe(**{name: value}).recipe_id for name, value in OTHER.items()} | {Recipe().recipe_id}
    assert len(ids) == len(OTHER) + 1


@pytest.mark.parametrize("library", ["kernel", *settings_module.CODEC_LIBRARIES])
def test_kernel_and_library_versions_change_the_id(monkeypatch, library):
    before = Recipe().recipe_id
    versions = settings_module.pixel_versions() | {library: "other"}
    monkeypatch.setattr(settings_module, "pixel_versions", lambda: versions)
    assert Recipe().recipe_id != before


def test_an_id_is_the_same_in_another_process():
    code = "from darkroom.tasks.settings import Recipe; print(Recipe(width=5).recipe_id)"
    # Hash randomisation differs from process to process.
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == Recipe(width=5).recipe_id


@pytest.mark.parametrize("model", [Recipe, Rules, Compute])
def test_misspelt_settings_are_refused(model):
    with pytest.raises(InvalidSettingError, match="There is no setting 'widht'"):
        model(widht=1)


@pytest.mark.parametrize("model", [Recipe, Rules, Compute])
def test_every_field_of_the_form_is_described(model):
    schema = model.model_json_schema()
    assert {name for name, field in schema["properties"].items() if not field.get("description")} == set()
    assert schema["description"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("model", [Recipe, Rules, Compute])
def test_settings_are_frozen(model):
    settings = model()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(model.model_fields)), 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("height", 16384),
        ("fit", "stretch"),
        ("quality", 101),
        ("quality", 0),
        ("background", "white"),
        ("background", "#fff"),
        ("background", "#ffffff\n"),
        ("format", "gif"),
        ("damage", "maybe"),
        ("jpeg_decoding", "half"),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InvalidSettingError, match=rf"`{name}={value}`: give "):
        Recipe(**{name: value})


@pytest.mark.parametrize(("old", "new"), [("fail", "strict"), ("keep", "tolerant")])
def test_a_recipe_of_an_earlier_version_can_be_read(old, new):
    assert Recipe.model_validate_json(f'{{"truncated": "{old}"}}') == Recipe(damage=new)


@pytest.mark.parametrize("value", ["maybe", ["keep"], None])
def test_the_old_name_of_a_setting_takes_only_its_old_values(value):
    with pytest.raises(InvalidSettingError, match="truncated"):
        Recipe(truncated=value)


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_patterns_that_match_nothing_are_refused(name):
    with pytest.raises(InvalidSettingError, match=f"(?s){name}.*pattern '.*'"):
        Rules(**{name: ["*.jpg", "!"]})


@pytest.mark.parametrize("name", ["max_image_seconds", "max_read_seconds"])
@pytest.mark.parametrize("value", ["inf", "nan", 1e20])
def test_time_limits_are_finite(name, value):
    with pytest.raises(InvalidSettingError, match=rf"`{name}=.*`: give"):
        Rules(**{name: value})


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_background_is_parsed_into_numbers(rgb):
    assert Recipe(background="#{:02x}{:02X}{:02x}".format(*rgb)).background_rgb == rgb


@pytest.mark.parametrize(
    "other",
    [{"workers": 2}, {"cluster_class": "x.Y"}, {"cluster_kwargs": {"n": 1}}],
    ids=lambda other: next(iter(other)),
)
def test_scheduler_cannot_be_combined_with_settings_of_a_new_cluster(other):
    with pytest.raises(InvalidSettingError, match="leave out"):
        Compute(scheduler="tls://host:8786", **other)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": 3},
        {"scheduler": "tcp://h:1"},
        {"scheduler": "", "workers": 2},
        {"cluster_class": "a.B", "cluster_kwargs": {"n": 1}, "workers": 2},
    ],
)
def test_settings_of_one_cluster_are_accepted(settings):
    assert Compute(**settings).model_dump(exclude_defaults=True) == settings


@pytest.mark.parametrize("bad", [{"workers": 0}, {"scheduler": "host:8786"}, {"scheduler": "tcp://"}])
def test_invalid_compute_settings_are_refused(bad):
    with pytest.raises(InvalidSettingError, match=next(iter(bad))):
        Compute(**bad)


def test_a_job_is_the_same_after_writing_and_reading_it():
    job = Job(
        run_id="r",
        source="/s é'\n",
        destination="/d",
        recipe=Recipe(fit="cover"),
        recipe_id="x",
        rules=Rules(force=True, exclude=["#a é/", "!b"]),
        run_file="r.parquet",
    )
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_choices_are_accepted_in_other_spellings():
    assert Recipe(format="JPG", color="Grey", fit="Cover") == Recipe(format="jpeg", color="gray", fit="cover")
