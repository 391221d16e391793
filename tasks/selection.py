"""Which files of a source are listed as images."""

from __future__ import annotations

from collections import Counter

from darkroom.tasks.patterns import DEFAULT_EXCLUDE, compile_patterns
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.naming import IMAGE_SUFFIXES, folders_above, suffix_of

HEIF = ("heic", "heics", "heif", "heifs", "hif")
DOCUMENTS = ("psd", "psb", "svg", "svgz")
CAMERA_RAW = (
    *("3fr", "arw", "bay", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "kdc", "mef", "mos", "mrw"),
    *("nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "rwz", "sr2", "srf", "srw", "x3f"),
)
UNREAD_SUFFIXES = frozenset({*HEIF, *DOCUMENTS, *CAMERA_RAW, "jxl", "jxr", "wdp", "exr", "qoi"})
"""Suffixes of images that no decoder here reads. They are listed, so that each gets a row that says so."""

LISTED_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES
"""Suffixes, lower case, without the dot, of the files that are listed as images."""

MAX_SUFFIXES = 200
"""Number of suffixes that are counted separately: names may end in anything, such as a number."""

MAX_SUFFIX_LENGTH = 16
OTHER_SUFFIXES = "…"


class Selection:
    """Selects the files to list, by the rules; counts the suffixes of files that are no images."""

    def __init__(self, rules: Rules) -> None:
        excluded = [*DEFAULT_EXCLUDE, *rules.exclude]
        self._excluded_folders = compile_patterns(excluded)
        # For speed, without patterns of folders: the folders above a file are checked before it.
        self._excluded_files = compile_patterns(pattern for pattern in excluded if not pattern.endswith("/"))
        self._included = compile_patterns(rules.include) if rules.include else None
        self._by_content = rules.by_content
        self.not_images: Counter[str] = Counter()
        """Number of files left out because they are no images, by suffix; the rest under `OTHER_SUFFIXES`."""

    def skip(self, path: str) -> str | None:
        """Return the same as `why_skipped`, and count a file that is no image."""
        reason = self.why_skipped(path)
        if reason == "not_image":
            self.count_not_image(path)
        return reason

    def why_skipped(self, path: str) -> str | None:
        """Return why a path is not listed, if its folders are; None if it is listed.

        The path of a folder ends with `/`. `excluded`: a pattern of `exclude` or `DEFAULT_EXCLUDE` matches. `hidden`:
        the name begins with a dot. `not_included`: there are patterns of `include`, and none matches. `not_image`: the
        suffix is no image's, and files are selected by suffix.
        """
        line = path.replace("\n", " ")  # in a pattern's regular expression, a dot matches no line feed
        excluded = self._excluded_folders if path.endswith("/") else self._excluded_files
        if excluded.match_file(line):
            return "excluded"
        name = path.removesuffix("/").rpartition("/")[2]
        if name.startswith(".") and name not in {".", ".."}:  # which are names only in a bucket
            return "hidden"
        if path.endswith("/"):
            return None
        if self._included and not self._included.match_file(line):
            return "not_included"
        return None if self._by_content or has_image_suffix(name) else "not_image"

    def leaves_out(self, path: str) -> bool:
        """Return whether a file, or a folder above it, is not listed."""
        return any(map(self.why_skipped, [*folders_above(path), path]))

    def count_not_image(self, path: str) -> None:
        """Count, by its suffix, a file that is no image."""
        suffix = suffix_of(path.rpartition("/")[2])
        is_known = suffix in self.not_images or len(self.not_images) < MAX_SUFFIXES
        self.not_images[suffix if is_known and len(suffix) <= MAX_SUFFIX_LENGTH else OTHER_SUFFIXES] += 1


def has_image_suffix(name: str) -> bool:
    """Return whether a name or path has one of `LISTED_SUFFIXES`."""
    return suffix_of(name) in LISTED_SUFFIXES
