"""Format names, figures and messages as plain text and as GitHub-flavoured Markdown."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from darkroom.tasks.wording import counted

_MARKUP = re.compile(r"[\\`*\[\]<>&|~#$]|(?<![^\W_])_|_(?![^\W_])")
_FIRST_SENTENCE = re.compile(r"(.+?[.?!])\s+(?=[A-Z])", re.DOTALL)


def printable(text: str) -> str:
    """Return text with � for each unprintable character, line breaks included; spaces of all kinds stay."""
    return "".join(each if each.isprintable() or unicodedata.category(each) == "Zs" else "�" for each in text)


def clock(seconds: float) -> str:
    """Return seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def duration(seconds: float) -> str:
    """Return seconds with one decimal below a minute, else as `clock` does."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)


def megabytes(count: int) -> str:
    """Return a number of bytes in millions with one decimal, without the unit."""
    return f"{count / 1e6:,.1f}"


def count_codes(codes: Mapping[str, int]) -> str:
    """Return the number of failures by error code, as "2 × source.empty, 1 × decode.corrupt"."""
    return ", ".join(f"{count:,} × {code}" for code, count in codes.items())


def describe_nothing_to_do(adopted: int, unchanged: int) -> str:
    """Return a line about a run that has no image to process."""
    if adopted:
        return f"Nothing to do: {counted(adopted, 'image')} adopted, {unchanged:,} unchanged"
    return f"Nothing to do: {counted(unchanged, 'image')} unchanged"


def sufficient_limit(ratio: float) -> str:
    """Return the lowest limit with two decimals that is not below a ratio."""
    return f"{math.ceil(100 * ratio) / 100:g}"


def first_sentence(text: str) -> tuple[str, str]:
    """Return a text's first sentence, and the rest."""
    match = _FIRST_SENTENCE.match(text)
    return (match[1], text[match.end() :]) if match else (text, "")


def table(header: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped_list(title: str, rows: Sequence[tuple[str, str, str]], total: int) -> str:
    """Return a Markdown document of rows (group, name, text), sorted by group, as a list each: tables don't wrap.

    `total` is the number of all rows, of which `rows` may be the first.
    """
    sections = [f"# {title}"]
    if len(rows) < total:
        sections.append(f"The first {len(rows):,} of them:")
    for group, members in itertools.groupby(rows, key=itemgetter(0)):
        sections += [f"## {group}", "\n".join(f"- `{code(name)}`: {plain(text)}" for _, name, text in members)]
    return "\n\n".join(sections) + "\n"


def code(text: str) -> str:
    """Return text for use between backticks, also in a Markdown table: ` and | are replaced."""
    return printable(text).replace("`", "ˋ").replace("|", "¦")


def plain(text: str) -> str:
    """Return text as a Markdown paragraph that renders as that text, markup characters included."""
    return _MARKUP.sub(r"\\\g<0>", printable(text.replace("\n", " ")))
