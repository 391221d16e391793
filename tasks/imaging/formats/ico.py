"""ICO: find the pictures in an icon, and read the largest."""

from __future__ import annotations

import re
import struct
from functools import cached_property
from math import ceil, log

from PIL import IcoImagePlugin, Image

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import without_empty_alpha
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.formats.png import PngImage
from darkroom.tasks.imaging.records import Size

OLD_HEADER = 12
"""Bytes of a bitmap header whose width and height have 16 bits."""

HEADERS = frozenset({OLD_HEADER, 40, 52, 56, 64, 108, 124})


class IcoImage(PillowImage):
    """An icon of one or more pictures, each of them a PNG or a bitmap without a file header."""

    name = "ico"
    signature = re.compile(rb"\0\0\x01\0(?!\0\0|ftyp)")
    """Type 1 and at least one picture; not an ISO base media file, whose first box may have 256 bytes."""

    reader = IcoImagePlugin.IcoImageFile

    def _header_size(self) -> Size | None:
        """Return the largest width and height among the pictures' own headers."""
        sizes = [self._size_at(start) for *_, start in self._entries]
        return max(sizes, key=lambda size: size[0] * size[1], default=None)

    def decoder_input(self) -> bytes:
        """Return the file; if a PNG is read, without its chunks that make no pixels."""
        return self._png.decoder_input() if self._png else self.data

    def check_checksums(self) -> None:
        """Raise `decode.corrupt` for wrong checksums in the picture that is read, if it is a PNG."""
        if self._png:
            self._png.check_checksums()
            self.warnings += self._png.warnings

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, but ignore a bitmap's alpha that is 0 everywhere."""
        pixels = super()._to_pixels(image, whole=whole)
        return pixels if self._png else without_empty_alpha(pixels, self.warnings)

    @cached_property
    def _png(self) -> PngImage | None:
        """The picture that is read, if it is a PNG."""
        # Pillow's choice: the largest by the directory; among equals, that of fewest bits.
        chosen = min(self._entries, key=lambda entry: (-entry[0] * entry[1], entry[2]), default=None)
        return self._png_at(chosen[3]) if chosen else None

    def _png_at(self, start: int) -> PngImage | None:
        return PngImage(self.data, start) if PngImage.signature.match(self.data, start) else None

    @cached_property
    def _entries(self) -> list[tuple[int, int, int, int]]:
        """(width, height, bits per pixel, start) of each picture, as the directory states them."""
        (count,) = struct.unpack_from("<H", self.data, 4)
        entries = []
        for position in range(6, min(6 + 16 * count, len(self.data) - 15), 16):
            width, height, colors, _, _, bits, _, start = struct.unpack_from("<BBBBHHII", self.data, position)
            depth = bits or (colors != 0 and ceil(log(colors, 2))) or 256
            entries.append((width or 256, height or 256, depth, start))
        return entries

    def _size_at(self, start: int) -> Size:
        png = self._png_at(start)
        if png:
            return png.stated_size() or (0, 0)
        try:
            (header,) = struct.unpack_from("<I", self.data, start)
            if header not in HEADERS:
                return 0, 0  # Pillow does not read it
            width, height = struct.unpack_from("<HH" if header == OLD_HEADER else "<ii", self.data, start + 4)
        except struct.error:
            return 0, 0
        # The stored height counts the rows of the colours and those of the transparency mask (AND mask).
        return abs(width), abs(height) // 2
