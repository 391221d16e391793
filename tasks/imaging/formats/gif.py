"""GIF: its blocks, which say how large the first frame is, and how many frames there are."""

from __future__ import annotations

import re
import struct
from functools import cached_property

from PIL import GifImagePlugin

from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.records import Size

IMAGE, EXTENSION, TRAILER = 0x2C, 0x21, 0x3B


class GifImage(PillowImage):
    """A picture or an animation."""

    name = "gif"
    signature = re.compile(rb"GIF8[79]a")
    reader = GifImagePlugin.GifImageFile

    def _header_size(self) -> Size:
        """Return the size that a decoder allocates: the screen, enlarged to hold the first frame."""
        width, height = struct.unpack_from("<HH", self.data, 6)
        for position in self._frames[:1]:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", self.data, position + 1)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
        return width, height

    def _count_frames(self) -> int:
        return max(len(self._frames), 1)

    @cached_property
    def _frames(self) -> list[int]:
        """Where each image block begins; bytes that belong to no block are skipped, as Pillow does."""
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
