"""A reply, or a person's message, as HTML that is safe to put into the page.

Two walls: the tokens are rendered with everything escaped, and nh3 then keeps only the tags, attributes,
classes and schemes of the tables below. No images, no styles, no ids, no scripts. A single line break stays
one: models and people mean it (an address, a poem, a list without bullets), and Telegram and the terminal
show it too. So one function renders both roles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from channels import markdown
from channels.webchat.highlight import CLASSES, highlight

if TYPE_CHECKING:
    from markdown_it.token import Token
    from nh3 import Cleaner

MAX_HTML = 512 * 1024  # characters; a frame holds 1 MiB, and honest text never grows this much

ALIGNMENTS = frozenset({"left", "center", "right"})
_BLOCK_TAGS = {"p", "ul", "ol", "blockquote", "h3", "h4", "h5", "h6", "div"}
_INNER_TAGS = {
    "li",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "strong",
    "em",
    "s",
    "code",
    "span",
    "a",
    "br",
}
TAGS = frozenset({*_BLOCK_TAGS, *_INNER_TAGS, "pre", "hr"})
ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "pre": {"data-language"},
    "code": {"class"},
}
CLASSES_OF = {
    "div": {"table"},
    "li": {"task"},
    "span": {"check", *CLASSES},
    "td": set(ALIGNMENTS),
    "th": set(ALIGNMENTS),
}
VALUES = {
    **{tag: {"dir": {"auto"}} for tag in _BLOCK_TAGS},
    "pre": {"dir": {"ltr"}},
    "span": {"role": {"img"}, "aria-label": {"done", "not done"}},
}

_LANGUAGE = re.compile(r"[\w+#.-]{1,32}(?=[\s:,{]|$)", re.ASCII)
_CODE_CLASS = re.compile(r"language-[\w+#.-]{1,32}", re.ASCII)


def render(text: str) -> str:
    """Render a whole text. Raises nothing for any text; one that would outgrow `MAX_HTML` comes out plain."""
    html = "".join(render_tokens(block.tokens) for block in markdown.blocks(markdown.parse(text)))
    return html if len(html) <= MAX_HTML else render_tokens(markdown.plain(text))


def render_tokens(tokens: Sequence[Token]) -> str:
    """Render one top-level block of `markdown.parse`."""
    return _cleaner().clean(_Writer().write(tokens))


@cache
def _cleaner() -> Cleaner:
    """Build the second wall, once; it keeps no state, so threads share it."""
    from nh3 import Cleaner  # 5 ms, and not needed before the first message

    return Cleaner(
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        tag_attribute_values=VALUES,
        allowed_classes=CLASSES_OF,
        attribute_filter=_second_look,
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noopener noreferrer",
        url_schemes=set(markdown.SCHEMES),
        url_relative="deny",
    )


def _second_look(tag: str, attribute: str, value: str) -> str | None:
    """Check the two attributes whose values no list can hold."""
    if attribute == "href":
        return value if markdown.allowed(value) else None
    if tag == "code":
        return value if _CODE_CLASS.fullmatch(value) else None
    return value


class _Writer:
    """Writes the tokens of one block as HTML."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._check = ""  # a task's mark, set by its list item, written before the first of what it holds

    def write(self, tokens: Sequence[Token]) -> str:
        for token in tokens:
            if token.type in _FIRST_IN_ITEM:
                self._out.append(self._check)
                self._check = ""
            if token.type == "inline":
                self._inline(token.children or [])
            elif token.type in ("fence", "code_block"):
                self._out.append(_code(token))
            elif not token.hidden:
                self._tag(token)
        return "".join(self._out)

    def _tag(self, token: Token) -> None:
        tag = _HEADINGS.get(token.tag, token.tag)
        if token.nesting < 0:
            self._out.append("</table></div>" if tag == "table" else f"</{tag}>")
            return
        direction = ' dir="auto"' if token.level == 0 and tag != "hr" else ""
        if tag == "table":
            self._out.append(f'<div class="table"{direction}><table>')
        elif "checked" in token.meta:
            self._check = _DONE if token.meta["checked"] else _NOT_DONE
            self._out.append('<li class="task">')
        else:
            self._out.append(f"<{tag}{direction}{_attributes(token)}>")

    def _inline(self, children: Sequence[Token]) -> None:
        for token in children:
            match token.type:
                case "text":
                    self._out.append(escape(token.content, quote=False))
                case "code_inline":
                    self._out.append(f"<code>{escape(token.content, quote=False)}</code>")
                case "softbreak" | "hardbreak":
                    self._out.append("<br>")
                case _ if token.nesting > 0:
                    self._out.append(f"<{token.tag}{_attributes(token)}>")
                case _:
                    self._out.append(f"</{token.tag}>")


_FIRST_IN_ITEM = {"inline", "fence", "code_block", "hr", "list_item_close"}
_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6", "h6": "h6"}  # the page has h1 and h2
_DONE = '<span class="check" role="img" aria-label="done">☑</span> '
_NOT_DONE = '<span class="check" role="img" aria-label="not done">☐</span> '


def _attributes(token: Token) -> str:
    """Write what a token's attributes mean to the page."""
    written = ""
    for name, value in token.attrs.items():
        if name == "style":  # a table cell's alignment; the page allows no styles
            written += f' class="{escape(str(value).removeprefix("text-align:"))}"'
        elif name in ("href", "title", "start"):
            written += f' {name}="{escape(str(value))}"'
    return written


def _code(token: Token) -> str:
    """Write a code block; its language is shown by the page from `data-language`."""
    code = token.content.removesuffix("\n")
    found = _LANGUAGE.match(token.info.strip())
    if found is None:
        return f'<pre dir="ltr"><code>{escape(code, quote=False)}</code></pre>'
    language = found.group().lower()
    coloured = highlight(code, language)
    inner = escape(code, quote=False) if coloured is None else coloured
    return f'<pre dir="ltr" data-language="{language}"><code class="language-{language}">{inner}</code></pre>'
