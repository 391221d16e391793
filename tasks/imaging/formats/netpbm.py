"""PBM, PGM and PPM: a fast reader of samples that are text or have a maximum other than 255."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageFile, PpmImagePlugin

from darkroom.tasks.errors import ErrorCode, ImageError
from darkroom.tasks.imaging.bands import Pixels, Samples, to_array
from darkroom.tasks.imaging.color import scale_16_bits
from darkroom.tasks.imaging.formats.base import PillowImage

COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
DIGITS = b"0123456789"
JUNK = re.compile(rb"[^0-9\s]")
LONG_NUMBER = re.compile(rb"[0-9]{11}")


class NetpbmReader(PpmImagePlugin.PpmImageFile):
    """A replacement for Pillow's two pure-Python decoders, which take a second for each million samples."""

    def load(self) -> Any:
        """Decode the pixels."""
        if self.tile and self.fp and self.tile[0].codec_name in {"ppm", "ppm_plain"}:
            codec, extents, offset, args = self.tile[0]
            self.fp.seek(offset)
            data = self.fp.read()
            count = self.size[0] * self.size[1] * len(self.getbands())
            if self.mode == "1":
                samples, layout = _bits(data, count), "1;8"
            else:
                white = int(args[-1]) if args else 255
                numbers = _numbers(data, count, white) if codec == "ppm_plain" else _raw(data, count, white)
                samples, layout = _scaled(numbers, white, self.mode)
            self.fp, self.tile = io.BytesIO(samples), [ImageFile._Tile("raw", extents, 0, layout)]
        return super().load()


class NetpbmImage(PillowImage):
    """A portable bitmap, graymap, pixmap or anymap."""

    name = "ppm"
    signature = re.compile(rb"P(?:[1-6]|y|0CMYK|yCMYK|7|F|f)[ \t\r\n#]")
    reader = NetpbmReader

    def _to_pixels(self, image: Image.Image, *, whole: bool) -> Pixels:
        """Return the pixels as `PillowImage._to_pixels` does; samples of mode I have 16 bits here."""
        if image.mode == "I":
            return scale_16_bits(to_array(image).astype(np.uint16))
        return super()._to_pixels(image, whole=whole)


def _corrupt(problem: str) -> ImageError:
    return ImageError(ErrorCode.DECODE_CORRUPT, f"the PPM is damaged: {problem}")


def _bits(data: bytes, count: int) -> bytes:
    """Return samples of eight bits; 1 is black."""
    bits = COMMENT.sub(b"", data) if b"#" in data else data
    bits = bits.translate(None, b" \t\n\r\v\f")[:count]
    if bits.translate(None, b"01"):
        raise _corrupt("a bit is neither 0 nor 1")
    return bits.translate(bytes.maketrans(b"01", b"\xff\x00"))


def _raw(data: bytes, count: int, white: int) -> Samples:
    """Return up to `count` samples."""
    kind = np.dtype("u1" if white < 256 else ">u2")
    return np.frombuffer(data, kind, min(count, len(data) // kind.itemsize))


def _numbers(data: bytes, count: int, white: int) -> Samples:
    """Return up to `count` samples of a text; raise `decode.corrupt` for an invalid one."""
    text = COMMENT.sub(b"", data) if b"#" in data else data
    junk = JUNK.search(text)
    # Digits that touch the junk are no number either.
    text = (text[: junk.start()].rstrip(DIGITS) if junk else text).strip()
    if LONG_NUMBER.search(text):
        raise _corrupt("a sample is too long")
    numbers = np.fromstring(text, np.int64, sep=" ")[:count] if text else np.empty(0, np.int64)
    if (numbers > white).any():
        raise _corrupt(f"a sample is above the white of {white}")
    if junk and len(numbers) < count:
        raise _corrupt("a sample is no number")
    return numbers


def _scaled(samples: Samples, white: int, mode: str) -> tuple[bytes, str]:
    """Return samples of 8 bits, or of 16 for mode I, and Pillow's name of that layout."""
    out_white, kind, layout = (65535, ">u2", "I;16B") if mode == "I" else (255, "u1", mode)
    table = np.rint(np.arange(white + 1) / white * out_white).astype(kind)
    return table[np.minimum(samples, white)].tobytes(), layout
