"""The interface of an image format, and its implementation for the formats that Pillow reads."""

from __future__ import annotations

import io
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from PIL import Image, ImageFile

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, to_array
from darkroom.tasks.imaging.color import cmyk_to_rgb, scale_16_bits, to_srgb
from darkroom.tasks.imaging.exif import read_orientation
from darkroom.tasks.imaging.failures import code_of
from darkroom.tasks.imaging.limits import MAX_FRAMES
from darkroom.tasks.imaging.records import Extent, Size, SourceFacts

# `max_pixels` is the limit; it is checked before a reader allocates anything.
Image.MAX_IMAGE_PIXELS = None

MALFORMED = (struct.error, OverflowError, IndexError)
"""Exceptions from reading a structure that extends beyond the end of the file."""

ZERO_TAIL = bytes(256)
"""An interrupted copy to a file of the right length ends like this."""

DAMAGE_WARNINGS = {ErrorCode.DECODE_TRUNCATED: "truncated", ErrorCode.DECODE_CORRUPT: "corrupt"}
"""What a damaged picture that is kept is marked with, by what it fails with otherwise."""

ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


class Part(NamedTuple):
    """A part of a file, such as a chunk or a box: its type, and where its contents start and end."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How a file is to be decoded.

    Args:
        min_size: pixels as stored; a decoder that can reduce a picture on the way may do so down to this size.
        gray: whether only the luma is needed.
        tolerant: whether to keep what can be shown of a damaged picture, with the warning `truncated` if its end is
            missing, else `corrupt`.
    """

    min_size: Size
    gray: bool = False
    tolerant: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels in sRGB: (height, width) gray, (height, width, 3) RGB, or 4 with straight alpha; uint8.

    Args:
        pixels: the picture, or a reduced one.
        orientation: what is still to be applied to `pixels`, 1..8.
        warnings: what was odd about the file.
        extent: width and height of a reduced picture within `pixels`, whose last column and row may lie partly outside
            it; None if it is all of them.
    """

    pixels: Pixels
    orientation: int
    warnings: tuple[str, ...] = ()
    extent: Extent | None = None


class EncodedImage(ABC):
    """An image file. A subclass holds everything that is specific to one format.

    `facts` is what the header says, as far as it was read; `warnings` collects what was odd about the file.
    """

    name: ClassVar[str]
    signature: ClassVar[re.Pattern[bytes]]
    """What the first bytes of every file of the format match."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self.facts: SourceFacts | None = None
        self.warnings: list[str] = []

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file with these first bytes is of this format."""
        return cls.signature.match(head) is not None

    def stated_size(self) -> Size | None:
        """Return the size in pixels that the header states, without a decoder; None if it can't be read."""
        try:
            return self._header_size()
        except MALFORMED:
            return None

    def is_cut(self) -> bool:
        """Return whether the file is shorter than its own structure says; False for formats that don't say."""
        try:
            return self._lacks_data()
        except MALFORMED:
            return True
        except ImageError as error:
            return error.code is ErrorCode.DECODE_TRUNCATED

    def _header_size(self) -> Size | None:
        """Return the largest size that a decoder would allocate pixels for; may raise `MALFORMED`.

        Formats whose decoders read the size before they allocate anything need not implement it.
        """
        return None

    def _lacks_data(self) -> bool:
        """Implement `is_cut`; may raise `MALFORMED` and `ImageError`."""
        return False

    def _valid_orientation(self, orientation: int | None) -> int:
        if orientation is None:
            self.warnings.append("exif_invalid")
        return orientation or 1

    @abstractmethod
    def open(self, admit: Callable[[SourceFacts], None]) -> SourceFacts:
        """Read the header and return what it says.

        `admit` is called with what is known of the source before a decoder allocates pixels, and raises to refuse it.
        Raises `ImageError`, or whatever a decoder does.
        """

    @abstractmethod
    def decode(self, options: DecodeOptions) -> Decoded:
        """Decode the first frame of the opened image to sRGB. Raises `ImageError`, or whatever a decoder does."""


class PillowImage(EncodedImage):
    """An image file that one of Pillow's readers decodes. No other reader of Pillow ever sees the file."""

    reader: ClassVar[type[ImageFile.ImageFile]]
    image: ImageFile.ImageFile
    data: bytes

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(bytes(data))

    def decoder_input(self) -> bytes:
        """Return the file without what its decoder does not need."""
        return self.data

    def _open_reader(self) -> ImageFile.ImageFile:
        """Return Pillow's reader of the file; raises whatever that does."""
        return self.reader(io.BytesIO(self.decoder_input()))

    def _check_structure(self) -> None:
        """Raise `ImageError` for errors of the structure that the reader would not notice."""

    def check_checksums(self) -> None:
        """Raise `decode.corrupt` for wrong checksums that the decoder would not notice."""

    def _check_pixels(self) -> None:
        """Raise `ImageError` for pixels that are missing or damaged although the decoder raised nothing."""

    def _stored_size(self) -> Size:
        """Return the size in pixels of the picture before it is turned."""
        return self.image.size

    def _read_orientation(self) -> int | None:
        """Return the orientation, 1..8; None if the file states an invalid one."""
        exif = self.image.info.get("exif")
        return read_orientation(exif) if exif else 1

    def _count_frames(self) -> int:
        """Return the number of frames."""
        return int(getattr(self.image, "n_frames", 1))

    def _icc_profile(self) -> bytes | None:
        """Return the embedded colour profile; None without one."""
        profile = self.image.info.get("icc_profile") or None
        return profile if profile is None or isinstance(profile, bytes) else b"invalid"

    def _is_turned(self) -> bool:
        """Return whether the reader has already applied the orientation to the decoded picture."""
        return False

    def open(self, admit: Callable[[SourceFacts], None]) -> SourceFacts:
        """Read the header and return what it says; see `EncodedImage.open`."""
        size = self.stated_size()
        if size:
            self.facts = SourceFacts(self.name, "", *size)
            admit(self.facts)
        self._check_structure()
        self.image = self._open_reader()
        self._orientation = self._valid_orientation(self._read_orientation())
        frames = min(self._count_frames(), MAX_FRAMES)
        facts = SourceFacts(self.name, self.image.mode, *self._stored_size(), self._orientation, frames)
        self.facts = facts
        admit(facts)
        return facts

    def decode(self, options: DecodeOptions) -> Decoded:
        """Decode the first frame to gray, RGB or RGB with straight alpha in sRGB, and close the image.

        Of a damaged file, what was decoded is kept if `options.tolerant`; the rest is black, or transparent.
        """
        stored = self._stored_size()
        self._forgive_checksums() if options.tolerant else self.check_checksums()
        image = self._load(tolerant=options.tolerant)
        is_turned = self._is_turned()
        expected = stored[::-1] if is_turned and self._orientation >= 5 else stored
        if image.size != expected:
            message = f"header says {expected[0]} × {expected[1]} pixels, contents {image.size[0]} × {image.size[1]}"
            raise ImageError(ErrorCode.DECODE_CORRUPT, message)
        profile = self._icc_profile()
        if image.mode == "CMYK":
            inks = to_array(image)
            image.close()
            pixels = cmyk_to_rgb(inks, profile, self.warnings)
        else:
            pixels = self._to_pixels(image, whole=image is self.image)
            image.close()
            pixels = to_srgb(pixels, profile, self.warnings)
        return Decoded(pixels, 1 if is_turned else self._orientation, tuple(self.warnings))

    def _forgive_checksums(self) -> None:
        try:
            self.check_checksums()
        except ImageError:
            self.warnings.append("corrupt")

    def _load(self, *, tolerant: bool) -> Image.Image:
        image = self.image
        try:
            image.load()
            # Free the decoder's canvases, which are as large as the picture.
            image.__dict__.pop("_decoder", None)
            self._check_pixels()
        except Exception as error:
            warning = DAMAGE_WARNINGS.get(code_of(error, self.is_cut))
            if not tolerant or not warning or image._im is None:
                raise
            self.warnings.append(warning)
            # Without its list of tiles, Pillow treats the image as loaded as far as it got.
            image.tile = []
            return image.copy()
        return image

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:  # noqa: ARG002 - for subclasses
        """Return the pixels of a decoded image that isn't CMYK: gray, RGB, or RGB with straight alpha.

        `whole` is False if the file ends early. Raises `decode.unsupported` for samples of 32 bits.
        """
        if image.mode.startswith("I;16"):
            return scale_16_bits(to_array(image))
        if image.mode in {"I", "F"}:
            message = "32-bit samples are not supported: nothing says which value is white"
            raise ImageError(ErrorCode.DECODE_UNSUPPORTED, message)
        if image.mode in {"1", "L"} and not image.has_transparency_data:
            return to_array(image, lambda band: band.convert("L"))
        mode = "RGBA" if image.mode in ALPHA_MODES or image.has_transparency_data else "RGB"
        return to_array(image, lambda band: band.convert(mode))


def refuse_zero_tail(data: bytes, start: int, end: int) -> None:
    """Raise `decode.truncated` if a part of a file that can't end in zeros does."""
    if data.endswith(ZERO_TAIL, start, end):
        raise ImageError(ErrorCode.DECODE_TRUNCATED, "the end of the picture is lost: there are only zeros")
