"""What the Bot API refuses, and how it treats a text and its entities before it stores them.

Offsets and lengths count UTF-16 code units (https://core.telegram.org/bots/api#messageentity). The wording of
the errors and the order of the checks are those of the public Bot API server and of TDLib.
"""

import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Entities = list[Json]

MAX_TEXT = 4096
MAX_ENTITIES = 100  # further ones are dropped without an error
_TYPE = re.compile(
    "mention|hashtag|cashtag|bot_command|url|email|phone_number|bold|italic|underline|strikethrough|spoiler"
    "|blockquote|expandable_blockquote|code|pre|text_link|text_mention|custom_emoji|date_time"
)
_SPLITTABLE = frozenset({"bold", "italic", "underline", "strikethrough", "spoiler"})
_ALONE = frozenset({"code", "pre"})  # no other entity may lie inside


class Refusal(Exception):
    """An answer with `ok: false`."""

    def __init__(self, code: int, description: str, parameters: Json | None = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    @property
    def envelope(self) -> Json:
        body: Json = {"ok": False, "error_code": self.code, "description": self.description}
        return body | ({"parameters": self.parameters} if self.parameters else {})


def bad_request(what: str) -> Refusal:
    return Refusal(400, f"Bad Request: {what}")


def retry_after(seconds: int) -> Refusal:
    return Refusal(429, f"Too Many Requests: retry after {seconds}", {"retry_after": seconds})


def utf16_length(text: str) -> int:
    return len(text) + sum(char > "\uffff" for char in text)


def slice_utf16(text: str, begin: int, end: int | None = None) -> str:
    """Part of a text by UTF-16 offsets; both must lie on the borders of characters."""
    units = text.encode("utf-16-le")
    return units[2 * begin : None if end is None else 2 * end].decode("utf-16-le")


@dataclass(frozen=True)
class Formatted:
    """A text as Telegram stores it."""

    text: str
    entities: Entities


def checked(text: str, entities: Entities, *, too_long: str = "message is too long") -> Formatted:
    """Cleans a text and checks it. Raises `Refusal` where Telegram would."""
    in_order = sorted((_whole(entity) for entity in entities), key=lambda e: (e["offset"], -e["length"]))
    _check_borders(text, in_order)
    cleaned = _trimmed(_without_controls(Formatted(text, nested(in_order))))
    if not cleaned.text:
        raise bad_request("text must be non-empty")
    if utf16_length(cleaned.text) > MAX_TEXT:
        raise bad_request(too_long)
    return Formatted(cleaned.text, cleaned.entities[:MAX_ENTITIES])


def _whole(entity: Any) -> Json:
    if not isinstance(entity, dict):
        raise bad_request("can't parse MessageEntity: expected an object")
    for name in ("offset", "length"):
        if not isinstance(entity.get(name), int):
            raise bad_request(f'can\'t parse MessageEntity: Field "{name}" must be of type Number')
    if not _TYPE.fullmatch(str(entity.get("type"))):
        raise bad_request("can't parse MessageEntity: Unsupported type specified")
    if entity["type"] == "text_link" and not entity.get("url"):
        raise bad_request("can't parse MessageEntity: Can't find field \"url\"")
    for name in ("offset", "length"):
        if entity[name] < 0 or entity[name] > 1_000_000:
            raise bad_request(f"receive an entity with incorrect {name} {entity[name]}")
    return dict(entity)


def _check_borders(text: str, entities: Entities) -> None:
    units = text.encode("utf-16-le")
    size = len(units) // 2

    def splits_a_pair(at: int) -> bool:
        return at < size and 0xDC <= units[2 * at + 1] <= 0xDF

    for entity in entities:
        begin, end = entity["offset"], entity["offset"] + entity["length"]
        if not entity["length"]:
            continue
        if begin > size:
            raise bad_request(f"entity begins after the end of the text at UTF-16 offset {begin}")
        if end > size:
            raise bad_request(
                f"entity beginning at UTF-16 offset {begin}"
                f" ends after the end of the text at UTF-16 offset {end}"
            )
        if splits_a_pair(begin):
            byte = len(slice_utf16(text, 0, begin + 1).encode())
            raise bad_request(f"entity begins in a middle of a UTF-16 symbol at byte offset {byte}")
        if splits_a_pair(end):
            byte = len(slice_utf16(text, 0, end + 1).encode())
            raise bad_request(
                f"entity beginning at UTF-16 offset {begin}"
                f" ends in a middle of a UTF-16 symbol at byte offset {byte}"
            )


def nested(entities: Entities) -> Entities:
    """Properly nested entities: what crosses another is cut in two or dropped; code holds nothing else."""
    kept: Entities = []
    waiting = [entity for entity in entities if entity["length"]]
    while waiting:
        entity = waiting.pop(0)
        begin, end = entity["offset"], entity["offset"] + entity["length"]
        around = [e for e in kept if e["offset"] + e["length"] > begin]
        if any(e["type"] in _ALONE or e["type"] == entity["type"] for e in around):
            continue
        crossed = [e["offset"] + e["length"] for e in around if e["offset"] + e["length"] < end]
        if crossed and entity["type"] not in _SPLITTABLE:
            continue
        if crossed:
            waiting.append(entity | {"offset": min(crossed), "length": end - min(crossed)})
            waiting.sort(key=lambda e: (e["offset"], -e["length"]))
            entity = entity | {"length": min(crossed) - begin}
        kept.append(entity)
    return kept


def _without_controls(formatted: Formatted) -> Formatted:
    """Control characters become spaces, `\\r` goes away."""
    text = "".join(" " if char < " " and char not in "\n\r" else char for char in formatted.text)
    while (at := text.find("\r")) >= 0:
        formatted = _cut(Formatted(text, formatted.entities), utf16_length(text[:at]), 1)
        text = formatted.text
    return Formatted(text, formatted.entities)


def _trimmed(formatted: Formatted) -> Formatted:
    """Without white space at the end; at the beginning only as far as the first entity."""
    text = formatted.text.rstrip()
    formatted = _cut(formatted, utf16_length(text), utf16_length(formatted.text) - utf16_length(text))
    blank = len(text) - len(text.lstrip())  # white space takes one unit a character
    first = min((entity["offset"] for entity in formatted.entities), default=blank)
    return _cut(formatted, 0, min(blank, first))


def _cut(formatted: Formatted, at: int, length: int) -> Formatted:
    """Without the units from `at` on; entities shrink and move."""
    if not length:
        return formatted

    def moved(position: int) -> int:
        return position if position <= at else max(at, position - length)

    entities = []
    for entity in formatted.entities:
        begin, end = moved(entity["offset"]), moved(entity["offset"] + entity["length"])
        if end > begin:
            entities.append(entity | {"offset": begin, "length": end - begin})
    text = slice_utf16(formatted.text, 0, at) + slice_utf16(formatted.text, at + length)
    return Formatted(text, entities)
