"""What rendered content may hold, checked by a parser of its own: the page's rules, written a second time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

TAGS = {
    "p",
    "br",
    "strong",
    "em",
    "s",
    "code",
    "pre",
    "span",
    "a",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "div",
}
TAGS |= {"h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
EMPTY = {"br", "hr"}
BLOCKS = {"p", "ul", "ol", "blockquote", "h3", "h4", "h5", "h6", "pre", "div", "hr"}

AUTO = {"dir": r"auto"}
CODE = r"c|cp|gd|gh|gi|gp|k|kc|kt|m|s|se|na|nb|nc|nd|nf|nt|nv"
ALIGNED = {"class": r"left|center|right"}
ATTRIBUTES: dict[str, dict[str, str]] = {
    "a": {
        "href": r"(?i:https?://|mailto:|tel:)[^\s\x00-\x1f<>\"`]*",
        "title": r"(?s:.*)",
        "target": r"_blank",
        "rel": r"noopener noreferrer",
    },
    **dict.fromkeys(("p", "ul", "blockquote", "h3", "h4", "h5", "h6"), AUTO),
    "ol": {**AUTO, "start": r"\d{1,9}"},
    "div": {**AUTO, "class": r"table"},
    "li": {"class": r"task"},
    "pre": {"dir": r"ltr", "data-language": r"[a-z0-9_+#.-]{1,32}"},
    "code": {"class": r"language-[a-z0-9_+#.-]{1,32}"},
    "span": {"class": rf"check|{CODE}", "role": r"img", "aria-label": r"done|not done"},
    "th": ALIGNED,
    "td": ALIGNED,
}


class _Walker(HTMLParser):
    """Raises AssertionError for whatever is not in the tables above, or not properly nested."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, f"tag {tag}"
        assert self.open or tag in BLOCKS, f"{tag} outside of a block"
        assert tag != "a" or "a" not in self.open, "a link within a link"
        assert len(dict(attrs)) == len(attrs), f"doubled attributes {attrs}"
        for name, value in attrs:
            rule = ATTRIBUTES.get(tag, {}).get(name)
            assert rule is not None, f"attribute {name} of {tag}"
            assert re.fullmatch(rule, value or ""), f"{tag} {name}={value!r}"
        if tag == "a":
            assert {"target", "rel"} <= dict(attrs).keys(), f"link {attrs}"
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"end of {tag} that was not open"
        assert self.open.pop() == tag, f"end of {tag} in {self.open}"

    def handle_data(self, data: str) -> None:
        assert self.open, f"text outside of a block: {data!r}"
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"comment {data!r}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"declaration {decl!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"declaration {data!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"instruction {data!r}")


def check(html: str) -> str:
    """Assert that a page may show this HTML; return its text."""
    walker = _Walker()
    walker.feed(html)
    walker.close()
    assert not walker.open, f"left open: {walker.open}"
    html.encode()
    return "".join(walker.text)
