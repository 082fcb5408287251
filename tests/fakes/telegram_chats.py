"""The chats of a bot, and the ledger of what their people have seen.

Message ids follow Telegram: private chats and basic groups share one sequence, every supergroup and channel
begins its own at 1. A topic's id is the id of the service message that opened it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.telegram_checks import Entities, Json

ChatType = Literal["private", "group", "supergroup", "channel"]


@dataclass(frozen=True)
class Edit:
    """What a message said before, and when that ended."""

    until: float
    text: str
    entities: Entities


@dataclass(frozen=True)
class Shown:
    """One moment in the ledger: a text appeared, took another's place, or went away."""

    at: float
    message_id: int
    by_bot: bool
    change: Literal["sent", "edited", "deleted"]
    text: str


@dataclass(frozen=True)
class Draft:
    """A text shown while it is being written; it leaves the screen after 30 s or when a message comes."""

    at: float
    draft_id: int
    text: str
    entities: Entities
    thread: int | None


@dataclass(frozen=True)
class Action:
    at: float
    action: str
    thread: int | None


@dataclass
class Topic:
    name: str
    closed: bool = False
    deleted: bool = False


@dataclass
class Message:
    chat: "Chat"
    id: int
    at: float
    sender: Json | None  # a Bot API User; None for a channel's post
    text: str = ""
    entities: Entities = field(default_factory=list)
    by_bot: bool = False
    reply_to: "Message | None" = None
    quote: Json | None = None
    thread: int | None = None
    keyboard: Json | None = None
    silent: bool = False
    extra: Json = field(default_factory=dict)  # a photo, a service message, an album's id and so on
    edits: list[Edit] = field(default_factory=list)
    edited: float | None = None
    deleted: float | None = None

    @property
    def reply_to_id(self) -> int | None:
        return self.reply_to.id if self.reply_to else None

    def api(self, *, nested: bool = False) -> Json:
        """As the Bot API shows it; a message inside another has no message inside."""
        body: Json = {"message_id": self.id, "date": int(self.at), "chat": self.chat.api()}
        if self.sender:
            body["from"] = self.sender
        else:
            body["sender_chat"] = self.chat.api()
        if self.thread is not None:
            body["message_thread_id"] = self.thread
            if self.thread in self.chat.topics:
                body["is_topic_message"] = True
        if self.text:
            name = "text" if not _media(self.extra) else "caption"
            body[name] = self.text
            if self.entities:
                body["entities" if name == "text" else "caption_entities"] = self.entities
        if self.edited is not None:
            body["edit_date"] = int(self.edited)
        if self.keyboard:
            body["reply_markup"] = self.keyboard
        if self.quote:
            body["quote"] = self.quote
        if self.reply_to and not nested:
            body["reply_to_message"] = self.reply_to.api(nested=True)
        return body | self.extra


def _media(extra: Json) -> bool:
    return not extra.keys().isdisjoint(
        {"photo", "document", "voice", "video_note", "video", "audio", "sticker"}
    )


class Sequence:
    """Ids of messages."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def next(self) -> int:
        self.last += 1
        return self.last


@dataclass
class Chat:
    """Also the ledger: `messages` with their edits, `shown` in the order of events, `drafts`, `actions`."""

    id: int
    type: ChatType
    clock: Callable[[], float]
    sequence: Sequence
    names: Json  # title, or first_name and username
    known: bool = True  # False: the person has never written to the bot
    blocked: bool = False  # by the person of a private chat
    bot_status: str = "member"  # or administrator, left, kicked
    forum: bool = False
    migrated_to: int | None = None
    members: dict[int, str] = field(default_factory=dict)  # user id -> status
    topics: dict[int, Topic] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_id: dict[int, Message] = {}

    def api(self) -> Json:
        body: Json = {"id": self.id, "type": self.type} | self.names
        return body | ({"is_forum": True} if self.forum else {})

    def add(self, sender: Json | None, text: str = "", **rest: Any) -> Message:
        message = Message(self, self.sequence.next(), self.clock(), sender, text, **rest)
        self.messages.append(message)
        self._by_id[message.id] = message
        self._note(message, "sent")
        return message

    def find(self, message_id: int) -> Message | None:
        """None for what never was and for what is deleted."""
        message = self._by_id.get(message_id)
        return message if message and message.deleted is None else None

    def thread_of(self, reply_to: Message | None) -> int | None:
        """A reply joins its message's thread. In a supergroup without topics every reply has one: that of the
        first message, whose id it is; it is no topic."""
        if reply_to is None or reply_to.chat is not self:
            return None
        if reply_to.thread is None and self.type == "supergroup" and not self.forum:
            return reply_to.id
        return reply_to.thread

    def edit(self, message: Message, text: str, entities: Entities, keyboard: Json | None = None) -> None:
        message.edits.append(Edit(self.clock(), message.text, message.entities))
        message.text, message.entities, message.keyboard = text, entities, keyboard
        message.edited = self.clock()
        self._note(message, "edited")

    def delete(self, message: Message) -> None:
        message.deleted = self.clock()
        self._note(message, "deleted")

    def _note(self, message: Message, change: Literal["sent", "edited", "deleted"]) -> None:
        self.shown.append(Shown(self.clock(), message.id, message.by_bot, change, message.text))

    def bot_messages(self) -> list[Message]:
        """What is on the screen now, of the bot's."""
        return [message for message in self.messages if message.by_bot and message.deleted is None]

    def texts(self) -> list[str]:
        """The bot's texts that are on the screen now."""
        return [message.text for message in self.bot_messages()]

    def seen_texts(self) -> list[str]:
        """Every text of the bot that was ever on the screen (drafts apart), in the order of appearance."""
        return [shown.text for shown in self.shown if shown.by_bot and shown.change != "deleted"]

    def ledger(self) -> Json:
        """All of it as JSON, for another process."""
        return {
            "id": self.id,
            "type": self.type,
            "seen_texts": self.seen_texts(),
            "texts": self.texts(),
            "drafts": [draft.text for draft in self.drafts],
            "actions": [action.action for action in self.actions],
            "messages": [
                {
                    "id": message.id,
                    "by_bot": message.by_bot,
                    "text": message.text,
                    "entities": message.entities,
                    "reply_to": message.reply_to_id,
                    "thread": message.thread,
                    "edits": [[edit.until, edit.text] for edit in message.edits],
                    "deleted": message.deleted,
                }
                for message in self.messages
            ],
        }
