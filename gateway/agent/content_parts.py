"""Attachments as content parts of Chat Completions, for models that see."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from gateway.agent.attachments import Attachment, Attachments
from gateway.agent.model_errors import BadRequest, ModelError, ModelMisconfigured, ModelServerFault
from session.events import User
from session.ids import SessionId

log = structlog.get_logger(__name__)

MAX_IMAGES = 4
MAX_BYTES = 20 << 20  # of all that one request carries, before base64
MAX_TEXT = 64 << 10
IMAGES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
PDF = "application/pdf"
TEXT = "text/plain"

Message = dict[str, Any]
Part = dict[str, Any]
Parts = Mapping[str, Sequence[Part]]  # by message id
NO_PARTS: Parts = {}


class _Chosen(NamedTuple):
    message: str
    attachment: Attachment


class ContentParts:
    """What a turn's model sees besides text."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    async def of(self, session: SessionId, earlier: Iterable[User], current: Sequence[User]) -> Parts:
        """The content parts of messages, oldest first; those of `current` are waited for.

        The newest come first where they are too many or too large: the others keep the line in their text.
        """
        await asyncio.gather(
            *(
                self._attachments.fetched(session, message.id, message.content)
                for message in current
                if message.id
            )
        )
        found = [
            _Chosen(message.id, attachment)
            for message in (*earlier, *current)
            if message.id
            for source in message.of or (message.id,)
            for attachment in await self._attachments.kept(session, source, message.content)
        ]
        chosen = _newest(found)
        return await asyncio.to_thread(_parts, chosen) if chosen else NO_PARTS


def _newest(found: Sequence[_Chosen]) -> list[_Chosen]:
    """As many as a request may carry, in their order."""
    chosen: list[_Chosen] = []
    images = size = 0
    for candidate in reversed(found):
        attachment = candidate.attachment
        if attachment.mime not in IMAGES | {PDF, TEXT}:
            continue
        takes = min(attachment.size, MAX_TEXT) if attachment.mime == TEXT else attachment.size
        images += attachment.mime in IMAGES
        size += takes
        if images > MAX_IMAGES or size > MAX_BYTES:
            log.info("an older attachment is not shown to the model again", file=attachment.name)
            break
        chosen.append(candidate)
    return chosen[::-1]


def _parts(chosen: Iterable[_Chosen]) -> Parts:
    parts: dict[str, list[Part]] = {}
    for message, attachment in chosen:
        try:
            parts.setdefault(message, []).append(_part(attachment))
        except OSError as error:
            log.warning("an attachment cannot be read", file=attachment.name, error=str(error))
    return parts


def _part(attachment: Attachment) -> Part:
    if attachment.mime == TEXT:
        return {"type": "text", "text": _inline(attachment)}
    data = base64.b64encode(attachment.read(MAX_BYTES)).decode("ascii")
    url = f"data:{attachment.mime};base64,{data}"
    if attachment.mime == PDF:
        return {"type": "file", "file": {"filename": attachment.name, "file_data": url}}
    return {"type": "image_url", "image_url": {"url": url}}


def _inline(attachment: Attachment) -> str:
    text = attachment.read(MAX_TEXT).decode("utf-8", "ignore")
    cut = f"\n[cut: {attachment.size} bytes in all]" if attachment.size > MAX_TEXT else ""
    return f"[{attachment.name}]\n{text}{cut}"


def with_parts(text: str, parts: Sequence[Part]) -> Message:
    """What a person said, and what came with it."""
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts] if parts else text}


def has_parts(messages: Iterable[Message]) -> bool:
    """Whether any message carries more than text."""
    return any(isinstance(message.get("content"), list) for message in messages)


def without_parts(messages: Iterable[Message]) -> list[Message]:
    """The same messages as text alone; those without parts are not copied."""
    return [
        {**message, "content": message["content"][0]["text"]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def parts_refused(failure: ModelError) -> bool:
    """Whether a failure may be about what came with the text: any 400 may, others where they say so."""
    if isinstance(failure, BadRequest):
        return True
    # OpenRouter answers 404, llama.cpp without a projector 500.
    return isinstance(failure, ModelMisconfigured | ModelServerFault) and any(
        word in str(failure).lower() for word in ("image", "vision", "multimodal", "multi-modal")
    )
