"""What can go wrong between a bot and the Bot API: a value for each fault, and the plan that picks them.

A fault with `commit=True` happens after the call was carried out: the person sees it, the bot is not told.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.fakes.telegram_checks import Refusal, retry_after
from tests.fakes.telegram_parameters import Parameters
from tests.fakes.telegram_updates import OTHER_POLL

_HTML = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"
)
_REASONS = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"


class Exchange(Protocol):
    """One request that is being answered; the server implements it."""

    release: asyncio.Event

    async def execute(self) -> Answer: ...
    async def send(self, answer: Answer) -> None: ...
    async def send_slowly(self, answer: Answer, size: int, pause: float) -> None: ...
    def drop(self, *, reset: bool) -> None: ...


class Fault(Protocol):
    async def happen(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True)
class AnswerLost:
    """Carried out; the connection ends without an answer."""

    reset: bool = False

    async def happen(self, exchange: Exchange) -> None:
        await exchange.execute()
        exchange.drop(reset=self.reset)


@dataclass(frozen=True)
class Reset:
    """The connection is reset, and nothing was carried out."""

    async def happen(self, exchange: Exchange) -> None:
        exchange.drop(reset=True)


@dataclass(frozen=True)
class Hang:
    """Silence until `server.release` is set; carried out before it, or after it (a request that is stuck)."""

    commit: bool = False

    async def happen(self, exchange: Exchange) -> None:
        early = await exchange.execute() if self.commit else None
        await exchange.release.wait()
        await exchange.send(early or await exchange.execute())


@dataclass(frozen=True)
class Slow:
    """Takes `seconds`; carried out first with `commit`, otherwise after, even if the client has left."""

    seconds: float
    commit: bool = False

    async def happen(self, exchange: Exchange) -> None:
        early = await exchange.execute() if self.commit else None
        await asyncio.sleep(self.seconds)
        await exchange.send(early or await exchange.execute())


@dataclass(frozen=True)
class Html:
    """A gateway's page in place of JSON."""

    status: int = 502
    commit: bool = False

    async def happen(self, exchange: Exchange) -> None:
        if self.commit:
            await exchange.execute()
        page = _HTML.format(_REASONS.get(self.status, str(self.status)))
        await exchange.send(Answer(self.status, page.encode(), "text/html"))


@dataclass(frozen=True)
class Refuse:
    """An error in the API's own form, such as `Refuse(500, "Internal Server Error")`."""

    status: int
    description: str
    commit: bool = False

    async def happen(self, exchange: Exchange) -> None:
        if self.commit:
            await exchange.execute()
        refusal = Refusal(self.status, self.description)
        await exchange.send(Answer(self.status, json.dumps(refusal.envelope).encode()))


@dataclass(frozen=True)
class TooMany:
    """429 with `retry_after`."""

    seconds: int

    async def happen(self, exchange: Exchange) -> None:
        await exchange.send(Answer(429, json.dumps(retry_after(self.seconds).envelope).encode()))


@dataclass(frozen=True)
class Garbage:
    """Carried out; status 200, and a body that is no JSON (empty with `body=b""`)."""

    body: bytes = b"\x00\xff\xfenot json"

    async def happen(self, exchange: Exchange) -> None:
        await exchange.execute()
        await exchange.send(Answer(200, self.body))


@dataclass(frozen=True)
class Truncated:
    """Carried out; a complete HTTP answer whose JSON ends in the middle."""

    async def happen(self, exchange: Exchange) -> None:
        answer = await exchange.execute()
        await exchange.send(Answer(answer.status, answer.body[: len(answer.body) // 2]))


@dataclass(frozen=True)
class Trickle:
    """Carried out; the answer arrives in small pieces."""

    size: int = 16
    pause: float = 0.01

    async def happen(self, exchange: Exchange) -> None:
        await exchange.send_slowly(await exchange.execute(), self.size, self.pause)


Predicate = Callable[[Parameters], bool]


@dataclass
class Planned:
    """One entry of the plan; `stop()` takes it out."""

    method: str  # in lower case; "*" for every method
    fault: Fault
    left: int | None
    when: Predicate
    happened: int = 0

    def stop(self) -> None:
        self.left = 0


def unauthorized() -> Refuse:
    return Refuse(401, "Unauthorized")


def conflict() -> Refuse:
    return Refuse(409, OTHER_POLL)


@dataclass
class Faults:
    planned: list[Planned] = field(default_factory=list)

    def plan(self, method: str, fault: Fault, *, times: int | None, when: Predicate | None) -> Planned:
        entry = Planned(method.lower(), fault, times, when or (lambda _: True))
        self.planned.append(entry)
        return entry

    def heal(self) -> None:
        for entry in self.planned:
            entry.stop()
        self.planned.clear()

    def pick(self, method: str, parameters: Parameters) -> Fault | None:
        """The oldest entry that fits, used up by one."""
        for entry in self.planned:
            if entry.method in ("*", method) and entry.left != 0 and entry.when(parameters):
                entry.happened += 1
                if entry.left is not None:
                    entry.left -= 1
                return entry.fault
        return None
