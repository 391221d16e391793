"""AVIF: read size and orientation from the container, and check that the file is complete."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property

from PIL import AvifImagePlugin, _avif

from darkroom.tasks.imaging.formats.base import Part, PillowImage, refuse_zero_tail
from darkroom.tasks.imaging.formats.isobmff import boxes, brands
from darkroom.tasks.imaging.records import Size

BRANDS = frozenset({b"avif", b"avis"})


class AvifReader(AvifImagePlugin.AvifImageFile):
    """Pillow's reader, but with the orientation of the container, as the standard says, instead of EXIF's."""

    orientation = 1

    def _open(self) -> None:
        threads = AvifImagePlugin._get_default_max_threads()
        self._decoder = _avif.AvifDecoder(self.fp.read() if self.fp else b"", "auto", threads)
        self._size, self.n_frames, self._mode, profile, _, self.orientation, _ = self._decoder.get_info()
        if profile:
            self.info["icc_profile"] = profile
        self.is_animated = self.n_frames > 1
        self.seek(0)


class AvifImage(PillowImage):
    """A container of pictures or of an animation."""

    name = "avif"
    reader = AvifReader
    image: AvifReader

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file's first box names AVIF."""
        return bool(brands(head) & BRANDS)

    def _header_size(self) -> Size | None:
        return max(self._stated_sizes(), key=lambda size: size[0] * size[1], default=None)

    def _stated_sizes(self) -> Iterator[Size]:
        # Every item has an image spatial extents property (ispe) with its size. A picture may be a grid of items, which
        # has the largest size.
        position = self.data.find(b"ispe")
        while position >= 0:
            if self.data[position - 4 : position] == b"\x00\x00\x00\x14" and position + 16 <= len(self.data):
                yield struct.unpack_from(">II", self.data, position + 8)
            position = self.data.find(b"ispe", position + 4)

    @cached_property
    def _pictures(self) -> list[Part]:
        return [box for box in boxes(self.data) if box.kind == b"mdat"]

    def _read_orientation(self) -> int | None:
        return self.image.orientation

    def _lacks_data(self) -> bool:
        """Return whether the file ends within its picture data (the `mdat` box), or has none."""
        return not self._pictures or self._pictures[0].end > len(self.data)

    def _check_pixels(self) -> None:
        for box in self._pictures:
            refuse_zero_tail(self.data, box.start, box.end)
