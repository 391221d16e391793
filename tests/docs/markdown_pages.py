"""Markdown pages of the documentation: their code blocks, tables, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from harness import CHECKOUT

_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced code block, and the number of its first line."""

    language: str
    code: str
    line: int


@dataclass(frozen=True)
class Page:
    """A page; its name is its path relative to the checkout."""

    name: str

    @cached_property
    def text(self) -> str:
        return (CHECKOUT / self.name).read_text()

    @cached_property
    def prose(self) -> str:
        """The page without its code blocks."""
        return _BLOCK.sub("", self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        found = _BLOCK.finditer(self.text)
        return [Block(each[1], each[2], self.text.count("\n", 0, each.start()) + 1) for each in found]

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub generates for the headings."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and pictures, except web addresses."""
        return [target for target in _LINK.findall(self.prose) if "://" not in target]

    def rows(self, heading: str) -> list[list[str]]:
        """Return the cells of all table rows below a heading, up to the next one of any level."""
        [section] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", self.prose, re.MULTILINE | re.DOTALL)
        lines = [line for line in section.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        return [row for row in cells if row[0].startswith("`")]

    def codes(self) -> list[str]:
        """Return the inline code of the prose."""
        return re.findall(r"`([^`\n]+)`", self.prose)


def names(cell: str) -> list[str]:
    """Return the inline code of a table cell."""
    return re.findall(r"`([^`]+)`", cell)


PAGES = [Page("README.md"), *(Page(f"docs/{path.name}") for path in sorted((CHECKOUT / "docs").glob("*.md")))]
