"""GitHub-flavoured Markdown, whatever names and messages hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from darkroom.tasks.reporting.text import printable

_MARKUP = re.compile(r"[\\`*\[\]<>&|~#$]|(?<![^\W_])_|_(?![^\W_])")


def table(header: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return a table whose first column is text and whose others are figures."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return text that can stand between backticks in a table, whatever a file name holds."""
    return printable(text).replace("`", "ˋ").replace("|", "¦")


def plain(text: str) -> str:
    """Return text of one paragraph that Markdown leaves as it is, whatever a path in it holds."""
    return _MARKUP.sub(r"\\\g<0>", printable(text.replace("\n", " ")))
