"""How fast a bot may write: in each chat, in all of them, and after Telegram said "too many".

The published limits (https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this): one
message a second in a private chat (short bursts are let through), 20 a minute in a group, 30 a second in
all. Edits count. A chat that has to wait holds no other one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from channels.telegram.errors import Flooded

_ALL = (30, 1.0)
_PRIVATE = (3, 3.0)
_GROUP = (20, 60.0)
_EDITS_PRIVATE = 1.0  # seconds between two edits of a reply that is being written
_EDITS_GROUP = 3.0
_SLOWEST = 16.0  # times as slow as usual, after one flood wait upon another
_RECOVERY = 0.8  # of the slowness is left by an edit that went well
_REMEMBERED = 1000  # chats, before those that are quiet are forgotten


class Window:
    """At most `limit` in any `seconds`; a place in it is given out in the order of asking."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def book(self, now: float) -> float:
        """Take the next place and return when it is."""
        full = len(self._times) == self._times.maxlen
        at = max(now, self._times[0] + self._seconds) if full else now
        self._times.append(at)
        return at

    def quiet(self, now: float) -> bool:
        """Whether it holds nothing back and remembers nothing that counts."""
        return not self._times or self._times[-1] + self._seconds <= now


class _Place:
    def __init__(self, chat_id: int) -> None:
        private = chat_id > 0
        self.window = Window(*(_PRIVATE if private else _GROUP))
        self.edits = _EDITS_PRIVATE if private else _EDITS_GROUP
        self.held_until = 0.0  # set by a flood wait
        self.slowness = 1.0


class Pace:
    """Says when the next call may be made. `clock` and `sleep` count seconds that never jump."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._all = Window(*_ALL)
        self._places: dict[int, _Place] = {}

    async def turn(self, chat_id: int, longest_hold: float) -> None:
        """Wait until this chat may be written to; raises `Flooded` where that is further off."""
        place = self._place(chat_id)
        while True:
            while (hold := place.held_until - self._clock()) > 0:
                if hold > longest_hold:
                    raise Flooded(f"flood wait for {hold:.0f} seconds more")
                await self._sleep(hold)
            await self._until(place.window.book(self._clock()))
            if place.held_until <= self._clock():
                break
        await self._until(self._all.book(self._clock()))

    def hold(self, chat_id: int, seconds: float) -> None:
        """Write nothing there for a while (429), and then less often."""
        place = self._place(chat_id)
        place.held_until = max(place.held_until, self._clock() + seconds)
        place.slowness = min(place.slowness * 2, _SLOWEST)

    def held(self, chat_id: int) -> bool:
        """Whether the chat waits out a 429."""
        return chat_id in self._places and self._places[chat_id].held_until > self._clock()

    def edited(self, chat_id: int) -> None:
        """An edit went well."""
        place = self._place(chat_id)
        place.slowness = max(1.0, place.slowness * _RECOVERY)

    def between_edits(self, chat_id: int) -> float:
        """How many seconds to leave between two edits of a reply that is being written."""
        place = self._place(chat_id)
        return place.edits * place.slowness

    async def _until(self, at: float) -> None:
        if (wait := at - self._clock()) > 0:
            await self._sleep(wait)

    def _place(self, chat_id: int) -> _Place:
        if chat_id not in self._places:
            if len(self._places) >= _REMEMBERED:
                self._forget_quiet()
            self._places[chat_id] = _Place(chat_id)
        return self._places[chat_id]

    def _forget_quiet(self) -> None:
        now = self._clock()
        for chat_id, place in list(self._places.items()):
            if place.window.quiet(now) and place.held_until <= now:
                del self._places[chat_id]
