"""One raw update -> what it means for us. Nothing here waits, asks anybody or changes a file."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from telegram import CallbackQuery, Message, MessageEntity, Update, User
from telegram.constants import ChatType

from channels.base import InboundMessage
from channels.telegram import content
from channels.telegram.buttons import Pressed, decision
from channels.telegram.chat import Chat
from channels.telegram.content import Content, File
from channels.telegram.going_on import GoingOn
from channels.telegram.moves import Moves
from channels.telegram.people import People, peer
from channels.telegram.settings import TOP_SIZE
from session.ids import MessageId, Peer, PeerId, Provider

PROVIDER = Provider("telegram")
START = "start"  # the command that Telegram sends for whoever opens the chat
QUIET = 0.3  # seconds that a message waits for others of the same burst
AFTER_LONG = 1.5  # after one that a client may have split
ALBUM = 1.0  # after a part of an album, whose end nothing marks

_COMMAND = re.compile(r"/([A-Za-z0-9_]{1,64})(?:@(\w+))?(?=\s|\Z)")
_GENERAL = 1  # the topic of a forum that counts as none


class Said(NamedTuple):
    """A message to us, and the files to fetch. `context`: it may be shown with what was overheard."""

    message: InboundMessage
    chat: Chat
    files: tuple[File, ...] = ()
    context: bool = False


class Edited(NamedTuple):
    """A message reads otherwise now."""

    peer: Peer
    of: MessageId
    text: str


class Overheard(NamedTuple):
    """A group's message that was not for us."""

    peer: Peer
    id: MessageId
    sender: str
    text: str


class Moved(NamedTuple):
    """A group has another id. `known`: everybody in it may talk to us."""

    peer: Peer
    old: int
    new: int
    known: bool


class Greeted(NamedTuple):
    """Somebody opened the chat."""

    chat: Chat


class Unreadable(NamedTuple):
    """Somebody sent us what we can make nothing of: its kind, in the plural."""

    chat: Chat
    message_id: int
    kind: str


class Stranger(NamedTuple):
    """Somebody who may not talk to us does; `peer` is whom the owner would let in."""

    chat: Chat
    message_id: int
    peer: str
    name: str


Meaning = Pressed | Said | Edited | Overheard | Moved | Greeted | Unreadable | Stranger


class BadUpdate(ValueError):
    """The update is not of the Bot API's form."""


class Adapter:
    """Reads updates in the order of each chat. `commands` are the names that the inbox knows."""

    def __init__(
        self,
        me: User,
        people: People,
        moves: Moves,
        commands: Collection[str],
        *,
        groups: Literal["addressed", "all"] = "addressed",
        context: bool = False,
        media_limit: int = TOP_SIZE,
    ) -> None:
        self._me = me
        self._people = people
        self._moves = moves
        self._commands = {*commands, START}
        self._groups = groups
        self._context = context
        self._media_limit = media_limit
        self._going_on = GoingOn()

    def lane(self, update: Any) -> int | None:
        """The chat whose updates must be taken in the order of this one; learns of moves on the way.

        Of updates of any shape: it is asked before `read` is.
        """
        if not isinstance(update, dict):
            return None
        pressed = update.get("callback_query")
        of_button = pressed.get("message") if isinstance(pressed, dict) else None
        message = update.get("message") or update.get("edited_message") or of_button
        if not isinstance(message, dict) or not isinstance(message.get("chat"), dict):
            return None
        id = message["chat"].get("id")
        if type(id) is not int:
            return None
        # A group's last messages and the supergroup's first ones may be of one batch.
        for old, new in ((id, message.get("migrate_to_chat_id")), (message.get("migrate_from_chat_id"), id)):
            if type(old) is int and type(new) is int:
                self._moves.learn(old, new)
        return self._moves.origin(id)

    def read(self, update: Any) -> Meaning | None:
        """What the update means, None for what is not for us; raises whatever a malformed one leads to."""
        parsed = Update.de_json(update)
        if parsed.callback_query is not None:
            return self._pressed(parsed.callback_query)
        message = parsed.message or parsed.edited_message
        if message is None:
            return None
        _check(message)
        if moved := self._moved(message):
            return moved
        if _from_a_machine(message):
            return None
        sent = content.read(message, self._media_limit)
        if sent is None:
            return None
        may_talk = self._people.may_talk(message)
        if parsed.edited_message is not None:
            return self._edited(message, sent) if may_talk else None
        if self._addressed(message, sent):
            return self._said(message, sent) if may_talk else self._stranger(message)
        if not may_talk:
            return None
        heard = content.read(message, None) if self._context else None  # its files are not fetched
        if heard is None or not heard.text:
            return None
        return Overheard(self._peer(message), _id(message), content.sender(message), heard.text)

    # -- to whom ---------------------------------------------------------------------------------

    def _addressed(self, message: Message, sent: Content) -> bool:
        if message.chat.type == ChatType.PRIVATE:
            return True
        if command := _COMMAND.match(message.text or ""):
            if command[2]:
                return self._is_my_name(command[2])
            if command[1].lower() in self._commands:
                return True
        addressed = self._groups == "all" or self._answers_me(message) or self._names_me(message)
        return self._going_on.ours(message, self._peer(message), long=sent.long, addressed=addressed)

    def _is_my_name(self, name: str) -> bool:
        return name.lower() == (self._me.username or "").lower()

    def _answers_me(self, message: Message) -> bool:
        replied = message.reply_to_message
        if replied is None or replied.forum_topic_created or replied.from_user is None:
            return False
        return replied.from_user.id == self._me.id

    def _names_me(self, message: Message) -> bool:
        text = message.text or message.caption or ""
        for entity in (*message.entities, *message.caption_entities):
            if entity.type == MessageEntity.MENTION:
                if self._is_my_name(content.utf16_part(text, entity).removeprefix("@")):
                    return True
            elif entity.type == MessageEntity.TEXT_MENTION and entity.user and entity.user.id == self._me.id:
                return True
        return False

    # -- meanings --------------------------------------------------------------------------------

    def _said(self, message: Message, sent: Content) -> Said | Greeted | Unreadable | None:
        chat = _chat(message)
        if sent.unreadable:  # nobody wants a remark on each sticker of a group
            directly = chat.private or self._answers_me(message)
            return Unreadable(chat, message.message_id, sent.unreadable) if directly else None
        peer, id = self._peer(message), _id(message)
        if command := self._command(message):
            if command[1:].split(None, 1)[0] == START:
                return Greeted(chat)
            return Said(InboundMessage(peer, id, command, insistent=True), chat)
        hold = AFTER_LONG if sent.long else ALBUM if message.media_group_id else QUIET
        inbound = InboundMessage(peer, id, _named(message, sent.text), hold=hold, insistent=True)
        return Said(inbound, chat, sent.files, context=not chat.private)

    def _command(self, message: Message) -> str | None:
        """The message as the inbox's commands are written, without our name; None where it is none."""
        found = _COMMAND.match(message.text or "")
        if found is None or message.text is None or message.forward_origin is not None:
            return None
        name = found[1].lower()
        mine = found[2] is not None and self._is_my_name(found[2])
        if name in self._commands and (mine or found[2] is None):
            return f"/{name}{message.text[found.end() :]}"
        return f"/{found[1]}{message.text[found.end() :]}" if mine else None

    def _edited(self, message: Message, sent: Content) -> Edited | None:
        if message.text is None and message.caption is None:
            return None  # a place that moves on, a poll that is voted in
        return Edited(self._peer(message), _id(message), _named(message, sent.text))

    def _pressed(self, query: CallbackQuery) -> Pressed | None:
        message = query.message
        if message is None:
            return None  # a message that somebody else sent by way of us
        if type(query.from_user.id) is not int or type(message.chat.id) is not int:
            raise BadUpdate("an id is no number")
        if isinstance(message, Message):
            chat, asker = _chat(message), self._peer(message)
        else:  # it is too old: neither its text nor its topic is told
            chat = Chat(message.chat.id)
            asker = Peer(PROVIDER, PeerId(peer(self._moves.origin(chat.id))))
        may = self._people.may_press(query.from_user, chat.id)
        return Pressed(query.id, chat, message.message_id, asker, decision(query.data), may)

    def _moved(self, message: Message) -> Moved | None:
        old, new = message.migrate_from_chat_id or message.chat.id, message.migrate_to_chat_id
        if message.migrate_from_chat_id is not None:
            new = message.chat.id
        if new is None:
            return None
        return Moved(Peer(PROVIDER, PeerId(peer(old))), old, new, self._people.knows_chat(old))

    def _stranger(self, message: Message) -> Stranger:
        name = content.sender(message)
        if message.from_user and message.from_user.username:
            name = f"{name} (@{message.from_user.username})"
        chat = message.chat.id
        if chat < 0:
            name = f"{content.one_line(message.chat.title or 'a group')}, asked for by {name}"
        return Stranger(_chat(message), message.message_id, peer(self._moves.origin(chat)), name)

    def _peer(self, message: Message) -> Peer:
        chat = _chat(message)
        if chat.topic is not None and not chat.private:
            return Peer(PROVIDER, PeerId(f"{peer(chat.id)}:topic:{chat.topic}"))
        return Peer(PROVIDER, PeerId(peer(self._moves.origin(chat.id))))


def _from_a_machine(message: Message) -> bool:
    """Channels, what is copied out of them, and other bots: two that answer each other never end."""
    if message.chat.type == ChatType.CHANNEL or message.is_automatic_forward:
        return True
    user = message.from_user
    return user is not None and user.is_bot and message.sender_chat is None


def _check(message: Message) -> None:
    numbers = (message.chat.id, message.message_id, message.message_thread_id or 0)
    senders = (message.from_user, message.sender_chat)
    if any(type(number) is not int for number in numbers + tuple(who.id for who in senders if who)):
        raise BadUpdate("an id is no number")


def _chat(message: Message) -> Chat:
    topic = message.message_thread_id if message.is_topic_message else None
    return Chat(message.chat.id, None if topic == _GENERAL else topic)


def _id(message: Message) -> MessageId:
    return MessageId(f"{message.chat.id}_{message.message_id}")


def _named(message: Message, text: str) -> str:
    """In a group, who says it comes first."""
    if message.chat.type == ChatType.PRIVATE:
        return text
    return f"{content.sender(message)}:{chr(10) if text.startswith(('>', '[')) else ' '}{text}"
