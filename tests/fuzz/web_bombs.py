"""Bombs in the formats of the web: JPEG, PNG, GIF, WebP and AVIF, and in the colour profiles of such files."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.fuzz import build
from tests.fuzz.outcomes import CORRUPT, OK, PIXELS, SIDE, TRUNCATED, Bomb
from tests.fuzz.samples import HEIGHT, WIDTH, other_profile, samples
from tests.tasks.imaging.reference import encoded, exif_with, jpeg, picture


def web_bombs() -> dict[str, dict[str, Bomb]]:
    """Return bombs by format and variant."""
    return {
        "jpeg": _jpegs(),
        "png": _pngs(),
        "gif": _gifs(),
        "webp": _webps(),
        "avif": _avifs(),
        "profile": _profiles(),
    }


def _jpegs() -> dict[str, Bomb]:
    plain = jpeg(picture(WIDTH, HEIGHT))
    frame = plain.index(b"\xff\xc0") + 5
    large = plain[:frame] + struct.pack(">HH", SIDE, SIDE) + plain[frame + 4 :]
    progressive = jpeg(picture(WIDTH, HEIGHT), progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    parts = [build.jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((i % 256, 255)) + b"profile") for i in range(300)]
    directory = b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHIHH", 0x0100, 3, 1, 1, 0) * 5000
    return {
        "65500 × 65500": (large, PIXELS),
        "1 × 65500": (jpeg(picture(1, SIDE)), OK),
        "65500 × 1": (jpeg(picture(SIDE, 1)), OK),
        "many scans": (progressive[:-2] + scan * 5000 + b"\xff\xd9", CORRUPT),
        "many empty scans": (progressive[:-2] + scan[:10] * 5000 + b"\xff\xd9", CORRUPT),
        "many profile parts": (plain[:2] + b"".join(parts) + plain[2:], "ok header_repaired icc_invalid"),
        "many segments": (plain[:2] + build.jpeg_segment(0xFE, b"") * 300_000 + plain[2:], OK),
        "many comments": (plain[:2] + build.jpeg_segment(0xFE, bytes(60_000)) * 50 + plain[2:], OK),
        "filler": (plain[:2] + b"\xff" * 1_000_000 + plain[2:], OK),
        "junk": (plain[:2] + b"\xff\0" * 300_000 + plain[2:], "ok header_repaired"),
        "long exif": (plain[:2] + build.jpeg_segment(0xE1, b"Exif\0\0" + directory) + plain[2:], "ok exif_invalid"),
        "followed by a page": (plain + b"<html><script>alert(1)</script></html>", OK),
        "followed by an archive": (plain + b"PK\3\4" + bytes(1000), OK),
        "only its first bytes": (b"\xff\xd8\xff\xe0", TRUNCATED),
    }


def _pngs() -> dict[str, Bomb]:
    rows = build.png_rows(picture(WIDTH, HEIGHT))
    zeros = zlib.compress(bytes(30_000_000))
    text = build.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))
    emoji = build.png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress("\U0001f600".encode() * (1 << 18)))

    def small(before: bytes = b"") -> bytes:
        return build.png(WIDTH, HEIGHT, rows, before=before)

    long_chunk = small()[:33] + struct.pack(">I", (1 << 31) - 1) + small()[37:]
    pixels = build.png_chunk(b"IDAT", zlib.compress(rows) + zeros) + build.png_chunk(b"IEND")
    control = struct.pack(">IIIIIHHBB", 0, 3, 3, 0, 0, 1, 1, 0, 0)
    return {
        "65500 × 65500": (build.png_header(SIDE, SIDE), PIXELS),
        "4 billion × 1": (build.png_header((1 << 32) - 1, 1), PIXELS),
        "1 × 4 billion": (build.png_header(1, (1 << 32) - 1), PIXELS),
        "1 million pixels of one color": (build.png(1000, 1000, bytes(3001) * 1000, level=9), OK),
        "1 million pixels of 16 bits": (build.png(1000, 1000, bytes(8001) * 1000, bits=16, color_type=6), OK),
        "1 × 1000000": (build.png(1, 1_000_000, bytes(5) * 1_000_000, color_type=6), OK),
        "1000000 × 1": (build.png(1_000_000, 1, bytes(4_000_001), color_type=6), OK),
        "texts": (small(text * 70), OK),
        "texts of wide characters": (small(emoji * 70), OK),
        "profile": (small(build.png_chunk(b"iCCP", b"a\0\0" + zeros)), "ok icc_invalid"),
        "exif": (small(build.png_chunk(b"eXIf", b"II*\0" + bytes(4_000_000))), OK),
        "raw exif": (small(build.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros)), "ok exif_invalid"),
        "many chunks": (small(build.png_chunk(b"teSt") * 250_000), OK),
        "more pixels than its header states": (build.png_header(WIDTH, HEIGHT) + pixels, OK),
        "a chunk of 2 GB": (long_chunk, TRUNCATED),
        "16 bits and a chunk of 2 GB": (
            build.png_header(WIDTH, HEIGHT, bits=16) + struct.pack(">I", (1 << 31) - 1) + b"IDAT" + zlib.compress(rows),
            TRUNCATED,
        ),
        "2 billion frames": (small(build.png_chunk(b"acTL", struct.pack(">II", 1 << 31, 0))), OK),
        "a first frame that is smaller": (
            small(build.png_chunk(b"acTL", struct.pack(">II", 2, 0)) + build.png_chunk(b"fcTL", control)),
            OK,
        ),
        "a wrong checksum": (small()[:-20] + b"\1\2\3\4" + small()[-16:], CORRUPT),
    }


def _gifs() -> dict[str, Bomb]:
    header, codes = build.gif_header(4, 4), b"\x84\x8f\xa9\x5d\x05"
    frame = build.gif_frame(4, 4, codes)
    blocks = b"\x21\xfe" + b"\1a" * 200_000 + b"\0"
    disposed = b"\x21\xf9\4\x08\0\0\0\0"
    return {
        "65500 × 65500": (build.gif_header(SIDE, SIDE) + frame + b";", PIXELS),
        "a frame beyond its screen": (header + build.gif_frame(60_000, 60_000, codes) + b";", PIXELS),
        "a frame far away": (header + build.gif_frame(4, 4, codes, left=SIDE, top=SIDE) + b";", PIXELS),
        "a large frame that is disposed": (header + disposed + build.gif_frame(30_000, 30_000, codes) + b";", PIXELS),
        "junk before a large frame": (header + b"\0" * 9 + build.gif_frame(9000, 9000, codes) + b";", PIXELS),
        "many small blocks": (header + blocks + build.gif_frame(2000, 500, codes) + b";", CORRUPT),
        "many frames": (samples()["gif/plain"][:-1] + frame * 150_000, OK),
        "no frame": (header + b";", TRUNCATED),
    }


def _webps() -> dict[str, Bomb]:
    def canvas(side: int, *chunks: bytes) -> bytes:
        size = (side - 1).to_bytes(3, "little")
        return build.webp(build.riff(b"VP8X", b"\2\0\0\0" + size + size), *chunks)

    animation = build.riff(b"ANIM", bytes(6))
    frame = build.riff(b"ANMF", bytes(16))
    return {
        "16383 × 16383": (canvas(16_383, animation), PIXELS),
        "16 million × 16 million": (canvas(1 << 24, animation), PIXELS),
        "many frames": (canvas(100, animation, frame * 50_000), CORRUPT),
        "no frame": (canvas(100, animation), CORRUPT),
        "a lossless size": (build.webp(build.riff(b"VP8L", b"\x2f" + b"\xff" * 20)), PIXELS),
        "an end of zeros": (_zero_end(samples()["webp/lossless"]), TRUNCATED),
    }


def _zero_end(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def _avifs() -> dict[str, Bomb]:
    plain = samples()["avif/420"]
    stated = b"ispe" + struct.pack(">III", 0, WIDTH, HEIGHT)
    large = encoded(Image.new("RGB", (3000, 2000)), "AVIF", speed=10)
    lie = large.replace(b"ispe" + struct.pack(">III", 0, 3000, 2000), stated)
    boxes = struct.pack(">I4s", 8, b"free") * 300_000
    nested = b"".join(struct.pack(">I4s", 8 * (10_000 - i), b"trak") for i in range(10_000))
    items = struct.pack(">I4sIBBIHHH", 100_000, b"iloc", 2 << 24, 0, 0, 1 << 31, 1, 0, 0) + b"\xff" * 99_974
    meta = struct.pack(">I4sI", len(items) + 24, b"meta", 0) + items + struct.pack(">I4sI", 12, b"iinf", 0)
    return {
        "65500 × 65500": (plain.replace(stated, b"ispe" + struct.pack(">III", 0, SIDE, SIDE)), PIXELS),
        "larger than its container states": (lie, OK),
        "many boxes": (plain[:32] + boxes + plain[32:], CORRUPT),
        "boxes in boxes": (plain[:32] + struct.pack(">I4s", len(nested) + 8, b"moov") + nested, TRUNCATED),
        "many items": (plain[:32] + meta, TRUNCATED),
        "an end of zeros": (_zero_end(encoded(picture(400, 300), "AVIF", speed=10, quality=90)), TRUNCATED),
    }


def _profiles() -> dict[str, Bomb]:
    """Return colour profiles in JPEGs and PNGs."""
    plain = other_profile()
    stage = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    count = 50_000
    offset = 16 + 8 * count
    stages = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, count)
    stages += struct.pack(">II", offset, len(stage)) * count + stage
    curve = plain.index(b"para", 300)

    def png(profile: bytes) -> bytes:
        return encoded(picture(WIDTH, HEIGHT), "PNG", icc_profile=profile)

    return {
        "50000 stages": (png(_with_tag(plain, b"D2B0", stages)), "ok icc_invalid"),
        "50000 stages in a jpeg": (
            jpeg(picture(WIDTH, HEIGHT), icc_profile=_with_tag(plain, b"D2B0", stages)),
            "ok icc_invalid",
        ),
        "a curve of 4 billion": (
            png(plain[:curve] + b"curv" + bytes(4) + b"\xff" * 4 + plain[curve + 12 :]),
            "ok icc_invalid",
        ),
        "4 billion tags": (png(plain[:128] + b"\xff" * 4 + plain[132:]), "ok icc_invalid"),
        "only its first bytes": (png(plain[:130]), "ok icc_invalid"),
        "with exif": (jpeg(picture(WIDTH, HEIGHT), icc_profile=plain, exif=exif_with(6)), OK),
    }


def _with_tag(profile: bytes, name: bytes, content: bytes) -> bytes:
    """Return a profile with one more tag."""
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    start = 132 + 12 * (count + 1)
    table, body = b"", b""
    for tag, value in [*((tag, profile[begin : begin + length]) for tag, begin, length in tags), (name, content)]:
        table += struct.pack(">4sII", tag, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I", start + len(body)) + profile[4:8] + b"\4" + profile[9:128]
    return head + struct.pack(">I", count + 1) + table + body
