"""Whether secrets are there where they are needed, and look as they should; none is ever printed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from gateway.agent.models import AUTO
from gateway.checks.finding import Finding, Scene, ok, problem, used, warning
from gateway.config_leaves import dotted
from gateway.config_problem import KeyPath
from gateway.config_secrets import CREDENTIALS, held
from gateway.config_values import is_loopback

SHORT = 16  # characters of a token that keeps the network out
_BOT = re.compile(r"\d{5,}:[A-Za-z0-9_-]{35}")
_PLACEHOLDER = re.compile(
    r"<.*>|\*+|x{3,}|(sk-)?(\.{3,}|…|x{3,})|change.?me|(your|my)[-_ ].*|example|placeholder|password|token",
    re.IGNORECASE,
)
# Names that people give to variables, and the one that is read.
_MISNAMED = {
    "TELEGRAM_TOKEN": "TELEGRAM_BOT_TOKEN",
    "BOT_TOKEN": "TELEGRAM_BOT_TOKEN",
    "TELEGRAM_API_TOKEN": "TELEGRAM_BOT_TOKEN",
    "OPENAI_KEY": "OPENAI_API_KEY",
    "OPENAI_TOKEN": "OPENAI_API_KEY",
}


def secrets(scene: Scene) -> Iterator[Finding]:
    """Every secret that is set, by its key and never by its content."""
    found = [
        *_credentials(),
        *_missing(scene),
        *_misnamed(scene),
        *_open_door(scene),
        *(finding for path, secret in held(scene.config) for finding in _formed(scene, path, secret)),
    ]
    keys = [dotted(path) for path, _ in held(scene.config)]
    yield from found or [ok(f"well formed: {', '.join(keys)}" if keys else "none is set, and none is needed")]


def _formed(scene: Scene, path: KeyPath, secret: str) -> Iterator[Finding]:
    where = scene.key(*path)
    if said := _unusable(scene, str(path[-1]), secret):
        yield problem(f"{where}: {said[0]}", said[1], os.EX_CONFIG)
    elif path[-1] == "token" and len(secret) < SHORT and not is_loopback(host := scene.config.http.host):
        text = f"{where}: {len(secret)} characters can be guessed, and {host} is open to the network"
        yield warning(text, "make a long one: openssl rand -hex 24")
    elif path[-1] == "api_key" and (server := _in_the_clear(scene, path)):
        text = f"{where}: the key goes to {server} without encryption"
        yield warning(text, "use https:// in the model's base_url")


def _unusable(scene: Scene, key: str, secret: str) -> tuple[str, str] | None:
    """What is wrong with a secret, and what to do about it."""
    if _PLACEHOLDER.fullmatch(secret):
        return "this is a placeholder", "put the real secret in its place"
    if secret[:1] in "'\"" or secret[-1:] in "'\"":
        return (
            "there are quotes in the secret itself",
            "remove them: docker --env-file, for one, keeps quotes",
        )
    if key == "api_key" and secret.lower().startswith("bearer "):
        return "begins with `Bearer`", "write the key alone, without that word"
    if key == "api_key" and not (secret.isascii() and " " not in secret):
        return "holds a space, or a letter that no key has", "copy it again, from its beginning to its end"
    if key == "bot_token" and not _BOT.fullmatch(secret) and _official(scene):
        form = "digits, a colon, 35 characters"
        return f"is no bot's token ({form})", "copy it again from @BotFather: /mybots, API Token"
    return None


def _official(scene: Scene) -> bool:
    return "api.telegram.org" in (scene.config.channels.telegram.api_url or "")


def _in_the_clear(scene: Scene, path: KeyPath) -> str | None:
    """The host that a model's key is sent to by http, other than this machine."""
    address = urlsplit(scene.config.models[str(path[1])].base_url or "")
    return address.hostname if address.scheme == "http" and not is_loopback(address.hostname or "") else None


def _credentials() -> Iterator[Finding]:
    """A credential that cannot be read would count as one that is not there."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    if not os.path.isdir(directory):
        text = f"$CREDENTIALS_DIRECTORY: there is no directory {directory}"
        yield problem(text, "unset it, or start by systemd with LoadCredential=", os.EX_CONFIG)
    for name in CREDENTIALS:
        file = Path(directory, name)
        if not file.exists():
            continue
        try:
            if not file.read_text(encoding="utf-8").strip():
                yield warning(f"{file} is empty, and counts for nothing", "put the secret in, or remove it")
        except UnicodeDecodeError:
            yield problem(f"{file} is not a text", "put the secret into it, as one line", os.EX_CONFIG)
        except OSError as error:
            fix = f"make it readable for this user: chmod 400 {file}"
            yield problem(f"{file} cannot be read: {error.strerror}", fix, os.EX_CONFIG)


def _missing(scene: Scene) -> Iterator[Finding]:
    """OpenAI itself answers nobody without a key; other servers may."""
    for name in sorted(used(scene.config)):
        model = scene.config.models[name]
        keyless = model.base_url is None and model.api_key is None and "OPENAI_BASE_URL" not in os.environ
        if keyless and model.name != AUTO:
            where = scene.key("models", name, "api_key")
            fix = "set OPENAI_API_KEY; or the model's base_url, where it is not OpenAI's"
            yield problem(f"{where}: there is no key for OpenAI", fix, os.EX_CONFIG)


def _misnamed(scene: Scene) -> Iterator[Finding]:
    telegram = scene.config.channels.telegram.bot_token is None
    keyless = all(model.api_key is None for model in scene.config.models.values())
    for name, right in _MISNAMED.items():
        if os.environ.get(name) and right not in os.environ and (telegram if "BOT" in right else keyless):
            yield warning(f"${name} is not read: the name is {right}", f'export {right}="${name}"')


def _open_door(scene: Scene) -> Iterator[Finding]:
    http = scene.config.http
    if http.token is None and (http.allowed_origins or http.trusted_proxies):
        text = f"{scene.key('http', 'token')}: none, so that everybody who reaches the proxy may chat"
        yield warning(text, "LUNAR_HTTP_TOKEN=$(openssl rand -hex 24), unless the proxy asks who they are")
