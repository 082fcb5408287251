"""The two parse modes that people use: HTML and MarkdownV2, to a text and its entities.

They accept what https://core.telegram.org/bots/api#formatting-options describes, without custom emoji, and
refuse the rest in the words of the Bot API server ("can't parse entities: …").
"""

import re
from html import unescape

from tests.fakes.telegram_checks import Entities, Formatted, Json, Refusal, bad_request, utf16_length

_TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "code": "code",
    "pre": "pre",
    "a": "text_link",
    "blockquote": "blockquote",
    "span": "spoiler",
}
_HTML = re.compile(r"<(/?)([a-zA-Z-]+)((?:\s[^<>]*)?)>|(&(?:lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);)|(<)", re.S)
_ATTRIBUTE = re.compile(r"""([a-z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'))?""")
_MARKS = {"*": "bold", "_": "italic", "__": "underline", "~": "strikethrough", "||": "spoiler"}
_MARKDOWN = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|```(?:(?P<language>\w+)\n)?(?P<pre>(?:\\.|[^`\\])*)```"
    r"|`(?P<code>(?:\\.|[^`\\])*)`"
    r"|(?P<mark>__|\|\||[*_~])"
    r"|(?P<open>\[)|\]\((?P<url>(?:\\.|[^)\\])*)\)"
    r"|(?P<reserved>[\[\]()`>#+\-=|{}.!])",
    re.S,
)


def parsed(text: str, mode: str) -> Formatted:
    """Raises `Refusal` for malformed markup and for an unknown mode."""
    match mode.lower():
        case "html":
            return _Markup(text).html()
        case "markdownv2":
            return _Markup(text).markdown()
        case _:
            raise bad_request("unsupported parse_mode")


def _cannot(why: str) -> Refusal:
    return bad_request(f"can't parse entities: {why}")


class _Markup:
    def __init__(self, source: str) -> None:
        self.source = source
        self.text = ""
        self.entities: Entities = []
        self.open: list[tuple[str, int, int, Json]] = []  # tag, offset, byte in the source, entity

    def add(self, text: str) -> None:
        self.text += text

    def begin(self, tag: str, at: int, entity: Json) -> None:
        self.open.append((tag, utf16_length(self.text), len(self.source[:at].encode()), entity))

    def end(self) -> None:
        _, offset, _, entity = self.open.pop()
        length = utf16_length(self.text) - offset
        if length:
            self.entities.append({"type": entity["type"], "offset": offset, "length": length} | entity)

    def result(self) -> Formatted:
        return Formatted(self.text, sorted(self.entities, key=lambda e: (e["offset"], -e["length"])))

    def html(self) -> Formatted:
        last = 0
        for match in _HTML.finditer(self.source):
            self.add(self.source[last : match.start()])
            last = match.end()
            closing, name, attributes, reference, stray = match.groups()
            byte = len(self.source[: match.start()].encode())
            if reference:
                self.add(unescape(reference))
            elif stray:
                raise _cannot(f'Unsupported start tag "" at byte offset {byte}')
            elif closing:
                if not self.open:
                    raise _cannot(f"Unexpected end tag at byte offset {byte}")
                if self.open[-1][0] != name.lower():
                    raise _cannot(
                        f"Unmatched end tag at byte offset {byte},"
                        f' expected "</{self.open[-1][0]}>", found "</{name}>"'
                    )
                self.end()
            else:
                self.begin(name.lower(), match.start(), _html_entity(name.lower(), attributes, byte))
        self.add(self.source[last:])
        if self.open:
            raise _cannot(f'Can\'t find end tag corresponding to start tag "{self.open[-1][0]}"')
        return self.result()

    def markdown(self) -> Formatted:
        last = 0
        for match in _MARKDOWN.finditer(self.source):
            self.add(self.source[last : match.start()])
            last = match.end()
            kind = match.lastgroup or ""
            if kind == "escaped":
                self.add(match["escaped"])
            elif kind in ("pre", "code", "language"):
                body = match["pre"] if match["pre"] is not None else match["code"]
                entity = {"type": "pre" if match["pre"] is not None else "code"}
                self.begin(
                    "`",
                    match.start(),
                    entity | ({"language": match["language"]} if match["language"] else {}),
                )
                self.add(re.sub(r"\\([`\\])", r"\1", body))
                self.end()
            elif kind == "mark":
                self._mark(match["mark"], match.start())
            elif kind == "open":
                self.begin("[", match.start(), {"type": "text_link"})
            elif kind == "url" and self.open and self.open[-1][0] == "[":
                self.open[-1][3]["url"] = match["url"]
                self.end()
            else:
                char = match[0][0]
                raise _cannot(f"Character '{char}' is reserved and must be escaped with the preceding '\\'")
        self.add(self.source[last:])
        if self.open:
            _, _, byte, entity = self.open[-1]
            raise _cannot(
                f"Can't find end of {entity['type'].title().replace('_', '')} entity at byte offset {byte}"
            )
        return self.result()

    def _mark(self, mark: str, at: int) -> None:
        if self.open and self.open[-1][0] == mark:
            self.end()
        else:
            self.begin(mark, at, {"type": _MARKS[mark]})


def _html_entity(name: str, attributes: str, byte: int) -> Json:
    if name not in _TAGS:
        raise _cannot(f'Unsupported start tag "{name}" at byte offset {byte}')
    values = {match[1]: match[2] or match[3] or "" for match in _ATTRIBUTE.finditer(attributes)}
    entity: Json = {"type": _TAGS[name]}
    if name == "a":
        entity["url"] = unescape(values.get("href", ""))
    if name == "code" and values.get("class", "").startswith("language-"):
        entity["language"] = values["class"].removeprefix("language-")
    if name == "blockquote" and "expandable" in values:
        entity["type"] = "expandable_blockquote"
    if name == "span" and values.get("class") != "tg-spoiler":
        raise _cannot(f'Tag "span" must have class "tg-spoiler" at byte offset {byte}')
    return entity
