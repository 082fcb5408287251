"""A request that fits into the model's context: what is left out, what is cut, and how tokens are guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gateway.agent import estimate
from gateway.agent.reply import Finish
from gateway.turn import ContextUse
from session.exchange import Exchange

Message = dict[str, Any]

_UNKNOWN = 1.25  # actual tokens for an estimated one, before a model has reported any
# What a server may report for an estimated token and be believed: some leave out what they had in a cache.
_BOUNDS = (0.8, 4.0)
_REPLY = 8192  # tokens that are left for the reply, in a context that is large enough
_SHORTEST = 200  # characters that are left of a text, however little room there is
LONG = 4000  # characters of a text that is cut where a server says that the request is too long


class Gauge:
    """Guesses tokens, model by model, from what each has reported of its last request."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def learn(self, model: str, estimated: int, reported: int) -> None:
        """What a request took that was estimated before."""
        least, most = _BOUNDS
        self._ratios[model] = min(max(reported / max(estimated, 1), least), most)

    def tokens(self, model: str, estimated: int) -> int:
        """About how many tokens an estimate stands for."""
        return round(estimated * self._ratios.get(model, _UNKNOWN))

    def room(self, model: str, context: int) -> int:
        """How many estimated tokens a request may have, so that the reply has room behind it."""
        return int((context - min(context // 4, _REPLY)) / self._ratios.get(model, _UNKNOWN))


class Fitted(NamedTuple):
    """A request's messages, the exchanges of the history that it holds, and its estimated tokens."""

    messages: list[Message]
    history: list[Exchange]
    tokens: int


def fit(
    render: Callable[[list[Exchange]], list[Message]],
    history: list[Exchange],
    tools: Sequence[dict[str, Any]],
    room: int | None,
) -> Fitted:
    """As much of the history as fits, the newest of it: whole exchanges alone.

    Where even none is too much, the longest texts of what is asked now are cut in their middle. `room`: in
    estimated tokens; None: no bound is known.
    """

    def fitted(dropped: int) -> Fitted:
        messages = render(history[dropped:])
        return Fitted(messages, history[dropped:], estimate.tokens(messages, tools))

    whole = fitted(0)
    if room is None or whole.tokens <= room:
        return whole
    least, most = 1, len(history)
    while least < most:
        middle = (least + most) // 2
        if fitted(middle).tokens <= room:
            most = middle
        else:
            least = middle + 1
    found = fitted(len(history) if not history else most)
    if found.tokens <= room:
        return found
    messages = cut(found.messages, room - estimate.tokens([], tools))
    return Fitted(messages, found.history, estimate.tokens(messages, tools))


class Fitting:
    """One turn's requests to one model. `render`: the messages of a request that holds this history."""

    def __init__(
        self,
        render: Callable[[list[Exchange]], list[Message]],
        history: list[Exchange],
        tools: Sequence[dict[str, Any]],
        model: tuple[str, int | None],
        gauge: Gauge,
    ) -> None:
        self._render = render
        self._history = history
        self._all = len(history)
        self._tools = tools
        self._model, self._context = model
        self._gauge = gauge
        self._fitted = Fitted([], [], 0)
        self._reported = 0
        self._shortened = False

    def messages(self) -> list[Message]:
        """The next request's."""
        room = self._gauge.room(self._model, self._context) if self._context else None
        self._fitted = fit(self._rendered, self._history, self._tools, room)
        return self._fitted.messages

    def _rendered(self, history: list[Exchange]) -> list[Message]:
        messages = self._render(history)
        return halved(messages) if self._shortened else messages

    def shorten(self) -> bool:
        """The server says that it is too long: leave out half of the history, and of each long text.

        Once; False where that cannot help.
        """
        shown = self._fitted.history
        if self._shortened or not (shown or has_long(self._fitted.messages)):
            return False
        self._shortened = True
        self._history = shown[(len(shown) + 1) // 2 :]
        return True

    def learn(self, finish: Finish) -> None:
        """The server's own count, where it gave one."""
        usage = finish.usage
        if usage and usage.input and not usage.estimated:
            self._reported = usage.input
            self._gauge.learn(self._model, self._fitted.tokens, usage.input)

    @property
    def use(self) -> ContextUse:
        """What the last request took."""
        shown = min(self._fitted.history, self._history, key=len)
        room = sum(exchange.size for exchange in shown) if len(shown) < self._all else None
        tokens = self._reported or self._gauge.tokens(self._model, self._fitted.tokens)
        return ContextUse(tokens, self._context, room)


def cut(messages: list[Message], room: int) -> list[Message]:
    """The messages with their longest texts cut, to the same length, so that all fit as far as they can."""
    least, most = _SHORTEST, max(map(_longest, messages), default=0)
    while least < most:
        middle = (least + most + 1) // 2
        if estimate.tokens(capped(messages, middle)) <= room:
            least = middle
        else:
            most = middle - 1
    return capped(messages, least)


def halved(messages: Iterable[Message]) -> list[Message]:
    """The messages with each text that is long cut to half of it."""
    return [_each(message, lambda text: middle(text, max(LONG, len(text) // 2))) for message in messages]


def has_long(messages: Iterable[Message]) -> bool:
    """Whether `halved` changes anything."""
    return any(_longest(message) > LONG for message in messages)


def capped(messages: Iterable[Message], length: int) -> list[Message]:
    """The messages with no text, but for the system prompt, of more characters than so many."""
    return [_each(message, lambda text: middle(text, length)) for message in messages]


def middle(text: str, length: int) -> str:
    """The text, or its beginning and end with a mark between them."""
    if len(text) <= length:
        return text
    head = length // 2
    tail = length - head
    return f"{text[:head]}\n[… {len(text) - length:,} characters left out …]\n{text[-tail:]}"


def _each(message: Message, change: Callable[[str], str]) -> Message:
    if message["role"] == "system":
        return message
    match message.get("content"):
        case str(text):
            return {**message, "content": change(text)}
        case list(parts):
            return {**message, "content": [_part(part, change) for part in parts]}
    return message


def _part(part: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {**part, "text": change(part["text"])} if part.get("type") == "text" else part


def _longest(message: Message) -> int:
    longest = 0

    def measure(text: str) -> str:
        nonlocal longest
        longest = max(longest, len(text))
        return text

    _each(message, measure)
    return longest
