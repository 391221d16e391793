"""TGA: recognise it by a plausible header, as it has no signature; decode all run lengths; interpret its alpha."""

from __future__ import annotations

import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, TgaImagePlugin

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import without_empty_alpha
from darkroom.tasks.imaging.failures import corrupt, unsupported
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.records import Size

HEADER = struct.Struct("<BBBHHBHHHHBB")
PALETTE, COLOR, GRAY, RUNS = 1, 2, 3, 8
"""Kinds of pixels; `RUNS` is added to the kind of run-length encoded ones."""

KINDS = frozenset({PALETTE, COLOR, GRAY, PALETTE + RUNS, COLOR + RUNS, GRAY + RUNS})
PALETTE_BITS = frozenset({15, 16, 24, 32})
READ = frozenset({(PALETTE, 8), (COLOR, 16), (COLOR, 24), (COLOR, 32), (GRAY, 8), (GRAY, 16)})
"""The (kind, bits per pixel) that Pillow reads."""

OVERRUN = "buffer overrun"
"""In Pillow's message about runs that continue in the next row."""

FOOTER = b"TRUEVISION-XFILE.\0"
FOOTER_BYTES = 26
MEANINGLESS_ALPHA = frozenset({0, 1, 2})
"""Attribute types for no alpha, and for two kinds of undefined data."""


class Header(NamedTuple):
    """The fields of the header; `left` to `height` in pixels, `bits` per pixel."""

    id_bytes: int
    has_palette: int
    kind: int
    first_color: int
    colors: int
    color_bits: int
    left: int
    top: int
    width: int
    height: int
    bits: int
    descriptor: int

    @property
    def base_kind(self) -> int:
        """The kind of pixels without `RUNS`."""
        return self.kind & ~RUNS

    @property
    def pixel_bytes(self) -> int:
        """Bytes per pixel."""
        return (self.bits + 7) // 8

    @property
    def alpha_bits(self) -> int:
        """Bits of alpha per pixel, as the header states them."""
        return self.descriptor & 15

    def is_plausible(self) -> bool:
        """Return whether the fields are consistent, as those of other formats hardly ever are."""
        if self.kind not in KINDS or not self.width or not self.height or self.descriptor & 0xC0:
            return False
        if self.has_palette:
            is_fine = self.has_palette == 1 and self.colors > 0 and self.color_bits in PALETTE_BITS
        else:
            is_fine = self.first_color == self.colors == 0 and self.color_bits in PALETTE_BITS | {0}
        if self.base_kind == PALETTE:
            return is_fine and self.has_palette == 1 and self.bits in {8, 16}
        depths = {8, 16} if self.base_kind == GRAY else {15, 16, 24, 32}
        return is_fine and self.bits in depths and self.alpha_bits in {0, 1, 8}


class TgaImage(PillowImage):
    """A Truevision TGA."""

    name = "tga"
    reader = TgaImagePlugin.TgaImageFile
    _is_expanded = False

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file begins with a plausible header."""
        return len(head) >= HEADER.size and Header(*HEADER.unpack_from(head)).is_plausible()

    @cached_property
    def _header(self) -> Header:
        return Header(*HEADER.unpack_from(self.data))

    def _header_size(self) -> Size:
        return self._header.width, self._header.height

    def _lacks_data(self) -> bool:
        """Return whether the file ends within its pixels; False for run lengths, which only the decoder can check."""
        header = self._header
        pixels = 0 if header.kind & RUNS else header.width * header.height * header.pixel_bytes
        return self._pixels_at + pixels > len(self.data)

    @property
    def _pixels_at(self) -> int:
        header = self._header
        palette = header.colors * ((header.color_bits + 7) // 8) if header.has_palette else 0
        return HEADER.size + header.id_bytes + palette

    def _check_structure(self) -> None:
        header = self._header
        if (header.base_kind, header.bits) not in READ or (header.has_palette and header.color_bits == 15):
            kind = f"a TGA of kind {header.kind} with {header.bits}-bit pixels"
            raise unsupported(f"{kind} is not read here: save it as PNG first")

    def _load(self, *, tolerant: bool) -> Image.Image:
        try:
            return super()._load(tolerant=tolerant)
        except OSError as error:
            if not self._header.kind & RUNS or OVERRUN not in str(error):
                raise
        self._is_expanded = True
        self.image = self._open_reader()
        return super()._load(tolerant=tolerant)

    def decoder_input(self) -> bytes:
        """Return the file; with its run lengths expanded if Pillow could not decode them."""
        if not self._is_expanded:
            return self.data
        header = self._header
        start = self._pixels_at
        pixels = _expand(self.data[start:], header.pixel_bytes, header.width * header.height)
        return self.data[:2] + bytes((header.base_kind,)) + self.data[3:start] + pixels

    def _attribute_type(self) -> int | None:
        """Return the attribute type, which states what alpha means, of the extension area; None if there is none."""
        footer = self.data[-FOOTER_BYTES:]
        start = int.from_bytes(footer[:4], "little")
        if not footer.endswith(FOOTER) or not start or start + 494 >= len(self.data):
            return None
        return self.data[start + 494]

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, without alpha that the file declares undefined."""
        pixels = super()._to_pixels(image, whole=whole)
        if pixels.ndim == 2 or pixels.shape[2] < 4 or self._header.base_kind == PALETTE:
            return pixels
        has_no_bit = self._header.bits == 16 and self._header.base_kind == COLOR and not self._header.alpha_bits
        if has_no_bit or self._attribute_type() in MEANINGLESS_ALPHA:
            return np.ascontiguousarray(pixels[:, :, :3])
        return without_empty_alpha(pixels, self.warnings)


def _expand(data: bytes, pixel_bytes: int, total: int) -> bytes:
    """Return the pixels of run-length encoded data; raise `decode.corrupt` if they are more than `total`."""
    pixels, position, count = list[bytes](), 0, 0
    while count < total and position < len(data):
        packet = data[position]
        length = (packet & 127) + 1
        is_run = packet >= 128
        start, position = position + 1, position + 1 + pixel_bytes * (1 if is_run else length)
        pixels.append(data[start:position] * (length if is_run else 1))
        count += length
    if count > total:
        raise corrupt("the TGA is damaged: its run lengths hold more pixels than the picture")
    return b"".join(pixels)
