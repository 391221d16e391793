"""PNG: its chunks, what they say, whether they are undamaged, and which of them a decoder needs."""

from __future__ import annotations

import re
import struct
import zlib
from functools import cached_property
from itertools import takewhile

from PIL import Image, PngImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels
from darkroom.tasks.imaging.color import round_16_bits
from darkroom.tasks.imaging.exif import PREFIX, read_orientation
from darkroom.tasks.imaging.formats.base import Part, PillowImage
from darkroom.tasks.imaging.records import Size

DECODED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that make the pixels of the picture, or of an animation's first frame. Decoders never see the others, such as
texts that unpack to a thousand times their size."""

END = b"\0\0\0\0IEND\xaeB`\x82"
RAW_PROFILES = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00")


class PngImage(PillowImage):
    """A PNG, or the part of another file from `start` on that is one."""

    name = "png"
    signature = re.compile(rb"\x89PNG\r\n\x1a\n")
    reader = PngImagePlugin.PngImageFile

    def __init__(self, data: bytes | memoryview, start: int = 0) -> None:
        super().__init__(data)
        self._start = start

    @cached_property
    def chunks(self) -> list[Part]:
        """The chunks up to and including IEND, as far as they are complete."""
        data, found = self.data, []
        position = self._start + 8
        while position + 12 <= len(data):
            end = position + 8 + int.from_bytes(data[position : position + 4], "big")
            if end + 4 > len(data):
                break
            found.append(Part(data[position + 4 : position + 8], position + 8, end))
            if found[-1].kind == b"IEND":
                break
            position = end + 4
        return found

    def _header_size(self) -> Size | None:
        """Return the size that the header states; None if its checksum is wrong."""
        width, height, checksum = struct.unpack_from(">II5xI", self.data, self._start + 16)
        return (width, height) if zlib.crc32(self.data[self._start + 12 : self._start + 29]) == checksum else None

    def _lacks_data(self) -> bool:
        return self._header_size() is not None and (not self.chunks or self.chunks[-1].kind != b"IEND")

    def decoder_input(self) -> bytes:
        """Return the file with only those chunks that make pixels; bytes before the PNG are kept."""
        view, parts, kept = memoryview(self.data), [], 0
        for kind, start, end in self.chunks:
            if kind not in DECODED:
                if kept < start - 8:
                    parts.append(view[kept : start - 8])
                kept = end + 4
        return b"".join((*parts, view[kept:])) if kept else self.data

    def check_checksums(self) -> None:
        """Raise `decode.corrupt` if a chunk's checksum is wrong. Decoders check only a few of them."""
        view = memoryview(self.data)
        for kind, start, end in self.chunks:
            if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
                message = f"the checksum of the PNG's {kind.decode('latin-1')!a} chunk is wrong"
                raise ImageError(ErrorCode.DECODE_CORRUPT, message)

    def _check_pixels(self) -> None:
        """Raise `decode.truncated` if the file ends within a chunk of pixels: they may be anything then."""
        end = self.chunks[-1].end + 4 if self.chunks else 8
        if self.data.startswith(b"IDAT", end + 4):
            raise ImageError(ErrorCode.DECODE_TRUNCATED, "the file ends within its pixels")

    def _count_frames(self) -> int:
        """Return the number of frames that an animation says it has; the picture itself may be one more."""
        before = self._before_pixels()
        controls = [chunk.start for chunk in before if chunk.kind == b"acTL" and chunk.end - chunk.start >= 8]
        frames = int.from_bytes(self.data[controls[-1] : controls[-1] + 4], "big") if controls else 0
        return frames + all(chunk.kind != b"fcTL" for chunk in before) if frames else 1

    def _icc_profile(self) -> bytes | None:
        """Return the ICC profile, None without one; one that can't be unpacked is empty."""
        for kind, start, end in self._before_pixels():
            if kind == b"iCCP":
                # name NUL method, 0: deflated
                _, _, content = self.data[start:end].partition(b"\0")
                return _inflate(content[1:]) if content[:1] == b"\0" else b""
        return None

    def _read_orientation(self) -> int | None:
        """Return the orientation of the EXIF block, wherever in the file it is, or of one that is kept as text."""
        text: bytes | None = None
        for kind, start, end in self.chunks:
            if kind == b"eXIf":
                return read_orientation(PREFIX + self.data[start:end])
            if text is None and kind in {b"zTXt", b"tEXt"} and self.data.startswith(RAW_PROFILES, start):
                text = _raw_profile(kind, self.data[start:end])
        return read_orientation(text) if text else 1

    def _before_pixels(self) -> list[Part]:
        return list(takewhile(lambda chunk: chunk.kind != b"IDAT", self.chunks))

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does, but round 16-bit colours instead of cutting them."""
        pixels = super()._to_pixels(image, whole=whole)
        is_deep = self.data[24] == 16 and image.mode in {"RGB", "RGBA", "LA"}
        if whole and is_deep and "transparency" not in image.info:
            image.close()
            return round_16_bits(self.decoder_input() + END, pixels)  # OpenCV needs an IEND
        return pixels


def _raw_profile(kind: bytes, content: bytes) -> bytes:
    # ImageMagick: keyword NUL [method, deflated] "\nexif\n   length\nhexadecimal digits in lines"
    text = content.partition(b"\0")[2]
    if kind == b"zTXt":
        text = _inflate(text[1:])
    try:
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii")) or b"invalid"
    except ValueError:
        return b"invalid"


def _inflate(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content)
    except zlib.error:
        return b""
