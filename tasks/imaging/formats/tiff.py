"""TIFF: find the picture among the pages, and check that all of its strips or tiles are there and undamaged.

A page is described by a directory (IFD) of tags. The picture is the first page not marked as a reduced copy or a mask.
Its pixels are in parts: strips of rows, or tiles. With separate planes, each sample of the pixels has parts of its own.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from contextlib import suppress
from functools import cached_property

from PIL import Image, TiffImagePlugin

from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.failures import corrupt, truncated, unsupported
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
"""The compressions that are read: none, four of CCITT, LZW, JPEG, Deflate, PackBits, Zstandard. Others are rare, and
most vulnerabilities of decoders are in them."""

NOT_READ = {6: "old-style JPEG", 34712: "JPEG 2000", 34925: "LZMA", 34661: "JBIG", 50001: "WebP", 50002: "JPEG XL"}
"""Names of some other compressions."""

JPEG, DEFLATE = 7, frozenset({8, 32946})
FAX = frozenset({2, 3, 4, 32771})

END_OF_JPEG = b"\xff\xd9"
SEPARATE = 2
"""The value of `PLANES` for separate planes."""

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
    """Pillow's reader, which applies the orientation, but without reading other metadata."""

    is_turned = False
    """Whether the orientation has been applied, which Pillow omits if the file is cut."""

    @property
    def orientation(self) -> int | None:
        """The orientation in the tags, else in the XMP packet, 1..8; 1 without one, None if it is invalid."""
        stated = self.tag_v2.get(ORIENTATION)
        if stated is None:
            packet = self.tag_v2.get(XMP)
            found = XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
            stated = int(found[1]) if found else 1
        return stated if isinstance(stated, int) and 1 <= stated <= 8 else None

    def load_end(self) -> None:
        """Apply the orientation to the decoded picture."""
        method = TURNS.get(self.orientation or 1)
        if method is not None:
            self.im = self.im.transpose(method)
        self._size = self.im.size
        self.is_turned = True


class TiffImage(PillowImage):
    """A TIFF, or a BigTIFF, whose offsets have 64 bits."""

    name = "tiff"
    signature = re.compile(rb"(?s)(?:II[*+]\0|MM\0[*+])(?!.{4}(?:CR|IIII|MMMM))")
    """A byte order and a version; not those of Canon's and Phase One's camera raw files, which begin like a TIFF."""

    reader = TiffReader
    image: TiffReader

    @cached_property
    def directory(self) -> Directory:
        """The directory of the picture; raises `struct.error` or `OverflowError` if it can't be read."""
        return picture_directory(self.data)

    @cached_property
    def _samples(self) -> TiffSamples:
        return TiffSamples(self.data, self.directory)

    def decoder_input(self) -> bytes:
        """Return the file, or a TIFF of only the picture's directory if Pillow would read another page, or none."""
        directory, layout = self.directory, Layout(self.data)
        converted = self._samples.as_8_bits()
        if converted:
            return converted
        is_first = next(layout.directories(self.data))[0] == directory.position
        return self.data if is_first and not layout.is_big_endian_bigtiff else rewritten(self.data, directory, {})

    def _open_reader(self) -> TiffReader:
        """Return Pillow's reader; raise `decode.unsupported` for a kind of samples that it can't read."""
        try:
            return TiffReader(io.BytesIO(self.decoder_input()))
        except SyntaxError as error:
            if not UNREADABLE.search(str(error)):
                raise
            message = f"a TIFF with {self._samples.kind} is not read here: save it as 8- or 16-bit gray or RGB first"
            raise unsupported(message) from error

    def _header_size(self) -> Size | None:
        width, height = self.directory.values(WIDTH), self.directory.values(HEIGHT)
        return (width[0], height[0]) if width and height else None

    def _stored_size(self) -> Size:
        """Return width and height before orientation; Pillow reports them after it."""
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
        """Raise `ImageError` for an invalid structure that the reader accepts.

        `decode.unsupported` for camera raw files and compressions that aren't read, `decode.corrupt` if parts of the
        picture are missing, `decode.truncated` if its directory is.
        """
        try:
            raw = camera_raw(self.data)
            if raw:
                raise unsupported(f"this is a camera raw file ({raw}), which is not read here: {CAMERA_RAW}")
            self._check_parts()
        except (struct.error, OverflowError) as error:
            raise truncated("the file ends before the data that its directory lists") from error

    def _check_parts(self) -> None:
        directory = self.directory
        compression = directory.compression
        if compression not in COMPRESSIONS:
            name = NOT_READ.get(compression, f"number {compression}")
            message = f"a TIFF with the compression {name} is not read here: save it with LZW or Deflate, or as PNG"
            raise unsupported(message)
        width, height = directory.value(WIDTH, 0), directory.value(HEIGHT, 0)
        across, down = directory.part_size
        if min(across, down, width, height) <= 0:
            sizes = f"{width:,} × {height:,} pixels in strips or tiles of {across:,} × {down:,}"
            raise corrupt(f"the TIFF is damaged: {sizes}")
        planes = directory.value(SAMPLES, 1) if directory.value(PLANES, 1) == SEPARATE else 1
        needed = -(-width // across) * -(-height // down) * planes
        offsets = directory.fields.get(directory.offsets_tag)
        if offsets is None:
            raise corrupt("the TIFF is damaged: it does not list the positions of its strips or tiles")
        count = offsets.length
        # libtiff ignores excess parts, but Pillow pastes them over the first ones.
        if count < needed or (count > needed and compression == PLAIN):
            raise corrupt(f"the TIFF is damaged: it lists {count:,} strips or tiles where its size needs {needed:,}")
        if compression == PLAIN and any(start == 0 for start, _ in directory.parts):
            raise corrupt("the TIFF is damaged: some of its strips or tiles have no position in the file")

    def _check_pixels(self) -> None:
        """Raise `ImageError` for damage that libtiff ignores: to fax lines, checksums, and JPEG-compressed parts."""
        directory = self.directory
        if directory.compression in FAX and has_damaged_lines(self.decoder_input()):
            error = truncated if self.is_cut() else corrupt
            raise error("the fax-coded picture is damaged or ends early: lines are missing")
        if directory.compression in DEFLATE:
            for start, end in directory.parts:
                try:
                    zlib.decompressobj().decompress(self.data[start:end])
                except zlib.error as failure:
                    raise corrupt("the TIFF is damaged: a strip or tile can't be decompressed") from failure
        elif directory.compression == JPEG:
            tables = bytes(directory.values(JPEG_TABLES))
            for start, end in directory.parts:
                # The shared tables come after a start marker, instead of the part's own. An end marker may be missing.
                part = tables[:-2] + self.data[start + 2 : end] if tables else self.data[start:end]
                JpegImage(part + END_OF_JPEG).check_undamaged(self._check_part_size)

    def _check_part_size(self, facts: SourceFacts) -> None:
        across, down = self.directory.part_size
        if facts.width > across or facts.height > down:
            part = f"{facts.width:,} × {facts.height:,}"
            raise corrupt(f"the TIFF is damaged: a strip or tile of {part} pixels instead of {across:,} × {down:,}")

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, but interpret samples as the tags state."""
        pixels = self._samples.to_pixels(image, self.decoder_input if whole else None, self.warnings)
        return super()._to_pixels(image, whole=whole) if pixels is None else pixels
