"""The JSON Schema of config.yaml, and the reference table of docs/configuration.md: both out of the models.

What a key means is said in the docstring below it in `config.py`. `python -m gateway.config_schema` writes
the table anew.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gateway.config import Config
from gateway.config_leaves import plain
from gateway.config_problem import ANY, annotation, written

BEGIN, END = "<!-- the keys: made by `python -m gateway.config_schema` -->", "<!-- end of the keys -->"
_PAGE = Path("docs/configuration.md")
Section = type[BaseModel]


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what config.yaml may hold."""
    built: dict[str, Any] = Config.model_json_schema()
    built["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    built["title"] = "Lunar's config.yaml"
    for section in _sections(Config):
        part = built if section is Config else built["$defs"][section.__name__]
        part["type"] = ["object", "null"]  # a section whose keys were all deleted
        for name, key in part.get("properties", {}).items():
            key.pop("title", None)
            if "patternProperties" in key:
                key["additionalProperties"] = False  # names of other forms are refused
            key["description"] = meaning(section, name)
            if (default := _default(section, name)) is not PydanticUndefined:
                key["default"] = default
    short = {"$ref": "#/$defs/Model", "description": "short for models.default"}
    built["properties"]["model"] = short
    return built


def _sections(section: Section) -> Iterator[Section]:
    """The section itself, and all that it holds."""
    yield section
    for field in section.model_fields.values():
        for inner in _models(field.annotation):
            yield from _sections(inner)


def _models(kind: Any) -> Iterator[Section]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in get_args(kind):
        yield from _models(argument)


def _default(section: Section, name: str) -> Any:
    default = section.model_fields[name].get_default(call_default_factory=True)
    return default if default is PydanticUndefined else plain(default)


def meaning(section: Section, name: str) -> str:
    """What a key is for, as the docstring below it says."""
    return _docstrings(section.__module__)[section.__name__, name]


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    found = {}
    for section in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(section, ast.ClassDef):
            for key, below in zip(section.body, section.body[1:], strict=False):
                match key, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(value=str(words))):
                        found[section.name, name] = " ".join(words.split())
    return found


# -- the reference -------------------------------------------------------------------------------------


def reference() -> str:
    """The table of all keys, in Markdown, between its two marks."""
    lines = [BEGIN, "", "| key | default | meaning |", "|---|---|---|"]
    for path in written():
        if path[0] != "model":
            *above, name = path if path[-1] != ANY else path[:-1]
            section = annotation(tuple(above))
            default = _default(section, name)
            shown = "must be given" if default is PydanticUndefined else f"`{_yaml(default)}`"
            lines.append(f"| `{'.'.join(path)}` | {shown} | {_cell(meaning(section, name))} |")
    return "\n".join([*lines, "", END])


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _cell(words: str) -> str:
    return words.replace("|", "\\|")


def renewed(page: str) -> str:
    """The page with its table as the models say it now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + reference() + after


if __name__ == "__main__":
    _PAGE.write_text(renewed(_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
