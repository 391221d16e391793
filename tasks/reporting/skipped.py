"""What a listing left out, in words, and the settings that would list it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from darkroom.tasks.reporting.text import counted, printable

SUFFIXES_SHOWN = 5


def describe_skipped(counts: Mapping[str, int], suffixes: Mapping[str, int]) -> str:
    """Return the number of files and folders that were left out, by reason, and of those that are no images by suffix.

    Args:
        counts: the numbers, by reason.
        suffixes: numbers of files that are no images, by suffix, the most frequent first.
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
    """Return a suffix as it is written in names, or words for files without one."""
    return f".{printable(suffix)}" if suffix else "without suffix"


def hints(counts: Mapping[str, int], suffixes: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each setting that would list some of what was left out; arguments as above."""
    if counts.get("outside") or counts.get("linked_folder"):
        yield "`follow_symlinks=True` also follows links that lead outside the source, and linked folders."
    if "tar" in suffixes:
        yield "`tar_members=True` also lists the images in tar archives."
    if counts.get("not_image") and any(map(_may_hide_image, suffixes)):
        yield "`by_content=True` also finds images whose names do not end like an image's."


def _may_hide_image(suffix: str) -> bool:
    """Return whether images may end so, as in `photo`, `x.jpg.1`, `x.jpg_large` and `x.jpg?w=600`."""
    return suffix.isdigit() or not suffix.isalnum()
