"""Healthy files of every supported format and variant, which the fuzzer damages."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from tests.fuzz import build
from tests.tasks.imaging.reference import encoded, exif_with, picture

WIDTH, HEIGHT = 61, 43
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "odd"


@cache
def samples() -> dict[str, bytes]:
    """Return files by name, `format/variant`; each is read without a warning."""
    groups = {
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
    }
    return {f"{name}/{variant}": data for name, group in groups.items() for variant, data in group.items()}


@cache
def corpus() -> dict[str, bytes]:
    """Return the corpus's small odd files by name; none if the corpus isn't beside this checkout."""
    paths = sorted(CORPUS.iterdir()) if CORPUS.is_dir() else []
    return {f"odd/{path.name}": path.read_bytes() for path in paths if path.stat().st_size < 200_000}


def _rgb() -> np.ndarray:
    return picture(WIDTH, HEIGHT)


def _rgba() -> np.ndarray:
    return np.dstack((_rgb(), _rgb()[:, ::-1, 1]))


def _gray() -> np.ndarray:
    return _rgb()[:, :, 0]


def _deep(channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(np.uint16)


def _palette() -> Image.Image:
    return Image.fromarray(_rgb()).quantize(32)


def other_profile() -> bytes:
    """Return an RGB profile with the primaries of red and blue swapped; it has no date, so it is always the same."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    srgb = srgb[:24] + bytes(12) + srgb[36:]
    return srgb.replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")


def _jpegs() -> dict[str, bytes]:
    cmyk = Image.fromarray(_rgb()).convert("CMYK")
    return {
        "420": encoded(_rgb(), "JPEG"),
        "444 progressive": encoded(_rgb(), "JPEG", progressive=True, subsampling=0),
        "gray": encoded(_gray(), "JPEG"),
        "cmyk": encoded(cmyk, "JPEG"),
        "restarts": encoded(_rgb(), "JPEG", restart_marker_rows=1),
        "lossless": build.lossless_jpeg(_rgb()),
        **build.ARITHMETIC_JPEGS,
        "metadata": encoded(_rgb(), "JPEG", exif=exif_with(6), icc_profile=other_profile(), comment=b"hello"),
    }


def _pngs() -> dict[str, bytes]:
    rgb = Image.fromarray(_rgb())
    control = [
        build.png_chunk(b"tEXt", b"Title\0hello"),
        build.png_chunk(b"eXIf", exif_with(3).removeprefix(b"Exif\0\0")),
    ]
    rows = build.png_rows(_rgb())
    return {
        "rgb": encoded(rgb, "PNG"),
        "rgba": encoded(_rgba(), "PNG"),
        "gray": encoded(_gray(), "PNG"),
        "gray alpha": encoded(_rgba()[:, :, 2:], "PNG"),
        "palette": encoded(_palette(), "PNG"),
        "palette alpha": encoded(_palette(), "PNG", transparency=bytes(range(32))),
        "bits": encoded(_gray() > 128, "PNG"),
        "deep gray": build.png(WIDTH, HEIGHT, build.png_rows(_deep(1)), bits=16, color_type=0),
        "deep rgb": build.png(WIDTH, HEIGHT, build.png_rows(_deep(3)), bits=16, color_type=2),
        "deep rgba": build.png(WIDTH, HEIGHT, build.png_rows(_deep(4)), bits=16, color_type=6),
        "interlaced": build.interlaced_png(_rgb()),
        "metadata": build.png(WIDTH, HEIGHT, rows, before=b"".join(control)),
        "raw profile": build.png(
            WIDTH, HEIGHT, build.png_rows(_rgb()), before=build.raw_profile(b"tEXt", exif_with(6))
        ),
        "profile": encoded(rgb, "PNG", icc_profile=other_profile()),
        "animated": encoded(rgb, "PNG", save_all=True, append_images=[rgb.transpose(0)], duration=50),
    }


def _gifs() -> dict[str, bytes]:
    second = _palette().transpose(0)
    return {
        "plain": encoded(_palette(), "GIF", interlace=0),
        "interlaced": encoded(_palette(), "GIF", interlace=1),
        "transparent": encoded(_palette(), "GIF", transparency=3),
        "animated": encoded(_palette(), "GIF", save_all=True, append_images=[second], disposal=2),
        "gray": encoded(_gray(), "GIF"),
    }


def _tiffs() -> dict[str, bytes]:
    rgb, gray = Image.fromarray(_rgb()), Image.fromarray(_gray())
    bits = gray.point(lambda level: 255 * (level > 128), "1")
    compressed = {
        name: encoded(rgb, "TIFF", compression=name)
        for name in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd")
    }
    return compressed | {
        "strips": build.tiff_picture(_rgb(), rows=7),
        "big endian": build.tiff_picture(_rgb(), rows=10, order=">"),
        "bigtiff": build.tiff_picture(_rgb(), rows=10, big=True),
        "big endian bigtiff": build.tiff_picture(_rgb(), rows=10, order=">", big=True),
        "floating": build.tiff_picture(_rgb() / np.float32(255), rows=9, more=[(339, 3, [3, 3, 3])]),
        "lab": build.tiff_picture(_rgb(), rows=9, more=[(262, 3, [8])]),
        "12 bits": build.tiff_picture(_deep(1) >> 4, rows=9, more=[(281, 3, [4095])]),
        "reduced first": encoded(rgb, "TIFF", save_all=True, append_images=[rgb], tiffinfo={254: 1}),
        "tiles": build.tiled_tiff(_rgb()),
        "gray": encoded(gray, "TIFF"),
        "rgba lzw": encoded(_rgba(), "TIFF", compression="tiff_lzw"),
        "group3": encoded(bits, "TIFF", compression="group3"),
        "group4": encoded(bits, "TIFF", compression="group4"),
        "palette": encoded(_palette(), "TIFF"),
        "cmyk": encoded(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "deep gray": build.tiff_picture(_deep(1), rows=9),
        "deep rgb": cv2.imencode(".tiff", _deep(3))[1].tobytes(),
        "turned": encoded(rgb, "TIFF", exif=exif_with(6), compression="tiff_lzw"),
        "pages": encoded(rgb, "TIFF", save_all=True, append_images=[gray], icc_profile=other_profile()),
    }


def _webps() -> dict[str, bytes]:
    rgb = Image.fromarray(_rgb())
    return {
        "lossy": encoded(rgb, "WEBP"),
        "lossless": encoded(rgb, "WEBP", lossless=True),
        "alpha": encoded(_rgba(), "WEBP"),
        "metadata": encoded(rgb, "WEBP", exif=exif_with(6), icc_profile=other_profile()),
        "animated": encoded(rgb, "WEBP", save_all=True, append_images=[rgb.transpose(0)]),
    }


def _avifs() -> dict[str, bytes]:
    rgb = Image.fromarray(_rgb())
    return {
        "420": encoded(rgb, "AVIF", speed=10),
        "alpha": encoded(_rgba(), "AVIF", speed=10, subsampling="4:4:4"),
        "metadata": encoded(rgb, "AVIF", speed=10, exif=exif_with(8), icc_profile=other_profile()),
        "animated": encoded(rgb, "AVIF", speed=10, save_all=True, append_images=[rgb.transpose(0)]),
    }


def _jpeg2000s() -> dict[str, bytes]:
    return {
        "rgb": encoded(_rgb(), "JPEG2000"),
        "tiles": encoded(_rgb(), "JPEG2000", tile_size=(32, 32)),
        "lossy": encoded(_rgb(), "JPEG2000", irreversible=True, quality_layers=[20], num_resolutions=3),
        "rgba": encoded(_rgba(), "JPEG2000"),
        "codestream": encoded(_gray(), "JPEG2000", no_jp2=True),
    }


def _bmps() -> dict[str, bytes]:
    indices = np.asarray(_palette())
    deep = _rgb().astype(np.uint32)
    packed = (deep[:, :, 0] >> 3 << 10 | deep[:, :, 1] >> 3 << 5 | deep[:, :, 2] >> 3).astype("<u2")
    rows = b"".join(row.tobytes().ljust((WIDTH * 2 + 3) // 4 * 4, b"\0") for row in packed[::-1])
    masks = struct.pack("<III", 0xF00, 0xF0, 0xF)
    return {
        "rgb": encoded(_rgb(), "BMP"),
        "rgba": encoded(_rgba(), "BMP"),
        "gray": encoded(_gray(), "BMP"),
        "palette": encoded(_palette(), "BMP"),
        "bits": encoded(_gray() > 128, "BMP"),
        "rle": build.rle_bmp(indices),
        "dib": encoded(_rgb(), "BMP")[14:],
        "bit fields": build.bmp_header(WIDTH, HEIGHT, bits=16, compression=3, colors=3) + masks + rows,
        "555": build.bmp_header(WIDTH, HEIGHT, bits=16) + rows,
    }


def _tgas() -> dict[str, bytes]:
    modes = {"gray": _gray(), "rgb": _rgb(), "rgba": _rgba()}
    plain = {name: encoded(pixels, "TGA") for name, pixels in modes.items()}
    return plain | {
        "palette": encoded(_palette(), "TGA"),
        "runs": encoded(_rgb(), "TGA", compression="tga_rle"),
        "palette runs": encoded(_palette(), "TGA", compression="tga_rle"),
    }


def _icos() -> dict[str, bytes]:
    icon = Image.fromarray(_rgba()).resize((32, 32))
    return {
        "png": encoded(icon, "ICO", sizes=[(16, 16), (32, 32)]),
        "bmp": encoded(icon, "ICO", sizes=[(16, 16), (32, 32)], bitmap_format="bmp"),
    }


def _netpbms() -> dict[str, bytes]:
    rgb, gray, deep = _rgb(), _gray(), _deep(1)[:, :, 0]
    head = f"{WIDTH} {HEIGHT}".encode()
    return {
        "p1": b"P1\n# bits\n" + head + b"\n" + _text(gray > 128),
        "p2": b"P2 " + head + b" 300\n" + _text(gray),
        "p3": b"P3 " + head + b" 255\n" + _text(rgb),
        "p4": encoded(gray > 128, "PPM"),
        "p5": encoded(gray, "PPM"),
        "p5 200": b"P5 " + head + b" 200\n" + np.minimum(gray, 200).tobytes(),
        "p5 1023": b"P5 " + head + b" 1023\n" + (deep & 1023).astype(">u2").tobytes(),
        "p5 65535": b"P5 " + head + b" 65535\n" + deep.astype(">u2").tobytes(),
        "p6": encoded(rgb, "PPM"),
        "p6 100": b"P6 " + head + b" 100\n" + (rgb // 3).tobytes(),
        "cmyk": b"P0CMYK " + head + b" 255\n" + np.dstack((rgb, gray)).tobytes(),
    }


def _text(values: np.ndarray) -> bytes:
    return b"\n".join(b" ".join(b"%d" % value for value in row.ravel()) for row in values) + b"\n"
