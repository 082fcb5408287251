"""What was said outlives the process, however it ends: the real daemon, stopped, killed and started again."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from session import events
from session.events import ToolCall, User
from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import Behaviour, Hang, OpenAIServer, Say, last_user_text

LOCAL = "agent:main:cli:local"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")


def said(daemon: Daemon, session: str = LOCAL) -> list[tuple[str, Any]]:
    """Role and text of everything that people and the agent said."""
    return [
        (event["role"], event["content"])
        for event in daemon.events(session)
        if event["role"] in ("user", "assistant")
    ]


async def test_it_remembers_a_colour_through_a_stop_and_a_kill(daemons: Daemons) -> None:
    async with daemons() as daemon:
        client = await daemon.client()
        await client.ask("my favorite color is teal")
        first = daemon.raw(LOCAL)
        assert await daemon.stop() == 0

        await daemon.start()
        client = await daemon.client()
        assert client.frames[0]["turns"] == 2
        answer = await client.ask("what is my favorite color?")
        assert "teal" in answer["content"]
        second = daemon.raw(LOCAL)
        await daemon.kill()

        await daemon.start()
        client = await daemon.client()
        answer = await client.ask("What time is it in Tokyo?")
        assert "Tokyo" in answer["content"]
        answer = await client.ask("and what is my favorite color?")
        assert "teal" in answer["content"]
        third = daemon.raw(LOCAL)

    assert daemon.path(LOCAL).name == "agent-main-cli-local.jsonl"
    assert second.startswith(first)
    assert third.startswith(second)
    roles = [event["role"] for event in daemon.events(LOCAL) if event["role"] != "system"]
    assert roles == [
        "user", "assistant",
        "user", "assistant",
        "user", "tool_call", "tool_result", "assistant",
        "user", "assistant",
    ]  # fmt: skip
    stamps = [event["ts"] for event in daemon.events(LOCAL)][1:]  # the header's is of when it was written
    assert all(map(MOMENT.match, stamps))
    assert stamps == sorted(stamps)
    call, result = (event for event in daemon.events(LOCAL) if event["role"].startswith("tool_"))
    assert (call["name"], call["args"]) == ("get_current_datetime", {"timezone": "Asia/Tokyo"})
    assert (result["call_id"], result["ok"]) == (call["call_id"], True)


async def test_a_transcript_in_the_plain_form_is_loaded_and_continued(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    plain: list[dict[str, Any]] = [
        {"role": "system", "content": "imported", "ts": "2026-02-25T10:00:00Z"},
        {"role": "user", "content": "My favorite color is blue.", "ts": "2026-02-25T10:00:01Z"},
        {"role": "assistant", "content": "Noted!", "ts": "2026-02-25T10:00:02Z"},
        {"role": "user", "content": "What time is it?", "ts": "2026-02-25T10:05:00Z"},
        {"role": "tool_call", "name": "get_time", "args": {}, "ts": "2026-02-25T10:05:01Z"},
        {"role": "tool_result", "name": "get_time", "result": "10:05 AM", "ts": "2026-02-25T10:05:01Z"},
        {"role": "assistant", "content": "It's 10:05 AM.", "ts": "2026-02-25T10:05:02Z"},
    ]
    old = "".join(json.dumps(event) + "\n" for event in plain).encode()
    daemon = daemons(server=openai)
    daemon.path(LOCAL).parent.mkdir(parents=True)
    daemon.path(LOCAL).write_bytes(old)
    async with daemon:
        client = await daemon.client()
        assert client.frames[0]["turns"] == 4
        await client.ask("And my color?")
        assert [event["content"] for event in client.events if event["role"] == "user"] == [
            "My favorite color is blue.",
            "What time is it?",
            "And my color?",
        ]
        assert daemon.raw(LOCAL).startswith(old)
        assert len(daemon.events(LOCAL)) > len(plain)

    [request] = openai.requests
    shown = [(message["role"], message.get("content")) for message in request.body["messages"][1:]]
    assert shown == [
        ("user", "My favorite color is blue."),
        ("assistant", "Noted!"),
        ("user", "What time is it?"),
        ("assistant", None),
        ("tool", "10:05 AM"),
        ("assistant", "It's 10:05 AM."),
        ("user", "And my color?"),
    ]


def _hangs_or_answers(hanging: set[str]) -> Any:
    def reply(body: dict[str, Any]) -> Behaviour:
        text = last_user_text(body)
        stuck = any(word in text for word in hanging)
        return Hang() if stuck else Say(f"echo: {text}")

    return reply


async def test_killed_while_twenty_sessions_wait(daemons: Daemons, openai: OpenAIServer) -> None:
    names = [f"s{number}" for number in range(20)]
    openai.reply = _hangs_or_answers({"first"})
    async with daemons(server=openai) as daemon:

        async def speak(name: str) -> None:
            client = await daemon.client(name)
            await client.say(f"first of {name}", "m1")
            await client.until("started")
            await client.say(f"second of {name}", "m2")

        await asyncio.gather(*(speak(name) for name in [*names, "stuck"]))
        await openai.until(lambda server: len(server.requests) == 21)
        await daemon.kill()

        openai.reply = _hangs_or_answers({"first of stuck"})
        await daemon.start()
        for name in names:
            client = await daemon.client(name)
            await client.closed("m2")
            assert said(daemon, f"agent:main:cli:{name}") == [
                ("user", f"first of {name}"),
                ("user", f"second of {name}"),
                ("assistant", f"echo: first of {name}"),
                ("assistant", f"echo: second of {name}"),
            ]
        # One turn of one session was broken off twice more: then it is over, and the next one is answered.
        for attempt in (2, 3):
            client = await daemon.client("stuck")
            await client.event(_is_attempt(attempt))
            await daemon.kill()
            await daemon.start()
        client = await daemon.client("stuck")
        sorry = await client.closed("m1")
        assert sorry["name"] == "turn_failed"
        assert "interrupted three times" in sorry["content"]
        assert (await client.closed("m2"))["content"] == "echo: second of stuck"
        stuck = daemon.events("agent:main:cli:stuck")

    assert [event["attempt"] for event in stuck if event.get("messages") == ["m1"]] == [1, 2, 3]
    assert sum(event.get("name") == "turn_failed" for event in stuck) == 1


def _is_attempt(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event.get("attempt") == number


async def test_what_was_finished_is_not_done_again(daemons: Daemons, openai: OpenAIServer) -> None:
    """A stored answer is not asked for again; a call without a result is closed and not run again."""
    daemon = daemons(server=openai)
    call = ToolCall(name="send_mail", args={}, call_id="c1", turn="t1")
    started = events.System(name="started", turn="t1", messages=("m1",), attempt=1)
    answered = events.Assistant(content="An answer.", turn="t0", answers=("m0",), finish="stop")
    folder = daemon.path(LOCAL).parent
    folder.mkdir(parents=True)
    _write(daemon, "done", User(content="Hello", id="m0"), answered)
    _write(daemon, "broken", User(content="What time is it?", id="m1"), started, call)
    async with daemon:
        client = await daemon.client("broken")
        await client.closed("m1")
        done = await daemon.client("done")
        assert (await done.say("Hello", "m0"))["queued"] == 0
        found = daemon.events("agent:main:cli:broken")
        assert daemon.events("agent:main:cli:done")[-1]["content"] == "An answer."
    result = next(event for event in found if event["role"] == "tool_result")
    assert (result["call_id"], result["ok"]) == ("c1", False)
    assert [event["attempt"] for event in found if event.get("name") == "started"] == [1, 2]
    [request] = openai.requests
    *_, asked, calls, told = request.body["messages"]
    assert asked == {"role": "user", "content": "What time is it?"}
    assert calls["tool_calls"][0]["id"] == told["tool_call_id"]
    assert "interrupted" in told["content"]


def _write(daemon: Daemon, name: str, *batch: events.Event) -> None:
    lines = b"".join(events.encode(events.stamped(event)) for event in batch)
    daemon.path(f"agent:main:cli:{name}").write_bytes(lines)


async def test_a_message_without_an_id_is_history_and_never_answered(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    daemon = daemons(server=openai)
    daemon.path(LOCAL).parent.mkdir(parents=True)
    _write(daemon, "local", User(content="Nobody answered this."))
    async with daemon:
        client = await daemon.client()
        assert (await client.ask("And this?"))["content"] == "echo: And this?"
    assert len(openai.requests) == 1
