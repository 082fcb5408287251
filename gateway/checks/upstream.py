"""Those whom the gateway depends on: each model, Telegram, and the time that they have."""

from __future__ import annotations

import asyncio
import email.utils
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlsplit

from gateway.agent.endpoint import Limits
from gateway.agent.model_errors import ModelError, ModelMisconfigured, QuotaExhausted, RateLimited
from gateway.agent.models import AUTO, Models
from gateway.agent.reply import Asked
from gateway.checks.finding import Finding, Scene, ok, problem, used, warning
from gateway.config import Config

PATIENCE = 20.0  # seconds for a model's first words
_REACH = 10.0  # seconds for any other answer
_OFF = 30.0  # seconds that our clock may differ
_WRONG = 300.0
_BUILT = 1_767_225_600  # 2026-01-01: no clock that is right shows less
_NOT_ASKED = "is not asked (--offline)"


def models(scene: Scene) -> Iterator[Finding]:
    """Whether each model that an agent uses gives an answer; it is asked for one word."""
    for name in sorted(used(scene.config)):
        settings = scene.config.models[name]
        where = scene.key("models", name, "base_url")
        path = urlsplit(settings.base_url or "").path.rstrip("/")
        if path.endswith(("/chat/completions", "/completions", "/responses", "/models")):
            text = f"{where}: names one call, not the root of the API"
            yield problem(text, "end it before that, mostly with /v1", os.EX_CONFIG)
        elif scene.offline:
            yield ok(f"{name} ({settings.name}) {_NOT_ASKED}")
        else:
            yield asyncio.run(_model(scene, name))


async def _model(scene: Scene, name: str) -> Finding:
    limits = Limits(tries=1, budget=PATIENCE, first_chunk=PATIENCE, connect=_REACH)
    source = Models(scene.config.models, limits)
    began = time.monotonic()
    try:
        model = await source.get(name)
        if source.is_demo(name):
            fix = "set OPENAI_API_KEY, or model.base_url and model.name; or start Ollama or llama.cpp here"
            return warning(f"{name}: nothing is set up, so that the built-in demo answers; it is no AI", fix)
        async with aclosing(model.ask([{"role": "user", "content": "Say: yes"}], [])) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Asked):
                    break
    except ModelError as error:
        return _silent(scene, name, error)
    finally:
        await source.close()
    return ok(f"{name}: {model.label} answers, after {time.monotonic() - began:.1f} s")


def _silent(scene: Scene, name: str, error: ModelError) -> Finding:
    where = scene.key("models", name)
    if isinstance(error, RateLimited):
        return warning(f"{where}: answers that it has too much to do just now", "try again in a minute")
    said = error.health or str(error)
    if isinstance(error, ModelMisconfigured):
        what, _, advice = said.rstrip(".").rpartition(": ")
        return problem(f"{where}: {what or said}", advice, os.EX_CONFIG)
    if isinstance(error, QuotaExhausted):
        return problem(f"{where}: {said}", "see to the account's billing", os.EX_UNAVAILABLE)
    if "name" in said and scene.config.models[name].name == AUTO:
        fix = f"start that server; or write the model's name into {_key(scene, name, 'name')}"
    else:
        key = _key(scene, name, "base_url")
        fix = f"is that server running, and {key} right? Try: curl -i {_address(scene, name)}"
    return problem(f"{where}: {said}", fix, os.EX_UNAVAILABLE)


def _key(scene: Scene, name: str, key: str) -> str:
    return ".".join(map(str, scene.places.as_written(("models", name, key))))


def _address(scene: Scene, name: str) -> str:
    parts = urlsplit(scene.config.models[name].base_url or "https://api.openai.com/v1")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/models"


def telegram(scene: Scene) -> Iterator[Finding]:
    """Whether Telegram knows the bot, and the bot anybody."""
    told = scene.config.channels.telegram
    if not told.active or told.bot_token is None:
        yield ok("off: enabled is false" if told.bot_token else "off: there is no bot token")
        return
    if told.allow == ():
        text = f"{scene.key('channels', 'telegram', 'allow')}: is empty: nobody may talk to the bot"
        yield warning(text, "name ids or @names, or remove it: then people ask you by a code")
    if told.mode == "webhook" and _official_and_plain(told.api_url, told.webhook_url):
        where = scene.key("channels", "telegram", "webhook_url")
        yield problem(f"{where}: Telegram brings updates by https alone", "write https://…", os.EX_CONFIG)
    if scene.offline:
        yield ok(f"the token {_NOT_ASKED}")
        return
    root = (told.api_url or "").rstrip("/")
    answer = _asked(f"{root}/bot{quote(told.bot_token.get_secret_value(), safe=':')}/getMe")
    yield from _bot(scene, root, answer)


def _official_and_plain(api_url: str | None, webhook_url: str | None) -> bool:
    return "api.telegram.org" in (api_url or "") and (webhook_url or "").startswith("http://")


class _Answer(NamedTuple):
    status: int  # 0: none came
    body: Any
    why: str = ""
    date: str | None = None


def _bot(scene: Scene, root: str, answer: _Answer) -> Iterator[Finding]:
    match answer:
        case _Answer(status=200, body={"ok": True, "result": {"username": str(name), **about}}):
            yield ok(f"the bot is @{name}")
            told = scene.config.channels.telegram
            listens = told.groups == "all" or told.group_context
            if listens and about.get("can_read_all_group_messages") is False:
                text = f"@{name} is in privacy mode and sees only what is meant for it in groups"
                yield warning(text, "@BotFather: /setprivacy, Disable; then add the bot to its groups anew")
        case _Answer(status=401 | 404, body={"ok": False}):
            where = scene.key("channels", "telegram", "bot_token")
            text = f"{where}: Telegram knows no bot with this token ({answer.status})"
            yield problem(text, "copy it again from @BotFather: /mybots, API Token", os.EX_CONFIG)
        case _Answer(status=0):
            fix = "is there a way to the internet? Behind a proxy, set HTTPS_PROXY"
            yield problem(f"{root} cannot be reached: {answer.why}", fix, os.EX_UNAVAILABLE)
        case _:
            where = scene.key("channels", "telegram", "api_url")
            text = f"{where}: what answers at {root} is no Bot API server (status {answer.status})"
            fix = "write its root without /bot, such as https://api.telegram.org"
            yield problem(text, fix, os.EX_UNAVAILABLE)


def clock(scene: Scene) -> Iterator[Finding]:
    """Whether our time is that of the others; certificates, webhooks and rate limits depend on it."""
    now, fix = time.time(), "sudo timedatectl set-ntp true"
    if now < _BUILT:
        yield problem(f"it is not {time.strftime('%Y-%m-%d', time.gmtime(now))}", fix, os.EX_OSERR)
        return
    newest = max(_changed(scene.config.data_dir), default=0.0)
    if newest > now + _OFF:
        yield warning("the store was written in the future: the clock was set back", fix)
        return
    root = "" if scene.offline else _somebody(scene.config)
    date = email.utils.parsedate_tz(_asked(root, "HEAD").date or "") if root else None
    if date is None:
        yield ok(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)) + ", compared with nobody's")
        return
    off, host = time.time() - email.utils.mktime_tz(date), urlsplit(root).hostname
    text = f"the clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} that of {host}"
    if abs(off) > _WRONG:
        yield problem(text, fix, os.EX_OSERR)
    elif abs(off) > _OFF:
        yield warning(text, fix)
    else:
        yield ok(f"as at {host}")


def _changed(data_dir: Path) -> Iterator[float]:
    for place in (data_dir / "open.log", data_dir / "sessions"):
        try:
            yield place.stat().st_mtime
        except OSError:
            continue


def _somebody(config: Config) -> str:
    """The root of a server that is asked anyhow, and so may be asked for the time."""
    addresses = [config.models[name].base_url for name in sorted(used(config))]
    if config.channels.telegram.active:
        addresses.insert(0, config.channels.telegram.api_url)
    for address in addresses:
        if address:
            parts = urlsplit(address)
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
    return ""


def _asked(url: str, method: str = "GET") -> _Answer:
    """One request; never raises, and never tells the URL, which may hold a token."""
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "lunar"})
    try:
        with urllib.request.urlopen(request, timeout=_REACH) as response:
            return _Answer(response.status, _json(response), date=response.headers["Date"])
    except urllib.error.HTTPError as error:
        with error:
            return _Answer(error.code, _json(error), date=error.headers["Date"])
    except urllib.error.URLError as error:
        reason = error.reason
        return _Answer(0, None, getattr(reason, "strerror", None) or type(reason).__name__)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _Answer(0, None, getattr(error, "strerror", None) or type(error).__name__)


def _json(response: IO[bytes]) -> Any:
    try:
        return json.loads(response.read(1 << 20))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
