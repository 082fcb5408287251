"""Telegram as one bot sees it, without the HTTP in front: people, chats, files, updates, limits, faults."""

import itertools
import time
from collections.abc import Callable

from tests.fakes.telegram_access import member
from tests.fakes.telegram_chats import Chat, Message, Sequence
from tests.fakes.telegram_checks import Entities, Json, Refusal
from tests.fakes.telegram_faults import Fault, Faults, Planned, Predicate
from tests.fakes.telegram_files import Files
from tests.fakes.telegram_limits import Limits
from tests.fakes.telegram_people import Person, Place
from tests.fakes.telegram_updates import SET_WEBHOOK, Update, Updates, Webhook


class World:
    """clock: Unix seconds; dates, flood waits, rates and the age of updates go by it, pauses by real time.
    retry_pause: seconds, see `Webhook`."""

    def __init__(
        self,
        token: str,
        *,
        username: str = "lunar_bot",
        clock: Callable[[], float] = time.time,
        retry_pause: float = 0.05,
    ) -> None:
        self.token = token
        self.clock = clock
        self.retry_pause = retry_pause
        bot_id = int(token.partition(":")[0])
        self.bot_user: Json = {"id": bot_id, "is_bot": True, "first_name": "Lunar", "username": username}
        self.updates = Updates(clock)
        self.limits = Limits(clock)
        self.files = Files(clock)
        self.faults = Faults()
        self.chats: dict[int, Chat] = {}
        self.people: dict[int, Person] = {}
        self.commands: dict[str, list[Json]] = {}
        self.open_queries: set[str] = set()  # callback queries that wait for their answer
        self.popups: dict[str, str] = {}  # what was shown to whoever pressed a button, by the query
        self.logged_out = False
        self._sequence = Sequence()
        self._numbers = itertools.count(1)

    def user(
        self,
        user_id: int,
        first_name: str = "Ann",
        username: str | None = None,
        *,
        language: str = "en",
        known: bool = True,
    ) -> Person:
        """The person with this id. known: wrote to the bot before; otherwise "chat not found" until then."""
        if user_id not in self.people:
            names: Json = {"first_name": first_name} | ({"username": username} if username else {})
            api = {"id": user_id, "is_bot": False, "language_code": language} | names
            chat = Chat(user_id, "private", self.clock, self._sequence, names, known=known)
            self.chats[user_id] = chat
            self.people[user_id] = Person(self, api, chat)
        return self.people[user_id]

    def group(
        self,
        chat_id: int,
        title: str = "Group",
        *,
        forum: bool = False,
        supergroup: bool = False,
        members: tuple[Person, ...] = (),
    ) -> Place:
        """Ids below -1,000,000,000,000 are supergroups, as in the Bot API; a forum is one."""
        if chat_id in self.chats:
            return Place(self, self.chats[chat_id])
        wide = supergroup or forum or chat_id < -1_000_000_000_000
        sequence = Sequence(1 if forum else 0) if wide else self._sequence  # 1 stands for the general topic
        chat = Chat(
            chat_id, "supergroup" if wide else "group", self.clock, sequence, {"title": title}, forum=forum
        )
        chat.members = {person.id: "member" for person in members}
        self.chats[chat_id] = chat
        return Place(self, chat)

    def channel(self, chat_id: int, title: str = "Channel", *, status: str = "administrator") -> Place:
        chat = Chat(chat_id, "channel", self.clock, Sequence(), {"title": title}, bot_status=status)
        self.chats[chat_id] = chat
        return Place(self, chat)

    def chat_named(self, name: str) -> Chat | None:
        """By @username."""
        wanted = name.removeprefix("@").lower()
        return next((c for c in self.chats.values() if c.names.get("username", "").lower() == wanted), None)

    def message(self, chat: Chat, message: Message | int) -> Message:
        found = message if isinstance(message, Message) else chat.find(message)
        if found is None:
            raise KeyError(f"chat {chat.id} has no message {message}")
        return found

    def receive(
        self,
        chat: Chat,
        sender: Json | None,
        text: str = "",
        *,
        entities: Entities | None = None,
        reply_to: Message | None = None,
        quote: Json | None = None,
        thread: int | None = None,
        extra: Json | None = None,
    ) -> Message:
        """A message from a person (or a channel, or Telegram itself), and its update if the bot is there."""
        if chat.migrated_to is not None:
            raise ValueError(f"group {chat.id} is a supergroup now: {chat.migrated_to}")
        if thread in chat.topics and reply_to is None:
            reply_to = chat.find(thread)  # every message in a topic "replies" to the one that opened it
        message = chat.add(
            sender,
            text,
            entities=entities or [],
            reply_to=reply_to,
            quote=quote,
            thread=chat.thread_of(reply_to) if thread is None else thread,
            extra=extra or {},
        )
        chat.known = True
        if sender and chat.type != "private":
            chat.members.setdefault(sender["id"], "member")
        if chat.bot_status not in ("left", "kicked"):
            self.updates.push("channel_post" if chat.type == "channel" else "message", message.api(), chat.id)
        return message

    def status_change(self, chat: Chat, by: Json, user: Json, old: str, new: str) -> Json:
        """A Bot API ChatMemberUpdated."""
        return {
            "chat": chat.api(),
            "from": by,
            "date": int(self.clock()),
            "old_chat_member": member(user, old),
            "new_chat_member": member(user, new),
        }

    def change_bot_status(self, chat: Chat, status: str, *, by: Json) -> None:
        change = self.status_change(chat, by, self.bot_user, chat.bot_status, status)
        chat.bot_status = status
        self.updates.push("my_chat_member", change, chat.id)

    def push_raw(self, body: Json) -> Update:
        """An update of any shape, also one that no library can parse."""
        return self.updates.push_raw(body)

    def restart_update_ids(self, first: int | None = None) -> None:
        self.updates.restart_ids(first)

    def flood(self, chat_id: int | None, seconds: float) -> None:
        """429 for whatever is written into this chat (None: any chat) until the clock has moved on."""
        self.limits.flood(chat_id, seconds)

    def fail(
        self, method: str, fault: Fault, *, times: int | None = 1, when: Predicate | None = None
    ) -> Planned:
        """Plans a fault for the next calls of a method ("*": any); times=None until `heal()` or `.stop()`."""
        return self.faults.plan(method, fault, times=times, when=when)

    def heal(self) -> None:
        """Ends all planned faults; what hangs already goes on hanging."""
        self.faults.heal()

    def unique(self) -> int:
        return 7_000_000 + next(self._numbers)

    async def set_webhook(self, url: str | None, secret: str, *, drop: bool, connections: int = 40) -> None:
        """Raises `Refusal` (400) for a number of connections out of range."""
        if not 1 <= connections <= 100:
            raise Refusal(400, "Bad Request: max_connections must be between 1 and 100")
        while old := self.updates.webhook:  # again: another call may have set one while the old one closed
            self.updates.webhook = None
            await old.close()
        if drop:
            self.updates.pending.clear()
        if url:
            self.updates.end_poll(SET_WEBHOOK)
            self.updates.webhook = Webhook(
                self.updates, url, secret, connections=connections, retry_pause=self.retry_pause
            )
