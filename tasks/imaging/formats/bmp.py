"""BMP: only its signature; Pillow does the rest."""

from __future__ import annotations

import re

from PIL import BmpImagePlugin

from darkroom.tasks.imaging.formats.base import PillowImage


class BmpImage(PillowImage):
    """A Windows bitmap."""

    name = "bmp"
    signature = re.compile(rb"(?s)BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0")
    """Ends with one of the known sizes of the second header."""

    reader = BmpImagePlugin.BmpImageFile
