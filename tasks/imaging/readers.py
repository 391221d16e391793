"""Pillow's readers of the formats that are read, without what they do beyond reading pixels."""

from __future__ import annotations

import re

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _avif,
)

from darkroom.tasks.imaging.netpbm import NetpbmReader

# `max_pixels` counts, which is checked before a reader allocates anything.
Image.MAX_IMAGE_PIXELS = None

ORIENTATION, XMP = 274, 700
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
    """Turns the picture upright as Pillow does, without a search through all other metadata."""

    is_turned = False
    """Whether that has been done, which for a file that is cut is not always so."""

    @property
    def orientation(self) -> int | None:
        """What the picture says of itself, 1..8; None if that is invalid."""
        stated = self.tag_v2.get(ORIENTATION)
        if stated is None:
            packet = self.tag_v2.get(XMP)
            found = XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
            stated = int(found[1]) if found else 1
        return stated if isinstance(stated, int) and 1 <= stated <= 8 else None

    def load_end(self) -> None:
        """Turn the picture that was just decoded."""
        method = TURNS.get(self.orientation or 1)
        if method is not None:
            self.im = self.im.transpose(method)
        self._size = self.im.size
        self.is_turned = True


class AvifReader(AvifImagePlugin.AvifImageFile):
    """Takes the orientation that the container states, which is the one that counts, and never opens the EXIF."""

    orientation = 1

    def _open(self) -> None:
        threads = AvifImagePlugin._get_default_max_threads()
        self._decoder = _avif.AvifDecoder(self.fp.read() if self.fp else b"", "auto", threads)
        self._size, self.n_frames, self._mode, profile, _, self.orientation, _ = self._decoder.get_info()
        if profile:
            self.info["icc_profile"] = profile
        self.is_animated = self.n_frames > 1
        self.seek(0)


READERS: dict[str, type[ImageFile.ImageFile]] = {
    "avif": AvifReader,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "ico": IcoImagePlugin.IcoImageFile,
    "jpeg2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "png": PngImagePlugin.PngImageFile,
    "ppm": NetpbmReader,
    "tiff": TiffReader,
    "webp": WebPImagePlugin.WebPImageFile,
}
"""The formats that are read. Each by its own reader: nothing else of Pillow ever sees a file."""
