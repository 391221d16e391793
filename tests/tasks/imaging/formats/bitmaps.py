"""BMP files for tests."""

import struct

FOUR_COLORS = bytes((0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 9, 9, 9, 0))
"""Red, green, blue, and nearly black."""


def bitmap(rows, bits, *, size=(4, 2), compression=3, masks=(), header=124, palette=b"", profile=b""):
    """Return a BMP whose second header has `header` bytes; masks that do not fit into it follow."""
    fields = struct.pack("<IiiHHIIiiII", header, *size, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0)
    body = fields + struct.pack(f"<{len(masks)}I", *masks)
    if header == 124:
        body = body.ljust(56, b"\0") + (b"DEBM" if profile else b"BGRs") + bytes(124 - 60)
        offset = 124 + len(palette) + len(rows)
        body = body[:112] + struct.pack("<II", offset, len(profile)) + body[120:]
    pixels_at = 14 + len(body) + len(palette)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, pixels_at) + body + palette + rows + profile
