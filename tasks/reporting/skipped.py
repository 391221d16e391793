"""Describe the files that a listing skipped, and the settings that would include them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from darkroom.tasks.reporting.text import printable
from darkroom.tasks.wording import counted

SUFFIXES_SHOWN = 5


def describe_skipped(counts: Mapping[str, int], suffixes: Mapping[str, int]) -> str:
    """Return the numbers of skipped files and folders in words.

    Args:
        counts: numbers by reason.
        suffixes: numbers of files that are not images by suffix, the most frequent first.
    """
    return ", ".join(
        f"{count:,} {reason.replace('_', ' ')}{_by_suffix(suffixes) if reason.startswith('not_image') else ''}"
        for reason, count in sorted(counts.items())
    )


def _by_suffix(suffixes: Mapping[str, int]) -> str:
    shown = [f"{count:,} {describe_suffix(suffix)}" for suffix, count in list(suffixes.items())[:SUFFIXES_SHOWN]]
    more = len(suffixes) - len(shown)
    rest = f", {counted(more, 'more suffix', 'more suffixes')}" if more else ""
    return f" ({', '.join(shown)}{rest})" if shown else ""


def describe_suffix(suffix: str) -> str:
    """Return a suffix with its dot, or "without suffix"."""
    return f".{printable(suffix)}" if suffix else "without suffix"


def hints(counts: Mapping[str, int], suffixes: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each setting that would include skipped files; arguments as for `describe_skipped`."""
    if counts.get("outside") or counts.get("linked_folder"):
        yield "`follow_symlinks=True` also follows links that lead outside the source, and linked folders."
    if "tar" in suffixes:
        yield "`tar_members=True` also lists the images in tar archives."
    if counts.get("not_image") and any(map(_may_hide_image, suffixes)):
        yield "`by_content=True` also finds images whose names do not end like an image's."


def _may_hide_image(suffix: str) -> bool:
    """Return whether names of images may have this suffix, as in `photo`, `x.jpg.1`, `x.jpg_large`, `x.jpg?w=600`."""
    return suffix.isdigit() or not suffix.isalnum()
