"""Which format a file is, from its first bytes; its name is never asked."""

from __future__ import annotations

import re

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\xff\x0a", "jpegxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jpegxl"),
    (b"8BPS", "psd"),
    (b"%!PS-Adobe", "eps"),
    (b"\xc5\xd0\xd3\xc6", "eps"),
    (b"\x76\x2f\x31\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"qoif", "qoi"),
    (b"<svg", "svg"),
)
"""Some name formats that are recognised only so that the refusal can name them."""

SNIFFED_BYTES = 4096
"""More than that is not looked at."""

BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
PPM = re.compile(rb"P(?:[1-6]|y|0CMYK|yCMYK|7|F|f)[ \t\r\n#]")


def sniff_format(data: bytes) -> str | None:
    """Return the lower-case format name of an image file, or None if it isn't one that is known."""
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    return _sniff_riff(data) or _sniff_isobmff(data) or _sniff_bitmap(data) or _sniff_text(data)


def _sniff_riff(data: bytes) -> str | None:
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _sniff_bitmap(data: bytes) -> str | None:
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in BMP_HEADER_SIZES:
        return "bmp"
    return "ico" if data[:4] == b"\x00\x00\x01\x00" and data[4:6] != b"\x00\x00" else None


def _sniff_text(data: bytes) -> str | None:
    if PPM.match(data):
        return "ppm"
    return "svg" if data[:5] == b"<?xml" and b"<svg" in data[:1024] else None


def _sniff_isobmff(data: bytes) -> str | None:
    if data[4:8] != b"ftyp":
        return None
    box = data[: min(int.from_bytes(data[:4], "big"), 256)]
    brands = {box[8:12], *(box[offset : offset + 4] for offset in range(16, len(box) - 3, 4))}
    if brands & AVIF_BRANDS:
        return "avif"
    return "heif" if brands & HEIF_BRANDS else None
