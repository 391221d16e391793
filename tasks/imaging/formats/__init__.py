"""The source image formats, one module each.

To add a format, write a module with a subclass of `EncodedImage` (or of `PillowImage`, if Pillow has a reader for it),
and list the class in `registry.FORMATS`.
"""

from darkroom.tasks.imaging.formats.base import DecodeOptions, EncodedImage
from darkroom.tasks.imaging.formats.registry import FORMATS, recognise

__all__ = ["FORMATS", "DecodeOptions", "EncodedImage", "recognise"]
