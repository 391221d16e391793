"""BMP and DIB: rewrite those that Pillow does not read correctly as uncompressed bitmaps.

These have colours and alpha in bit fields, 2-bit colours, or run lengths. A BMP has a file header, which a DIB lacks,
then a second header whose size is its version. Pixels that run lengths skip are transparent. Alpha that is 0 everywhere
is ignored. Embedded profiles are applied; other colour spaces are treated as sRGB.
"""

from __future__ import annotations

import re
import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import BmpImagePlugin, Image

from darkroom.tasks.imaging.bands import Pixels, Samples, bands
from darkroom.tasks.imaging.color import with_alpha, without_empty_alpha
from darkroom.tasks.imaging.failures import corrupt, truncated, unsupported
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.formats.bmp_runs import Runs, decode_runs
from darkroom.tasks.imaging.records import Size

FILE_HEADER = 14
OLD_HEADER, V3_HEADER, OS2_HEADER, V5_HEADER = 12, 40, 64, 124
PLAIN, RLE8, RLE4, BIT_FIELDS, ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6
COMPRESSIONS = {4: "JPEG", 5: "PNG"}
EMBEDDED, LINKED = b"DEBM", b"KNIL"

BGR, BGRA = (0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
READ_BY_PILLOW = {
    16: {(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)},
    24: {BGR},
    32: {
        BGR,
        BGRA,
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),
    },
}
"""The bit masks of red, green, blue and alpha that Pillow reads, by bits per pixel."""


class Header(NamedTuple):
    """The second header; the height is negative if the top row is stored first."""

    size: int
    width: int
    height: int
    bits: int
    compression: int
    colors: int
    masks: tuple[int, int, int, int]

    @property
    def color_bytes(self) -> int:
        """Bytes per colour of the palette."""
        return 3 if self.size == OLD_HEADER else 4

    @property
    def palette_at(self) -> int:
        """Offset of the palette from the start of the second header."""
        masks = {BIT_FIELDS: 12, ALPHA_BIT_FIELDS: 16}.get(self.compression, 0)
        return self.size + (masks if self.size == V3_HEADER else 0)

    @property
    def stride(self) -> int:
        """Bytes per row, padded to a multiple of four."""
        return (self.width * self.bits + 31) // 32 * 4


def read_header(data: bytes, start: int) -> Header:
    """Return the second header, which begins at `start`; raises `struct.error` if the file ends within it."""
    (size,) = struct.unpack_from("<I", data, start)
    if size == OLD_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, start + 4)
        return Header(size, width, height, bits, PLAIN, 1 << min(bits, 8), (0, 0, 0, 0))
    width, height, _, bits = struct.unpack_from("<IiHH", data, start + 4)
    compression, colors = PLAIN, 0
    if size >= V3_HEADER:
        compression, _, _, _, colors = struct.unpack_from("<IIiiI", data, start + 16)
    masks = (0, 0, 0, 0)
    if compression in {BIT_FIELDS, ALPHA_BIT_FIELDS}:
        has_alpha = compression == ALPHA_BIT_FIELDS or size >= 56
        masks = struct.unpack_from("<IIII" if has_alpha else "<III", data, start + 40)
        masks = (*masks, 0)[:4]
    return Header(size, width, height, bits, compression, colors or (1 << bits if bits <= 8 else 0), masks)


class BmpImage(PillowImage):
    """A BMP, or a DIB, to which a file header is added."""

    name = "bmp"
    signature = re.compile(
        rb"(?s)BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0|"
        rb"(?:\x0c\0\0\0.{4}|[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8})\x01\0[\x01\x02\x04\x08\x10\x18\x20]\0"
    )
    """A second header of a known size; in a DIB also one colour plane and a known number of bits per pixel."""

    reader = BmpImagePlugin.BmpImageFile

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        if not self.data.startswith(b"BM"):
            self.data = _with_file_header(self.data)
        self._gaps: Samples | None = None

    @cached_property
    def _header(self) -> Header:
        return read_header(self.data, FILE_HEADER)

    def _header_size(self) -> Size:
        return self._header.width, abs(self._header.height)

    def _check_structure(self) -> None:
        """Raise `decode.truncated` for an incomplete header, `decode.unsupported` for pixels that are not read."""
        try:
            header = self._header
        except struct.error as error:
            raise truncated("the file ends within its header") from error
        if not header.width or not header.height:
            raise corrupt(f"a BMP of {header.width:,} × {header.height:,} pixels")
        problem = ""
        if header.size == OS2_HEADER and header.compression > RLE4:
            problem = "compressed as fax or 24-bit runs"
        elif header.compression in COMPRESSIONS:
            problem = f"compressed as {COMPRESSIONS[header.compression]}"
        elif header.bits not in {1, 2, 4, 8, 16, 24, 32}:
            problem = f"with {header.bits} bits for each pixel"
        elif header.compression in {BIT_FIELDS, ALPHA_BIT_FIELDS} and not self._has_readable_masks():
            masks = " ".join(f"{mask:x}" for mask in header.masks)
            problem = f"with {header.bits}-bit pixels and the bit fields {masks}"
        if problem:
            raise unsupported(f"a BMP {problem} is not read here: save it as PNG first")

    def _has_readable_masks(self) -> bool:
        bits, masks = self._header.bits, self._header.masks
        if masks in READ_BY_PILLOW.get(bits, ()):
            return True
        # Adding its lowest bit to a mask clears all its bits only if they are contiguous.
        return bits in {16, 32} and all(mask & (mask + (mask & -mask)) == 0 for mask in masks)

    def decoder_input(self) -> bytes:
        """Return the file, or an uncompressed bitmap of its pixels if Pillow would not read them correctly."""
        header = self._header
        if header.compression in {RLE8, RLE4} and header.bits in {4, 8}:
            return self._without_runs()
        if header.bits == 2:
            rows = np.frombuffer(self._stored_rows(), np.uint8).reshape(-1, header.stride)
            indices = np.stack([rows >> shift & 3 for shift in (6, 4, 2, 0)], axis=2, dtype=np.uint8)
            return self._plain(indices.reshape(len(rows), -1)[:, : header.width])
        if header.compression in {BIT_FIELDS, ALPHA_BIT_FIELDS}:
            is_read = header.masks in READ_BY_PILLOW[header.bits] and header.compression == BIT_FIELDS
            return self.data if is_read else self._with_plain_masks()
        return self.data

    @property
    def _pixels_at(self) -> int:
        (start,) = struct.unpack_from("<I", self.data, 10)
        return start or FILE_HEADER + self._header.palette_at

    def _stored_rows(self) -> bytes:
        header = self._header
        rows = self.data[self._pixels_at : self._pixels_at + header.stride * abs(header.height)]
        return rows[: len(rows) // header.stride * header.stride] if header.stride else b""

    def _without_runs(self) -> bytes:
        header = self._header
        size = header.width, abs(header.height)
        runs: Runs = decode_runs(self.data[self._pixels_at :], size, half_bytes=header.compression == RLE4)
        if not runs.written[: runs.end].all():
            self._gaps = ~runs.written.reshape(size[::-1])[:: -1 if header.height > 0 else 1]
            self.warnings.append("rle_gaps")
        rows = runs.end // max(header.width, 1)
        return self._plain(runs.indices.reshape(size[::-1])[:rows])

    def _plain(self, indices: Pixels) -> bytes:
        """Return an uncompressed bitmap of 8 bits per pixel with the file's palette."""
        header = self._header
        start = FILE_HEADER + header.palette_at
        length = header.color_bytes * 256
        entries = np.frombuffer(self.data[start : start + length].ljust(length, b"\0"), np.uint8)
        palette = np.zeros((256, 4), np.uint8)
        colors = min(header.colors, 256, (self._pixels_at - start) // header.color_bytes)
        palette[:colors, :3] = entries.reshape(256, -1)[:colors, :3]
        rows = np.pad(indices, ((0, 0), (0, -header.width % 4)))
        return _bitmap(header, rows, palette.tobytes())

    def _with_plain_masks(self) -> bytes:
        header = self._header
        kind = np.dtype(f"<u{header.bits // 8}")
        stored = np.frombuffer(self._stored_rows(), kind).reshape(-1, header.stride // kind.itemsize)
        pixels = np.full((len(stored), header.width, 4), 255, np.uint8)
        red, green, blue, alpha = header.masks
        for channel, mask in enumerate((blue, green, red, alpha)):
            if mask:
                for rows in bands(*pixels.shape[:2]):
                    pixels[rows, :, channel] = _field(stored[rows, : header.width], mask)
            elif channel < 3:
                pixels[:, :, channel] = 0
        masks = BGRA if alpha else BGR
        return _bitmap(header, pixels, masks=masks)

    def _icc_profile(self) -> bytes | None:
        """Return the embedded profile; None without one. A link to one adds the warning `icc_ignored`."""
        if self._header.size < V5_HEADER:
            return None
        space = self.data[FILE_HEADER + 56 : FILE_HEADER + 60]
        if space == LINKED:
            self.warnings.append("icc_ignored")
        if space != EMBEDDED:
            return None
        start, length = struct.unpack_from("<II", self.data, FILE_HEADER + 112)
        return self.data[FILE_HEADER + start : FILE_HEADER + start + length]

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, transparent where run lengths skip them."""
        pixels = without_empty_alpha(super()._to_pixels(image, whole=whole), self.warnings)
        return pixels if self._gaps is None else with_alpha(pixels, ~self._gaps)


def _with_file_header(data: bytes) -> bytes:
    try:
        header = read_header(data, 0)
    except struct.error:
        return b"BM" + bytes(12) + data
    pixels_at = FILE_HEADER + header.palette_at + header.color_bytes * header.colors
    return b"BM" + struct.pack("<IHHI", FILE_HEADER + len(data), 0, 0, pixels_at & 0xFFFFFFFF) + data


def _bitmap(header: Header, rows: Pixels, palette: bytes = b"", masks: tuple[int, ...] = ()) -> bytes:
    """Return an uncompressed bitmap (V4 header) of 8 bits per pixel with a palette, or of 32 with masks."""
    offset = FILE_HEADER + 108 + len(palette)
    start = struct.pack("<2sIHHI", b"BM", offset + rows.size, 0, 0, offset)
    bits, compression = (8, PLAIN) if palette else (32, BIT_FIELDS)
    fields = (108, header.width, header.height, 1, bits, compression, rows.size, 0, 0, len(palette) // 4, 0)
    fixed = start + struct.pack("<IIiHHIIiiII", *fields) + struct.pack(f"<{len(masks)}I", *masks).ljust(68, b"\0")
    return fixed + palette + rows.tobytes()


def _field(samples: Samples, mask: int) -> Pixels:
    """Return the bits that `mask` selects, scaled to 8 bits and rounded."""
    shift = (mask & -mask).bit_length() - 1
    white = mask >> shift
    values = (samples & np.asarray(mask, samples.dtype)) >> np.asarray(shift, samples.dtype)
    scaled: Pixels = np.rint(values * (255 / white)).astype(np.uint8)
    return scaled
