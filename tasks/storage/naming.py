"""Names: how a file's bytes become text, which names are images, and where an image's output goes."""

from __future__ import annotations

import hashlib
import re

from darkroom.tasks.settings import Format

IMAGE_SUFFIXES = frozenset(
    "avif bmp dib gif ico j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp".split()  # noqa: SIM905
)
"""File name suffixes of images, lower case, without the dot, on which output names depend.

Names of outputs that exist depend on this set: it never changes. What else is listed, `tasks.selection` says.
"""

OUTPUT_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "png": ("png",),
    "webp": ("webp",),
}
"""Suffixes that fit each output format; the first is the one that is appended."""

MARK = "~as"
"""Comes before the output's suffix where the source's is not one of `IMAGE_SUFFIXES`: `photo` → `photo~as.jpg`, so that
`photo.jpg` can lie beside it. It is rare in names, as those of other sources that have it are moved out of the way."""

MAX_NAME_BYTES = 255
"""NAME_MAX of every common file system on Linux and macOS."""

_ESCAPED = re.compile("[\udc80-\udcff\uef80-\uefff]")
_ESCAPES = re.compile("[\uef80-\uefff]")
_CUT = re.compile(r"~[0-9a-f]{16}\Z")


def path_to_text(raw: bytes) -> str:
    r"""Return a path as text that UTF-8 can store; `text_to_path` turns it back into the same bytes.

    UTF-8 stays as it is. A byte 0xNN that isn't UTF-8 becomes the private-use character U+EFNN, as in
    MirBSD's OPTU-8; those characters themselves, should a name hold one, are escaped byte by byte, so
    that no two paths share a text.
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isascii() or not _ESCAPED.search(text):
        return text
    return _ESCAPED.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return "".join(chr(0xEF00 + byte) for byte in match[0].encode("utf-8", "surrogateescape"))


def text_to_path(text: str) -> bytes:
    """Return the bytes of a path that `path_to_text` made text of."""
    if text.isascii():
        return text.encode()
    return _ESCAPES.sub(lambda match: chr(ord(match[0]) - 0xEF00 + 0xDC00), text).encode("utf-8", "surrogateescape")


def suffix_of(name: str) -> str:
    """Return the last suffix of a name or path, lower case, without its dot; empty if there is none."""
    stem, dot, suffix = name.rpartition(".")
    return suffix.lower() if stem and dot else ""


def is_image_name(name: str) -> bool:
    """Return whether a name has one of `IMAGE_SUFFIXES`."""
    return suffix_of(name) in IMAGE_SUFFIXES


def output_name(source_path: str, output_format: Format, *, in_bucket: bool = False) -> str:
    """Return where the output of a source goes, below `images/`, for a source path `/`-separated.

    A name whose suffix fits the format is kept, any other gets the format's suffix appended:
    `a/b.jpg` → `a/b.jpg`, `a/b.png` → `a/b.png.jpg`; without the suffix of an image, a mark comes before it:
    `a/b` → `a/b~as.jpg`, `a/b.heic` → `a/b.heic~as.jpg`. A name that some other source's name could turn
    into by that rule is moved out of the way in the same manner, whether or not that source exists:
    `b.png.jpg` → `b.png.jpg.jpg`, and a folder `b.png.jpg/` → `b.png.jpg.d/`. So the output of an image
    depends on its own path alone, no two sources share one, and none is a folder of another's.
    A name that grows beyond what file systems hold is cut, with a hash of the whole in its place.

    In a bucket, beside an object `b.jpg` there may be one `b.jpg/c.jpg`. So every folder whose name an output could
    have is moved out of the way there: `b.jpg/c.jpg` → `b.jpg.d/c.jpg`. So is one that is no name in a folder:
    `a//b.jpg` → `a/.d/b.jpg`, `a/../b.jpg` → `a/...d/b.jpg`.
    """
    *folders, name = source_path.split("/")
    moved = [_folder_name(folder, output_format, in_bucket=in_bucket) for folder in folders]
    return "/".join([*moved, _file_name(name, output_format)])


def _file_name(name: str, output_format: Format) -> str:
    suffixes = OUTPUT_SUFFIXES[output_format]
    if suffix_of(name) in suffixes and not _looks_appended(name, suffixes):
        return name
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
    return folder


def _looks_appended(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name could be another source's name, cut or not, with the output suffix appended."""
    appended = f".{suffixes[0]}"
    if not name.endswith(appended):
        return False
    while name.endswith(appended):
        name = name.removesuffix(appended)
    if name.endswith(MARK) or _CUT.search(name):
        return True
    return is_image_name(name) and suffix_of(name) not in suffixes


def _shortened(name: str, appended: str) -> str:
    if len(text_to_path(name)) + len(appended) <= MAX_NAME_BYTES:
        return name + appended
    mark = f"~{hashlib.sha256(name.encode()).hexdigest()[:16]}{appended}"
    kept = name
    while len(text_to_path(kept)) + len(mark) > MAX_NAME_BYTES:
        kept = kept[:-1]
    return kept + mark
