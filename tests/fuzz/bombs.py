"""Small files that claim, or unpack to, far more than their size, each with its expected outcome."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from PIL import Image

from tests.fuzz import build
from tests.fuzz.samples import HEIGHT, WIDTH, other_profile, samples
from tests.tasks.imaging.reference import encoded, exif_with, jpeg, picture

SIDE = 65_500
PIXELS, CORRUPT, UNSUPPORTED, TRUNCATED, UNKNOWN = (
    f"decode.{code}" for code in ("too_many_pixels", "corrupt", "unsupported", "truncated", "unknown_format")
)
OK = "ok"

Bomb = tuple[bytes, str]
"""A file, and its outcome under the first recipe: an error code, or `ok` and the warnings."""


@cache
def bombs() -> dict[str, Bomb]:
    """Return bombs by name, `format/variant`."""
    groups = {
        "none": _no_images(),
        "jpeg": _jpegs(),
        "png": _pngs(),
        "gif": _gifs(),
        "tiff": _tiffs(),
        "webp": _webps(),
        "avif": _avifs(),
        "jpeg2000": _jpeg2000s(),
        "bmp": _bmps(),
        "ico": _icos(),
        "ppm": _netpbms(),
        "tga": _tgas(),
        "profile": _profiles(),
    }
    return {f"{name}/{what}": bomb for name, group in groups.items() for what, bomb in group.items()}


def _no_images() -> dict[str, Bomb]:
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    return {
        "one zero": (b"\0", UNKNOWN),
        "zeros": (bytes(100_000), UNKNOWN),
        "page": (page, UNKNOWN),
        "page with a picture": (page + samples()["jpeg/420"], UNKNOWN),
        "archive": (b"PK\3\4" + bytes(100), UNKNOWN),
        "text": ("Grüße".encode("utf-16"), UNKNOWN),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNSUPPORTED),
        "photoshop": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, SIDE, SIDE, 8, 3), UNSUPPORTED),
        "postscript": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\nsystemdict /quit get exec",
            UNSUPPORTED,
        ),
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


def _tiffs() -> dict[str, Bomb]:
    pixels = picture(WIDTH, HEIGHT)
    tile = [(256, 4, [WIDTH]), (257, 4, [HEIGHT]), (258, 3, [8, 8, 8]), (262, 3, [2]), (277, 3, [3])]

    def strips(*more: build.Entry) -> bytes:
        return build.tiff_picture(pixels, rows=10, more=more)

    def tiles(side: int, compression: int = 8) -> bytes:
        more: list[build.Entry] = [(259, 3, [compression]), (322, 4, [side]), (323, 4, [side])]
        return build.tiff([[*tile, *more, (324, 4, [8]), (325, 4, [100])]], bytes(100))

    loop = bytearray(strips())
    loop[-4:] = loop[4:8]
    compressed = zlib.compress(bytes(3 * WIDTH))
    offsets: list[build.Entry] = [(273, 4, [8] * HEIGHT), (279, 4, [len(compressed)] * HEIGHT), (278, 4, [1])]
    empty = b"\x78\x9c" + b"\0\0\0\xff\xff" * 100_000
    again: list[build.Entry] = [(273, 4, [8] * HEIGHT), (279, 4, [len(empty)] * HEIGHT), (278, 4, [1]), (259, 3, [8])]
    return {
        "65500 × 65500": (strips((256, 4, [SIDE]), (257, 4, [SIDE])), PIXELS),
        "4 billion × 1": (strips((256, 4, [(1 << 32) - 1]), (257, 4, [1])), PIXELS),
        "a tile of 268 million": (tiles(16_384), CORRUPT),
        "a tile of 4 billion": (tiles(SIDE, 5), CORRUPT),
        "a directory that leads to itself": (bytes(loop), OK),
        "a directory beyond the end": (b"II*\0\xf0\xff\xff\xff" + bytes(100), TRUNCATED),
        "a directory of 65535": (b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535 + 4), CORRUPT),
        "a big directory": (b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8 + bytes(100), TRUNCATED),
        "a million strips": (strips((273, 4, [8] * 1_000_000)), CORRUPT),
        "too many strips": (strips((273, 4, [8] * 20)), CORRUPT),
        "too few strips": (strips((273, 4, [8, 8])), CORRUPT),
        "strips at offset 0": (strips((273, 4, [0] * 5)), CORRUPT),
        "too few tiles": (
            build.tiff([[*tile, (259, 3, [1]), (322, 4, [16]), (323, 4, [16]), (324, 4, [8])]], bytes(99)),
            CORRUPT,
        ),
        "strips without rows": (strips((278, 4, [0])), CORRUPT),
        "a million values of BitsPerSample": (strips((258, 3, [8] * 1_000_000)), OK),
        "a billion samples": (strips((277, 4, [1 << 30])), UNSUPPORTED),
        "a float for a compression": (strips((259, 12, [5.0])), CORRUPT),  # type: ignore[list-item]
        "old-style jpeg": (strips((259, 3, [6])), UNSUPPORTED),
        "one strip for all rows": (build.tiff([[*tile, (259, 3, [8]), *offsets]], compressed), OK),
        "strips that unpack to nothing": (build.tiff([[*tile, *again]], empty), CORRUPT),
        "1 × 10000": (build.tiff_picture(picture(1, 10_000), rows=1), OK),
        "1 × 200000": (build.tiff_picture(picture(1, 200_000), rows=1), OK),
        "orientation in xmp": (strips((700, 1, b'<x tiff:Orientation="6"/>')), OK),
        "a profile that is a number": (strips((34675, 3, [7])), "ok icc_invalid"),
        "many pages": (build.tiff([[(256, 4, [1])]] * 150_000), CORRUPT),
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


def _jpeg2000s() -> dict[str, Bomb]:
    flat = encoded(
        Image.new("RGB", (64, 64)), "JPEG2000", precinct_size=(64, 64), codeblock_size=(16, 16), num_resolutions=6
    )
    style = (
        flat.index(b"\xff\x52") + 4
    )  # Scod, order, layers, transform, levels, block, block, style, filter, precincts
    layers = flat[: style + 2] + b"\xff\xff" + flat[style + 4 :]
    precincts = layers[: style + 10] + b"\x11" * 6 + layers[style + 16 :]
    tiled = samples()["jpeg2000/tiles"]
    first = tiled.index(b"\xff\x90")
    second = tiled.index(b"\xff\x90", first + 12)
    codestream = samples()["jpeg2000/codestream"]

    def sized(offset: int, *numbers: int) -> bytes:
        position = codestream.index(b"\xff\x51") + 6 + 4 * offset
        packed = struct.pack(f">{len(numbers)}I", *numbers)
        return codestream[:position] + packed + codestream[position + len(packed) :]

    return {
        "65500 × 65500": (sized(0, SIDE, SIDE), PIXELS),
        "tiles of one pixel": (sized(4, 1, 1), TRUNCATED),
        "tiles of no pixel": (sized(4, 0, 0), TRUNCATED),
        "a large tile": (sized(4, SIDE, SIDE), OK),
        "65535 layers": (precincts, CORRUPT),
        "a missing tile": (tiled[:first] + tiled[second:], TRUNCATED),
        "many parts": (
            tiled[:second] + (b"\xff\x90\0\x0a\0\0" + struct.pack(">IBB", 14, 0, 1) + b"\xff\x93") * 250_000,
            TRUNCATED,
        ),
    }


def _bmps() -> dict[str, Bomb]:
    def bmp(*arguments: int, body: bytes = b"", **options: int) -> bytes:
        return build.bmp_header(*arguments, **options) + bytes(4 * options.get("colors", 0)) + body

    runs = b"\0\2\xff\xff" * 5000
    return {
        "65500 × 65500": (bmp(SIDE, SIDE), PIXELS),
        "2 billion × 1": (bmp((1 << 31) - 1, 1), PIXELS),
        "1 × minus 2 billion": (bmp(1, -(1 << 31)), PIXELS),
        "runs to its end": (bmp(1000, 1000, bits=8, compression=1, colors=256, body=runs), CORRUPT),
        "runs that skip": (bmp(1000, 1000, bits=8, compression=1, colors=256, body=b"\0\2\0\1" * 1000), "ok rle_gaps"),
        "rows of one run": (bmp(1, 100_000, bits=8, compression=1, colors=256, body=b"\1\7\0\0" * 100_000), OK),
        "runs that are cut": (bmp(1000, 1000, bits=8, compression=1, colors=256, body=b"\xff\7" * 3), TRUNCATED),
        "a jpeg inside": (bmp(WIDTH, HEIGHT, compression=4, body=samples()["jpeg/420"]), UNSUPPORTED),
        "4 billion colors": (bmp(WIDTH, HEIGHT, bits=8)[:46] + b"\xff" * 8 + bytes(5000), UNSUPPORTED),
    }


def _tgas() -> dict[str, Bomb]:
    def tga(kind: int, side: int, bits: int, body: bytes) -> bytes:
        return struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, side, side, bits, 0x20) + body

    return {
        "65500 × 65500": (tga(10, SIDE, 24, b"\xff\1\2\3" * 100), PIXELS),
        "runs that are cut": (tga(10, 1000, 24, b"\xff\1\2\3" * 100), TRUNCATED),
        "runs across rows": (tga(10, 1000, 24, b"\xff\1\2\3" * 7812 + b"\xbf\1\2\3"), OK),
        "runs of all its pixels": (tga(10, 512, 24, b"\xff\1\2\3" * 2048), OK),
    }


def _icos() -> dict[str, Bomb]:
    rows = build.png_rows(picture(16, 16))
    text = build.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))
    small = build.png(16, 16, rows, before=text * 70)
    old = struct.pack("<IHHHH", 12, 16, 32, 1, 24) + bytes(16 * 16 * 3 + 64)
    return {
        "a large png": (build.ico([build.png_header(SIDE, SIDE)]), PIXELS),
        "a png with texts": (build.ico([small]), OK),
        "65535 pictures": (b"\0\0\1\0\xff\xff" + bytes(16 * 65_535), UNSUPPORTED),
        "a bitmap with the oldest header": (build.ico([old], bits=24), OK),
        "a wrong checksum": (build.ico([small[:-20] + b"\1\2\3\4" + small[-16:]]), CORRUPT),
        "an entry for itself": (b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 22, 0), TRUNCATED),
    }


def _netpbms() -> dict[str, Bomb]:
    return {
        "9 billion × 9 billion": (b"P6 9999999999 9999999999 255\n", PIXELS),
        "65500 × 65500": (b"P5 65500 65500 255\n", PIXELS),
        "many comments": (b"P2 1000 1000 255\n" + b"#\n" * 500_000, TRUNCATED),
        "a long comment in its header": (b"P5 #" + b"a" * 200_000 + b"\n4 4 255\n" + bytes(16), OK),
        "a million samples in text": (b"P2 1000 1000 300\n" + b"0 " * 1_000_000, OK),
        "a million samples with maxval 200": (b"P5 1000 1000 200\n" + bytes(1_000_000), OK),
        "a long number": (b"P2 4 4 255\n" + b"1" * 100_000, CORRUPT),
        "an invalid bit": (b"P1 4 4\n0101 0120 1111 0000", CORRUPT),
        "maxval 0": (b"P5 4 4 0\n" + bytes(16), CORRUPT),
        "too few samples": (b"P3 4 4 255\n1 2 3", TRUNCATED),
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
