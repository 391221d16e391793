"""Messages about settings name them, what was given, and what to give instead."""

import pytest

from darkroom.tasks.errors import InvalidSettingError
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.wording import as_options, counted


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (Recipe, {"width": 0}, "`width=0`: give a whole number from 1 to 16,383."),
        (Recipe, {"width": "wide"}, "`width=wide`: give a whole number from 1 to 16,383."),
        (Recipe, {"fit": "covr"}, "`fit=covr`: give fill, cover, contain, inside or outside; did you mean 'cover'?"),
        (Recipe, {"background": "white"}, "`background=white`: give a value such as #ffffff."),
        (Recipe, {"upscale": 7}, "`upscale=7`: give true or false."),
        (Recipe, {"widht": 1}, "There is no setting 'widht'; did you mean 'width'?"),
        (Rules, {"max_read_seconds": 0}, "`max_read_seconds=0`: give a number above 0."),
        (Rules, {"max_pixels": 0}, "`max_pixels=0`: give a whole number of 1 or more."),
        (Rules, {"limit": 0}, "`limit=0`: give a whole number of 1 or more."),
        (Rules, {"include": "*.png"}, "`include=*.png`: give a list of texts."),
        (
            Compute,
            {"cluster_kwargs": []},
            '`cluster_kwargs=[]`: give arguments by name, on the command line as JSON: {"n_workers": 2}.',
        ),
        (Compute, {"cluster_class": 1}, "`cluster_class=1`: give text."),
        (Recipe, {"width": 0, "height": 0}, "16,383. `height=0`:"),
    ],
)
def test_an_invalid_setting_is_reported_with_what_to_give_instead(model, values, message):
    with pytest.raises(InvalidSettingError) as raised:
        model(**values)
    assert message in str(raised.value)


def test_an_invalid_setting_within_a_job_is_reported_in_the_same_way():
    with pytest.raises(InvalidSettingError, match=r"^`width=0`: give a whole number"):
        Job(run_id="r", source="/s", destination="/d", recipe={"width": 0}, recipe_id="x", rules={}, run_file="r")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("set `rebuild=True` or `upscale=False`", "set --rebuild or --no-upscale"),
        ("`max_failure_ratio=0.5` allows", "--max-failure-ratio 0.5 allows"),
        ("leave out `cluster_class`.", "leave out --cluster-class."),
        ("`other=1` and `a b` stay", "`other=1` and `a b` stay"),
    ],
)
def test_settings_are_named_as_options_on_the_command_line(message, shown):
    names = ["rebuild", "upscale", "max_failure_ratio", "cluster_class"]
    assert as_options(message, names) == shown


def test_counts_have_separators_and_the_right_form_of_the_noun():
    assert [counted(number, "image") for number in (0, 1, 1234)] == ["0 images", "1 image", "1,234 images"]
