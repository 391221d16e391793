"""How names and figures are shown to people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text of one line, with a � for every character that can't be seen, whatever a file name holds."""
    return "".join(character if character.isprintable() else "�" for character in text)


def clock(seconds: float) -> str:
    """Return a time span as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def duration(seconds: float) -> str:
    """Return a time span with tenths of seconds below a minute, and as `clock` does beyond."""
    return f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds)


def megabytes(count: int) -> str:
    """Return a number of bytes in millions, without the unit."""
    return f"{count / 1e6:,.1f}"
