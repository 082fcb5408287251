"""The whole gateway as a process: models that fail, many sessions at once, and every way to stop."""

import asyncio
import os
import re
import signal
from collections import defaultdict
from typing import Any

import pytest

from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.ndjson import Client
from tests.fakes.openai_server import (
    BadJson,
    Behaviour,
    CallTools,
    ChoicesEmpty,
    ChoicesNull,
    CutAfter,
    EmptyReply,
    ErrorInStream,
    Filtered,
    Hang,
    Html200,
    Length,
    NoDone,
    NoFinish,
    OpenAIServer,
    Reset,
    Say,
    Stall,
    Status,
    last_user_text,
)

TOO_LONG = {"error": {"message": "too many tokens", "code": "context_length_exceeded"}}
FLAGGED = {"error": {"message": "this was flagged", "code": "content_filter"}}

# What the server does -> how the turn ends (`finish`, or None for `turn_failed`) and what the person reads.
OUTCOMES: dict[str, tuple[Behaviour, str | None, str]] = {
    "fine": (Say("All is well."), "stop", "All is well."),
    "no done": (NoDone("All is well."), "stop", "All is well."),
    "length": (Length("Half of"), "length", "Half of"),
    "filtered": (Filtered("Some of"), "filtered", "Some of"),
    "cut": (CutAfter(4), "cut", "Hello, th"),
    "no finish": (NoFinish("Hello"), "cut", "Hello"),
    "bad json": (BadJson(4), "cut", "Hello, th"),
    "error in stream": (ErrorInStream(4), "cut", "Hello, th"),
    "nothing, no finish": (NoFinish(), None, "broke before it answered"),
    "cut at once": (CutAfter(0), None, "broke before it answered"),
    "reset": (Reset(), None, "Please try again"),
    "null choices": (ChoicesNull(), None, "broke before it answered"),
    "empty choices": (ChoicesEmpty(), None, "broke before it answered"),
    "html": (Html200(), None, "could not be read"),
    "empty": (EmptyReply(), None, "empty answer"),
    "500": (Status(500), None, "has a problem"),
    "429 for long": (Status(429, headers={"Retry-After": "120"}), None, "try again in 2 minutes"),
    "400": (Status(400), None, "did not accept this request"),
    "too long": (Status(400, TOO_LONG), None, "Send /new"),
    "flagged": (Status(400, FLAGGED), None, "content rules"),
    "401": (Status(401), None, "not set up correctly"),
    "403": (Status(403), None, "not set up correctly"),
    "404": (Status(404), None, "not set up correctly"),
    "402": (Status(402), None, "quota is used up"),
}


CLOCK = CallTools([("get_current_datetime", {})])


@pytest.mark.parametrize("tools", [False, True])
async def test_every_fault_of_a_model_ends_in_its_outcome(
    daemons: Daemons, openai: OpenAIServer, tools: bool
) -> None:
    def reply(body: dict[str, Any]) -> Behaviour:
        begins = tools and body["messages"][-1]["role"] != "tool"
        return CLOCK if begins else OUTCOMES[last_user_text(body)][0]

    openai.reply = reply
    async with daemons(server=openai) as daemon:

        async def ends(number: int, text: str) -> None:
            client = await daemon.client(f"s{number}")
            event = await client.ask(text)
            _, finish, words = OUTCOMES[text]
            assert words in event["content"], text
            assert event.get("finish") == finish, text
            assert event.get("name") == (None if finish else "turn_failed"), text
            done = await client.until("done")
            assert done["outcome"] == ("completed" if finish else "failed")
            assert daemon.events(f"agent:main:cli:s{number}")[-1] | {"crc": 0} == event | {"crc": 0}

        await asyncio.gather(*(ends(number, text) for number, text in enumerate(OUTCOMES)))


TEXT = Say("It is late, and I say so.")
BROKEN = {
    f"{what} {after}": CutAfter(after, of)
    for what, of in (("text", TEXT), ("call", CLOCK))
    for after in range(len(of.events()) + 1)
}


async def test_a_stream_that_breaks_at_any_chunk_ends_in_one_outcome(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    def reply(body: dict[str, Any]) -> Behaviour:
        return TEXT if body["messages"][-1]["role"] == "tool" else BROKEN[last_user_text(body)]

    openai.reply = reply
    async with daemons(server=openai) as daemon:

        async def ends(number: int, text: str) -> tuple[str, str | None]:
            client = await daemon.client(f"s{number}")
            event = await client.ask(text)
            await client.until("done")
            events = daemon.events(f"agent:main:cli:s{number}")
            assert [one for one in events if one.get("answers")] == [events[-1]], text
            calls = [one for one in events if one["role"] == "tool_call"]
            assert len(calls) == sum(one["role"] == "tool_result" for one in events), text
            match event.get("finish"):
                case "stop":
                    assert event["content"] == TEXT.text, text
                case "cut":
                    assert TEXT.text.startswith(event["content"]), text
                    assert event["content"], text
                case None:
                    assert "broke before it answered" in event["content"], text
            return text.split()[0], event.get("finish")

        met = await asyncio.gather(*(ends(number, text) for number, text in enumerate(BROKEN)))
    assert set(met) == {("text", None), ("text", "cut"), ("text", "stop"), ("call", None), ("call", "stop")}


async def test_ready_follows_the_model_and_no_secret_is_told(daemons: Daemons, openai: OpenAIServer) -> None:
    secret = "sk-test-0123456789abcdef"
    async with daemons(server=openai) as daemon:
        client = await daemon.client()
        await client.ask("Hello")
        assert await daemon.get("/readyz") == (200, {"ok": True, "why": {}})
        openai.script(Status(401, {"error": {"message": f"Incorrect API key provided: {secret}"}}))
        failed = await client.ask("Hello again")
        status, body = await daemon.get("/readyz")
        assert status == 503
        assert "401" in body["why"]["model default"]
        assert (await daemon.get("/healthz"))[0] == 200
        await client.ask("And again")
        assert (await daemon.get("/readyz"))[0] == 200
        assert secret in openai.requests[0].headers["authorization"]
        told = [
            str(failed),
            str(body),
            str(daemon.log),
            str(daemon.noise),
            str(daemon.raw("agent:main:cli:local")),
        ]
        assert not any(secret in text for text in told)


async def test_tools_are_asked_for_and_misused(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await daemon.client()
        openai.script(
            CallTools(
                [("get_current_datetime", {}), ("get_current_datetime", '{"time')], text="Let me see. "
            ),
            CallTools([("no_such_tool", {})], then=Say("It is late.")),
        )
        answer = await client.ask("What time is it?")
        assert answer["content"] == "It is late."
        told = openai.requests[-1].body["messages"]
        turn = [event for event in client.events if event.get("turn") == answer["turn"]]
    assert [(event["role"], event.get("ok")) for event in turn if event["role"] != "system"] == [
        ("assistant", None),
        ("tool_call", None),
        ("tool_call", None),
        *[("tool_result", ok) for ok in _in_any_order(turn, [True, False])],
        ("tool_call", None),
        ("tool_result", False),
        ("assistant", None),
    ]
    calls = [call["id"] for message in told for call in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in told if message["role"] == "tool"]
    assert len(calls) == len(results) == 3


def _in_any_order(turn: list[dict[str, Any]], expected: list[bool]) -> list[bool]:
    found = [event["ok"] for event in turn if event["role"] == "tool_result"][: len(expected)]
    assert sorted(found) == sorted(expected)
    return found


async def test_fifty_sessions_at_once_keep_to_themselves(daemons: Daemons, openai: OpenAIServer) -> None:
    mixed: list[str] = []

    def reply(body: dict[str, Any]) -> Behaviour:
        texts = [str(message["content"]) for message in body["messages"][1:]]
        names = {name for text in texts for name in re.findall(r"canary-\d+", text)}
        if len(names) != 1:
            mixed.append(str(names))
        return Hang() if "hang" in texts[-1] else Say(texts[-1], size=10_000)

    openai.reply = reply
    async with daemons(server=openai) as daemon:
        stuck = await daemon.client("stuck")
        await stuck.say("canary-99 hang")

        async def talk(number: int) -> None:
            messages = [f"canary-{number} says {count}" for count in range(20)]
            client = await daemon.client(f"s{number}")
            ids = [(await client.say(text))["id"] for text in messages]
            await client.closed(ids[-1])
            events = daemon.events(f"agent:main:cli:s{number}")
            assert [event["content"] for event in events if event["role"] == "user"] == messages
            answers = [event["content"] for event in events if event["role"] == "assistant"]
            assert "\n\n".join(answers).split("\n\n") == messages
            closed = [id for event in events for id in event.get("answers", ())]
            assert closed == ids

        await asyncio.gather(*map(talk, range(50)))
        assert not mixed
        await stuck.send("stop")
        assert (await stuck.event(lambda event: "answers" in event))["finish"] == "stopped"


async def _streaming(daemon: Daemon, openai: OpenAIServer, id: str = "m1") -> Client:
    """A client in whose session a reply has begun that does not go on."""
    openai.script(Stall(3, Say("A reply that takes its time.")))
    client = await daemon.client()
    await client.say("Tell me", id)
    await client.until("delta")
    return client


async def test_stop_ends_a_stream_and_keeps_what_was_said(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        for how in ("frame", "command"):
            client = await _streaming(daemon, openai)
            if how == "frame":
                await client.send("stop")
            else:
                assert await client.command("/stop") == "Stopped."
            stopped = await client.closed("m1")
            assert stopped["finish"] == "stopped"
            assert "A reply that takes its time.".startswith(stopped["content"])
            assert stopped["content"]
            assert (await client.until("done"))["outcome"] == "stopped"
            await openai.until(lambda server: server.disconnects > 0)
            assert (await client.ask("And now?"))["content"] == "echo: And now?"
            await client.send("control", id="c", verb="delete", args={"session": "agent:main:cli:local"})
            assert (await client.until("result"))["data"] == {"deleted": True}


async def test_sigterm_lets_a_reply_finish(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await _streaming(daemon, openai)
        await client.say("And then", "m2")
        daemon.signal(signal.SIGTERM)
        await daemon.logged("stopping")
        status, body = await daemon.get("/readyz")
        assert (status, body["why"]) == (503, {"gateway": "shutting down"})
        late = await daemon.client("late")
        await late.send("message", id="m1", text="Am I too late?")
        assert (await late.until("error"))["code"] == "shutting_down"
        openai.release.set()
        assert (await client.closed("m1"))["content"] == "A reply that takes its time."
        assert await daemon.exit() == 0
        assert not daemon.socket.exists()
        # What waited is answered by the next start; what was refused is nowhere.
        await daemon.start()
        client = await daemon.client()
        assert (await client.closed("m2"))["content"] == "echo: And then"
        assert not daemon.path("agent:main:cli:late").exists()


async def test_a_reply_that_outlasts_the_drain_is_given_again(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai, LUNAR_DRAIN="200ms") as daemon:
        await _streaming(daemon, openai)
        assert await daemon.stop() == 0
        assert daemon.events("agent:main:cli:local")[-1]["name"] == "started"
        await daemon.start(LUNAR_DRAIN="20s")
        client = await daemon.client()
        assert (await client.closed("m1"))["content"] == "echo: Tell me"
        # A second signal does not wait for the drain.
        await _streaming(daemon, openai, "m2")
        daemon.signal(signal.SIGTERM)
        await daemon.logged("stopping", drain="0:00:20")
        daemon.signal(signal.SIGTERM)
        await daemon.logged("stopping at once")
        assert await daemon.exit() == 0


async def test_a_second_daemon_leaves_the_first_alone(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as first:
        assert first.process is not None
        others = {
            f"process {first.process.pid}": daemons(LUNAR_DATA_DIR=str(first.data_dir)),
            f"Port {first.port} is taken": daemons(LUNAR_HTTP__PORT=str(first.port)),
            str(first.socket): daemons(LUNAR_CHANNELS__CLI__SOCKET=str(first.socket)),
        }
        for other in others.values():
            await other.launch()
        for reason, other in others.items():
            assert await other.exit() == os.EX_TEMPFAIL
            assert reason in "\n".join(other.noise)
        client = await first.client()
        assert (await client.ask("Are you there?"))["content"] == "echo: Are you there?"


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("unknown key; did you mean `drain`?", {"drian": "20s"}),
        ("there is no tool 'shell'", {"agents": {"main": {"tools": ["shell"]}}}),
        ("no group 'no-such-group'", {"channels": {"cli": {"group": "no-such-group"}}}),
    ],
)
async def test_a_configuration_that_cannot_be(daemons: Daemons, words: str, config: dict[str, Any]) -> None:
    daemon = daemons(config=config)
    await daemon.launch()
    assert await daemon.exit() == os.EX_CONFIG
    assert words in "\n".join(daemon.noise)


async def test_a_data_directory_that_cannot_be_made(daemons: Daemons) -> None:
    daemon = daemons()
    daemon.folder.mkdir()
    daemon.data_dir.write_text("a file is in the way")
    await daemon.launch()
    assert await daemon.exit() == os.EX_CANTCREAT
    assert f"{daemon.data_dir}: " in "\n".join(daemon.noise)
    assert "Choose another data_dir" in "\n".join(daemon.noise)


async def test_a_transcript_grows_only_at_its_end(daemons: Daemons, openai: OpenAIServer) -> None:
    """Looked at after each thing that may be done in a session."""
    seen: dict[str, bytes] = defaultdict(bytes)
    async with daemons(server=openai) as daemon:

        def only_grew() -> None:
            now = daemon.raw("agent:main:cli:local")
            assert now.startswith(seen["local"])
            assert now.endswith(b"\n")
            seen["local"] = now

        client = await _streaming(daemon, openai)
        only_grew()
        await client.command("/stop")
        await client.closed("m1")
        only_grew()
        await client.command("/new")
        only_grew()
        await client.ask("Again", "m2")
        only_grew()
        await client.send("retry", id="m3", of="m2")
        await client.closed("m3")
        only_grew()
        assert len(openai.requests) == 3
        assert [message["content"] for message in openai.requests[1].body["messages"][1:]] == ["Again"]
