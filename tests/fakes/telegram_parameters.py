"""The parameters of one Bot API request, wherever in it they stand."""

import json
import re
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.fakes.telegram_checks import Entities, Formatted, Json, bad_request
from tests.fakes.telegram_markup import parsed

_NOT_TEXT = re.compile(
    "(chat|message|message_thread|user|draft)_id|offset|limit|timeout|max_connections"  # numbers
    "|entities|reply_parameters|reply_markup|link_preview_options|allowed_updates|commands|scope"  # JSON
)
_FLAGS = {"true": True, "True": True, "false": False, "False": False}


class Parameters(dict[str, Any]):
    """Values by name; what a form carries as text is a number or a structure again where it should be one."""

    def string(self, name: str) -> str:
        value = self.get(name, "")
        return value if isinstance(value, str) else json.dumps(value)

    def integer(self, name: str, default: int = 0) -> int:
        try:
            return int(self.get(name, default))
        except (TypeError, ValueError):
            return default

    def flag(self, name: str) -> bool:
        return str(self.get(name, "")).lower() in ("true", "yes", "1")

    def decoded(self, name: str, kind: type, what: str) -> Any:
        """A JSON value, as an object or as its text; None where it is absent."""
        value = self.get(name)
        if value in (None, ""):
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise bad_request(f"can't parse {what} JSON object") from None
        if not isinstance(value, kind):
            raise bad_request(
                f"object expected as {what}" if kind is dict else f"expected an Array of {what}"
            )
        return value

    def formatted(self, field: str = "text", stem: str = "") -> Formatted:
        """A text with its entities, from `entities` or from `parse_mode`; neither is checked further."""
        text = self.string(field)
        if mode := self.string(f"{stem}parse_mode"):
            return parsed(text, mode)
        entities: Entities = self.decoded(f"{stem}entities", list, "MessageEntity") or []
        return Formatted(text, entities)

    def nested(self, name: str) -> "Parameters | None":
        value: Json | None = self.decoded(name, dict, name.replace("_", " "))
        return None if value is None else Parameters(value)


async def read_parameters(request: web.Request) -> Parameters:
    """Query, form, multipart or JSON. Raises `Refusal` for a body that cannot be read."""
    found = Parameters(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    try:
        if not request.can_read_body:
            pass
        elif request.content_type == "application/json":
            body = json.loads(await request.read())
            if not isinstance(body, dict):
                raise bad_request("can't parse the request: object expected")
            found.update({name: value for name, value in body.items() if value is not None})
        elif request.content_type == "multipart/form-data":
            for name, value in (await request.post()).items():
                found[name] = value.file.read() if isinstance(value, web.FileField) else value
        else:
            text = (await request.read()).decode("ascii")
            found.update(parse_qsl(text, keep_blank_values=True, errors="strict"))
        json.dumps(found, ensure_ascii=False, default=repr).encode()  # lone surrogates are not UTF-8
    except UnicodeError:
        raise bad_request("text must be encoded in UTF-8") from None
    except json.JSONDecodeError:
        raise bad_request("can't parse the request as JSON") from None
    return Parameters({name: _decoded(name, value) for name, value in found.items()})


def _decoded(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if _NOT_TEXT.fullmatch(name):
        try:
            return json.loads(value)
        except ValueError:
            return value  # its reader complains, in the words of the API
    return _FLAGS.get(value, value) if name.startswith(("disable_", "drop_", "protect_", "show_")) else value
