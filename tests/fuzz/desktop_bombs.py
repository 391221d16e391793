"""Bombs in the formats of scanners and desktops: TIFF, JPEG 2000, BMP, TGA, ICO and Netpbm."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.fuzz import build
from tests.fuzz.outcomes import CORRUPT, OK, PIXELS, SIDE, TRUNCATED, UNSUPPORTED, Bomb
from tests.fuzz.samples import HEIGHT, WIDTH, samples
from tests.tasks.imaging.reference import encoded, picture


def desktop_bombs() -> dict[str, dict[str, Bomb]]:
    """Return bombs by format and variant."""
    return {
        "tiff": _tiffs(),
        "jpeg2000": _jpeg2000s(),
        "bmp": _bmps(),
        "ico": _icos(),
        "ppm": _netpbms(),
        "tga": _tgas(),
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
