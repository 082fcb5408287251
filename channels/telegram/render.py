"""A reply, from the one Markdown parse, as a text with entities.

Telegram knows no headings, lists, rules, tables and quotes in quotes: they are written with letters. Its own
rules are kept: nothing lies inside `code` and `pre`, and nothing in another of its kind.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from channels import markdown
from channels.telegram import tables
from channels.telegram.formatted import Formatted, Kind, Span, visible

if TYPE_CHECKING:
    from markdown_it.token import Token

_RULE = "─" * 10
_DEEPEST = 12  # characters of indentation; a telephone's line has 40
_STYLES: dict[str, Kind] = {"strong": "bold", "em": "italic", "s": "strikethrough"}
_LANGUAGE = re.compile(r"[\w+#.-]{1,32}(?=[\s:,{]|$)", re.ASCII)
_WEB = re.compile(r"https?:", re.IGNORECASE)


def render(text: str) -> Formatted:
    """Render a whole text. Raises nothing for any text; 64 KiB of the worst take about a second."""
    return _Writer().write(markdown.parse(text))


class _Writer:
    """Writes tokens one after another; what is around the current one is kept in its stacks."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._length = 0
        self._spans: list[Span] = []
        self._open: dict[Kind, int] = {}  # the styles around, and where each began
        self._nested: Counter[Kind] = Counter()  # how often each is around
        self._link: tuple[str, int, int] | None = (
            None  # the link around: where to, its first piece, its start
        )
        self._prefixes: list[str] = []  # of every line, for the list items and inner quotes around
        self._gaps = [2]  # line ends between two blocks, for each list and quote around
        self._numbers: list[int | None] = []  # of the next item, for each list around; None: bullets
        self._quotes: list[int] = []  # where each quote around began
        self._fresh = True  # nothing to keep a distance from: at the beginning, or behind an item's mark

    def write(self, tokens: Sequence[Token]) -> Formatted:
        index = 0
        while index < len(tokens):
            token = tokens[index]
            if token.type == "table_open":
                end = _closing(tokens, index)
                self._table(tables.read(tokens[index:end]))
                index = end
            elif token.type.endswith("_list_open"):
                self._begin_list(token, tight=_is_tight(tokens, index))
            else:
                self._block(token)
            index += 1
        self._spans.reverse()  # an inner one was closed before its outer one, which may be as long
        spans = sorted(self._spans, key=lambda span: (span.start, -span.end))
        return Formatted("".join(self._out), tuple(spans))

    def _block(self, token: Token) -> None:
        match token.type:
            case "paragraph_open":
                self._separate()
            case "heading_open":
                self._separate()
                self._begin("bold")
            case "heading_close":
                self._end("bold")
            case "inline":
                self._inline(token.children or [])
            case "fence" | "code_block":
                self._code_block(token)
            case "hr":
                self._separate()
                self._put(_RULE)
            case "list_item_open":
                self._begin_item(token)
            case "list_item_close":
                self._prefixes.pop()
                self._fresh = False
            case "bullet_list_close" | "ordered_list_close":
                self._numbers.pop()
                self._gaps.pop()
            case "blockquote_open":
                self._begin_quote()
            case "blockquote_close":
                self._end_quote()

    # -- letters ---------------------------------------------------------------------------------

    def _put(self, text: str) -> None:
        self._out.append(text)
        self._length += len(text)
        self._fresh = False

    def _new_line(self, count: int = 1) -> None:
        prefix = "".join(self._prefixes)
        self._put(("\n" + prefix.rstrip()) * (count - 1) + "\n" + prefix)

    def _indent(self, prefix: str) -> None:
        """Begin every line with this too; what is nested very deep stays at its margin."""
        self._prefixes.append(prefix if sum(map(len, self._prefixes)) < _DEEPEST else "")

    def _separate(self) -> None:
        """Begin a block at its distance from the one before."""
        if not self._fresh:
            self._new_line(self._gaps[-1])
        self._fresh = False

    def _monospace(self, text: str, language: str | None = None) -> None:
        """Write a block of its own lines, without the indentation around it: it is copied from."""
        if self._length and not (self._fresh and self._out[-1].endswith("\n")):
            self._put("\n" * (1 if self._fresh else self._gaps[-1]))
        self._spans.append(Span("pre", self._length, self._length + len(text), language=language))
        self._put(text)

    # -- spans -----------------------------------------------------------------------------------

    def _begin(self, kind: Kind) -> None:
        self._nested[kind] += 1
        self._open.setdefault(kind, self._length)

    def _end(self, kind: Kind) -> None:
        self._nested[kind] -= 1
        if not self._nested[kind]:
            self._close(kind, self._open.pop(kind))

    def _close(self, kind: Kind, start: int, url: str | None = None) -> None:
        if start < self._length:
            self._spans.append(Span(kind, start, self._length, url))

    # -- blocks ----------------------------------------------------------------------------------

    def _begin_list(self, token: Token, tight: bool) -> None:
        self._separate()
        self._fresh = True
        self._numbers.append(int(token.attrs.get("start", 1)) if token.tag == "ol" else None)
        self._gaps.append(1 if tight else 2)

    def _begin_item(self, token: Token) -> None:
        self._separate()
        number = self._numbers[-1]
        mark = "• " if number is None else f"{number}{token.markup} "
        if "checked" in token.meta:
            box = "☑ " if token.meta["checked"] else "☐ "
            mark = box if number is None else mark + box
        if number is not None:
            self._numbers[-1] = number + 1
        self._put(mark)
        self._indent(" " * len(mark))
        self._fresh = True

    def _begin_quote(self) -> None:
        self._separate()
        if self._quotes:
            self._put("> ")
            self._indent("> ")
        self._quotes.append(self._length)
        self._gaps.append(2)
        self._fresh = True

    def _end_quote(self) -> None:
        self._gaps.pop()
        start = self._quotes.pop()
        if self._quotes:
            self._prefixes.pop()
        else:
            self._close("blockquote", start)

    def _code_block(self, token: Token) -> None:
        code = token.content.removesuffix("\n")
        if visible(code):
            found = _LANGUAGE.match(token.info.strip())
            self._monospace(code, found.group().lower() if found else None)

    def _table(self, table: tables.Table) -> None:
        if (text := tables.aligned(table)) is not None:
            self._monospace(text)
        elif table.keyed and len(table.rows) > 1:
            self._keyed_rows(table)
        else:
            self._separate()
            for index, row in enumerate(table.rows):
                if index:
                    self._new_line()
                self._cells(row, " | ")

    def _keyed_rows(self, table: tables.Table) -> None:
        """Write `head: cell` lines; a row's first line is bold, so that the eye finds the rows."""
        head, *rows = table.rows
        for row in rows:
            self._separate()
            for index, (key, cell) in enumerate(zip(head, row, strict=True)):
                if index:
                    self._new_line()
                else:
                    self._begin("bold")
                self._cells([part for part in (key, cell) if tables.text_of(part)], ": ")
                if not index:
                    self._end("bold")

    def _cells(self, cells: Sequence[Token], between: str) -> None:
        for index, cell in enumerate(cells):
            if index:
                self._put(between)
            self._inline(cell.children or [])

    # -- within a line ---------------------------------------------------------------------------

    def _inline(self, children: Sequence[Token]) -> None:
        for token in children:
            match token.type:
                case "text":
                    self._put(token.content)
                case "softbreak" | "hardbreak":
                    self._new_line()
                case "code_inline":
                    self._code(token.content)
                case "link_open":
                    self._begin_link(token)
                case "link_close":
                    self._end_link()
                case _ if token.nesting > 0:
                    self._begin(_STYLES[token.tag])
                case _:
                    self._end(_STYLES[token.tag])

    def _code(self, code: str) -> None:
        if self._link or not visible(code):
            self._put(code)
            return
        for kind, start in self._open.items():
            self._close(kind, start)
        start = self._length
        self._put(code)
        self._close("code", start)
        for kind in self._open:
            self._open[kind] = self._length

    def _begin_link(self, token: Token) -> None:
        if token.info != "auto":  # Telegram links a bare address by itself
            self._link = str(token.attrs["href"]), len(self._out), self._length

    def _end_link(self) -> None:
        if self._link is None:
            return
        (href, piece, start), self._link = self._link, None
        if _WEB.match(href):
            self._close("text_link", start, href)
            return
        address = unquote(href.partition(":")[2])  # `mailto:` and `tel:` are no links to Telegram
        if address != "".join(self._out[piece:]):
            self._put(f" ({address})")


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Where the block that opens there closes."""
    level = tokens[opening].level
    return next(
        index
        for index in range(opening + 1, len(tokens))
        if tokens[index].level == level and tokens[index].nesting < 0
    )


def _is_tight(tokens: Sequence[Token], opening: int) -> bool:
    """Whether the list that opens there was written without blank lines between its items."""
    inner = tokens[opening].level + 2
    return all(
        token.hidden
        for token in tokens[opening : _closing(tokens, opening)]
        if token.type == "paragraph_open" and token.level == inner
    )
