"""Write image files field by field: files that no encoder writes, or that Pillow can't write."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RAW_PROFILE = b"Raw profile type exif\0"
TIFF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 9: "i", 12: "d", 13: "I", 16: "Q"}

ARITHMETIC_JPEGS = {
    "arithmetic": base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNS"
        "Mj5aYVpQYEpRUk//yQALCAAYACABAREA/8wABgAQEAX/2gAIAQEAAD8A/wCgCbdl8Px6tKwVlqMLcqnsjWZfaVcoJGMw6GH1m+UkNs9a"
        "RHc9wQf/AHxGcXFwXiGf43ugi2uAelqG6iolv6r+MxUK5JrioLxFzk5vcsy5W6AXbYzH4xcpOkQ+Dwp6XnyrSIIc9GqS3xfHzUpuYYdN"
        "ev42PNOR5RR5MDQv7ZIPDowhBDWU3iFYs6LTONPtmAk72Hq5H5zZ2ICXYpAAgDolHEQUFxnvnTi+pNWrL1UYl8sZnB5QDaWuAcGkH0D/"
        "2Q=="
    ),
    "arithmetic progressive": base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNS"
        "Mj5aYVpQYEpRUk//ygALCAAYACABAREA/8wABAAQ/9oACAEBAAAAAf8AP+8jRoBVqNm2WVgEaf/MAAQQBf/aAAgBAQABBQIas4oOR4Bl"
        "OMg98LSRcn9VWe8HiHpY/8wABBAF/9oACAEBAAY/AtZGXG/7jQDhDOpNCZeqsT5EQ//MAAQQBf/aAAgBAQABPyHVvBu+z7Y5QqUnFtNZ"
        "GEnOckm+NHNM/fEci0SXzRT4KP/aAAgBAQAAABAbQP/MAAQQBf/aAAgBAQABPxAXvvRUzxtDiEfabrezlr/gdiq+7z4azYAtaf1I/NMS"
        "iJuAECdInZzuFLQxv7blT345D7J+H9lYZKQZ6++37CuGKpd18hEaCGXnFSV2iJxA/9k="
    ),
}
"""JPEGs of 32 × 24 gray pixels, made with `jpegtran -arithmetic`: no Python library encodes them."""

Entry = tuple[int, int, Sequence[int] | bytes]
"""A TIFF tag, its type, and its values."""


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, *, bits: int = 8, color_type: int = 2, interlace: int = 0) -> bytes:
    """Return the signature and the header chunk."""
    return PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace))


def png(
    width: int,
    height: int,
    rows: bytes,
    *,
    bits: int = 8,
    color_type: int = 2,
    interlace: int = 0,
    before: bytes = b"",
    level: int = 6,
) -> bytes:
    """Return a PNG of rows that begin with their filter bytes; `before` holds chunks that come before the pixels."""
    header = png_header(width, height, bits=bits, color_type=color_type, interlace=interlace)
    return header + before + png_chunk(b"IDAT", zlib.compress(rows, level)) + png_chunk(b"IEND")


def png_rows(samples: np.ndarray) -> bytes:
    """Return rows of 8- or 16-bit samples, unfiltered."""
    big_endian = samples.astype(">u2" if samples.dtype == np.uint16 else np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in big_endian)


def interlaced_png(samples: np.ndarray) -> bytes:
    """Return an Adam7 PNG of (height, width, 3) pixels."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(png_rows(samples[y::dy, x::dx]) for y, x, dy, dx in passes if samples[y::dy, x::dx].size)
    return png(samples.shape[1], samples.shape[0], rows, interlace=1)


def tiff(directories: Iterable[Iterable[Entry]], body: bytes = b"", *, order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF whose `body` follows the header, at offset 8 or 16; directories and values come after it."""
    offset_type, count_type, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    mark = b"II" if order == "<" else b"MM"
    start = 16 if big else 8
    data = bytearray(body.ljust(len(body) + len(body) % 2, b"\0"))
    links = []  # where each directory stores the offset of the next
    first = b""
    for unsorted in directories:
        table = b""
        entries = sorted(unsorted, key=lambda entry: entry[0])
        for tag, kind, values in entries:
            packed = struct.pack(f"{order}{len(values)}{TIFF_TYPES[kind]}", *values)
            count = len(values) // 2 if kind == 5 else len(values)
            if len(packed) > inline:
                field = struct.pack(order + offset_type, start + len(data))
                data += packed + b"\0" * (len(packed) % 2)
            else:
                field = packed.ljust(inline, b"\0")
            table += struct.pack(order + "HH" + offset_type, tag, kind, count) + field
        here = struct.pack(order + offset_type, start + len(data))
        if links:
            data[links[-1] : links[-1] + inline] = here
        first = first or here
        data += struct.pack(order + count_type, len(entries)) + table + bytes(inline)
        links.append(len(data) - inline)
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    return mark + version + first + bytes(data)


def tiff_picture(
    samples: np.ndarray, *, rows: int = 1 << 20, order: str = "<", big: bool = False, more: Iterable[Entry] = ()
) -> bytes:
    """Return an uncompressed TIFF of (height, width, 1 or 3) samples in strips of `rows` rows."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    strips = [samples[y : y + rows].astype(samples.dtype.newbyteorder(order)).tobytes() for y in range(0, height, rows)]
    offsets = list(accumulate(map(len, strips[:-1]), initial=16 if big else 8))
    entries: list[Entry] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * channels),
        (259, 3, [1]),
        (262, 3, [2 if channels == 3 else 1]),
        (273, 4, offsets),
        (277, 3, [channels]),
        (278, 4, [min(rows, height)]),
        (279, 4, [len(strip) for strip in strips]),
    ]
    replaced = {entry[0] for entry in more}
    return tiff(
        [[*(entry for entry in entries if entry[0] not in replaced), *more]], b"".join(strips), order=order, big=big
    )


def tiled_tiff(samples: np.ndarray, side: int = 16) -> bytes:
    """Return an uncompressed TIFF of (height, width, 3) pixels in square tiles."""
    height, width, _ = samples.shape
    padded = np.pad(samples, ((0, -height % side), (0, -width % side), (0, 0)))
    tiles = [
        padded[y : y + side, x : x + side].tobytes()
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]
    size = side * side * 3
    entries: list[Entry] = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8, 8, 8]),
        (259, 3, [1]),
        (262, 3, [2]),
        (277, 3, [3]),
        (322, 4, [side]),
        (323, 4, [side]),
        (324, 4, [8 + size * i for i in range(len(tiles))]),
        (325, 4, [size] * len(tiles)),
    ]
    return tiff([entries], b"".join(tiles))


def bmp_header(width: int, height: int, *, bits: int = 24, compression: int = 0, colors: int = 0) -> bytes:
    offset = 54 + 4 * colors
    return (
        b"BM"
        + struct.pack("<IHHI", offset, 0, 0, offset)
        + struct.pack("<IiiHHIIIIII", 40, width, height, 1, bits, compression, 0, 2835, 2835, colors, 0)
    )


def rle_bmp(indices: np.ndarray) -> bytes:
    """Return a run-length encoded BMP of (height, width) colour numbers."""
    height, width = indices.shape
    body = b""
    for row in indices[::-1]:
        body += b"".join(bytes((1, value)) for value in row) + b"\0\0"
    palette = b"".join(bytes((i, 255 - i, i // 2, 0)) for i in range(256))
    return bmp_header(width, height, bits=8, compression=1, colors=256) + palette + body + b"\0\1"


def gif_header(width: int, height: int, colors: int = 4) -> bytes:
    """Return a GIF header with a global table of 4 colours."""
    assert colors == 4
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 0, 0) + bytes(range(12))


def gif_frame(width: int, height: int, codes: bytes, *, left: int = 0, top: int = 0) -> bytes:
    """Return an image block of 2-bit colours; `codes` is its LZW data, at most 255 bytes."""
    descriptor = b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0)
    return descriptor + b"\x02" + bytes((len(codes),)) + codes + b"\0"


def ico(images: Sequence[bytes], width: int = 16, height: int = 16, bits: int = 32) -> bytes:
    """Return an icon of PNGs, or BMPs without file header; its table states the same size for all."""
    offset = 6 + 16 * len(images)
    table = b""
    for image in images:
        table += struct.pack("<BBBBHHII", width, height, 0, 0, 1, bits, len(image), offset)
        offset += len(image)
    return b"\0\0\1\0" + struct.pack("<H", len(images)) + table + b"".join(images)


def riff(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a RIFF file."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def webp(*chunks: bytes) -> bytes:
    return riff(b"RIFF", b"WEBP" + b"".join(chunks))


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def lossless_jpeg(samples: np.ndarray, *, process: int = 0xC3, bits: int = 8) -> bytes:
    """Return a lossless JPEG of (height, width, channels) samples; `process` is the marker of its frame header."""
    height, width, channels = samples.shape
    values = samples.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 1 << (bits - 1)
    codes = []
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        code = difference if difference > 0 else difference + (1 << size) - 1
        codes.append(f"{size:05b}" + (f"{code:0{size}b}" if size else ""))
    text = "".join(codes)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", bits, height, width, channels) + bytes(
        byte for channel in range(channels) for byte in (channel + 1, 0x11, 0)
    )
    table = bytes((0, 0, 0, 0, 0, 17, *bytes(11), *range(17)))  # 17 codes of five bits
    header = bytes((channels, *(byte for channel in range(channels) for byte in (channel + 1, 0)), 1, 0, 0))
    parts = [jpeg_segment(process, frame), jpeg_segment(0xC4, table), jpeg_segment(0xDA, header)]
    return b"\xff\xd8" + b"".join(parts) + scan + b"\xff\xd9"


def raw_profile(kind: bytes, exif: bytes) -> bytes:
    """Return EXIF as text in a PNG chunk of kind `tEXt` or `zTXt`, as ImageMagick writes it."""
    text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    return png_chunk(kind, RAW_PROFILE + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text))
