"""GIF: walk its blocks for the size of the first frame and the number of frames.

The part of the screen that the first frame does not cover is transparent, as in browsers, which ignore the background
colour.
"""

from __future__ import annotations

import re
import struct
from functools import cached_property

import numpy as np
from PIL import GifImagePlugin, Image

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import with_alpha
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.records import Size

IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B


class GifImage(PillowImage):
    """A picture or an animation."""

    name = "gif"
    signature = re.compile(rb"GIF8[79]a")
    reader = GifImagePlugin.GifImageFile

    def _header_size(self) -> Size:
        """Return the width and height that a decoder allocates: the screen, enlarged to hold the first frame."""
        width, height = struct.unpack_from("<HH", self.data, 6)
        for position in self._frames[:1]:
            _, _, right, bottom = self._extent(position)
            width, height = max(width, right), max(height, bottom)
        return width, height

    def _extent(self, frame: int) -> tuple[int, int, int, int]:
        left, top, width, height = struct.unpack_from("<HHHH", self.data, frame + 1)
        return left, top, left + width, top + height

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, transparent outside the first frame."""
        left, top, right, bottom = self._extent(self._frames[0])
        pixels = super()._to_pixels(image, whole=whole)
        is_covered = (left, top, right, bottom) == (0, 0, *image.size)
        if is_covered or (pixels.ndim == 3 and pixels.shape[2] == 4):
            return pixels  # Pillow fills the rest with the transparent colour, if there is one
        opaque = np.zeros(pixels.shape[:2], bool)
        opaque[top:bottom, left:right] = True
        return with_alpha(pixels, opaque)

    def _count_frames(self) -> int:
        return max(len(self._frames), 1)

    @cached_property
    def _frames(self) -> list[int]:
        """The position of each image block; bytes outside blocks are skipped, as in Pillow."""
        data, frames = self.data, []
        position = 13 + _color_table_size(data[10:11])
        while position < len(data):
            introducer = data[position]
            if introducer == IMAGE:
                frames.append(position)
                position += 11 + _color_table_size(data[position + 9 : position + 10])
            elif introducer == EXTENSION:
                position += 2
            elif introducer == TRAILER:
                break
            else:
                position += 1
                continue
            while position < len(data) and data[position]:
                position += 1 + data[position]
            position += 1
        return frames


def _color_table_size(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
