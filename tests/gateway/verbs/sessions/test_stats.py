"""`lunar sessions stats`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from session.events import Assistant, Usage, User
from tests.gateway.verbs.lunar import LOCAL, archived, path, ran, wrote
from tests.gateway.verbs.sessions.said import CONVERSATION

PERSON = "agent:main:telegram:user:7"
DAMAGED = b'no event\n\n[]\n{"role":"user","ts":"\xff\xfe"}\n{"role":7}\n{"a":' + b"[" * 3000 + b"\n"


def test_the_figures(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = wrote(data_dir, *CONVERSATION)
    os.utime(first, (1_000_000_000, 1_000_000_000))
    second = wrote(
        data_dir,
        User(content="x" * 2000, ts="2026-02-26T09:00:00.000Z"),
        Assistant(content="y", model="large", usage=Usage(100, 50), ts="2026-02-26T09:00:01.000Z"),
        Assistant(content="z", usage=Usage(1, 2), ts="2026-02-27T09:00:01.000Z"),
        session=PERSON,
    )
    os.utime(second, (1_100_000_000, 1_100_000_000))
    sizes = first.stat().st_size, second.stat().st_size
    small = archived(data_dir).stat().st_size
    with path(data_dir, PERSON).open("ab") as file:
        file.write(DAMAGED)
    os.utime(second, (1_100_000_000, 1_100_000_000))
    figures = json.loads(ran(capsys, "sessions", "stats", "--json").out)
    assert figures == {
        "sessions": 2,
        "archived": 1,
        "bytes": small + sizes[1] + len(DAMAGED),
        "archived_bytes": small,
        "oldest": "2001-09-09T01:46:40+00:00",
        "newest": "2004-11-09T11:33:20+00:00",
        "channels": {"telegram": 1, "cli": 1},
        "biggest": [
            {"session": PERSON, "bytes": sizes[1] + len(DAMAGED)},
            {"session": LOCAL, "bytes": small},
        ],
        "messages": {"assistant": 3, "system": 3, "tool_call": 1, "tool_result": 1, "user": 2},
        "days": {"2026-02-25": 1, "2026-02-26": 3, "2026-02-27": 1},
        "input": {"?": 1, "demo": 9, "large": 100},
        "output": {"?": 2, "demo": 5, "large": 50},
    }
    code, out, err = ran(capsys, "sessions", "stats")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "Sessions 2, of which 1 archived"
    assert "Messages 2 from people, 3 from agents" in lines
    assert "Tokens, large 100 in, 50 out" in lines
    assert f"2026-02-26 {'█' * 30} 3" in lines
    assert f"2026-02-25 {'█' * 10} 1" in lines


def test_of_nothing(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "sessions", "stats")
    assert (code, out.splitlines()[0]) == (0, "Sessions    0, of which 0 archived")
    assert json.loads(ran(capsys, "sessions", "stats", "--json").out)["oldest"] is None
