import pytest

from darkroom.tasks.errors import ErrorCode
from tests.fuzz import build
from tests.fuzz.bombs import bombs
from tests.fuzz.cases import MAX_PIXELS
from tests.fuzz.outcomes import PIXELS
from tests.fuzz.samples import samples
from tests.tasks.imaging.reference import facts_of, failure, run


@pytest.mark.parametrize("name", [name for name, (_, code) in bombs().items() if code == PIXELS])
def test_too_many_pixels_are_refused_by_the_header(name):
    code, error = failure(bombs()[name][0], max_pixels=MAX_PIXELS)
    facts = error.facts
    assert code is ErrorCode.DECODE_TOO_MANY_PIXELS
    if any(size in name for size in ("4 billion", "minus 2 billion", "9 billion")):  # a row can't hold it
        assert facts is None
    else:
        assert facts.format == name.partition("/")[0] and facts.width * facts.height > MAX_PIXELS


@pytest.mark.parametrize("name", samples())
def test_the_limit_is_exact_for_every_format(name):
    facts = facts_of(samples()[name])
    stored = facts.width, facts.height
    pixels = facts.width * facts.height
    recipe = {"width": 8, "height": 8}
    assert run(samples()[name], max_pixels=pixels, **recipe).facts == facts
    code, error = failure(samples()[name], max_pixels=pixels - 1, **recipe)
    assert code is ErrorCode.DECODE_TOO_MANY_PIXELS and (error.facts.width, error.facts.height) == stored


@pytest.mark.parametrize(("width", "height"), [(1, (1 << 32) - 1), ((1 << 32) - 1, 1), (1 << 31, 1 << 31)])
def test_sizes_too_large_for_a_row_are_refused_without_facts(width, height):
    code, error = failure(build.png_header(width, height))
    assert (
        code is ErrorCode.DECODE_TOO_MANY_PIXELS and error.facts is None and f"{width:,} × {height:,}" in error.message
    )


def test_one_side_may_be_as_long_as_max_pixels():
    side = 1_500_000
    strip = build.png(side, 1, bytes(side + 1), color_type=0)
    assert run(strip, width=8, height=8).facts.width == side
    assert failure(strip, max_pixels=side - 1)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS


def test_pillows_own_limit_does_not_apply():
    # Pillow's own limit is 179 million pixels.
    size = (14_000 - 1).to_bytes(3, "little")
    canvas = build.webp(build.riff(b"VP8X", b"\2\0\0\0" + size + size), build.riff(b"ANIM", bytes(6)))
    assert failure(canvas, max_pixels=200_000_000)[0] is ErrorCode.DECODE_CORRUPT
    assert failure(canvas, max_pixels=190_000_000)[0] is ErrorCode.DECODE_TOO_MANY_PIXELS
