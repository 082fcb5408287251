"""Who the owner has let in: strangers get a code, the owner approves it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from channels.errors import ChannelError
from channels.telegram.journal import Fact, Journal

FILE = "telegram-pairing.jsonl"
LIFETIME = 3600.0  # seconds that a code is good for
OPEN_PER_CHAT = 3
GUESSES = 10  # wrong codes in `_GUESSING` seconds
_GUESSING = 600.0
_AGAIN = 60.0  # seconds in which a chat gets no second code: what it was told is still on its screen
_OPEN_AT_ALL = 1000
_COMPACT_AT = 2000  # lines
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


class Pairing:
    """The approvals and the open codes, kept in one file by `path`; `clock` gives Unix seconds.

    Methods that change something wait for the disk, raise `OSError`, and may be called from any thread.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._journal = Journal(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._guests: dict[str, Guest] = {}
        self._codes: dict[str, Code] = {}
        self._told: set[str] = set()  # codes that strangers were told in this life
        self._untold: set[str] = set()  # guests that do not know it yet
        self._wrong: deque[float] = deque(maxlen=GUESSES)
        self.on_approved: Callable[[], object] | None = None  # set by the channel; called from any thread
        facts = self._journal.read()
        for fact in facts:
            self._apply(fact)
        if len(facts) >= _COMPACT_AT:
            self._compact()

    # -- strangers -------------------------------------------------------------------------------

    def knock(self, peer: str, name: str) -> Code | None:
        """A new code for a stranger; None for one that has enough of them, or got one just now."""
        with self._lock:
            now = self._clock()
            self._expire(now)
            mine = [code for code in self._codes.values() if code.peer == peer]
            if fresh := next((code for code in mine if code.expires - LIFETIME > now - _AGAIN), None):
                # An earlier life may have ended between the code and the message that tells it.
                return None if fresh.code in self._told else self._tell(fresh)
            if len(mine) >= OPEN_PER_CHAT or len(self._codes) >= _OPEN_AT_ALL:
                return None
            text = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
            code = Code(text, peer, " ".join(name.split())[:_NAME], now + LIFETIME)
            self._record({"knock": peer, "code": text, "name": code.name, "expires": code.expires})
            return self._tell(code)

    def _tell(self, code: Code) -> Code:
        self._told.add(code.code)
        return code

    def approved(self, peer: str) -> bool:
        """Whether the owner has let this peer in."""
        return peer in self._guests

    # -- the owner -------------------------------------------------------------------------------

    def approve(self, code: str) -> str | None:
        """Let in whoever was told this code and return the peer; None for a wrong or expired one.

        Raises `TooManyGuesses`.
        """
        with self._lock:
            now = self._clock()
            self._expire(now)
            if len(self._wrong) == GUESSES and (left := self._wrong[0] + _GUESSING - now) > 0:
                raise TooManyGuesses(left)
            found = self._codes.get(code.strip().replace("-", "").upper())
            if found is None:
                self._wrong.append(now)
                return None
            self._record({"approve": found.peer, "name": found.name, "since": now, "untold": True})
        if self.on_approved:
            self.on_approved()
        return found.peer

    def to_tell(self) -> list[str]:
        """The peers that were let in and do not know it; each is given out once, also over a restart."""
        with self._lock:
            peers = sorted(self._untold)
            for peer in peers:
                self._record({"told": peer})
            return peers

    def revoke(self, peer: str) -> bool:
        """Let a peer in no more; False where it was not let in."""
        with self._lock:
            if peer not in self._guests:
                return False
            self._record({"revoke": peer})
            return True

    def waiting(self) -> list[Code]:
        """The codes that are open, oldest first."""
        with self._lock:
            self._expire(self._clock())
            return list(self._codes.values())

    def all(self) -> list[Guest]:
        """Everybody whom the owner has let in, oldest first."""
        with self._lock:
            return list(self._guests.values())

    # -- the file --------------------------------------------------------------------------------

    def _record(self, fact: Fact) -> None:
        self._journal.append(fact)
        self._apply(fact)

    def _apply(self, fact: Fact) -> None:
        match fact:
            case {
                "knock": str(peer),
                "code": str(code),
                "name": str(name),
                "expires": int() | float() as end,
            }:
                self._codes[code] = Code(code, peer, name, end)
            case {"approve": str(peer), "name": str(name), "since": int() | float() as since}:
                self._guests[peer] = Guest(peer, name, since)
                if fact.get("untold"):
                    self._untold.add(peer)
                self._codes = {text: code for text, code in self._codes.items() if code.peer != peer}
            case {"revoke": str(peer)}:
                self._guests.pop(peer, None)
                self._untold.discard(peer)
            case {"told": str(peer)}:
                self._untold.discard(peer)

    def _expire(self, now: float) -> None:
        # Also what a clock that was set back makes last too long.
        self._codes = {
            text: code for text, code in self._codes.items() if now < code.expires <= now + LIFETIME
        }
        self._told &= self._codes.keys()

    def _compact(self) -> None:
        self._expire(self._clock())
        codes = [
            {"knock": code.peer, "code": code.code, "name": code.name, "expires": code.expires}
            for code in self._codes.values()
        ]
        guests = [
            {"approve": g.peer, "name": g.name, "since": g.since, "untold": g.peer in self._untold}
            for g in self._guests.values()
        ]
        self._journal.replace([*guests, *codes])
