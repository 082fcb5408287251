"""Texts without our secrets in them: for the log, for what servers say, for what is told of faults."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "[secret]"
_SHORTEST = 4  # characters: what is shorter would blot out ordinary words, and is no secret

# Shapes of tokens that we were never told of: OpenAI-like keys (as providers repeat them, too: in part, with
# stars), Telegram bot tokens (in a URL they stand directly behind "bot"), JSON Web Tokens, what an HTTP
# header or a URL calls one, and what stands before the @ of a URL.
_SHAPES = (
    (re.compile(r"\bsk-[A-Za-z0-9_*-]{12,}"), MASK),
    (re.compile(r"(?<!\d)\d{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
    # "Basic authentication" is no secret: base64 has a digit, a padding, or capitals in the middle.
    (re.compile(r"(\b[Bb]asic\s+)(?=[A-Za-z]*(?:[0-9+/=]|[a-z][A-Z]))[A-Za-z0-9+/]{8,}=*"), rf"\1{MASK}"),
    (re.compile(r"(?i)([?&#](?:api[_-]?key|access[_-]?token|token|key|secret)=)[^&\s'\"]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/@\s'\"]+@"), rf"\1{MASK}@"),
)
# What a text must hold for any of the shapes to be in it: most have nothing of it, and this is cheap.
_HINTS = re.compile(r"(?i)sk-|\d{8}:|eyJ|bearer|basic|[?&#][a-z_-]*(?:token|key|secret)=|@")


class Redactor:
    """Knows secrets, however they are written, and what secrets look like."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str | None]) -> None:
        """Mask these from now on, too."""
        for secret in secrets:
            self._secrets |= {form for form in _forms(secret or "") if len(form) >= _SHORTEST}
        known = sorted(self._secrets, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def ours(self, text: str) -> str:
        """The text without the secrets that we were told of; what only looks like one stays."""
        return self._known.sub(MASK, text) if self._known else text

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        text = self.ours(text)
        if _HINTS.search(text):
            for shape, instead in _SHAPES:
                text = shape.sub(instead, text)
        return text

    def beginning(self, text: str, length: int) -> str:
        """At most so many characters of the text, masked first: half a secret looks like none."""
        return self.text(text)[:length]

    def value(self, value: Any) -> Any:
        """The same for what JSON can hold, however deep; anything else becomes its `repr`."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(key)): self.value(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.value(inner) for inner in value]
            case float() if not math.isfinite(value):
                return str(value)  # JSON has no NaN
            case int() | float() | None:
                return value
        return self.text(repr(value))


def _forms(secret: str) -> set[str]:
    """A secret as URLs, JSON, HTML and Python write it; of an address, only what is secret in it."""
    if "://" in secret:
        return set().union(*(_forms(part) for part in _inside(secret)))
    if len(secret) < _SHORTEST:
        return set()
    encoded = json.dumps(secret)[1:-1]
    # PHP escapes slashes; a server's page of HTML may repeat what it was sent.
    escaped = {encoded, encoded.replace("/", "\\/"), repr(secret)[1:-1], html.escape(secret)}
    forms = {secret, secret.strip(), quote(secret, safe=""), quote(secret), quote_plus(secret), *escaped}
    return forms | {form.lower() for form in forms}  # as `str.capitalize` and whoever compares hosts leave it


def _inside(url: str) -> set[str]:
    """The password of an address, as it is written and as it is sent."""
    try:
        parts = urlsplit(url)
        user, password = parts.username, parts.password
    except ValueError:
        return set()
    if not password:
        return {user} if user and len(user) > 12 else set()  # a token may stand there alone
    plain = unquote(password)
    sent = base64.b64encode(f"{unquote(user or '')}:{plain}".encode()).decode()
    return {password, plain, sent}


known = Redactor()  # the process's own: everything that its configuration keeps secret
