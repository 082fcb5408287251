"""What must hold after every trial, judged by what people saw and by the transcripts.

The numbers are those of the list in docs/reliability.md.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from gateway.turn_run import GAVE_UP
from tests.faults.people import WORD, Chatter, Client
from tests.faults.world import SECRETS, World

Events = list[dict[str, Any]]


def check(world: World) -> None:
    """Raises `AssertionError` at the first thing that does not hold."""
    for someone in world.everybody:
        if not someone.said:
            continue
        events = _parsed(world, someone.session)
        _stored_once(someone, events)
        _one_outcome(someone, events)
        _in_order(someone, events)
        _given_up(someone, events)
        _calls_paired(someone, events)
        _nobody_elses(world, someone, events)
        if isinstance(someone, Client):
            _seen_by(someone)
        else:
            _shown_to(someone, events)
    _effects_once(world)
    _no_secret(world)


def _parsed(world: World, session: str) -> Events:
    """4: every line is whole, and its checksum holds."""
    events = []
    lines = world.raw(session).split(b"\n")
    for line in lines[:-1]:
        body, found, crc = line.rpartition(b',"crc":"')
        assert found, f"{session}: a line without a checksum: {line[:200]!r}"
        assert zlib.crc32(body) == int(crc[:8], 16), f"{session}: a damaged line: {line[:200]!r}"
        events.append(json.loads(line))
    assert lines[-1] == b"", f"{session}: a torn tail"
    assert events, f"{session}: nothing is stored"
    return events


def _stored_once(someone: Client | Chatter, events: Events) -> None:
    """1: what was acknowledged is there exactly once, everything else at most once."""
    stored = [event["id"] for event in events if event["role"] == "user"]
    assert len(set(stored)) == len(stored), f"{someone.name}: stored twice: {stored}"
    texts = {event["id"]: event["content"] for event in events if event["role"] == "user"}
    for said in someone.said:
        if isinstance(someone, Client) and said.id in someone.commands:
            continue
        assert said.id in texts, f"{someone.name}: lost: {said}"
        assert set(WORD.findall(said.text)) <= set(WORD.findall(texts[said.id])), (
            f"{someone.name}: changed: {said}"
        )


def _one_outcome(someone: Client | Chatter, events: Events) -> None:
    """2: every message has one closing event."""
    closed = [id for event in events for id in event.get("answers") or ()]
    asked = [event["id"] for event in events if event["role"] == "user"]
    assert sorted(closed) == sorted(asked), f"{someone.name}: asked {asked}, closed {closed}"


def _in_order(someone: Client | Chatter, events: Events) -> None:
    """3: one turn at a time, in the order of the messages."""
    closed = [id for event in events for id in event.get("answers") or ()]
    asked = [event["id"] for event in events if event["role"] == "user"]
    assert closed == asked, f"{someone.name}: out of order: asked {asked}, closed {closed}"
    over: set[str] = set()
    running: str | None = None
    for event in events:
        turn = event.get("turn")
        if event["role"] == "system" and event["name"] not in ("started", "turn_failed"):
            continue
        if turn is None:
            continue
        assert turn not in over, f"{someone.name}: turn {turn} goes on after its end: {event}"
        assert running in (None, turn), f"{someone.name}: turn {turn} runs beside {running}"
        running = turn
        if event.get("answers"):
            over.add(turn)
            running = None


def _given_up(someone: Client | Chatter, events: Events) -> None:
    """2: a turn fails only after three attempts; whatever else goes wrong meanwhile passes."""
    for event in events:
        if event.get("name") == "turn_failed":
            assert event["content"] == GAVE_UP, f"{someone.name}: failed for another reason: {event}"


def _calls_paired(someone: Client | Chatter, events: Events) -> None:
    """4: every tool call has one result, behind it."""
    open_calls: list[str] = []
    for event in events:
        if event["role"] == "tool_call":
            open_calls.append(event["call_id"])
        if event["role"] == "tool_result":
            assert event["call_id"] in open_calls, f"{someone.name}: a result of no call: {event}"
            open_calls.remove(event["call_id"])
    assert not open_calls, f"{someone.name}: calls without a result: {open_calls}"


def _effects_once(world: World) -> None:
    """4: no side effect of a tool happened twice."""
    assert len(set(world.stamped)) == len(world.stamped), f"stamped twice: {world.stamped}"


def _nobody_elses(world: World, someone: Client | Chatter, events: Events) -> None:
    """5: no word of anybody else's."""
    text = json.dumps(events) + json.dumps(someone.closed if isinstance(someone, Client) else someone.shown())
    foreign = [word for word in WORD.findall(text) if not word.startswith(f"{someone.name}w")]
    assert not foreign, f"{someone.name} got words of somebody else's: {foreign[:5]}"


def _seen_by(client: Client) -> None:
    """2, as a client sees it: every event once, every message's outcome once."""
    assert len(set(client.cursors)) == len(client.cursors), f"{client.name}: an event was shown twice"
    assert client.resets == 0, f"{client.name}: its cursor was not known any more"
    closed = [id for id, _ in client.closed]
    assert len(set(closed)) == len(closed), f"{client.name}: answered twice: {closed}"
    words = {said.id: set(WORD.findall(said.text)) for said in client.said}
    for id, event in client.closed:
        if event["role"] == "assistant" and event["finish"] == "stop":
            assert words[id] <= set(WORD.findall(event["content"])), (
                f"{client.name}: {id} not answered: {event}"
            )


def _shown_to(chatter: Chatter, events: Events) -> None:
    """2, as a person in Telegram sees it: every answer once, in order; or the line that says why not."""
    shown = chatter.shown()
    assert len(set(shown)) == len(shown), f"{chatter.name}: shown twice: {shown}"
    failed = {id for event in events if event.get("name") == "turn_failed" for id in event["answers"]}
    wanted = [word for said in chatter.said for word in WORD.findall(said.text) if said.id not in failed]
    assert shown == wanted, f"{chatter.name}: {wanted} was wanted, {shown} is shown"


def _no_secret(world: World) -> None:
    """6: no secret in a log, a transcript, or anything that was shown."""
    said = "".join(json.dumps(daemon.log) + "".join(daemon.noise) for daemon in world.daemons)
    shown = "".join(text for chatter in world.chatters for text in chatter.person.chat.seen_texts())
    for secret in SECRETS:
        assert secret not in said + shown, "a secret in the log, or shown"
        for session in (someone.session for someone in world.everybody):
            assert secret.encode() not in world.raw(session), f"a secret in the transcript of {session}"
        for path in (path for daemon in world.daemons for path in daemon.data_dir.rglob("*")):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), f"a secret in {path}"
