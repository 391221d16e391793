"""TIFF: whether the parts of the picture that its directory names are there and undamaged.

The picture is the first page that doesn't say it is a reduced copy of another one, or a mask.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from contextlib import suppress
from functools import cached_property

from PIL import Image, TiffImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.fax import has_damaged_lines
from darkroom.tasks.imaging.formats.base import PillowImage
from darkroom.tasks.imaging.formats.foreign import CAMERA_RAW
from darkroom.tasks.imaging.formats.jpeg import JpegImage
from darkroom.tasks.imaging.formats.tiff_directory import (
    HEIGHT,
    JPEG_TABLES,
    ORIENTATION,
    PLAIN,
    PLANES,
    SAMPLES,
    WIDTH,
    XMP,
    Directory,
    Layout,
    camera_raw,
    picture_directory,
    rewritten,
)
from darkroom.tasks.imaging.formats.tiff_samples import TiffSamples
from darkroom.tasks.imaging.records import Size, SourceFacts

COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 50000})
"""None, CCITT in four kinds, LZW, JPEG, Deflate, PackBits, Zstandard. The others are hardly written any more, and most
of the vulnerabilities of decoders were found in them."""

NOT_READ = {6: "old-style JPEG", 34712: "JPEG 2000", 34925: "LZMA", 34661: "JBIG", 50001: "WebP", 50002: "JPEG XL"}
"""Names of some of the others."""

JPEG, DEFLATE = 7, frozenset({8, 32946})
FAX = frozenset({2, 3, 4, 32771})

END_OF_JPEG = b"\xff\xd9"
SEPARATE = 2
"""The value of `PLANES` where each sample of the pixels has strips of its own."""

UNREADABLE = re.compile(r"unknown pixel mode|unknown data organization|samples per pixel")

XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TiffReader(TiffImagePlugin.TiffImageFile):
    """A reader that turns the picture upright as Pillow does, but without reading all other metadata."""

    is_turned = False
    """Whether the picture has been turned; it may not have been if the file is cut."""

    @property
    def orientation(self) -> int | None:
        """The orientation that the file states, 1..8; None if that is invalid."""
        stated = self.tag_v2.get(ORIENTATION)
        if stated is None:
            packet = self.tag_v2.get(XMP)
            found = XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
            stated = int(found[1]) if found else 1
        return stated if isinstance(stated, int) and 1 <= stated <= 8 else None

    def load_end(self) -> None:
        """Turn the picture that was just decoded."""
        method = TURNS.get(self.orientation or 1)
        if method is not None:
            self.im = self.im.transpose(method)
        self._size = self.im.size
        self.is_turned = True


class TiffImage(PillowImage):
    """A TIFF or BigTIFF of one or more pages, of which the first is read."""

    name = "tiff"
    signature = re.compile(rb"(?s)(?:II[*+]\0|MM\0[*+])(?!.{4}(?:CR|IIII|MMMM))")
    """Canon's and Phase One's camera raw files begin like a TIFF."""

    reader = TiffReader
    image: TiffReader

    @cached_property
    def directory(self) -> Directory:
        """The directory of the picture; may raise `struct.error` or `OverflowError`."""
        return picture_directory(self.data)

    @cached_property
    def _samples(self) -> TiffSamples:
        return TiffSamples(self.data, self.directory)

    def decoder_input(self) -> bytes:
        """Return the file; one of a single directory where Pillow would read another, or can't read it."""
        directory, layout = self.directory, Layout(self.data)
        converted = self._samples.as_8_bits()
        if converted:
            return converted
        is_first = next(layout.directories(self.data))[0] == directory.position
        return self.data if is_first and not layout.is_big_endian_bigtiff else rewritten(self.data, directory, {})

    def _open_reader(self) -> TiffReader:
        """Return Pillow's reader; raise `decode.unsupported`, with the kind of samples, for ones that it can't read."""
        try:
            return TiffReader(io.BytesIO(self.decoder_input()))
        except SyntaxError as error:
            if not UNREADABLE.search(str(error)):
                raise
            message = f"a TIFF with {self._samples.kind} is not read here: save it as 8- or 16-bit gray or RGB first"
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message) from error

    def _header_size(self) -> Size | None:
        width, height = self.directory.values(WIDTH), self.directory.values(HEIGHT)
        return (width[0], height[0]) if width and height else None

    def _stored_size(self) -> Size:
        """Return the size before the picture is turned; Pillow reports that afterwards."""
        return self.image.tag_v2[WIDTH], self.image.tag_v2[HEIGHT]

    def _read_orientation(self) -> int | None:
        return self.image.orientation

    def _is_turned(self) -> bool:
        return self.image.is_turned

    def _count_frames(self) -> int:
        pages = 0
        with suppress(struct.error, OverflowError):
            for _ in Layout(self.data).directories(self.data):
                pages += 1
        return max(pages, 1)

    def _lacks_data(self) -> bool:
        return self.directory.end > len(self.data) or any(end > len(self.data) for _, end in self.directory.parts)

    def _check_structure(self) -> None:
        """Raise `ImageError` for what a decoder would not notice.

        `decode.unsupported` for compressions that aren't read, `decode.corrupt` where parts of the picture are missing,
        `decode.truncated` where the directory is.
        """
        try:
            raw = camera_raw(self.data)
            if raw:
                message = f"this is a camera raw file ({raw}), which is not read here: {CAMERA_RAW}"
                raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message)
            self._check_parts()
        except (struct.error, OverflowError) as error:
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends before what its directory names") from error

    def _check_parts(self) -> None:
        directory = self.directory
        compression = directory.compression
        if compression not in COMPRESSIONS:
            name = NOT_READ.get(compression, f"number {compression}")
            message = f"a TIFF with the compression {name} is not read here: save it with LZW or Deflate, or as PNG"
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message)
        width, height = directory.value(WIDTH, 0), directory.value(HEIGHT, 0)
        across, down = directory.part_size
        if min(across, down, width, height) <= 0:
            message = f"the TIFF is damaged: {width} × {height} pixels in strips or tiles of {across} × {down}"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)
        planes = directory.value(SAMPLES, 1) if directory.value(PLANES, 1) == SEPARATE else 1
        needed = -(-width // across) * -(-height // down) * planes
        offsets = directory.fields.get(directory.offsets_tag)
        if offsets is None:
            raise ImageError(ErrorCode.DECODE_CORRUPT, "the TIFF is damaged: it doesn't say where its pixels are")
        count = offsets.length
        # libtiff ignores parts beyond those that are needed, but Pillow lays them over the first ones.
        if count < needed or (count > needed and compression == PLAIN):
            message = f"the TIFF is damaged: it lists {count} strips or tiles where its size needs {needed}"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)
        if compression == PLAIN and any(start == 0 for start, _ in directory.parts):
            message = "the TIFF is damaged: some of its strips or tiles are nowhere in the file"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)

    def _check_pixels(self) -> None:
        """Raise `ImageError` for damage that libtiff ignores: in faxes, wrong checksums, what JPEG decoders warn of."""
        directory = self.directory
        if directory.compression in FAX and has_damaged_lines(self.decoder_input()):
            code = ErrorCode.DECODE_TRUNCATED if self.is_cut() else ErrorCode.DECODE_CORRUPT
            raise ImageError(code, "the fax-coded picture is damaged or ends early: lines are missing")
        if directory.compression in DEFLATE:
            for start, end in directory.parts:
                try:
                    zlib.decompressobj().decompress(self.data[start:end])
                except zlib.error as error:
                    message = "the TIFF is damaged: a strip or tile can't be unpacked"
                    raise ImageError(ErrorCode.DECODE_CORRUPT, message) from error
        elif directory.compression == JPEG:
            tables = bytes(directory.values(JPEG_TABLES))
            for start, end in directory.parts:
                # The tables replace the part's start marker. Not every writer puts an end marker.
                part = tables[:-2] + self.data[start + 2 : end] if tables else self.data[start:end]
                JpegImage(part + END_OF_JPEG).check_undamaged(self._check_part_size)

    def _check_part_size(self, facts: SourceFacts) -> None:
        across, down = self.directory.part_size
        if facts.width > across or facts.height > down:
            message = f"a part of {facts.width} × {facts.height} pixels where there is room for {across} × {down}"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, but with the depth and meaning that the tags state."""
        pixels = self._samples.to_pixels(image, self.decoder_input if whole else None, self.warnings)
        return super()._to_pixels(image, whole=whole) if pixels is None else pixels
