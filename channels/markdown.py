"""The one parse of a reply: CommonMark with tables, strikethrough, task lists and bare links.

It gives markdown-it's tokens, which every channel renders its own way. What holds for all is settled here:

- there is no raw HTML and no image in the stream: an image is a link with its alternative text, so that
  nothing is ever loaded from where a reply points to;
- a link leads to `SCHEMES` and nowhere else; any other is dissolved into its text;
- text made to hurt loses nothing and costs little time. In lists and quotes nested to `MAX_NESTING` (a list
  counts two) further markers are text; a paragraph whose emphasis is nested deeper than that, and a text
  longer than `MAX_TEXT`, are plain lines; a table ends after `MAX_CELLS` cells. All else takes time in
  proportion to its length: 64 KiB of the worst that we know about a second, of prose milliseconds.

The library takes 40 ms to import, so it is imported by the first parse and not by the daemon's start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

    Rule: TypeAlias = Callable[
        [StateBlock, int, int, bool], bool
    ]  # (state, first line, end, silent) -> found

SCHEMES = frozenset({"http", "https", "mailto", "tel"})
MAX_NESTING = 20
MAX_TEXT = 128 * 1024  # characters
MAX_CELLS = 20_000

References: TypeAlias = dict[str, dict[str, Any]]  # Any: markdown-it's own records (title, href, map)

# The slashes too: a browser takes `https:x` for a path of the page's own host.
_ALLOWED = re.compile(r"https?://|mailto:|tel:", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEFINITION = re.compile(r"\[[^\]]{1,999}\]:\s*<?(?:https?|mailto|tel):", re.IGNORECASE)
# Full-width marks end an address too: Chinese and Japanese put no space before them.
_URL = re.compile(r"://[^\s<>\"`|\\^{}\u3000-\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f「」《》“”‘’…]+")
_URL_SCHEME = re.compile(r"(?<![A-Za-z0-9.+-])https?\Z", re.IGNORECASE)
_AFTER_URL = frozenset("?!.,:;*_~'[]")


class Block(NamedTuple):
    """One top-level block: its tokens and the source lines `start <= line < end` that it stands on."""

    tokens: Sequence[Token]
    start: int
    end: int


def parse(text: str, references: References | None = None) -> list[Token]:
    """Parse a text into markdown-it tokens, which keep the promises of this module.

    `references` holds the link definitions of earlier text (they win over later ones of the same label); the
    ones found here are added to it. The tokens' `map` counts the lines of `normal(text)` from 0. Raises
    nothing for any text.
    """
    text = normal(text)
    if len(text) > MAX_TEXT:
        return plain(text)
    return _parser().parse(text, {"references": {} if references is None else references})


def parse_inline(text: str, references: References | None = None) -> tuple[list[Token], list[str]]:
    """Parse the content of one paragraph; return its tokens and the emphasis that its last line left open.

    The markers (`*`, `_` and `~~`) are in the order in which they would have to be closed; a single `*` in
    the middle of a word, as in `2*3`, is not counted.
    """
    env: dict[str, Any] = {"references": {} if references is None else references, "open": []}
    (inline,) = _parser().parseInline(normal(text), env)
    return inline.children or [], env["open"]


def blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    """Cut a token stream into its top-level blocks, in order."""
    begin = 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            start, end = tokens[begin].map or (0, 0)
            yield Block(tokens[begin : index + 1], start, end)
            begin = index + 1


def normal(text: str) -> str:
    """Replace what differs between carriers: line ends become `\\n`, NUL and lone surrogates U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


@cache
def _parser() -> MarkdownIt:
    """Build the parser, once; parsing changes nothing in it, so threads share it."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import blockquote, list_block, reference, table

    def bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        """Empty cells cost two bytes a row: 64 KiB could ask for 65,536 of them."""
        if start + 1 >= end:
            return False
        columns = state.src.count("|", state.bMarks[start + 1], state.eMarks[start + 1]) + 1
        return table(state, start, min(end, start + 2 + MAX_CELLS // columns), silent)

    def bounded(nest: Rule) -> Rule:
        """At its limit the library would drop what is nested: stop before it."""
        return lambda state, start, end, silent: (
            state.level + 2 < MAX_NESTING and nest(state, start, end, silent)
        )

    def linking_reference(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        """A definition disappears from the text, so `[TODO]: buy milk` must not be one."""
        at = state.bMarks[start] + state.tShift[start]
        return _DEFINITION.match(state.src, at) is not None and reference(state, start, end, silent)

    def anything(url: str) -> bool:
        """Parse a link wherever it leads: one that is not allowed is dissolved, not shown raw."""
        return True

    parser = MarkdownIt("commonmark", {"html": False, "tasklists": True, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough"]).disable(["html_block", "html_inline"])
    interrupted = ["paragraph", "reference"]
    parser.block.ruler.at("table", bounded_table, {"alt": interrupted})
    parser.block.ruler.at("blockquote", bounded(blockquote), {"alt": [*interrupted, "blockquote", "list"]})
    parser.block.ruler.at("list", bounded(list_block), {"alt": [*interrupted, "blockquote"]})
    parser.block.ruler.at("reference", linking_reference)
    parser.inline.ruler.after("text", "url", _url)
    parser.inline.ruler2.after("balance_pairs", "open_markers", _open_markers)
    parser.core.ruler.after("inline", "settle", _settle)
    parser.validateLink = anything  # type: ignore[method-assign] # the library's own extension point
    return parser


def _url(state: StateInline, silent: bool) -> bool:
    """Link a bare `https://…`; called at its colon, with what stands before it in `state.pending`."""
    if silent or state.linkLevel or not state.src.startswith("://", state.pos):
        return False
    scheme = _URL_SCHEME.search(state.pending[-6:])  # not all of it each time: that would be quadratic
    rest = _URL.match(state.src, state.pos, state.posMax) if scheme else None
    if scheme is None or rest is None:
        return False
    text = _without_trailing_marks(scheme.group() + rest.group())
    if len(text) <= len(scheme.group()) + len("://"):
        return False
    state.pending = state.pending[: -len(scheme.group())]
    opening = state.push("link_open", "a", 1)
    opening.attrs = {"href": state.md.normalizeLink(text)}
    opening.info = "auto"
    state.push("text", "", 0).content = text
    state.push("link_close", "a", -1).info = "auto"
    state.pos += len(text) - len(scheme.group())
    return True


def _without_trailing_marks(url: str) -> str:
    """Drop the punctuation after an address that belongs to the sentence, and brackets it did not open."""
    unopened = url.count(")") - url.count("(")
    end = len(url)
    while url[end - 1] in _AFTER_URL or (url[end - 1] == ")" and unopened > 0):
        unopened -= url[end - 1] == ")"
        end -= 1
        if url.startswith("//", end - 2):
            break
    return url[:end]


def _open_markers(state: StateInline) -> None:
    """Note the emphasis markers of the last line that nothing closes, if the caller asked for them."""
    if "open" not in state.env:
        return
    last_line = max((i for i, token in enumerate(state.tokens) if token.type.endswith("break")), default=-1)
    state.env["open"] = [
        chr(mark.marker) * (2 if chr(mark.marker) == "~" else 1)
        for mark in reversed(state.delimiters)
        if mark.open and mark.end < 0 and mark.token > last_line and (mark.length > 1 or not mark.close)
    ]


def _settle(state: StateCore) -> None:
    """Keep, for each inline, the promises about images, links and nesting."""
    for token in state.tokens:
        if token.type != "inline" or not token.children:
            continue
        if max(child.level for child in token.children) > MAX_NESTING:
            token.children = _plain_inline(token.content)
        elif any(child.type in ("link_open", "image") for child in token.children):
            token.children = list(_settled_links(token.children))


def _settled_links(children: Sequence[Token]) -> Iterator[Token]:
    kept: list[bool] = []  # for each link around the current token: does it lead somewhere allowed?
    for child in children:
        if child.type == "link_open":
            kept.append(allowed(child.attrs["href"]))
            if kept[-1]:
                yield child
        elif child.type == "link_close":
            if kept.pop():
                yield child
        elif child.type == "image":
            yield from _image_link(child, inside_link=any(kept))
        else:
            yield child


def _image_link(image: Token, inside_link: bool) -> Iterator[Token]:
    """Yield an image as a link with its alternative text, or as that text alone where no link can be."""
    href = image.attrs["src"]
    linked = allowed(href) and not inside_link
    text = _text_of(image.children or []) or (str(href) if linked else "image")
    plain = image.copy(type="text", tag="", attrs={}, children=None, content=text)
    if linked:
        yield plain.copy(type="link_open", tag="a", nesting=1, attrs={"href": href}, content="")
    yield plain
    if linked:
        yield plain.copy(type="link_close", tag="a", nesting=-1, content="")


def _text_of(children: Sequence[Token]) -> str:
    """Join the text of tokens; a line break is a space, an image its alternative text."""
    return "".join(
        " " if child.type.endswith("break") else _text_of(child.children or []) or child.content
        for child in children
    )


def allowed(href: object) -> bool:
    """Tell whether a link may lead there: to one of `SCHEMES`, and for the web to a host."""
    return _ALLOWED.match(str(href)) is not None


def plain(text: str, line: int = 0) -> list[Token]:
    """Make a text, which starts on `line`, one paragraph of lines as they are."""
    from markdown_it.token import Token

    text = text.strip("\n")
    lines = [line, line + text.count("\n") + 1]
    return [
        Token("paragraph_open", "p", 1, map=lines, block=True),
        Token("inline", "", 0, map=lines, block=True, level=1, content=text, children=_plain_inline(text)),
        Token("paragraph_close", "p", -1, block=True),
    ]


def _plain_inline(text: str) -> list[Token]:
    from markdown_it.token import Token

    tokens = []
    for line in text.split("\n"):
        tokens += [Token("text", "", 0, content=line), Token("softbreak", "br", 0)]
    return tokens[:-1]
