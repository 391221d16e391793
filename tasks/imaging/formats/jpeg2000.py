"""JPEG 2000: check that all tiles are there.

A tile consists of tile-parts, each with a header of 12 bytes that begins with the marker SOT and states its length.
"""

from __future__ import annotations

import re
import struct

from PIL import Jpeg2KImagePlugin

from darkroom.tasks.imaging.failures import truncated
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.formats.isobmff import boxes

START, END = b"\xff\x4f\xff\x51", b"\xff\xd9"
SOT, SOD, EOC = 0xFF90, 0xFF93, 0xFFD9
TILE_PART_HEADER = 12


class Jpeg2000Image(PillowImage):
    """A codestream, bare or in the boxes of a JP2 file."""

    name = "jpeg2000"
    signature = re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")
    reader = Jpeg2KImagePlugin.Jpeg2KImageFile

    def _lacks_data(self) -> bool:
        return not self.data.rstrip(b"\0").endswith(END) or self._lacks_tiles()

    def _check_pixels(self) -> None:
        """Raise `decode.truncated` if a tile or its end is missing, which decoders leave black."""
        if self._lacks_tiles():
            raise truncated("tiles of the picture are missing")

    def _lacks_tiles(self) -> bool:
        start = self._codestream()
        if start is None or not self.data.startswith(START, start):
            return True
        try:
            right, bottom, _, _, tile_width, tile_height, left, top = struct.unpack_from(">8I", self.data, start + 8)
            tiles = -(-(right - left) // tile_width) * -(-(bottom - top) // tile_height)
        except (struct.error, ZeroDivisionError):  # the file ends within its headers
            return True
        seen: set[int] = set()
        position = self._end_of_header(start + 2)
        while self.data.startswith(SOT.to_bytes(2, "big"), position) and position + TILE_PART_HEADER <= len(self.data):
            tile, length = struct.unpack_from(">HI", self.data, position + 4)
            seen.add(tile)
            # 0: to the end of the file
            position = position + max(length, TILE_PART_HEADER) if length else len(self.data)
        return position > len(self.data) or len(seen) < tiles

    def _codestream(self) -> int | None:
        """Return the position of the codestream, which may be in a `jp2c` box; None if there is none."""
        if self.data.startswith(START):
            return 0
        return next((box.start for box in boxes(self.data) if box.kind == b"jp2c"), None)

    def _end_of_header(self, position: int) -> int:
        """Return the position of the first marker that does not belong to the codestream's main header."""
        while position + 4 <= len(self.data):
            marker, length = struct.unpack_from(">HH", self.data, position)
            if marker in {SOT, SOD, EOC} or length < 2:
                break
            position += 2 + length
        return position
