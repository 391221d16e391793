"""Convert samples of a TIFF that do not have 8 bits.

White is the tag `MaxSampleValue` if the file has it and no sample exceeds it, else the largest value of the samples'
bits. Floating-point samples are read if they lie within 0..1; 1 is white.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from darkroom.tasks.imaging.bands import Pixels, Samples, bands, to_array
from darkroom.tasks.imaging.color import lab_to_rgb, round_16_bits, scale_16_bits, warn_of_low_range
from darkroom.tasks.imaging.failures import unsupported
from darkroom.tasks.imaging.formats.tiff_directory import (
    BITS,
    COMPRESSION,
    HEIGHT,
    MAX_OF_FORMAT,
    MAX_SAMPLE,
    ORIENTATION,
    PHOTOMETRIC,
    PLAIN,
    PLANES,
    PREDICTOR,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_ROWS,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    Directory,
    rewritten,
)

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
COLORS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICC Lab"}
COLORS |= {10: "ITU Lab", 32844: "LogL", 32845: "LogLuv"}
"""Names of the values of `PHOTOMETRIC`."""

FLOATING = 3
NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined", 5: "complex", 6: "complex"}
"""Names of the values of `SAMPLE_FORMAT`."""


class TiffSamples:
    """The samples of the picture that `directory` describes."""

    def __init__(self, data: bytes, directory: Directory) -> None:
        self._data = data
        self._directory = directory

    def _value(self, tag: int, default: int) -> int:
        return (*self._directory.values(tag)[:1], default)[0]

    @property
    def _bits(self) -> int:
        return self._value(BITS, 1)

    @property
    def kind(self) -> str:
        """The kind of samples in words, for messages."""
        bits = dict.fromkeys(self._directory.values(BITS)[:8])
        widths = "/".join(map(str, bits)) or "1"
        numbers = NUMBERS.get(self._value(SAMPLE_FORMAT, 1), "unknown")
        color = self._value(PHOTOMETRIC, WHITE_IS_ZERO)
        channels = self._value(SAMPLES, 1)
        model = COLORS.get(color, f"color model {color}")
        return f"{widths}-bit {numbers} samples, {channels} for each pixel ({model})"

    def as_8_bits(self) -> bytes | None:
        """Return the file with 8-bit samples if it has floating-point ones that Pillow can't read; else None.

        Raises `decode.unsupported` if they are not within 0..1.
        """
        layout = self._value(SAMPLES, 1), self._value(PHOTOMETRIC, BLACK_IS_ZERO)
        is_gray, is_rgb = layout in {(1, WHITE_IS_ZERO), (1, BLACK_IS_ZERO)}, layout == (3, RGB)
        if self._value(SAMPLE_FORMAT, 1) != FLOATING or self._bits not in {32, 64} or not (is_gray or is_rgb):
            return None
        if is_gray and self._bits == 32:
            return None
        data = rewritten(self._data, self._directory, {ORIENTATION: []})
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.dtype.kind != "f":
            return None
        pixels = self._from_unit_range(samples)
        rows = np.ascontiguousarray(pixels[:, :, ::-1] if is_rgb else pixels)
        # The predictor, a step before compression, stores differences between samples.
        removed = (PREDICTOR, SAMPLE_FORMAT, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, PLANES)
        tags: dict[int, list[int]] = {tag: [] for tag in removed}
        tags |= {BITS: [8] * (3 if is_rgb else 1), COMPRESSION: [PLAIN], STRIP_ROWS: [self._value(HEIGHT, 0)]}
        tags |= {STRIPS: [len(self._data)], STRIP_BYTES: [rows.size]}
        return rewritten(self._data, self._directory, tags, rows.tobytes())

    def to_pixels(self, image: Image.Image, encoded: Callable[[], bytes] | None, warnings: list[str]) -> Pixels | None:
        """Return the pixels of a decoded image whose samples have more than 8 bits, or are CIELab; else None.

        `encoded` returns the file that Pillow decoded; None if that is cut. Raises `decode.unsupported` if white is
        unknown.
        """
        if image.mode.startswith("I;16"):
            samples = to_array(image)
            return self._upright(scale_16_bits(samples, self._white(samples, warnings)))
        if image.mode == "F":
            return self._upright(self._from_unit_range(to_array(image)))
        if image.mode == "LAB":
            return to_array(image, lab_to_rgb)
        if image.mode == "I":
            message = f"a TIFF with {self.kind} is not read here: the file does not state which value is white"
            raise unsupported(f"{message}; convert it to 8 or 16 bits unsigned first")
        if encoded and image.mode == "RGB" and self._bits == 16:
            pixels = to_array(image)
            image.close()
            return round_16_bits(encoded(), pixels, lambda samples: self._white(samples, warnings))
        return None

    def _upright(self, gray: Pixels) -> Pixels:
        is_inverted = self._value(PHOTOMETRIC, BLACK_IS_ZERO) == WHITE_IS_ZERO
        return np.subtract(255, gray, dtype=np.uint8) if is_inverted else gray

    def _white(self, samples: Samples, warnings: list[str]) -> int:
        """Return the value of white; add `low_range` to `warnings` if it is unknown and all samples are low."""
        highest = (1 << self._bits) - 1
        stated = max(self._stated_whites, default=0)
        if 0 < stated < highest and samples.max() <= stated:
            return stated
        if self._bits == 16:
            warn_of_low_range(samples, warnings)
        return highest

    @cached_property
    def _stated_whites(self) -> tuple[int, ...]:
        return self._directory.values(MAX_SAMPLE)[:4] or self._directory.values(MAX_OF_FORMAT)[:4]

    def _from_unit_range(self, samples: Samples) -> Pixels:
        """Return floating-point samples scaled to 8 bits; raise `decode.unsupported` if any is not within 0..1."""
        pixels = np.empty(samples.shape, np.uint8)
        for rows in bands(*samples.shape[:2]):
            lowest, highest = float(samples[rows].min()), float(samples[rows].max())
            if not 0 <= lowest <= highest <= 1:
                message = f"a TIFF with {self.kind} is read only if they lie within 0 to 1, where 1 is white"
                found = f"; these go from {lowest:g} to {highest:g}: convert it to 8 or 16 bits first"
                raise unsupported(message + found)
            pixels[rows] = np.rint(samples[rows] * 255)
        return pixels
