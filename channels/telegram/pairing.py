"""Who the owner has let in: strangers get a code, the owner approves it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from channels.errors import ChannelError
from channels.telegram.journal import Fact, Journal
from channels.telegram.shared import Overtaken, SharedJournal

T = TypeVar("T")

FILE = "telegram-pairing.jsonl"
LIFETIME = 3600.0  # seconds that a code is good for
OPEN_PER_CHAT = 3
GUESSES = 10  # wrong codes in `_GUESSING` seconds
_GUESSING = 600.0
_AGAIN = 60.0  # seconds in which a chat gets no second code: what it was told is still on its screen
_OPEN_AT_ALL = 1000
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without what is mistaken for something else
_LENGTH = 6
_NAME = 64


class TooManyGuesses(ChannelError):
    """So many codes were wrong that none is tried for a while; `retry_after` in seconds."""

    def __init__(self, retry_after: float) -> None:
        self.public = f"Too many wrong codes. Please try again in {max(1, round(retry_after / 60))} min."
        super().__init__(self.public)
        self.retry_after = retry_after


class Code(NamedTuple):
    """What a stranger was told; `expires` in Unix seconds."""

    code: str
    peer: str
    name: str
    expires: float


class Guest(NamedTuple):
    """A peer (`user:<id>`, `chat:<id>`) whom the owner has let in, and since when (Unix seconds)."""

    peer: str
    name: str
    since: float


class _Book:
    """What the facts so far come to."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.guests: dict[str, Guest] = {}
        self.codes: dict[str, Code] = {}
        self.untold: set[str] = set()  # guests that do not know it yet
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: Fact) -> None:
        match fact:
            case {
                "knock": str(peer),
                "code": str(code),
                "name": str(name),
                "expires": int() | float() as end,
            }:
                self.codes[code] = Code(code, peer, name, end)
            case {"approve": str(peer), "name": str(name), "since": int() | float() as since}:
                self.guests[peer] = Guest(peer, name, since)
                if fact.get("untold"):
                    self.untold.add(peer)
                self.codes = {text: code for text, code in self.codes.items() if code.peer != peer}
            case {"revoke": str(peer)}:
                self.guests.pop(peer, None)
                self.untold.discard(peer)
            case {"told": str(peer)}:
                self.untold.discard(peer)

    def expire(self, now: float) -> None:
        # Also what a clock that was set back makes last too long.
        self.codes = {text: code for text, code in self.codes.items() if now < code.expires <= now + LIFETIME}

    def facts(self) -> list[Fact]:
        """As few as come to the same."""
        codes = [
            {"knock": code.peer, "code": code.code, "name": code.name, "expires": code.expires}
            for code in self.codes.values()
        ]
        guests = [
            {"approve": g.peer, "name": g.name, "since": g.since, "untold": g.peer in self.untold}
            for g in self.guests.values()
        ]
        return [*guests, *codes]


class Pairing:
    """The approvals and the open codes, kept in one journal; `clock` gives Unix seconds.

    `refresh` before anything else. Methods that change something wait for the disk or the store, raise
    `OSError`, and may be called from any thread (with a `SharedJournal`, not from the loop's).
    """

    def __init__(self, journal: Journal | SharedJournal, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._book = _Book()  # exchanged at one stroke: `approved` is asked by other threads meanwhile
        self._told: set[str] = set()  # codes that strangers were told in this life
        self._telling: set[str] = set()  # guests that this life is telling that they were let in
        self._wrong: deque[float] = deque(maxlen=GUESSES)
        self.on_approved: Callable[[], object] | None = None  # set by the channel; called from any thread

    def refresh(self) -> None:
        """Take in what is kept, and was changed by other nodes; raises `OSError`."""
        with self._lock:
            self._renew()

    def _renew(self) -> None:
        if (facts := self._journal.news()) is None:
            return
        book = _Book(facts)
        if len(facts) >= self._journal.compact_at:
            book.expire(self._clock())
            try:
                self._journal.replace(book.facts())
            except Overtaken:
                pass  # the facts stay as they are until somebody has the time
        self._book = book

    def _decided(self, decide: Callable[[], T]) -> T:
        """What is decided, and recorded, on facts that no other node has changed meanwhile."""
        with self._lock:
            while True:
                self._renew()
                now = self._clock()
                self._book.expire(now)
                self._told &= self._book.codes.keys()
                try:
                    return decide()
                except Overtaken:
                    continue

    def _record(self, *facts: Fact) -> None:
        self._journal.append(*facts)
        for fact in facts:
            self._book.apply(fact)

    # -- strangers -------------------------------------------------------------------------------

    def knock(self, peer: str, name: str) -> Code | None:
        """A new code for a stranger; None for one that has enough of them, or got one just now."""
        return self._decided(lambda: self._knock(peer, name, self._clock()))

    def _knock(self, peer: str, name: str, now: float) -> Code | None:
        codes = self._book.codes
        mine = [code for code in codes.values() if code.peer == peer]
        if fresh := next((code for code in mine if code.expires - LIFETIME > now - _AGAIN), None):
            # An earlier life may have ended between the code and the message that tells it.
            return None if fresh.code in self._told else self._tell(fresh)
        if len(mine) >= OPEN_PER_CHAT or len(codes) >= _OPEN_AT_ALL:
            return None
        text = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        code = Code(text, peer, " ".join(name.split())[:_NAME], now + LIFETIME)
        self._record({"knock": peer, "code": text, "name": code.name, "expires": code.expires})
        return self._tell(code)

    def _tell(self, code: Code) -> Code:
        self._told.add(code.code)
        return code

    def approved(self, peer: str) -> bool:
        """Whether the owner has let this peer in, as far as the last `refresh` knows."""
        return peer in self._book.guests

    # -- the owner -------------------------------------------------------------------------------

    def approve(self, code: str) -> str | None:
        """Let in whoever was told this code and return the peer; None for a wrong or expired one.

        Raises `TooManyGuesses`.
        """
        try:
            peer = self._decided(lambda: self._approve(code, self._clock()))
        except OSError:
            self._ring()  # a store that did not answer may have taken it all the same
            raise
        if peer is not None:
            self._ring()
        return peer

    def _ring(self) -> None:
        if self.on_approved:
            self.on_approved()

    def _approve(self, code: str, now: float) -> str | None:
        if len(self._wrong) == GUESSES and (left := self._wrong[0] + _GUESSING - now) > 0:
            raise TooManyGuesses(left)
        found = self._book.codes.get(code.strip().replace("-", "").upper())
        if found is None:
            self._wrong.append(now)
            return None
        self._record({"approve": found.peer, "name": found.name, "since": now, "untold": True})
        return found.peer

    def to_tell(self) -> list[str]:
        """The peers that were let in and do not know it; each is given out once in a life."""
        with self._lock:
            self._telling &= self._book.untold
            peers = sorted(self._book.untold - self._telling)
            self._telling.update(peers)
            return peers

    def told(self, peer: str) -> None:
        """It knows now. Behind the message, not before: a crash between the two tells it twice, not never."""
        self._decided(lambda: self._record({"told": peer}) if peer in self._book.untold else None)

    def revoke(self, peer: str) -> bool:
        """Let a peer in no more; False where it was not let in."""
        return self._decided(lambda: self._revoke(peer))

    def _revoke(self, peer: str) -> bool:
        if peer not in self._book.guests:
            return False
        self._record({"revoke": peer})
        return True

    def waiting(self) -> list[Code]:
        """The codes that are open, oldest first."""
        return self._decided(lambda: list(self._book.codes.values()))

    def all(self) -> list[Guest]:
        """Everybody whom the owner has let in, oldest first."""
        return self._decided(lambda: list(self._book.guests.values()))
