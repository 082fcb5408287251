"""Updates as the fake server makes them, one by one, for what is tried without a channel."""

from typing import Any

from telegram import Message, Update, User

from channels.telegram.adapter import Adapter
from channels.telegram.journal import Journal
from channels.telegram.moves import FILE as MOVES
from channels.telegram.moves import Moves
from channels.telegram.pairing import FILE, Pairing
from channels.telegram.people import People
from tests.fakes.telegram_server import TelegramServer

ME = User(123456, "Lunar", is_bot=True, username="lunar_bot")
GROUP = -100


def drained(server: TelegramServer) -> list[dict[str, Any]]:
    """Every update that waits, as the bot would get it."""
    updates = [update.body for update in server.updates.pending]
    server.updates.pending.clear()
    return updates


def messages(server: TelegramServer) -> list[Message]:
    """Every message that waits, parsed."""
    parsed = [Update.de_json(update) for update in drained(server)]
    return [update.message for update in parsed if update.message is not None]


def adapter(folder: Any, allow: tuple[str, ...] | None = ("7", "8"), **settings: Any) -> Adapter:
    moves = Moves(Journal(folder / MOVES))
    people = People(allow, Pairing(Journal(folder / FILE)), moves.origin)
    return Adapter(ME, people, moves, ("new", "help"), **settings)
