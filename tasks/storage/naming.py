"""Names: a path's bytes as text, suffixes of images, and the output's name of an image."""

from __future__ import annotations

import hashlib
import re

from darkroom.tasks.settings import Format

IMAGE_SUFFIXES = frozenset(
    "avif bmp dib gif ico j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp".split()  # noqa: SIM905
)
"""File name suffixes of images, lower case, without the dot. As output names depend on them, this set never
changes; `tasks.selection` has further suffixes that are listed."""

OUTPUT_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "png": ("png",),
    "webp": ("webp",),
}
"""Suffixes that fit each output format; the first one is appended to other names."""

MARK = "~as"
"""Comes before the output's suffix if the source's is not one of `IMAGE_SUFFIXES`: `photo` → `photo~as.jpg`, so that
`photo.jpg` can lie beside it. It is rare, as other sources with such names have to be renamed."""

MAX_NAME_BYTES = 255
"""NAME_MAX of every common file system on Linux and macOS."""

_ESCAPED = re.compile("[\udc80-\udcff\uef80-\uefff]")
_ESCAPES = re.compile("[\uef80-\uefff]")
_CUT = re.compile(r"~[0-9a-f]{16}\Z")


def path_to_text(raw: bytes) -> str:
    r"""Return a path as text that UTF-8 can store; `text_to_path` turns it back into the same bytes.

    UTF-8 stays as it is. A byte 0xNN that isn't UTF-8 becomes the private-use character U+EFNN, as in MirBSD's OPTU-8;
    these characters themselves are escaped byte by byte, so that no two paths have the same text.
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isascii() or not _ESCAPED.search(text):
        return text
    return _ESCAPED.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return "".join(chr(0xEF00 + byte) for byte in match[0].encode("utf-8", "surrogateescape"))


def text_to_path(text: str) -> bytes:
    """Return the bytes of a path from its text; the inverse of `path_to_text`."""
    if text.isascii():
        return text.encode()
    return _ESCAPES.sub(lambda match: chr(ord(match[0]) - 0xEF00 + 0xDC00), text).encode("utf-8", "surrogateescape")


def folders_above(path: str) -> list[str]:
    """Return the paths of the folders above a file, the outermost first, each with a `/` at its end."""
    folders = path.split("/")[:-1]
    return ["/".join(folders[:depth]) + "/" for depth in range(1, len(folders) + 1)]


def suffix_of(name: str) -> str:
    """Return the last suffix of a name or path, lower case, without its dot; empty if there is none."""
    stem, dot, suffix = name.rpartition(".")
    return suffix.lower() if stem and dot else ""


def is_image_name(name: str) -> bool:
    """Return whether a name has one of `IMAGE_SUFFIXES`."""
    return suffix_of(name) in IMAGE_SUFFIXES


def output_name(source_path: str, output_format: Format, *, in_bucket: bool = False) -> str:
    """Return the path below `images/` of a source image's output, from the source path.

    A name keeps a suffix that fits the format; otherwise the format's suffix is appended: `a/b.jpg` → `a/b.jpg`,
    `a/b.png` → `a/b.png.jpg`; after `MARK`, if the name lacks the suffix of an image: `a/b` → `a/b~as.jpg`,
    `a/b.heic` → `a/b.heic~as.jpg`. A name that another source's output could get by this rule gets a further suffix,
    whether or not that source exists: `b.png.jpg` → `b.png.jpg.jpg`, and a folder `b.png.jpg/` → `b.png.jpg.d/`. So an
    output's name depends only on its source's path, no two sources share one, and none is the name of a folder of
    another. A name too long for file systems is cut, and ends with a hash of the whole.

    A bucket may have the objects `b.jpg` and `b.jpg/c.jpg`. So there, every folder that is named like an output is
    renamed: `b.jpg/c.jpg` → `b.jpg.d/c.jpg`. So is one whose name no folder can have: `a//b.jpg` → `a/.d/b.jpg`,
    `a/../b.jpg` → `a/...d/b.jpg`.
    """
    *folders, name = source_path.split("/")
    moved = [_folder_name(folder, output_format, in_bucket=in_bucket) for folder in folders]
    return "/".join([*moved, _file_name(name, output_format, in_bucket=in_bucket)])


def _file_name(name: str, output_format: Format, *, in_bucket: bool) -> str:
    suffixes = OUTPUT_SUFFIXES[output_format]
    if suffix_of(name) in suffixes and not _looks_appended(name, suffixes):
        return name if in_bucket or _fits(name) else _shortened(name, f".{suffixes[0]}")
    mark = "" if is_image_name(name) else MARK
    return _shortened(name, f"{mark}.{suffixes[0]}")


def _folder_name(folder: str, output_format: Format, *, in_bucket: bool) -> str:
    suffixes, plain = OUTPUT_SUFFIXES[output_format], folder
    while plain.endswith(".d"):
        plain = plain[:-2]
    looks_cut = plain != folder and _CUT.search(plain)
    moves_in_bucket = suffix_of(plain) in suffixes or plain in {"", ".", ".."}
    if looks_cut or _looks_appended(plain, suffixes) or (in_bucket and moves_in_bucket):
        return _shortened(folder, ".d")
    return folder if in_bucket or _fits(folder) else _shortened(folder, ".d")


def _fits(name: str) -> bool:
    """Return whether file systems take a name; sources that are no folders may have longer ones."""
    return len(text_to_path(name)) <= MAX_NAME_BYTES


def _looks_appended(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name could be another source's output: its name, maybe cut, with the suffix appended."""
    appended = f".{suffixes[0]}"
    if not name.endswith(appended):
        return False
    while name.endswith(appended):
        name = name.removesuffix(appended)
    if name.endswith(MARK) or _CUT.search(name):
        return True
    return is_image_name(name) and suffix_of(name) not in suffixes


def _shortened(name: str, appended: str) -> str:
    if _fits(name + appended):
        return name + appended
    mark = f"~{hashlib.sha256(name.encode()).hexdigest()[:16]}{appended}"
    kept = name
    while not _fits(kept + mark):
        kept = kept[:-1]
    return kept + mark
