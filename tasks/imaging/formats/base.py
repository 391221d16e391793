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
from darkroom.tasks.imaging.failures import code_of, corrupt, truncated, unsupported
from darkroom.tasks.imaging.limits import MAX_FRAMES
from darkroom.tasks.imaging.records import Extent, Size, SourceFacts

# `max_pixels` is the limit; it is checked before a reader allocates anything.
Image.MAX_IMAGE_PIXELS = None

MALFORMED = (struct.error, OverflowError, IndexError)
"""Exceptions raised where a structure extends beyond the end of the file."""

ZERO_TAIL = bytes(256)
"""The end of a file whose full length was allocated, but whose copy was interrupted."""

TOLERATED_DAMAGE = {ErrorCode.DECODE_TRUNCATED: "truncated", ErrorCode.DECODE_CORRUPT: "corrupt"}
"""Damage that `damage="tolerant"` forgives: the warning that is recorded instead of each error."""

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
        min_size: width and height as stored; a decoder that can scale down while decoding may do so to this size.
        gray: whether only luma is needed.
        tolerant: whether to keep the readable part of a damaged picture and add a warning of `TOLERATED_DAMAGE`.
    """

    min_size: Size
    gray: bool = False
    tolerant: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture in sRGB.

    Args:
        pixels: uint8: (height, width) gray, (height, width, 3) RGB, or (height, width, 4) RGB with straight alpha.
        orientation: the EXIF orientation that remains to be applied to `pixels`, 1..8.
        warnings: codes for what is odd about the file.
        extent: width and height, with fractions, that a scaled-down picture covers within `pixels`: its last column and
            row may be covered only in part; None if the picture covers all pixels.
    """

    pixels: Pixels
    orientation: int
    warnings: tuple[str, ...] = ()
    extent: Extent | None = None


class EncodedImage(ABC):
    """An image file; a subclass implements everything that is specific to one format.

    `facts` holds what the header says, None until it is read; `warnings` collects codes for what is odd about the file.
    """

    name: ClassVar[str]
    signature: ClassVar[re.Pattern[bytes]]
    """Matches the first bytes of every file of the format."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self.facts: SourceFacts | None = None
        self.warnings: list[str] = []

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file with these first bytes is of this format."""
        return cls.signature.match(head) is not None

    def stated_size(self) -> Size | None:
        """Return the width and height that the header states, without using a decoder; None if it can't be read."""
        try:
            return self._header_size()
        except MALFORMED:
            return None

    def is_cut(self) -> bool:
        """Return whether the file is shorter than its own structure says; False if the format does not state that."""
        try:
            return self._lacks_data()
        except MALFORMED:
            return True
        except ImageError as error:
            return error.code is ErrorCode.DECODE_TRUNCATED

    def _header_size(self) -> Size | None:
        """Return the largest width and height that a decoder would allocate; may raise `MALFORMED`.

        Override it if the decoder allocates pixels before `open` can check the size it reports.
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

        `admit` is called with the facts known before a decoder allocates pixels, and raises to refuse the file.
        Raises `ImageError`, or whatever the decoder raises.
        """

    @abstractmethod
    def decode(self, options: DecodeOptions) -> Decoded:
        """Return the first frame of the opened file. Raises `ImageError`, or whatever the decoder raises."""


class PillowImage(EncodedImage):
    """An image file decoded by `reader`; Pillow's readers of other formats never get it."""

    reader: ClassVar[type[ImageFile.ImageFile]]
    image: ImageFile.ImageFile
    data: bytes

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(bytes(data))

    def decoder_input(self) -> bytes:
        """Return the bytes to decode: the file, or one rewritten so that Pillow decodes it correctly."""
        return self.data

    def _open_reader(self) -> ImageFile.ImageFile:
        """Return Pillow's reader of `decoder_input`; raise whatever it raises."""
        return self.reader(io.BytesIO(self.decoder_input()))

    def _check_structure(self) -> None:
        """Raise `ImageError` for an invalid structure that the reader accepts."""

    def check_checksums(self) -> None:
        """Raise `decode.corrupt` for a wrong checksum that the decoder does not verify."""

    def _check_pixels(self) -> None:
        """Raise `ImageError` for missing or damaged pixels that the decoder did not report."""

    def _stored_size(self) -> Size:
        """Return width and height before orientation."""
        return self.image.size

    def _read_orientation(self) -> int | None:
        """Return the EXIF orientation, 1..8; 1 if the file states none, None if it is invalid."""
        exif = self.image.info.get("exif")
        return read_orientation(exif) if exif else 1

    def _count_frames(self) -> int:
        """Return the number of frames."""
        return int(getattr(self.image, "n_frames", 1))

    def _icc_profile(self) -> bytes | None:
        """Return the embedded ICC profile; None if there is none."""
        profile = self.image.info.get("icc_profile") or None
        return profile if profile is None or isinstance(profile, bytes) else b"invalid"

    def _is_turned(self) -> bool:
        """Return whether the reader has applied the orientation while decoding."""
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
        """Return the first frame, and close the image; raise as `EncodedImage.decode` does.

        If `options.tolerant`, the missing part of a damaged picture is black, or transparent.
        """
        stored = self._stored_size()
        self._forgive_checksums() if options.tolerant else self.check_checksums()
        image = self._load(tolerant=options.tolerant)
        is_turned = self._is_turned()
        expected = stored[::-1] if is_turned and self._orientation >= 5 else stored
        if image.size != expected:
            sizes = f"{expected[0]:,} × {expected[1]:,} pixels, contents {image.size[0]:,} × {image.size[1]:,}"
            raise corrupt(f"header says {sizes}")
        profile = self._icc_profile()
        is_cmyk = image.mode == "CMYK"
        pixels = to_array(image) if is_cmyk else self._to_pixels(image, whole=image is self.image)
        image.close()
        pixels = (cmyk_to_rgb if is_cmyk else to_srgb)(pixels, profile, self.warnings)
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
            image.__dict__.pop("_decoder", None)  # frees the decoder's canvases, which are as large as the picture
            self._check_pixels()
        except Exception as error:
            warning = TOLERATED_DAMAGE.get(code_of(error, self.is_cut))
            if not tolerant or not warning or image._im is None:
                raise
            self.warnings.append(warning)
            # An empty list of tiles makes Pillow treat the partly decoded image as loaded.
            image.tile = []
            return image.copy()
        return image

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:  # noqa: ARG002 - for subclasses
        """Return the pixels of a decoded image that isn't CMYK, in the shapes of `Decoded.pixels`.

        `whole` is False if only a part was decoded. Raises `decode.unsupported` for samples of 32 bits.
        """
        if image.mode.startswith("I;16"):
            return scale_16_bits(to_array(image))
        if image.mode in {"I", "F"}:
            raise unsupported("32-bit samples are not supported: the file does not state which value is white")
        if image.mode in {"1", "L"} and not image.has_transparency_data:
            return to_array(image, lambda band: band.convert("L"))
        mode = "RGBA" if image.mode in ALPHA_MODES or image.has_transparency_data else "RGB"
        return to_array(image, lambda band: band.convert(mode))


def refuse_zero_tail(data: bytes, start: int, end: int) -> None:
    """Raise `decode.truncated` if `data[start:end]`, whose format never ends in many zeros, ends in `ZERO_TAIL`."""
    if data.endswith(ZERO_TAIL, start, end):
        raise truncated("the end of the picture is lost: there are only zeros")
