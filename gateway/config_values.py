"""The kinds of value that config.yaml holds: durations, secrets, addresses, and what a section is."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{,60}")
_CREDENTIAL = re.compile(r"[a-z_.-]{,40}")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip())):
        try:
            return timedelta(**{_UNITS[found[2]]: float(found[1])})
        except OverflowError:
            raise ValueError("must be a shorter time") from None
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a number with a unit, such as 20s, 500ms or 5m")


def _told(name: str, plausible: re.Pattern[str]) -> str:
    # Whoever writes the secret itself behind `env` or `credential` must not find it in the log.
    return name if plausible.fullmatch(name) else "this name (a name is wanted, and not the secret itself)"


def _secret(value: object) -> object:
    match value:
        case {"env": str(name), **rest} if not rest:
            if not (found := os.environ.get(name)):
                raise ValueError(f"the environment has no {_told(name, _VARIABLE)}")
            return _one_line(found.strip())
        case {"credential": str(name), **rest} if not rest:
            if not (found := credential(name)):
                raise ValueError(f"there is no text in $CREDENTIALS_DIRECTORY/{_told(name, _CREDENTIAL)}")
            return _one_line(found)
        case str() if not value.strip():
            return None  # an empty token must never count as one
        case str():
            return _one_line(value)
        case SecretStr():
            _one_line(value.get_secret_value())
            return value
        case None:
            return value
    raise ValueError("must be a text (in quotes), {env: NAME} or {credential: name}")


_SECRET = {
    "anyOf": [
        {"type": ["string", "null"]},
        *(
            {
                "type": "object",
                "properties": {key: {"type": "string"}},
                "required": [key],
                "additionalProperties": False,
            }
            for key in ("env", "credential")
        ),
    ]
}


def _one_line(secret: str) -> str:
    """A line break would end the header or the URL that the secret is sent in."""
    if not secret.isprintable():
        raise ValueError("holds a line break or a control character; write the secret again, as one line")
    return secret


def _whole_number(value: object) -> object:
    if value is True or value is False:  # which pydantic would take for 1 and 0
        raise ValueError("must be a whole number")
    return value


def credential(name: str) -> str | None:
    """The content of a file in `$CREDENTIALS_DIRECTORY`, or None; raises `ValueError` for a path."""
    if "/" in name or name.startswith("."):
        raise ValueError("must be the plain name of a file in $CREDENTIALS_DIRECTORY")
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    try:
        return Path(directory, name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _http_url(value: str | None) -> str | None:
    if value is not None and not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must begin with http:// or https:// and a host")
    try:
        _ = urlsplit(value or "").port
    except ValueError as error:  # a bracket that is not closed, a port that is no number
        raise ValueError("is not an address that can be used: its host or port is malformed") from error
    return value


def _store_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.match(r"postgres(ql)?://.+", value.get_secret_value()):
        raise ValueError("must begin with postgresql:// and a host, or be null")
    return value


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@]+", value.rstrip("/")):
        raise ValueError("must be a scheme and a host, such as https://chat.example.org")
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _peer_name(value: object) -> object:
    if isinstance(value, int | str) and re.fullmatch(r"-?\d+|@\w+", str(value)):
        return str(value)
    raise ValueError("must be the id of a person or group, such as 123456, or a name such as @hao")


# `WithJsonSchema`: what may be written, which is more than what comes of it.
PeerName = Annotated[
    str,
    BeforeValidator(_peer_name),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^(-?\d+|@\w+)$"}),
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Origin = Annotated[
    str, AfterValidator(_origin), WithJsonSchema({"type": "string", "pattern": r"^https?://[^/\s?#@]+/?$"})
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"}),
]
Secret = Annotated[SecretStr | None, BeforeValidator(_secret), WithJsonSchema(_SECRET)]
StoreUrl = Annotated[
    SecretStr | None, BeforeValidator(_secret), AfterValidator(_store_url), WithJsonSchema(_SECRET)
]
HttpUrl = Annotated[
    str | None,
    AfterValidator(_http_url),
    WithJsonSchema({"type": ["string", "null"], "pattern": r"^https?://[^/\s]+"}),
]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]


class Section(BaseModel):
    """Part of the configuration: strict, frozen, and never quoted in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _emptied(cls, data: Any) -> Any:
        return {} if data is None else data  # a section whose keys were all deleted
