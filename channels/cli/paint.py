"""Parts of the screen as lines of a terminal: Markdown through rich, everything else in its one style.

Made to be copied from: no padding, no borders beside code, no line of code broken. Colours are the sixteen
of the terminal's own theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from rich import box
from rich import markdown as rich_markdown
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from channels import markdown
from channels.cli.draft import Reply
from channels.cli.printable import printable
from channels.cli.view import Faint, Part, Question, Said, Trouble

if TYPE_CHECKING:
    from markdown_it.token import Token

Styles = Literal["none", "mono", "colours"]

_THEME = Theme({"markdown.code": "cyan", "markdown.h1": "bold underline", "markdown.h2": "bold"})
_WHERE = {
    "here": ("› ", "bold cyan", "bold"),
    "elsewhere": ("you (elsewhere) › ", "dim", "dim"),
    "earlier": ("› ", "dim", "dim"),
}
_CODE_THEME = "ansi_dark"
_BOXES = {"True": "☑ ", "False": "☐ "}  # of a list item's `checked`
_NARROWEST_COLUMN = 6  # cells; a table with less room is shown as its source


class Line(NamedTuple):
    """One line, with its colours; it may be wider than the terminal, which then wraps it."""

    ansi: str
    cells: int

    def rows(self, width: int) -> int:
        """How many rows of a terminal it takes."""
        return max(1, -(-self.cells // width))


class Settled(NamedTuple):
    """How much of a reply's beginning will look the same whatever comes; see `Draft.keep`."""

    length: int
    lead: str = ""
    joined: bool = False


class Painter:
    """Paints for one terminal; `mono` is without colours, but with bold and dim."""

    def __init__(self, styles: Styles) -> None:
        self._console = Console(force_terminal=True, theme=_THEME, legacy_windows=False)
        self._styles = styles
        self._markdown = _Markdown("")  # given each block's tokens in turn: it is costly to make
        self._above: type[Part] | None = None  # the kind of what stands above

    def paint(self, parts: Iterable[Part], width: int) -> list[Line]:
        """The lines of the parts, each kind set off from the one before by a blank line."""
        lines: list[Line] = []
        for part in parts:
            painted = self._part(part, width)
            alike = isinstance(part, Faint | Trouble) and self._above in (Faint, Trouble)
            joined = isinstance(part, Reply) and part.joined
            if painted and self._above and not alike and not joined:
                lines.append(Line("", 0))
            if painted:
                self._above = type(part)
            lines += painted
        return lines

    def faint(self, text: str, width: int) -> list[Line]:
        """A remark's lines."""
        return self._rendered(Text(text, style="dim", overflow="fold"), width)

    def reply(self, reply: Reply, width: int) -> list[Line]:
        """The lines of a piece of Markdown; a broken piece is shown as its source."""
        source = reply.lead + reply.source
        lines: list[Line] = []
        for block in markdown.blocks(markdown.parse(source)):
            painted = self._block(block, source, width, opened=bool(reply.lead) and block.start == 0)
            if lines and painted:
                lines.append(Line("", 0))
            lines += painted
        return lines

    # -- parts -----------------------------------------------------------------------------------

    def _part(self, part: Part, width: int) -> list[Line]:
        match part:
            case Reply():
                return self.reply(part, width)
            case Said():
                return self._said(part)
            case Faint(text=text):
                return self.faint(text, width)
            case Question(text=text):
                return self._rendered(Text("? " + text, style="yellow", overflow="fold"), width)
            case Trouble(text=text):
                return self._rendered(Text("✗ " + text, style="red", overflow="fold"), width)

    def _said(self, said: Said) -> list[Line]:
        name, mark_style, style = _WHERE[said.where]
        mark, text = Text(name, style=mark_style), Text(said.text.replace("\n", "\n  "), style=style)
        return self._unwrapped(mark + text)

    def _block(self, block: markdown.Block, source: str, width: int, *, opened: bool) -> list[Line]:
        first = block.tokens[0]
        if first.type in ("fence", "code_block"):
            return self._code(first, opened=opened, closed=_is_closed(first, source))
        if first.type == "table_open" and _columns(block.tokens) * _NARROWEST_COLUMN > width:
            return self._unwrapped(Text("\n".join(source.split("\n")[block.start : block.end])))
        self._markdown.parsed = list(_adapted(block.tokens))
        return self._rendered(self._markdown, width)

    def _code(self, token: Token, *, opened: bool, closed: bool) -> list[Line]:
        language = printable(token.info.split()[0]) if token.info.strip() else ""
        lines: list[Line] = []
        if not opened:
            lines += self._unwrapped(Text(f"── {language}".rstrip(), style="dim"))
        if token.content:
            lines += self._unwrapped(_highlighted(token.content, language))
        if closed:
            lines += self._unwrapped(Text("──", style="dim"))
        return lines

    # -- lines -----------------------------------------------------------------------------------

    def _unwrapped(self, text: Text) -> list[Line]:
        return [self._line(line.render(self._console)) for line in text.split("\n", allow_blank=True)]

    def _rendered(self, renderable: RenderableType, width: int) -> list[Line]:
        options = self._console.options.update(width=width, height=None)
        lines = [self._line(line) for line in self._console.render_lines(renderable, options, pad=False)]
        while lines and not lines[-1].cells:
            lines.pop()
        while lines and not lines[0].cells:
            lines.pop(0)
        return lines

    def _line(self, segments: Iterable[Segment]) -> Line:
        kept = [Segment(printable(s.text), s.style) for s in segments if not s.control]
        while kept and not kept[-1].text.rstrip():
            kept.pop()
        if kept:
            kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
        ansi = "".join(self._styled(segment) for segment in kept)
        return Line(ansi, sum(cell_len(segment.text) for segment in kept))

    def _styled(self, segment: Segment) -> str:
        if segment.style is None or self._styles == "none":
            return segment.text
        style = segment.style.without_color if self._styles == "mono" else segment.style
        return style.render(segment.text, color_system=ColorSystem.STANDARD)


def settled(reply: Reply) -> Settled:
    """Which beginning of the reply nothing can change any more: all blocks but the last, and of that one
    the lines of code or the items of a list that are complete.
    """
    source = reply.lead + reply.source
    blocks = list(markdown.blocks(markdown.parse(source)))
    if not blocks:
        return Settled(0)
    last = blocks[-1]
    lines = source.split("\n")
    line, lead, joined = last.start, "", False
    if last.tokens[0].type == "fence" and not _is_closed(last.tokens[0], source):
        # The last line may still grow; the opening one is not shown alone.
        if len(lines) - 1 > last.start + 1:
            line, lead, joined = len(lines) - 1, lines[last.start] + "\n", True
    elif last.tokens[0].type in ("bullet_list_open", "ordered_list_open"):
        items = [t.map[0] for t in last.tokens if t.type == "list_item_open" and t.level == 1 and t.map]
        if len(items) > 1:
            line, joined = items[-1], True
    length = sum(len(text) + 1 for text in lines[:line]) - len(reply.lead)
    if length <= 0:
        return Settled(0)
    if len(blocks) > 1 and line == last.start:
        joined = False
    return Settled(length, lead, joined)


def _is_closed(token: Token, source: str) -> bool:
    """Whether a fence has its closing line: a text may end within one."""
    if token.type != "fence" or not token.map:
        return token.type != "fence"
    start, end = token.map
    lines = source.split("\n")[start:end]
    return end - start > 1 and lines[-1].strip().startswith(token.markup) and not lines[-1].strip(" \t`~")


def _columns(tokens: Sequence[Token]) -> int:
    return sum(token.type == "th_open" for token in tokens)


def _highlighted(code: str, language: str) -> Text:
    text = Syntax("", language or "text", theme=_CODE_THEME).highlight(code.removesuffix("\n") + "\n")
    text.right_crop(1)
    text.no_wrap = True
    return text


def _adapted(tokens: Iterable[Token]) -> Iterator[Token]:
    """Tokens as rich takes them: links say where they lead, line breaks are kept, tasks have their box."""
    mark = ""
    for token in tokens:
        if token.type == "list_item_open":
            mark = _BOXES.get(str(token.meta.get("checked")), "")
        if token.children is None:
            yield token
        else:
            box = token.copy(type="text", children=None, content=mark)
            yield token.copy(children=[box, *_adapted_inline(token.children)])
            mark = ""


def _adapted_inline(children: Iterable[Token]) -> Iterator[Token]:
    href, said = "", ""
    for child in children:
        if child.type == "link_open":
            href, said = str(child.attrs["href"]), ""
        elif child.type == "link_close":
            if child.info != "auto" and said != href.removeprefix("mailto:"):
                yield child.copy(type="text", tag="", nesting=0, content=f" ({href})")
        elif child.type == "softbreak":
            yield child.copy(type="hardbreak")
        else:
            said += child.content
            yield child


class _Heading(rich_markdown.Heading):
    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}


class _CodeBlock(rich_markdown.CodeBlock):
    """Code inside of a list or a quote, which has to be wrapped there."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = _highlighted(str(self.text), self.lexer_name)
        text.no_wrap, text.overflow = False, "fold"
        yield text


class _Table(rich_markdown.TableElement):
    """A table that breaks long words instead of cutting them."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        if self.header and self.header.row:
            for cell in self.header.row.cells:
                table.add_column(cell.content, justify=cell.justify, overflow="fold")
        for row in self.body.rows if self.body else ():
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Markdown(rich_markdown.Markdown):
    """One block of the project's own parse, drawn by rich."""

    elements: ClassVar[dict[str, type[rich_markdown.MarkdownElement]]] = {
        **rich_markdown.Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }
