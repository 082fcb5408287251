"""The people's side: what somebody with a Telegram client does, as the updates that Telegram makes of it."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.fakes.telegram_chats import Chat, Message, Topic
from tests.fakes.telegram_checks import MAX_TEXT, Entities, Json, utf16_length

if TYPE_CHECKING:
    from tests.fakes.telegram_world import World

_MARKED = re.compile(
    r"(?P<url>https?://[^\s<>]+)"
    r"|(?<![\w/<>])(?P<bot_command>/[A-Za-z0-9_]{1,64}(?:@\w{3,32})?)(?![\w/])"
    r"|(?<!\w)(?P<mention>@[A-Za-z]\w{3,31})"
)


def marked(text: str) -> Entities:
    """The entities that Telegram finds by itself: commands, mentions, links."""
    return [
        {
            "type": match.lastgroup,
            "offset": utf16_length(text[: match.start()]),
            "length": utf16_length(match[0]),
        }
        for match in _MARKED.finditer(text)
    ]


def pieces(text: str) -> list[str]:
    """A long paste as a client sends it: 4,096 units a message, no character torn."""
    parts, size = [""], 0
    for char in text:
        units = utf16_length(char)
        if size + units > MAX_TEXT:
            parts.append("")
            size = 0
        parts[-1] += char
        size += units
    return parts


def _as_chat(place: "Place | None", own: Chat) -> Chat:
    return place.chat if place is not None else own


@dataclass
class Place:
    """A group, supergroup or channel."""

    server: "World"
    chat: Chat

    @property
    def id(self) -> int:
        return self.chat.id

    def opens_topic(self, name: str) -> int:
        """Returns the topic's id."""
        return open_topic(self.server, self.chat, self._actor(None), name)

    def closes_topic(self, thread: int) -> None:
        self.chat.topics[thread].closed = True
        self.server.receive(self.chat, self._actor(None), thread=thread, extra={"forum_topic_closed": {}})

    def deletes_topic(self, thread: int) -> None:
        self.chat.topics[thread].deleted = True
        for message in self.chat.messages:
            if message.thread == thread and message.deleted is None:
                self.chat.delete(message)

    def kicks_bot(self, by: "Person | None" = None) -> None:
        self.server.change_bot_status(self.chat, "kicked", by=self._actor(by))

    def adds_bot(self, by: "Person | None" = None, status: str = "member") -> None:
        actor = self._actor(by)
        self.server.change_bot_status(self.chat, status, by=actor)
        if self.chat.type != "channel":
            extra = {"new_chat_members": [self.server.bot_user]}
            self.server.receive(self.chat, actor, extra=extra)

    def migrates(self, new_id: int | None = None) -> "Place":
        """The group becomes a supergroup: another id, and message ids begin at 1."""
        old = self.chat
        new = self.server.group(new_id or -1_000_000_000_000 + old.id, old.names["title"], supergroup=True)
        new.chat.members = dict(old.members)
        self.server.receive(old, self._actor(None), extra={"migrate_to_chat_id": new.id})
        old.migrated_to = new.id
        self.server.receive(new.chat, self._actor(None), extra={"migrate_from_chat_id": old.id})
        return new

    def posts(self, text: str, **rest: Any) -> Message:
        """A channel's own post."""
        return self.server.receive(self.chat, None, text, entities=marked(text), **rest)

    def edits_post(self, message: Message, text: str) -> None:
        self.chat.edit(message, text, marked(text))
        self.server.updates.push("edited_channel_post", message.api(), self.chat.id)

    def _actor(self, by: "Person | None") -> Json:
        if by is not None:
            return by.api
        owner = next((who for who in self.chat.members if who in self.server.people), None)
        return self.server.people[owner].api if owner else self.server.bot_user


@dataclass
class Person:
    """Somebody with a Telegram client. `into` names the group; without it the private chat is meant."""

    server: "World"
    api: Json  # a Bot API User
    chat: Chat  # the private chat with the bot

    @property
    def id(self) -> int:
        return int(self.api["id"])

    def says(
        self,
        text: str,
        *,
        into: Place | None = None,
        reply_to: Message | int | None = None,
        quote: str | None = None,
        entities: Entities | None = None,
        thread: int | None = None,
    ) -> Message:
        """One message of at most 4,096 units (see `pastes`)."""
        if utf16_length(text) > MAX_TEXT:
            raise ValueError("a client sends no more than 4,096 UTF-16 units in a message: use pastes()")
        entities = sorted([*marked(text), *(entities or [])], key=lambda e: (e["offset"], -e["length"]))
        return self._sends(into, text, entities, reply_to=reply_to, quote=quote, thread=thread)

    def pastes(self, text: str, *, into: Place | None = None, thread: int | None = None) -> list[Message]:
        return [self.says(piece, into=into, thread=thread) for piece in pieces(text)]

    def edits(self, message: Message | int, text: str, *, into: Place | None = None) -> Message:
        chat = _as_chat(into, self.chat)
        found = self.server.message(chat, message)
        chat.edit(found, text, marked(text))
        self.server.updates.push("edited_message", found.api(), chat.id)
        return found

    def deletes(self, message: Message | int, *, into: Place | None = None) -> None:
        """From everybody's screen, also the bot's own message; a bot is not told."""
        chat = _as_chat(into, self.chat)
        chat.delete(self.server.message(chat, message))

    def forwards(self, text: str, *, origin: Json | None = None, into: Place | None = None) -> Message:
        hidden = {
            "type": "hidden_user",
            "sender_user_name": "Somebody",
            "date": int(self.server.clock()) - 60,
        }
        return self._sends(into, text, marked(text), extra={"forward_origin": origin or hidden})

    def sends_photo(self, data: bytes, caption: str = "", **rest: Any) -> Message:
        return self._sends_media("photo", self._photo(data), caption, **rest)

    def sends_document(
        self, data: bytes, name: str = "file.bin", caption: str = "", *, size: int | None = None, **rest: Any
    ) -> Message:
        """size: what Telegram claims, for a file too big to make."""
        stored = self.server.files.store(data, "documents", name, size=size)
        media = stored.api() | {"file_name": name, "mime_type": "application/octet-stream"}
        return self._sends_media("document", media, caption, **rest)

    def sends_voice(self, data: bytes, seconds: int = 3, **rest: Any) -> Message:
        stored = self.server.files.store(data, "voice", "file.oga")
        return self._sends_media(
            "voice", stored.api() | {"duration": seconds, "mime_type": "audio/ogg"}, "", **rest
        )

    def sends_video_note(self, data: bytes, seconds: int = 3, **rest: Any) -> Message:
        stored = self.server.files.store(data, "video_notes", "file.mp4")
        return self._sends_media(
            "video_note", stored.api() | {"duration": seconds, "length": 240}, "", **rest
        )

    def sends_sticker(self, data: bytes, emoji: str = "👍", **rest: Any) -> Message:
        stored = self.server.files.store(data, "stickers", "file.webp")
        shape = {"type": "regular", "width": 512, "height": 512, "is_animated": False, "is_video": False}
        return self._sends_media("sticker", stored.api() | shape | {"emoji": emoji}, "", **rest)

    def sends_location(self, latitude: float, longitude: float, **rest: Any) -> Message:
        return self._sends_media("location", {"latitude": latitude, "longitude": longitude}, "", **rest)

    def sends_contact(self, phone: str, first_name: str, **rest: Any) -> Message:
        return self._sends_media("contact", {"phone_number": phone, "first_name": first_name}, "", **rest)

    def sends_album(
        self, photos: list[bytes], caption: str = "", *, into: Place | None = None
    ) -> list[Message]:
        """One update for each photo; the caption is with the first, and nothing marks the last."""
        group = {"media_group_id": str(self.server.unique())}
        return [
            self._sends_media("photo", self._photo(data), "" if index else caption, into=into, more=group)
            for index, data in enumerate(photos)
        ]

    def opens_topic(self, name: str) -> int:
        """In the private chat, which may have topics too."""
        return open_topic(self.server, self.chat, self.api, name)

    def presses(self, message: Message, data: str) -> str:
        """An inline button of the bot; returns the callback query's id."""
        rows = message.keyboard["inline_keyboard"] if message.keyboard else []
        if not any(button.get("callback_data") == data for row in rows for button in row):
            raise ValueError(f"message {message.id} has no button with the data {data!r}")
        query = str(self.server.unique())
        self.server.open_queries.add(query)
        body = {"id": query, "from": self.api, "message": message.api(), "data": data, "chat_instance": "1"}
        self.server.updates.push("callback_query", body, self.id)
        return query

    def blocks_bot(self) -> None:
        self.chat.blocked = True
        self._tells_status("member", "kicked")

    def unblocks_bot(self) -> None:
        self.chat.blocked = False
        self._tells_status("kicked", "member")

    def joins(self, place: Place) -> None:
        self._changes_membership(place, "member", {"new_chat_members": [self.api]})

    def leaves(self, place: Place) -> None:
        self._changes_membership(place, "left", {"left_chat_member": self.api})

    def _changes_membership(self, place: Place, status: str, extra: Json) -> None:
        old = place.chat.members.get(self.id, "left")
        place.chat.members[self.id] = status
        change = self.server.status_change(place.chat, self.api, self.api, old, status)
        self.server.updates.push("chat_member", change, place.id)
        self.server.receive(place.chat, self.api, extra=extra)

    def _tells_status(self, old: str, new: str) -> None:
        change = self.server.status_change(self.chat, self.api, self.server.bot_user, old, new)
        self.server.updates.push("my_chat_member", change, self.id)

    def _photo(self, data: bytes) -> list[Json]:
        small = self.server.files.store(data[:100], "thumbnails", "file.jpg").api() | {
            "width": 90,
            "height": 90,
        }
        return [
            small,
            self.server.files.store(data, "photos", "file.jpg").api() | {"width": 1280, "height": 1280},
        ]

    def _sends_media(
        self, kind: str, media: Any, caption: str, more: Json | None = None, **rest: Any
    ) -> Message:
        into = rest.pop("into", None)
        return self._sends(into, caption, marked(caption), extra={kind: media} | (more or {}), **rest)

    def _sends(
        self,
        into: Place | None,
        text: str,
        entities: Entities,
        *,
        reply_to: Message | int | None = None,
        quote: str | None = None,
        thread: int | None = None,
        extra: Json | None = None,
    ) -> Message:
        chat = _as_chat(into, self.chat)
        replied = None if reply_to is None else self.server.message(chat, reply_to)
        quoted: Json | None = None
        if replied and quote is not None:
            at = replied.text.index(quote)
            quoted = {"text": quote, "position": utf16_length(replied.text[:at]), "is_manual": True}
        return self.server.receive(
            chat,
            self.api,
            text,
            entities=entities,
            reply_to=replied,
            quote=quoted,
            thread=thread,
            extra=extra or {},
        )


def open_topic(server: "World", chat: Chat, by: Json, name: str) -> int:
    message = server.receive(chat, by, extra={"forum_topic_created": {"name": name, "icon_color": 7322096}})
    chat.topics[message.id] = Topic(name)
    message.thread = message.id
    return message.id
