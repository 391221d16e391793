"""Patterns of .gitignore, by which a listing leaves out files and folders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

DEFAULT_EXCLUDE = (
    *("@eaDir/", "#recycle/", "#snapshot/", "@tmp/"),  # Synology
    *("@Recycle/", "@Recently-Snapshot/", ".@__thumb/"),  # QNAP
    *("$RECYCLE.BIN/", "$Recycle.Bin/", "RECYCLER/", "System Volume Information/"),  # Windows
    *("__MACOSX/", "._*", ".Trashes/", ".AppleDouble/"),  # macOS
    *("lost+found/", ".Trash*/", ".thumbnails/", ".dtrash/", ".stversions/", ".ipynb_checkpoints/"),
)
"""Patterns of files and folders that belong to no dataset: thumbnails, recycle bins, snapshots, metadata."""


def compile_patterns(patterns: Iterable[str]) -> GitIgnoreSpec:
    """Return compiled .gitignore patterns, of which the last match decides; a leading `#` starts no comment.

    Raises:
        ValueError: a pattern can't match anything.
    """
    from pathspec import GitIgnoreSpec  # few processes need it

    escaped = [f"\\{pattern}" if pattern.startswith("#") else pattern for pattern in patterns]
    for pattern in escaped:
        if not {".", ".."}.isdisjoint(pattern.removeprefix("!").split("/")):
            raise ValueError(f"pattern {pattern!r} has a . or .. in it; begin with / for a path in the source")
        try:
            compiled = list(GitIgnoreSpec.from_lines([pattern]).patterns)
        except ValueError:
            compiled = []
        if not compiled or compiled[0].include is None:
            raise ValueError(f"pattern {pattern!r} matches nothing; give one such as *.png or /folder/")
    return GitIgnoreSpec.from_lines(escaped)
