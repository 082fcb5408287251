"""Docstrings and type hints, as models get them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from gateway.agent.signature import BadFunction, Signature, tool
from gateway.agent.tools import Scope, Toolbox, ToolError
from session.ids import SessionId

SCOPE = Scope(SessionId("agent:main:cli:local"), "t1", "c1")


class Place(BaseModel):
    """Where it is."""

    street: str
    number: int = 1


def book(
    copy: str,
    count: Annotated[int, Field(description="how many", ge=1)] = 3,
    kind: Literal["a", "b"] = "a",
    note: Optional[str] = None,  # noqa: UP045 - the older spelling, too
    place: Place | None = None,
    share: float = Field(0.5, gt=0),
) -> str:
    """Book a thing.

    More about it.

    Args:
        copy: what to book,
            told in two lines
        note (str): a remark
        count: not this one: the type hint says more

    Returns:
        nothing that a model must know
    """
    return f"{copy} {count} {kind} {note} {place!r} {share}"


def test_a_function_says_all_that_a_schema_needs() -> None:
    signature = Signature(book)
    assert (signature.name, signature.description) == ("book", "Book a thing.\n\nMore about it.")
    told = signature.parameters
    assert (told["type"], told["required"], told["additionalProperties"]) == ("object", ["copy"], False)
    properties = told["properties"]
    assert properties["copy"] == {"description": "what to book, told in two lines", "type": "string"}
    assert properties["count"] == {"default": 3, "description": "how many", "minimum": 1, "type": "integer"}
    assert properties["kind"] == {"default": "a", "enum": ["a", "b"], "type": "string"}
    assert properties["note"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert properties["note"]["description"] == "a remark"
    assert properties["share"] == {"default": 0.5, "exclusiveMinimum": 0, "type": "number"}
    assert told["$defs"]["Place"]["required"] == ["street"]
    assert '"title": "Copy"' not in json.dumps(told)


def test_arguments_are_checked_and_converted() -> None:
    run = tool(book).run
    given = {"copy": "x", "place": {"street": "s"}, "share": 1}
    assert run(**given) == "x 3 a None Place(street='s', number=1) 1.0"
    with pytest.raises(ToolError) as error:
        run(copy=3, count=0, more=1)
    for part in ("Wrong arguments for book", "copy: Input should be a valid string", "count:", "more: Extra"):
        assert part in str(error.value)


def sphinx(one: int) -> str:
    """Do it.

    :param one: the one
    :return: not told
    """
    return str(one)


def test_the_other_usual_docstring() -> None:
    signature = Signature(sphinx)
    assert signature.description == "Do it."
    assert signature.parameters["properties"]["one"]["description"] == "the one"


def bare(x: int) -> str:
    return str(x)


def unhinted(x) -> str:  # type: ignore[no-untyped-def]  # that is the point
    """Do."""
    return str(x)


def packed(*x: int) -> str:
    """Do."""
    return str(x)


def unknown(x: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821 - that is the point
    """Do."""
    return str(x)


def without_schema(x: Callable[[], int]) -> str:
    """Do."""
    return str(x)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (bare, "it has no docstring; write what it does"),
        (unhinted, "the parameter x has no type hint; write one, such as x: str"),
        (packed, "cannot be given by name"),
        (unknown, "a type hint cannot be resolved: name 'Nowhere' is not defined"),
        (without_schema, "its parameters have no JSON Schema"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_told_why(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(BadFunction, match=words.replace("(", r"\(")):
        Signature(function)


async def test_a_scope_is_given_and_no_business_of_the_model() -> None:
    async def whose(scope: Scope, word: str) -> str:
        """Say whose it is."""
        return f"{scope.session} {word}"

    made = tool(whose, scoped=True)
    assert list(made.parameters["properties"]) == ["word"]
    box = Toolbox([made])
    assert (await box.call("whose", {"word": "hi"}, SCOPE)).text == "agent:main:cli:local hi"
    assert (await box.call("whose", {"word": "hi", "scope": "agent:main:cli:other"}, SCOPE)).misused
