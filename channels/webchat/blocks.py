"""One streamed reply as HTML blocks, of which only the unfinished last ones are ever rendered again.

A block is finished when the next one has begun on a complete line; CommonMark then lets nothing that follows
change it, but for a link definition further down, which `finish` catches up on.

On the way a reply looks as it will probably look in the end: an emphasis or a code span that is still open is
shown as if it were closed, and what cannot be judged yet (a half link, the first row of a table, a line of
nothing but `-`) waits until it can.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from channels import markdown
from channels.markdown import Block
from channels.webchat.html import render_tokens

if TYPE_CHECKING:
    from markdown_it.token import Token

# A large unfinished block is rendered again when it has grown by 1/16, so that even a reply of a single block
# costs no more than 17 times its length; up to 4 KiB each call of `changed` shows all there is.
SMALL = 4 * 1024
GROWTH = 16

# A last line that may still become something else: a marker alone (of a list, heading, quote, rule, table, of
# an underline), a number that may be a list's, an opening or closing fence.
_UNDECIDED_LINE = re.compile(
    r"(?:[-+*_=#>|~`:!\[\]\\<&\s]|\d{1,9}[.)]|\[[xX])*\d{0,9}"
    r"|[\s>]*(?:(?:[-+*]|\d{1,9}[.)])\s+)?(?:`{3}|~{3}).*"
)
# The end of a line that may still become an escape, an entity, an address in brackets, a link or an image.
_UNDECIDED_END = re.compile(
    r"(?:\\|&#?\w{0,31}|<[A-Za-z/!?]?[^<>\s]{0,500}|!?\[[^\[\]]{0,120}(?:\](?:\([^()]{0,1000})?)?)\Z",
    re.ASCII,
)
_OPAQUE = re.compile(r"\\.|(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")  # what may hold markers that are none
_OPEN_CODE = re.compile(r"`+")
_TABLE_RULE = re.compile(r"[|:\-\s]*")
_LONG_LINE = 4_000  # characters; a longer one is shown as it is


class Blocks:
    """The rendering of one reply while it is being written.

    Pure: nothing outside is touched. One thread at a time may render (`changed`, `html_blocks`, `finish`);
    one other may `feed` meanwhile.
    """

    def __init__(self) -> None:
        self._fed: deque[str] = deque()
        self._length = 0  # characters fed; written by `feed` alone
        self._taken = 0  # characters rendered at least once
        self._source: list[str] = []  # all that was rendered so far, for `finish`
        self._tail = ""  # the source of the unfinished blocks
        self._references: markdown.References = {}  # the link definitions before the tail
        self._defined = False  # was there ever a definition, even one that the next character undid?
        self._finished: list[str] = []
        self._unfinished: list[str] = []
        self._reported: list[str] = []  # what `changed` has told, by index
        self._settled = 0  # below this index what was told is final

    def feed(self, text: str) -> None:
        """Take more of the reply."""
        self._fed.append(text)
        self._length += len(text)

    def changed(self) -> list[tuple[int, str]]:
        """Return (index, HTML) of each block that differs from what this method returned for it last.

        A block that the text turned out not to have is told as an empty string.
        """
        fresh = self._length - self._taken
        if fresh and (len(self._tail) <= SMALL or fresh > len(self._tail) // GROWTH):
            self._render(final=False)
        return self._news()

    def html_blocks(self) -> list[str]:
        """Return all blocks so far, up to the last character that can be judged."""
        if self._length > self._taken:
            self._render(final=False)
        return [*self._finished, *self._unfinished]

    def finish(self) -> list[tuple[int, str]]:
        """Render the end of the reply as it is, now that nothing follows; return what `changed` would.

        The blocks joined are then `html.render` of the whole text (but for one that outgrows `MAX_HTML`).
        """
        self._render(final=True)
        source = "".join(self._source)
        if self._defined or len(source) > markdown.MAX_TEXT:
            # Links stand before their definitions as well as after: the whole text is rendered once more.
            found = markdown.blocks(markdown.parse(source))
            self._finished = [render_tokens(block.tokens) for block in found]
            self._settled = 0
        return self._news()

    def _render(self, final: bool) -> None:
        text = self._take()
        half = "\r" if text.endswith("\r") and not final else ""  # of a line end
        text = markdown.normal(text.removesuffix(half))
        references = dict(self._references)
        shown = text if final else _without_undecided_line(text)
        found = list(markdown.blocks(markdown.parse(shown, references)))
        count = len(found) if final else _finished(found, complete_lines=text.count("\n"))
        self._finished += [render_tokens(block.tokens) for block in found[:count]]
        self._unfinished = [render_tokens(block.tokens) for block in found[count:-1]]
        if count < len(found):
            paragraph_ended = text.endswith("\n\n")
            tokens = found[-1].tokens
            self._unfinished.append(render_tokens(tokens if paragraph_ended else _calm(tokens, references)))
        self._defined = self._defined or bool(references)
        if count and not final:
            end = min(found[count - 1].end, found[count].start)
            self._references.update(_definitions_before(end, references, self._references))
            text = "\n".join(text.split("\n")[end:])
        self._tail = "" if final else text + half

    def _take(self) -> str:
        """Move what was fed to the tail, a piece at a time: another thread may feed meanwhile."""
        pieces = []
        while self._fed:
            pieces.append(self._fed.popleft())
        fed = "".join(pieces)
        self._taken += len(fed)
        self._source.append(fed)
        return self._tail + fed

    def _news(self) -> list[tuple[int, str]]:
        now = [*self._finished, *self._unfinished]
        pairs = zip_longest(self._reported[self._settled :], now[self._settled :], fillvalue="")
        news = [(index, new) for index, (old, new) in enumerate(pairs, self._settled) if new != old]
        self._reported = now
        self._settled = len(self._finished)
        return news


def _finished(found: Sequence[Block], complete_lines: int) -> int:
    """Count the blocks that nothing can change: those before one whose beginning is beyond doubt."""
    count = 0
    for index, block in enumerate(found[1:], 1):
        head = 2 if block.tokens[0].type == "table_open" else 1
        if block.start + head <= complete_lines:
            count = index
    return count


def _definitions_before(
    line: int, references: markdown.References, known: markdown.References
) -> markdown.References:
    return {
        label: definition
        for label, definition in references.items()
        if label not in known and definition["map"][1] <= line
    }


def _without_undecided_line(text: str) -> str:
    end = text.rfind("\n") + 1
    short = len(text) - end <= _LONG_LINE
    return text[:end] if short and _UNDECIDED_LINE.fullmatch(text, end) else text


def _calm(tokens: Sequence[Token], references: markdown.References) -> Sequence[Token]:
    """Replace the last text of an unfinished block by what it will probably look like."""
    last = next((i for i in reversed(range(len(tokens))) if tokens[i].content), -1)
    if last < 0 or tokens[last].type != "inline":
        return tokens
    content = tokens[last].content
    if tokens[last - 1].type == "paragraph_open":
        content = _without_table_head(content)
    content, closers = _without_undecided_end(content)
    if not content and len(tokens) == len(("paragraph_open", "inline", "paragraph_close")):
        return []
    children, markers = markdown.parse_inline(content + closers, references)
    if markers:
        children, _ = markdown.parse_inline(content + closers + "".join(markers), references)
    return [*tokens[:last], tokens[last].copy(content=content, children=children), *tokens[last + 1 :]]


def _without_table_head(paragraph: str) -> str:
    """Hold back a row until the line after it has shown whether it is a table's first."""
    before, _, last = paragraph.rpartition("\n")
    if last.startswith("|") and not _TABLE_RULE.fullmatch(last):
        return before
    above, _, row = before.rpartition("\n")
    return above if row.startswith("|") and _TABLE_RULE.fullmatch(last) else paragraph


def _without_undecided_end(content: str) -> tuple[str, str]:
    """Drop what cannot be judged yet from the last line; return the rest and what would close open code."""
    start = content.rfind("\n") + 1
    if len(content) - start > _LONG_LINE:
        return content, ""
    line = _OPAQUE.sub(lambda found: "x" * len(found.group()), content[start:]).rstrip("*_~`")
    code = _OPEN_CODE.search(line)
    if code is None and (undecided := _UNDECIDED_END.search(line)):
        line = line[: undecided.start()].rstrip("*_~ ")
    return content[: start + len(line)].rstrip(), code.group() if code else ""
