"""Events of every role, with every text and every JSON value."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from session.events import Assistant, System, ToolCall, ToolResult, Usage, User

# Lone surrogates included: a model, a browser and a file can all send them.
texts = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    [
        "",
        "\0",
        "\u2028\u2029",
        "a\nb\r\n",
        '","crc":"00000000"}',
        "\ud800",
        "\ud83d\ude00",
        "😀",
        "\ufeff",
        "\x7f\x85",
    ]
)
words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
maybe_text = st.none() | texts
ids_ = st.none() | st.lists(texts, max_size=3).map(tuple)
counts = st.integers(0, 2**40)

users = st.builds(User, content=texts, id=maybe_text, ts=texts)
assistants = st.builds(
    Assistant,
    content=texts,
    turn=maybe_text,
    answers=ids_,
    finish=st.none() | st.sampled_from(["stop", "length", "filtered", "cut", "stopped", "tool_calls"]),
    model=maybe_text,
    usage=st.none() | st.builds(Usage, input=counts, output=counts),
    ts=texts,
)
tool_calls = st.builds(ToolCall, name=texts, args=values, call_id=maybe_text, turn=maybe_text, ts=texts)
tool_results = st.builds(
    ToolResult,
    name=texts,
    result=values,
    call_id=maybe_text,
    ok=st.none() | st.booleans(),
    turn=maybe_text,
    ts=texts,
)
systems = st.builds(
    System,
    name=texts,
    content=maybe_text,
    format=st.none() | counts,
    id=maybe_text,
    turn=maybe_text,
    messages=ids_,
    attempt=st.none() | counts,
    answers=ids_,
    key=maybe_text,
    value=values,
    part=st.none() | counts,
    message_id=st.none() | counts,
    chat=maybe_text,
    of=maybe_text,
    call_id=maybe_text,
    allow=st.none() | st.booleans(),
    sender=maybe_text,
    final=st.none() | st.booleans(),
    ts=texts,
)
events = st.one_of(users, assistants, tool_calls, tool_results, systems)
