"""What is valid, of all that comes from outside: what gets spoiled."""

from __future__ import annotations

import json
from typing import Any

import yaml


def _json(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


FRAMES = _json(
    {
        "type": "hello",
        "protocol": 1,
        "session": "local",
        "after": "1f.0a0b0c0d",
        "render": "html",
        "client": "x",
    },
    {"type": "message", "id": "m1", "text": "Hello"},
    {"type": "stop"},
    {"type": "retry", "id": "m2", "of": "m1"},
    {"type": "history", "before": "1f.0a0b0c0d", "limit": 20},
    {"type": "approve", "call_id": "c1", "allow": True},
    {"type": "control", "id": "x1", "verb": "status", "args": {"verbose": True}},
)


SERVER_FRAMES = _json(
    {
        "type": "welcome",
        "protocol": 1,
        "session_id": "s",
        "agent": "main",
        "model": "m",
        "turns": 0,
        "running": None,
    },
    {"type": "event", "cursor": "1.2", "event": {"role": "user", "content": "é"}},
    {
        "type": "history",
        "events": [{"cursor": "1.2", "event": {"role": "user", "content": "x"}}],
        "more": False,
    },
    {"type": "error", "code": "bad_json", "message": "No.", "retry_after": 1.5},
)


EVENTS = [
    {"role": "system", "name": "session", "content": "agent:main:cli:local", "format": 1, "ts": "t"},
    {"role": "user", "content": "What?", "id": "m1", "ts": "t"},
    {"role": "system", "name": "started", "turn": "t1", "messages": ["m1"], "attempt": 1},
    {"role": "tool_call", "name": "f", "args": {"a": [1]}, "call_id": "c1", "turn": "t1"},
    {"role": "tool_result", "name": "f", "result": "x", "call_id": "c1", "ok": True, "turn": "t1"},
    {
        "role": "assistant",
        "content": "It.",
        "turn": "t1",
        "answers": ["m1"],
        "finish": "stop",
        "usage": {"input": 1},
    },
    {"role": "system", "name": "summary", "covers": "t1", "content": "s"},
    {"role": "system", "name": "setting", "key": "model", "value": "x"},
    {"role": "system", "name": "sent", "turn": "t1", "part": 0, "message_id": 7, "chat": "1"},
    {"role": "system", "name": "undo", "turn": "t1"},
]
LINES = _json(*EVENTS)


_CONFIG: dict[str, Any] = {
    "data_dir": "./data",
    "drain": "20s",
    "http": {
        "host": "127.0.0.1",
        "port": 8765,
        "allowed_origins": ["https://example.org"],
        "agents": ["main"],
    },
    "models": {
        "default": {"base_url": "http://127.0.0.1:1/v1", "name": "m", "price": {"input": 1, "output": 2}}
    },
    "agents": {
        "main": {"system_prompt": "x", "tools": ["a__*"], "budget": {"peer": {"tokens": 5, "money": 1}}}
    },
    "routes": [{"provider": "cli", "peer": "*", "agent": "main"}],
    "tools": {
        "functions": {"f": {"call": "f.py:f"}},
        "mcp": {"s": {"command": ["x"], "env": {"A": {"env": "HOME"}}}},
    },
    "queue": {"mode": "each", "running": 4},
    "channels": {"cli": {"operators": [0]}, "telegram": {"allow": ["7"], "token": {"env": "NONE_SUCH"}}},
}
CONFIGS = [
    *_json(_CONFIG),
    yaml.safe_dump(_CONFIG).encode(),
    *_json(*({key: _CONFIG[key]} for key in _CONFIG)),
]


_ANN = {"id": 7, "is_bot": False, "first_name": "Ann", "username": "ann"}
_CHAT = {"id": 7, "type": "private", "first_name": "Ann"}
_GROUP = {"id": -100, "type": "supergroup", "title": "G", "is_forum": True}
_MESSAGE = {"message_id": 5, "date": 1700000000, "chat": _CHAT, "from": _ANN}
UPDATES = _json(
    {"update_id": 1, "message": {**_MESSAGE, "text": "Hello"}},
    {"update_id": 2, "edited_message": {**_MESSAGE, "edit_date": 1700000001, "text": "Hallo"}},
    {
        "update_id": 3,
        "message": {
            **_MESSAGE,
            "caption": "c",
            "media_group_id": "9",
            "photo": [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1, "file_size": 10}],
        },
    },
    {
        "update_id": 4,
        "message": {
            **_MESSAGE,
            "chat": _GROUP,
            "message_thread_id": 3,
            "is_topic_message": True,
            "text": "@lunar_bot hi",
            "entities": [{"type": "mention", "offset": 0, "length": 10}],
        },
    },
    {"update_id": 5, "message": {**_MESSAGE, "chat": _GROUP, "migrate_to_chat_id": -1001}},
    {
        "update_id": 6,
        "callback_query": {
            "id": "q",
            "from": _ANN,
            "chat_instance": "x",
            "data": "yes:abc",
            "message": {**_MESSAGE, "text": "May I?"},
        },
    },
    {
        "update_id": 7,
        "message": {
            **_MESSAGE,
            "document": {
                "file_id": "f",
                "file_unique_id": "u",
                "file_name": "../x",
                "mime_type": "text/plain",
                "file_size": 10,
            },
        },
    },
)


def _sse(*chunks: Any) -> bytes:
    return b"".join(b"data: " + chunk + b"\n\n" for chunk in _json(*chunks)) + b"data: [DONE]\n\n"


_CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
STREAMS = [
    _sse(
        {
            "id": "x",
            "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}],
        },
        {"choices": [{"index": 0, "delta": {"content": "lo \ud83d"}}]},
        {"choices": [{"index": 0, "delta": {"content": "\ude00"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}},
    ),
    _sse(
        {
            "choices": [
                {"delta": {"reasoning_content": "hm", "tool_calls": [_CALL]}, "finish_reason": "tool_calls"}
            ]
        }
    ),
    _sse(
        {"choices": [{"delta": {"content": [{"type": "text", "text": "a"}], "refusal": "no"}}]},
        {"error": "busy"},
    ),
    *_json(
        {"choices": [{"message": {"content": "<think>x</think>whole", "tool_calls": [_CALL]}}], "usage": {}}
    ),
]
