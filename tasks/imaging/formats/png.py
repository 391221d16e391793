"""PNG: read its chunks, verify their checksums, and pass only those that make pixels to the decoder.

The colour space is that of the chunk `cICP`, else of `iCCP`, else sRGB, as in the third edition of the standard. A
`cICP` that no ICC profile can describe, such as HDR (PQ and HLG), is not applied, and adds the warning `cicp_ignored`.
`gAMA` and `cHRM` are not applied, as in nearly all software but browsers: most files that have them are sRGB. A `gAMA`
far from sRGB's without `iCCP` and `sRGB` adds `gamma_ignored`.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import cached_property
from itertools import takewhile
from operator import eq, ne
from typing import Any

from PIL import Image, ImageFile, PngImagePlugin

from darkroom.tasks.imaging.bands import Pixels, to_array
from darkroom.tasks.imaging.cicp import profile_of
from darkroom.tasks.imaging.color import round_16_bits, scale_16_bits, warn_of_low_range, with_alpha
from darkroom.tasks.imaging.exif import PREFIX, read_orientation
from darkroom.tasks.imaging.failures import corrupt, truncated, unsupported
from darkroom.tasks.imaging.formats.base import Part, PillowImage
from darkroom.tasks.imaging.records import Size

DECODED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that make the pixels of the picture, or of an animation's first frame. The decoder gets no others, such as
texts that unpack to a thousand times their size."""

OF_PIXELS = DECODED - {b"IEND"} | {b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"eXIf"}
"""Chunks that determine pixels, colours or orientation."""

GAMMA_TOLERANCE = 0.1
"""Relative difference from sRGB's gamma up to which a stated gamma adds no warning."""

END = b"\0\0\0\0IEND\xaeB`\x82"
RAW_PROFILES = (b"Raw profile type exif\x00", b"Raw profile type APP1\x00")
HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{24}")


class PngImage(PillowImage):
    """A PNG that begins at `start` of a file."""

    name = "png"
    signature = re.compile(rb"\x89PNG\r\n\x1a\n")
    reader = PngImagePlugin.PngImageFile

    def __init__(self, data: bytes | memoryview, start: int = 0) -> None:
        super().__init__(data)
        self._start = start

    @cached_property
    def chunks(self) -> list[Part]:
        """The complete chunks up to and including IEND."""
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
        """Return width and height as the header states them; None if its checksum is wrong."""
        width, height, checksum = struct.unpack_from(">II5xI", self.data, self._start + 16)
        return (width, height) if zlib.crc32(self.data[self._start + 12 : self._start + 29]) == checksum else None

    def _lacks_data(self) -> bool:
        return self._header_size() is not None and (not self.chunks or self.chunks[-1].kind != b"IEND")

    def decoder_input(self) -> bytes:
        """Return the file without chunks that make no pixels; bytes before `start` are kept."""
        view, parts, kept = memoryview(self.data), [], 0
        for chunk in self.chunks:
            is_damaged_end = chunk.kind == b"IEND" and not self._is_sound(chunk)
            if chunk.kind not in DECODED or is_damaged_end:
                if kept < chunk.start - 8:
                    parts.append(view[kept : chunk.start - 8])
                kept = chunk.end + 4
            if is_damaged_end:
                parts.append(memoryview(END))
        return b"".join((*parts, view[kept:])) if kept else self.data

    def _with_end(self) -> bytes:
        """Return the decoder's input with an IEND, which OpenCV needs, in the place of an incomplete chunk, if any.

        An incomplete IDAT chunk is kept.
        """
        data = self.decoder_input()
        incomplete = 0 if self._ends_within_pixels() else len(self.data) - self._end()
        return data[: len(data) - incomplete] + END

    def _end(self) -> int:
        """Return the position after the last complete chunk."""
        return self.chunks[-1].end + 4 if self.chunks else self._start + 8

    def _ends_within_pixels(self) -> bool:
        return self.data.startswith(b"IDAT", self._end() + 4)

    def _open_reader(self) -> ImageFile.ImageFile:
        try:
            return super()._open_reader()
        except SyntaxError:
            self.check_checksums()  # its error names the damaged chunk
            raise

    def check_checksums(self) -> None:
        """Raise `decode.corrupt` for a wrong checksum of a chunk that affects pixels; for others add `chunk_crc`.

        Decoders verify only a few checksums.
        """
        for chunk in self.chunks:
            if not self._is_sound(chunk):
                if self._affects_pixels(chunk):
                    raise corrupt(f"the checksum of the PNG's {chunk.kind.decode('latin-1')!a} chunk is wrong")
                self.warnings.append("chunk_crc")

    def _is_sound(self, chunk: Part) -> bool:
        _, start, end = chunk
        stated = int.from_bytes(self.data[end : end + 4], "big")
        return zlib.crc32(memoryview(self.data)[start - 4 : end]) == stated

    def _affects_pixels(self, chunk: Part) -> bool:
        """Return whether a chunk with a wrong checksum may affect pixels, colours or orientation."""
        if chunk.kind == b"IEND":
            return False
        is_ancillary = chunk.kind.isalpha() and chunk.kind[:1].islower()
        if not is_ancillary or _may_be_raw_profile(chunk.kind, bytes(self.data[chunk.start : chunk.end])):
            return True
        # The damaged byte may be one of the chunk's type.
        return any(sum(map(ne, chunk.kind, kind)) <= 1 for kind in OF_PIXELS)

    def _check_pixels(self) -> None:
        """Raise `decode.truncated` if the file ends within an IDAT chunk, whose checksum is missing then."""
        if self._ends_within_pixels():
            raise truncated("the file ends within its pixels")

    def _count_frames(self) -> int:
        """Return the number of frames in `acTL`, and one more if the picture itself is not part of the animation."""
        before = self._before_pixels()
        controls = [chunk.start for chunk in before if chunk.kind == b"acTL" and chunk.end - chunk.start >= 8]
        frames = int.from_bytes(self.data[controls[-1] : controls[-1] + 4], "big") if controls else 0
        return frames + all(chunk.kind != b"fcTL" for chunk in before) if frames else 1

    def _icc_profile(self) -> bytes | None:
        """Return the ICC profile, made from `cICP` if there is one; None for sRGB, empty if it can't be unpacked."""
        found = {kind: self.data[start:end] for kind, start, end in reversed(self._before_pixels())}
        if b"cICP" in found:
            # primaries, transfer curve, matrix (0: RGB), range (1: full)
            primaries, transfer, *rest = found[b"cICP"].ljust(4, b"\0")
            profile = profile_of(primaries, transfer) if rest == [0, 1] else None
            if profile:
                return profile
            self.warnings.append("cicp_ignored")
        if b"iCCP" in found:
            # name, NUL, method (0: deflate), compressed profile
            _, _, content = found[b"iCCP"].partition(b"\0")
            return _inflate(content[1:]) if content[:1] == b"\0" else b""
        if b"gAMA" in found and b"sRGB" not in found:
            gamma = int.from_bytes(found[b"gAMA"][:4], "big") / 100_000
            if abs(gamma * 2.2 - 1) > GAMMA_TOLERANCE:
                self.warnings.append("gamma_ignored")
        return None

    def _read_orientation(self) -> int | None:
        """Return the orientation in an `eXIf` chunk, even after the pixels, else in EXIF stored as text."""
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
        """Return the pixels as `PillowImage._to_pixels` does, but use all bits of the samples.

        16-bit colours are rounded, not cut to 8 bits; samples are compared with the transparent colour at full depth.
        """
        bits = self.data[self._start + 24]
        key: Any = image.info.pop("transparency", None) if image.mode in {"I;16", "L"} or bits == 16 else None
        if image.mode == "I;16":
            samples = to_array(image)
            warn_of_low_range(samples, self.warnings)
            pixels = scale_16_bits(samples)
            return pixels if key is None else with_alpha(pixels, samples != key)
        if image.mode == "L" and key is not None:
            # Pillow scales the samples to 8 bits, but not the transparent level.
            levels = (1 << bits) - 1
            image.info["transparency"] = (key & levels) * 255 // levels
        pixels = super()._to_pixels(image, whole=whole)
        if whole and bits == 16:
            image.close()
            pixels = round_16_bits(self._with_end(), pixels)
            if key is not None and pixels.shape[2] == 3:
                raise unsupported("this PNG's 16-bit transparent colour can't be read")
        return pixels


def _may_be_raw_profile(kind: bytes, content: bytes) -> bool:
    """Return whether a damaged chunk may be EXIF as text: it has half of the keyword, or a run of hexadecimal digits.

    Digits count only in the kind of text that holds them as they are: other chunks have identifiers of such digits.
    """
    likeness = max(sum(map(eq, content, keyword)) / len(keyword) for keyword in RAW_PROFILES)
    return likeness >= 0.5 or (kind == b"tEXt" and HEXADECIMAL.search(content) is not None)


def _raw_profile(kind: bytes, content: bytes) -> bytes:
    """Return the EXIF block that ImageMagick stores as text: keyword, NUL, "exif", length, hexadecimal digits."""
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
