"""PBM, PGM and PPM: decode samples that are text, or whose white is not 255, faster than Pillow does."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageFile, PpmImagePlugin

from darkroom.tasks.imaging.bands import Pixels, Samples, to_array
from darkroom.tasks.imaging.color import scale_16_bits
from darkroom.tasks.imaging.failures import corrupt
from darkroom.tasks.imaging.formats.base import PillowImage

COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
DIGITS = b"0123456789"
JUNK = re.compile(rb"[^0-9\s]")
LONG_NUMBER = re.compile(rb"[0-9]{11}")


class NetpbmReader(PpmImagePlugin.PpmImageFile):
    """Pillow's reader without its two pure-Python decoders, which take a second for each million samples."""

    def load(self) -> Any:
        """Decode the pixels, and return what Pillow's `load` returns; raise `decode.corrupt` for invalid samples."""
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
        """Return the pixels as `PillowImage._to_pixels` does, but with mode `I` for samples of 16 bits."""
        if image.mode == "I":
            return scale_16_bits(to_array(image).astype(np.uint16))
        return super()._to_pixels(image, whole=whole)


def _bits(data: bytes, count: int) -> bytes:
    """Return `count` bits, which are digits of text, as samples of 8 bits: 1 is black."""
    bits = COMMENT.sub(b"", data).translate(None, b" \t\n\r\v\f")[:count]
    if bits.translate(None, b"01"):
        raise corrupt("the PPM is damaged: a bit is neither 0 nor 1")
    return bits.translate(bytes.maketrans(b"01", b"\xff\x00"))


def _raw(data: bytes, count: int, white: int) -> Samples:
    """Return up to `count` binary samples of 8 bits, or of 16 if `white` needs them."""
    kind = np.dtype("u1" if white < 256 else ">u2")
    return np.frombuffer(data, kind, min(count, len(data) // kind.itemsize))


def _numbers(data: bytes, count: int, white: int) -> Samples:
    """Return up to `count` samples written as text; raise `decode.corrupt` for an invalid one."""
    text = COMMENT.sub(b"", data)
    junk = JUNK.search(text)
    # Digits right before the junk are no number either.
    text = (text[: junk.start()].rstrip(DIGITS) if junk else text).strip()
    if LONG_NUMBER.search(text):
        raise corrupt("the PPM is damaged: a sample is too long")
    numbers = np.fromstring(text, np.int64, sep=" ")[:count] if text else np.empty(0, np.int64)
    if (numbers > white).any():
        raise corrupt(f"the PPM is damaged: a sample is above the white of {white:,}")
    if junk and len(numbers) < count:
        raise corrupt("the PPM is damaged: a sample is not a number")
    return numbers


def _scaled(samples: Samples, white: int, mode: str) -> tuple[bytes, str]:
    """Return samples scaled to 8 bits, or to 16 for mode `I`, and Pillow's name of that layout."""
    out_white, kind, layout = (65535, ">u2", "I;16B") if mode == "I" else (255, "u1", mode)
    table = np.rint(np.arange(white + 1) / white * out_white).astype(kind)
    return table[np.minimum(samples, white)].tobytes(), layout
