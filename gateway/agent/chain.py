"""The models of an agent: the one that it asks, and those that it falls back on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace

from gateway.agent.content_parts import without_parts
from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import (
    BadRequest,
    ContentRefused,
    ContextTooLong,
    EmptyReply,
    ModelError,
    ModelUnreachable,
)
from gateway.agent.reply import Asked, Finish, Text
from session.events import Usage
from session.ids import SessionId

if TYPE_CHECKING:
    from gateway.agent.models import Models

log = structlog.get_logger(__name__)

# About the request, not about the model: another one is not asked, and no breaker counts them.
_OF_THE_REQUEST = (BadRequest, ContextTooLong, ContentRefused)
_PATIENCE = 2.0  # seconds that a server may ask us to wait while there is another model to ask
_SHORTEST_SHARE = 20.0  # seconds of the budget that each model has at least


class AgentModels:
    """A `gateway.agent.runner.ModelSource`: `own` are an agent's model and its fallbacks, in that order."""

    def __init__(self, models: Models, own: Sequence[str]) -> None:
        self.own = tuple(dict.fromkeys(own))
        self._models = models

    def names(self, chosen: str | None) -> tuple[str, ...]:
        """Whom to ask, in order: what the person chose comes first, if there is such a model."""
        if chosen is None or chosen not in self._models:
            return self.own
        return tuple(dict.fromkeys((chosen, *self.own)))

    def label(self, chosen: str | None = None) -> str:
        """The name, as people see it at this moment, of the model that is chosen, or else the agent's own."""
        return self._models.label(self.names(chosen)[0])

    def choices(self, *, every: bool) -> dict[str, str]:
        """What may be chosen: the agent's own models, or (by operators) every configured one."""
        names = dict.fromkeys((*self.own, *self._models)) if every else self.own
        return {name: self._models.label(name) for name in names}

    async def get(self, name: str | None, session: SessionId) -> Chain:
        """The model of this configured name, with the agent's own behind it."""
        if name is not None and name not in self._models:
            log.warning("the session's model is not configured any more", session=session, model=name)
        return Chain(self.names(name), self._models, session)


class Chain:
    """The models of one turn, as one: a `gateway.agent.runner.Answering`.

    Another model is asked when one is down, silent, out of quota or not set up; never for what is wrong with
    the request, and never once text was shown. All of them share one budget. A model whose breaker is open is
    asked after all others.
    """

    def __init__(self, names: Sequence[str], models: Models, session: SessionId) -> None:
        self._names = names
        self._models = models
        self._session = session

    @property
    def label(self) -> str:
        """The name of the model that is asked first."""
        return self._models.label(self._names[0])

    @property
    def vision(self) -> bool:
        """Whether any of them sees images and files."""
        return any(self._models.settings(name).vision for name in self._names)

    @property
    def context(self) -> int | None:
        """How many tokens the model takes that is asked next; None where that is not known."""
        return self._models.settings(self._order()[0]).context

    def _order(self) -> list[str]:
        """Those that are passed over come last: where no other answers, they are asked all the same."""
        return sorted(self._names, key=lambda name: self._models.breaker(name).passes_over)

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> AsyncGenerator[Asked | Text | Finish]:
        """As `gateway.agent.model.Model.ask`; the first model's error where none answers."""
        limits = self._models.limits
        clock = asyncio.get_running_loop().time
        ends, tries = clock() + limits.budget, limits.tries
        order, lost = self._order(), Usage()
        away = {name for name in order if self._models.breaker(name).passes_over}
        errors: list[ModelError] = []
        for place, name in enumerate(order):
            others = sum(other not in away for other in order[place + 1 :])
            share = _share(limits, tries, ends - clock(), others)
            if share is None:
                break
            taken = Usage()
            try:
                async with aclosing(self._ask(name, messages, tools, share)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Asked):
                            taken = piece.usage
                        yield _with(piece, lost)
                self._answered(name)
                return
            except _OF_THE_REQUEST:
                raise
            except ModelError as error:
                errors.append(error)
            lost += taken
            tries -= errors[-1].tries
            self._goes_on(order[place : place + 2], errors[-1])
        raise errors[0]

    async def _ask(
        self, name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], share: Limits
    ) -> AsyncGenerator[Asked | Text | Finish]:
        if not self._models.settings(name).vision:
            messages = without_parts(messages)
        breaker = self._models.breaker(name)
        breaker.begin()
        try:
            model = await self._models.get(name)
            async with aclosing(model.ask(messages, tools, share)) as pieces:
                async for piece in pieces:
                    if not isinstance(piece, Asked) and breaker.succeeded():
                        log.info("a model answers again", model=self._models.label(name))
                    yield piece
        except ModelError as error:
            if not isinstance(error, (*_OF_THE_REQUEST, EmptyReply)):
                self._failed(name, error)
            raise
        finally:
            breaker.end()

    def _failed(self, name: str, error: ModelError) -> None:
        general = isinstance(error, ModelUnreachable)
        why = error.health or f"it failed in several conversations ({type(error).__name__})"
        pause = self._models.breaker(name).failed(self._session, why, general=general)
        if pause is not None:
            label = self._models.label(name)
            log.warning("a model is passed over for now", model=label, seconds=pause, reason=str(error))

    def _goes_on(self, names: Sequence[str], error: ModelError) -> None:
        if len(names) > 1:
            failed, following = (self._models.label(name) for name in names)
            log.warning(
                "another model is asked",
                model=failed,
                next=following,
                session=self._session,
                reason=str(error),
            )

    def _answered(self, name: str) -> None:
        first = self._names[0]
        if name == first:
            self._models.stand_ins.pop(first, None)
        else:
            self._models.stand_ins[first] = name


def _share(limits: Limits, tries: int, seconds: float, others: int) -> Limits | None:
    """What one model may take of what is left, while so many others may be asked behind it."""
    if tries < 1 or seconds <= 0:
        return None
    if not others:
        return replace(limits, tries=tries, budget=seconds)
    return replace(
        limits,
        tries=max(1, tries // (others + 1)),
        budget=min(seconds, max(seconds / (others + 1), _SHORTEST_SHARE)),
        retry_after=min(limits.retry_after, _PATIENCE),
    )


def _with(piece: Asked | Text | Finish, lost: Usage) -> Asked | Text | Finish:
    """The piece, with what models took that gave no answer."""
    match piece:
        case Asked(usage):
            return Asked(lost + usage)
        case Finish(usage=usage):
            return replace(piece, usage=lost + usage if usage else lost)
    return piece
