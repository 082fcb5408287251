"""Tool calls, put together from the pieces in which a stream brings them."""

import json
import uuid
from typing import Any

import msgspec

from gateway.agent.reply import Call

MOST = 64  # calls of one reply; the runner makes fewer


class FunctionPart(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # an object: servers that forget to make it a string


class CallPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class _Growing:
    def __init__(self, index: int | None, id: str | None) -> None:
        self.index = index
        self.id = id
        self.name = ""
        self.arguments: list[str] = []


class CallParts:
    """The calls of one reply, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[_Growing] = []
        self.size = 0  # characters of their arguments so far
        self.too_many = False

    @property
    def nameless(self) -> bool:
        return any(not call.name for call in self._calls)

    def add(self, parts: list[CallPart]) -> None:
        for part in parts:
            call = self._belongs_to(part)
            if call is None and len(self._calls) == MOST:
                self.too_many = True
                return
            if call is None:
                call = _Growing(part.index, part.id)
                self._calls.append(call)
            call.id = call.id or part.id
            if part.function is None:
                continue
            # Only the first name counts: some servers repeat it in each piece.
            call.name = call.name or part.function.name or ""
            arguments = part.function.arguments
            if isinstance(arguments, dict):
                arguments = json.dumps(arguments, ensure_ascii=False)
            if arguments:
                call.arguments.append(arguments)
                self.size += len(arguments)

    def whole(self) -> tuple[Call, ...]:
        return tuple(
            Call(call.name, "".join(call.arguments), call.id or f"call_{uuid.uuid4().hex[:24]}")
            for call in self._calls
        )

    def _belongs_to(self, part: CallPart) -> _Growing | None:
        """The call that a piece continues. A new id begins a new call, even under an index in use."""
        if part.index is None:
            if not self._calls:
                return None
            last = self._calls[-1]
            if part.id:
                return last if part.id == last.id else None
            return None if part.function is not None and part.function.name else last
        for call in reversed(self._calls):
            if call.index == part.index:
                return None if part.id and call.id and part.id != call.id else call
        return None
