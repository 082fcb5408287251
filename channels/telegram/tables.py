"""A table for a screen that is 40 characters wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from wcwidth import width

if TYPE_CHECKING:
    from markdown_it.token import Token

MAX_WIDTH = 40  # columns of a monospace block that a telephone shows without wrapping
_MAX_KEYS = 8_000  # characters that the repeated heads of columns may add
_BETWEEN = " | "


class Table(NamedTuple):
    """Its cells as inline tokens, the head first, and which columns are set to the right."""

    rows: list[list[Token]]
    right: list[bool]

    @property
    def texts(self) -> list[list[str]]:
        """The cells without their formatting."""
        return [[text_of(cell) for cell in row] for row in self.rows]

    @property
    def keyed(self) -> bool:
        """Whether each cell can be shown behind the head of its column."""
        return sum(map(len, self.texts[0])) * len(self.rows) <= _MAX_KEYS


def read(tokens: Sequence[Token]) -> Table:
    """Read the tokens from `table_open` to `table_close`."""
    rows: list[list[Token]] = []
    right: list[bool] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "th_open":
            right.append(token.attrs.get("style") == "text-align:right")
        elif token.type == "inline":
            rows[-1].append(token)
    return Table(rows, right)


def aligned(table: Table) -> str | None:
    """Write the table in columns of one width; None where it is too wide, or has links to keep."""
    cells = [child for row in table.rows for cell in row for child in cell.children or []]
    if any(child.type == "link_open" and child.info != "auto" for child in cells):
        return None
    rows = table.texts
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + len(_BETWEEN) * (len(widths) - 1) > MAX_WIDTH:
        return None

    def line(row: list[str]) -> str:
        columns = zip(row, widths, table.right, strict=True)
        return _BETWEEN.join(_set(text, size, right) for text, size, right in columns).rstrip()

    rule = "-+-".join("-" * size for size in widths)
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def text_of(cell: Token) -> str:
    """The text of an inline token, without its formatting."""
    return "".join(" " if child.type.endswith("break") else child.content for child in cell.children or [])


def _set(text: str, size: int, right: bool) -> str:
    blank = " " * (size - width(text))
    return blank + text if right else text + blank
