"""WebP: read the size, and check that the file is complete."""

from __future__ import annotations

import re
import struct

from PIL import WebPImagePlugin

from darkroom.tasks.imaging.formats.base import PillowImage, refuse_zero_tail
from darkroom.tasks.imaging.records import Size


class WebpImage(PillowImage):
    """A picture or an animation in a RIFF container, whose length is in bytes 4 to 8."""

    name = "webp"
    signature = re.compile(rb"(?s)RIFF.{4}WEBP")
    reader = WebPImagePlugin.WebPImageFile

    def _header_size(self) -> Size | None:
        """Return width and height of the canvas, or of the picture if there is no canvas."""
        chunk = self.data[12:16]
        if chunk == b"VP8X":
            return 1 + int.from_bytes(self.data[24:27], "little"), 1 + int.from_bytes(self.data[27:30], "little")
        if chunk == b"VP8L":
            (bits,) = struct.unpack_from("<I", self.data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", self.data, 26)
            return width & 0x3FFF, height & 0x3FFF
        return None

    def _lacks_data(self) -> bool:
        return self._length > len(self.data)

    def _check_pixels(self) -> None:
        if self.data[12:16] == b"VP8L":  # a lossy picture may end in zeros
            refuse_zero_tail(self.data, 0, self._length)

    @property
    def _length(self) -> int:
        return int.from_bytes(self.data[4:8], "little") + 8
