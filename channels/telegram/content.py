"""What people send -> the text that the agent sees, and the files that come with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from telegram import (
    Message,
    MessageEntity,
    MessageOrigin,
    MessageOriginChannel,
    MessageOriginChat,
    MessageOriginHiddenUser,
    MessageOriginUser,
)

from channels.letters import shortened
from channels.telegram.settings import TOP_SIZE

MEDIA = "media/telegram"  # the folder under the data directory
_LONG = 4000  # UTF-16 units; a client splits a paste at 4,096
_QUOTED = 500  # characters of a message that is replied to, where the person chose no part of it
_NAME = 64
_LINKS, _ADDRESS = 20, 500  # of a message; characters
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_OURS = (".wanted", ".part")  # endings of the notes beside the files (`media`): no person's file is to be one

# Attributes of a message that hold a file, what people call it, its ending. An animation is a document, too.
_FILES = (
    ("animation", "animation", ".mp4"),
    ("photo", "photo", ".jpg"),
    ("document", "document", ""),
    ("voice", "voice message", ".oga"),
    ("video_note", "video note", ".mp4"),
    ("video", "video", ".mp4"),
    ("audio", "audio", ".mp3"),
    ("live_photo", "live photo", ".mp4"),
)
# What people send on purpose and we cannot read; whatever else has no content is Telegram's own message.
_UNREADABLE = {
    "sticker": "stickers",
    "poll": "polls",
    "dice": "dice",
    "game": "games",
    "story": "stories",
    "checklist": "checklists",
    "invoice": "invoices",
    "giveaway": "giveaways",
    "paid_media": "paid media",
    "passport_data": "passport data",
}


class File(NamedTuple):
    """A file to fetch: Telegram's id for it, and its name in the media folder."""

    id: str
    name: str
    what: str


class Content(NamedTuple):
    """What is in a message. `unreadable`: a kind (in the plural) of which we can make nothing.

    `long`: it may be a part of a paste that goes on in the next message.
    """

    text: str
    files: tuple[File, ...] = ()
    long: bool = False
    unreadable: str | None = None


def read(message: Message, limit: int | None = TOP_SIZE) -> Content | None:
    """What the person sent; None for Telegram's own messages.

    Files over `limit` bytes are only named, and with None all of them. Raises whatever a message that is
    not of the API's form leads to.
    """
    words, size = _words(message)
    blocks = [words] if words else []
    file = None
    if attached := _attached(message):
        file, line = _file(message, *attached, limit)
        blocks.insert(0, line)
    blocks[:0] = _facts(message)
    if not blocks:
        kind = next((kind for kind in _UNREADABLE if getattr(message, kind, None)), None)
        return Content("", unreadable=_UNREADABLE[kind]) if kind else None
    text = "\n".join([*_forwarded(message), *blocks])
    if quote := _quote(message):
        text = f"{quote}\n\n{text}"
    return Content(text, (file,) if file else (), size >= _LONG)


def utf16_part(text: str, entity: MessageEntity) -> str:
    """The text that an entity covers; offsets count UTF-16 units."""
    units = text.encode("utf-16-le", "surrogatepass")
    part = units[2 * entity.offset : 2 * (entity.offset + entity.length)]
    return part.decode("utf-16-le", "surrogatepass")


def one_line(text: str, longest: int = _NAME) -> str:
    """A name as it may stand inside our own line: no breaks, no brackets, not endless."""
    return shortened(" ".join(text.split()).translate(str.maketrans("[]", "()")), longest)


def sender(message: Message) -> str:
    """Who wrote it, as people see it."""
    if message.sender_chat is not None:
        return one_line(message.sender_chat.title or message.sender_chat.full_name or "somebody")
    return one_line(message.from_user.full_name) if message.from_user else "somebody"


# -- text ------------------------------------------------------------------------------------------


def _words(message: Message) -> tuple[str, int]:
    """Text or caption with the addresses of its hidden links, and its own length in UTF-16 units."""
    text = message.text if message.text is not None else message.caption
    if text is None:
        return "", 0
    if not isinstance(text, str):
        raise TypeError(f"its text is {type(text).__name__}")
    entities = message.entities if message.text is not None else message.caption_entities
    links = [
        f"[link {one_line(utf16_part(text, entity))}: {one_line(entity.url or '', _ADDRESS)}]"
        for entity in entities
        if entity.type == MessageEntity.TEXT_LINK
    ][:_LINKS]
    size = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return ("\n".join([text, *links]) if text.strip() else ""), size


def _quote(message: Message) -> str:
    """What is replied to, as quoted lines; empty where it is not a reply."""
    replied = message.reply_to_message
    if replied is not None and replied.forum_topic_created:
        replied = None  # every message in a topic "replies" to the one that opened it
    if message.quote is not None:
        text = message.quote.text
    elif replied is not None:
        text = _shortened(_summary(replied))
    else:
        return ""
    name = f"{sender(replied)}: " if replied is not None else ""
    return "\n".join(f"> {line}" for line in f"{name}{text}".splitlines()) if text.strip() else ""


def _summary(message: Message) -> str:
    words, _ = _words(message)
    attached = _attached(message)
    parts = [f"[{attached[1]}]"] if attached else []
    return "\n".join([*parts, *_facts(message), *([words] if words else [])])


def _shortened(text: str) -> str:
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"


def _forwarded(message: Message) -> Iterator[str]:
    if message.forward_origin is not None:
        yield f"[forwarded from {one_line(_origin(message.forward_origin))}]"


def _origin(origin: MessageOrigin) -> str:
    match origin:
        case MessageOriginUser(sender_user=user):
            return user.full_name
        case MessageOriginHiddenUser(sender_user_name=name):
            return name
        case MessageOriginChat(sender_chat=chat) | MessageOriginChannel(chat=chat):
            return chat.title or chat.full_name or "a chat"
    return "somebody"


def _facts(message: Message) -> list[str]:
    """Places and people, as text."""
    if (venue := message.venue) is not None:
        place = f"{one_line(venue.title)}, {one_line(venue.address)}"
        return [f"[location: {place} ({venue.location.latitude}, {venue.location.longitude})]"]
    if (location := message.location) is not None:
        return [f"[location: {location.latitude}, {location.longitude}]"]
    if (contact := message.contact) is not None:
        name = one_line(f"{contact.first_name} {contact.last_name or ''}")
        return [f"[contact: {name}, {one_line(contact.phone_number)}]"]
    return []


# -- files -----------------------------------------------------------------------------------------


def _attached(message: Message) -> tuple[Any, str, str] | None:
    """The file of a message (its largest picture), what it is called, and its usual ending."""
    for attribute, what, ending in _FILES:
        if media := getattr(message, attribute, None):
            return (media[-1] if attribute == "photo" else media), what, ending
    return None


def _file(message: Message, media: Any, what: str, ending: str, limit: int | None) -> tuple[File | None, str]:
    """The file to fetch, None for one that is too large; and the line that describes it."""
    given = getattr(media, "file_name", None) or ""
    found = _ENDING.search(given)
    ending = found[0].lower() if found else ending
    name = f"{message.chat.id}_{message.message_id}{'' if ending in _OURS else ending}"
    kept = limit is not None and (media.file_size is None or media.file_size <= min(limit, TOP_SIZE))
    parts = [f'{what} "{one_line(given)}"' if given else what]
    parts += [f"{media.width}×{media.height}"] if what == "photo" else []
    parts += [f"{_seconds(media.duration)} s"] if getattr(media, "duration", None) is not None else []
    parts += [_size(media.file_size)] if media.file_size is not None else []
    if limit is not None:
        parts.append(f"kept as {MEDIA}/{name}" if kept else "too large to be fetched")
    return (File(media.file_id, name, what) if kept else None), f"[{', '.join(parts)}]"


def _seconds(duration: timedelta | int) -> int:
    # By the environment's PTB_TIMEDELTA; see `sending.connect`.
    return int(duration.total_seconds()) if isinstance(duration, timedelta) else duration


def _size(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.0f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"
