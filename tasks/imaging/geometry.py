"""Plan sizes, crop, padding, and the mapping from source to output."""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.tasks.settings import Fit, Recipe


@dataclass(frozen=True, slots=True)
class Geometry:
    """A plan to make an output of `width` × `height` pixels from an oriented source of `source_*` pixels.

    The source is resized to `resized_*`, then placed on the output with its top left corner at (`left`, `top`):
    negative if `cover` crops, positive if `contain` pads.
    """

    source_width: int
    source_height: int
    resized_width: int
    resized_height: int
    width: int
    height: int
    left: int
    top: int

    @property
    def scale_x(self) -> float:
        """Output pixels per source pixel, horizontally."""
        return self.resized_width / self.source_width

    @property
    def scale_y(self) -> float:
        """Output pixels per source pixel, vertically."""
        return self.resized_height / self.source_height

    @property
    def crops(self) -> bool:
        """Whether a part of the resized source lies outside the output."""
        return self.width < self.resized_width or self.height < self.resized_height

    @property
    def pads(self) -> bool:
        """Whether a part of the output is not covered by the source."""
        return self.width > self.resized_width or self.height > self.resized_height


def plan_geometry(source_width: int, source_height: int, recipe: Recipe) -> Geometry:
    """Return the plan for an oriented source of this size in pixels and the recipe's box.

    - `fill`: each axis is scaled to the box by itself.
    - `inside`: the largest size of the same aspect ratio within the box.
    - `outside`: the smallest size of the same aspect ratio around the box.
    - `cover`: as `outside`, then cropped in the middle on each axis that is longer than the box.
    - `contain`: as `inside`, centred on a canvas of the box's size; the canvas never shrinks.

    Without `upscale` no axis is enlarged. Sizes are rounded half up, and are at least 1 pixel. If a crop or padding has
    an odd number of pixels, the extra one is at the right or bottom.
    """
    resized_width, resized_height = _resized_size(source_width, source_height, recipe)
    width, height = _output_size(recipe.fit, (resized_width, resized_height), (recipe.width, recipe.height))
    left, top = _centred(width, resized_width), _centred(height, resized_height)
    return Geometry(source_width, source_height, resized_width, resized_height, width, height, left, top)


def _resized_size(source_width: int, source_height: int, recipe: Recipe) -> tuple[int, int]:
    if recipe.fit == "fill":
        if recipe.upscale:
            return recipe.width, recipe.height
        return min(recipe.width, source_width), min(recipe.height, source_height)
    # Integers are exact: with floats, sources of one aspect ratio could get sizes that differ by a pixel.
    width_is_tighter = recipe.width * source_height <= recipe.height * source_width
    by_width = width_is_tighter if recipe.fit in {"inside", "contain"} else not width_is_tighter
    target, source = (recipe.width, source_width) if by_width else (recipe.height, source_height)
    if target > source and not recipe.upscale:
        return source_width, source_height
    return _scaled(source_width, target, source), _scaled(source_height, target, source)


def _output_size(fit: Fit, resized: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    if fit == "contain":
        return box
    if fit == "cover":
        return min(resized[0], box[0]), min(resized[1], box[1])
    return resized


def _scaled(length: int, numerator: int, denominator: int) -> int:
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))


def _centred(outer: int, inner: int) -> int:
    return (outer - inner) // 2 if outer >= inner else -((inner - outer) // 2)
