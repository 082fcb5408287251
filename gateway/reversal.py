"""Taking back what was said last, and asking it again: events alone, nothing is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from channels.base import Receipt
from channels.errors import Refused
from channels.letters import shortened
from channels.wire import MAX_TEXT
from gateway.lane import Lane
from gateway.rules import Again
from session.events import System, User
from session.exchange import Exchange

NOTHING_TO_UNDO = "There is nothing to take back."
NOTHING_TO_ASK = "There is nothing to ask again."
UNANSWERED = "The last message is not answered yet. /stop ends the reply that is being written."
SUMMARISED = "What was said before this is part of a summary and cannot be taken back. /new begins anew."
_SHOWN = 80  # characters of what was taken back, in the answer


async def undo(lane: Lane, id: str) -> str:
    """Hide the last exchange from the model, as message `id`; it is stopped if it runs. Raises `Refused`."""
    exchange = _last(lane)
    if _unanswered(lane, exchange):
        return UNANSWERED
    if exchange is None:
        return NOTHING_TO_UNDO
    if exchange.covered:
        return SUMMARISED
    running = not exchange.closed
    with _hidden(lane, exchange):
        await lane.record([System(name="undo", turn=exchange.turn, id=id)])
    shown = shortened(" ".join(_question(exchange).split()), _SHOWN)
    answer = "the reply that was being written" if running else "what came of it"
    return f"Taken back: “{shown}” and {answer}. I no longer see it; the transcript keeps it."


async def again(lane: Lane, id: str) -> Receipt | str:
    """Ask the last question once more, as message `id`, in place of the first time. Raises `Refused`."""
    if receipt := await lane.repeat(id):
        return receipt
    exchange = _last(lane)
    if _unanswered(lane, exchange):
        return UNANSWERED
    if exchange is None:
        return NOTHING_TO_ASK
    if len((question := _question(exchange)).encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise Refused("text_too_large", "The last question is too long to be asked again at once.")
    of = tuple(one for message in exchange.asked for one in _origin(message))
    return await _instead(lane, id, question, of, exchange)


async def anew(lane: Lane, id: str, asked: User) -> Receipt:
    """Ask a message once more; in place of the first time if that was asked last, alone. Raises `Refused`."""
    exchange = _last(lane)
    if exchange and [message.id for message in exchange.asked] == [asked.id]:
        return await _instead(lane, id, asked.content, _origin(asked), exchange)
    return await lane.submit(id, asked.content, again=Again(_origin(asked), None))


async def _instead(lane: Lane, id: str, text: str, of: tuple[str, ...], exchange: Exchange) -> Receipt:
    if exchange.covered:
        return await lane.submit(id, text, again=Again(of, None))
    with _hidden(lane, exchange):
        return await lane.submit(id, text, again=Again(of, exchange.turn))


@contextmanager
def _hidden(lane: Lane, exchange: Exchange) -> Iterator[None]:
    """At once, so that another one goes a step further back; the event that says so is stored meanwhile."""
    exchange.hidden = True
    if not exchange.closed:
        lane.stop()
    try:
        yield
    except BaseException:
        exchange.hidden = False
        raise


def _last(lane: Lane) -> Exchange | None:
    running = lane.conversation.running
    return lane.conversation.window.last(running.turn if running else None)


def _unanswered(lane: Lane, exchange: Exchange | None) -> bool:
    """Whether there are newer messages, that no turn has taken in yet."""
    asked = {message.id for message in exchange.asked} if exchange else set()
    return any(id not in asked for id in lane.conversation.open)


def _origin(message: User) -> tuple[str, ...]:
    """The messages that were asked first, with which files may have come."""
    return message.of or ((message.id,) if message.id else ())


def _question(exchange: Exchange) -> str:
    return "\n\n".join(message.content for message in exchange.asked)
