"""A Python function as a model may call it: its docstring and type hints become a JSON Schema."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from gateway.agent.tools import Tool, ToolError

_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_OTHER_SECTION = re.compile(r"^[A-Z]\w*:\s*$")
_ENTRY = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_FIELD = re.compile(r"^:param(?:\s+[^:]+?)?\s+(\w+):\s*(.*)$")
_OTHER_FIELD = re.compile(r"^:(\w+)[^:]*:")


class BadFunction(ValueError):
    """The function cannot be a tool; the text says why, and what to do."""


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it only repeats the name, and every token of a schema is paid for in every turn


class Signature:
    """What a function is for (`description`) and takes (`parameters`, a JSON Schema object).

    `given` of its first parameters are none of the model's business. Raises `BadFunction`.
    """

    def __init__(self, function: Callable[..., object], given: int = 0) -> None:
        self.name = getattr(function, "__name__", "")
        self.description, told = _documented(function)
        hints = _hints(function)
        self._fields: dict[
            str, str
        ] = {}  # the model's field -> the parameter: a parameter may be named `copy`
        fields: dict[str, Any] = {}
        for parameter in list(inspect.signature(function).parameters.values())[given:]:
            field = f"p{len(fields)}"
            self._fields[field] = parameter.name
            fields[field] = _field(parameter, hints, told.get(parameter.name))
        config = ConfigDict(extra="forbid", alias_generator=self._fields.__getitem__)
        try:
            self._model = create_model(self.name, __config__=config, **fields)
            self.parameters = self._model.model_json_schema(schema_generator=_Untitled)
        except (PydanticUserError, TypeError, NameError) as error:
            raise BadFunction(f"its parameters have no JSON Schema: {_first_line(error)}") from error
        self.parameters.pop("title", None)

    def arguments(self, args: dict[str, Any]) -> dict[str, Any]:
        """The model's arguments, checked and converted; raises `ToolError`."""
        try:
            checked = self._model.model_validate(args)
        except ValidationError as error:
            raise ToolError(f"Wrong arguments for {self.name}: {_wrong(error)}.") from error
        return {name: getattr(checked, field) for field, name in self._fields.items()}


def tool(function: Callable[..., Awaitable[str] | str], *, scoped: bool = False) -> Tool:
    """A function as a tool; where `scoped`, its first parameter is the call's `Scope`."""
    signature = Signature(function, given=int(scoped))

    def run(*given: Any, **args: Any) -> Awaitable[str] | str:
        return function(*given, **signature.arguments(args))

    return Tool(signature.name, signature.description, signature.parameters, run, scoped=scoped)


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise BadFunction(f"a type hint cannot be resolved: {_first_line(error)}") from error


def _field(parameter: inspect.Parameter, hints: dict[str, Any], told: str | None) -> tuple[Any, Any]:
    if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise BadFunction(f"{parameter} cannot be given by name; write it as a plain parameter")
    if parameter.name not in hints:
        name = parameter.name
        raise BadFunction(f"the parameter {name} has no type hint; write one, such as {name}: str")
    hint = hints[parameter.name]
    if told and not _described(hint):
        hint = Annotated[hint, Field(description=told)]
    return hint, ... if parameter.default is parameter.empty else parameter.default


def _described(hint: Any) -> bool:
    return any(isinstance(part, FieldInfo) and part.description for part in getattr(hint, "__metadata__", ()))


def _documented(function: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """What the docstring says of the function, and of each parameter (`Args:` or `:param name:`)."""
    text = inspect.getdoc(function) or ""
    said: list[str] = []
    told: dict[str, str] = {}
    name, inside, over = "", False, False
    for line in text.splitlines():
        if _SECTION.match(line):
            inside, over, name = True, False, ""
        elif found := (_ENTRY.match(line) if inside else None) or _FIELD.match(line):
            name = found[1]
            told[name] = found[2].strip()
        elif _OTHER_SECTION.match(line) or _OTHER_FIELD.match(line):
            inside, over = False, True  # Returns:, Raises:, :return: and so on are not for the model
        elif name and line.startswith(" "):
            told[name] += f" {line.strip()}"
        elif line.strip() and not over:
            inside, name = False, ""
            said.append(line)
        elif not line.strip() and said and not inside and not over:
            said.append("")
    if not any(said):
        raise BadFunction("it has no docstring; write what it does: that is all a model knows of it")
    return "\n".join(said).strip(), told


def _wrong(error: ValidationError) -> str:
    parts = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        place = ".".join(str(part) for part in detail["loc"])
        parts.append(f"{place}: {detail['msg']}" if place else detail["msg"])
    return "; ".join(parts)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
