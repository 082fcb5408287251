"""Finds an OpenAI-compatible server on this machine, for a gateway that was given neither address nor key."""

import asyncio
import re
from collections.abc import Sequence

import httpx2
import openai

from gateway.agent.brief import PLAIN, bounded
from gateway.agent.endpoint import Endpoint, is_local

# Where each serves by default, in the order of preference.
DEFAULTS = (
    "http://127.0.0.1:11434/v1",  # Ollama
    "http://127.0.0.1:8080/v1",  # llama.cpp
    "http://127.0.0.1:1234/v1",  # LM Studio
)
_LONGEST = 8 << 20  # bytes of a list; those that sell hundreds of models need one of them
_NOT_FOR_CHAT = re.compile(r"embed|rerank|whisper|\bbge-|\be5-|all-minilm|tts|moderation", re.IGNORECASE)


async def discover(candidates: Sequence[str] = DEFAULTS, timeout: float = 1.0) -> Endpoint | None:
    """The first candidate, in their order, that answers `/v1/models` properly within `timeout` seconds."""
    names = await asyncio.gather(*(served_model(base_url, timeout=timeout) for base_url in candidates))
    for base_url, name in zip(candidates, names, strict=True):
        if name is not None:
            return Endpoint(base_url=base_url, name=name)
    return None


async def served_model(base_url: str, *, api_key: str | None = None, timeout: float = 1.0) -> str | None:
    """The model that a server offers first for chatting; None if it is no OpenAI-compatible server.

    Anything may listen on these ports: only a JSON object whose `data` lists ids counts.
    """
    try:
        local = is_local(httpx2.URL(base_url).host)
        # On this machine nobody is in between: no proxy, and no certificates to be loaded.
        http_client = httpx2.AsyncClient(
            trust_env=not local,
            timeout=timeout,
            verify=not local,
            headers=PLAIN,
            event_hooks={"response": [_keep_short]},
        )
        # "none": a key of the environment is meant for somebody else.
        async with (
            openai.AsyncOpenAI(
                base_url=base_url, api_key=api_key or "none", max_retries=0, http_client=http_client
            ) as client,
            asyncio.timeout(timeout),
        ):
            page = await client.models.list()
    except Exception:  # whatever listens there may answer anything; the client raises accordingly
        return None
    return _chat_model(getattr(page, "data", None))


async def _keep_short(response: httpx2.Response) -> None:
    bounded(response, _LONGEST)


def _chat_model(listed: object) -> str | None:
    """`listed` is what the client built without checking it: any shape is possible."""
    if not isinstance(listed, list):
        return None
    ids = [getattr(entry, "id", None) for entry in listed]
    names = [id for id in ids if isinstance(id, str) and id]
    chatting = [name for name in names if not _NOT_FOR_CHAT.search(name)]
    return next(iter(chatting or names), None)
