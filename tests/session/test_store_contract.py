"""What every store of transcripts does, whatever it keeps them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from session.errors import BadCursor, BadEvent
from session.events import Event, Record, System, ToolCall, encode
from session.ids import SessionId
from session.protocols import TranscriptStore
from tests.session.kinds import KINDS, Home, home
from tests.session.stores import HERE, LONG, THERE, note, said, session, user
from tests.session.strategies import events, texts


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return home(request.param, tmp_path)


@pytest.fixture
async def store(where: Home) -> AsyncIterator[TranscriptStore]:
    store = await where.open()
    yield store
    await store.close()


async def everything(store: TranscriptStore, of: SessionId = HERE) -> list[Event]:
    return said(await store.after(of, None, 100_000))


async def raw(store: TranscriptStore, of: SessionId = HERE) -> bytes:
    return b"".join([block async for block in store.blocks(of)])


# -- appending and reading -------------------------------------------------------------------------


async def test_what_is_appended_is_read(store: TranscriptStore) -> None:
    assert await store.end(HERE) is None
    assert await store.after(HERE, None, 9) == []
    assert await store.before(HERE, None, 9) == []
    assert await store.recent(HERE, lambda record: False) == []
    assert await raw(store) == b""
    records = await store.append(HERE, [user("m1"), note("n")])
    assert said(records) == [user("m1"), note("n")]
    await store.append(THERE, [user("m2")])
    header, *rest = await store.after(HERE, None, 9)
    assert rest == records
    assert isinstance(header.event, System)
    assert (header.event.name, header.event.content, header.event.format) == ("session", HERE, 1)
    assert await store.end(HERE) == records[-1].cursor
    assert await store.before(HERE, records[-1].cursor, 1) == records[1:]
    assert await store.after(HERE, records[0].cursor, 9) == records[1:]
    assert await store.after(HERE, None, 9, records[0].cursor) == [header, records[0]]
    assert await store.recent(HERE, lambda record: record == records[0]) == records
    assert await everything(store, THERE) == [user("m2")]
    assert await raw(store) == b"".join(record.line + b"\n" for record in [header, *records])


async def test_a_line_is_what_encoding_makes_of_its_event(store: TranscriptStore) -> None:
    records = await store.append(HERE, [user("m1"), note("\0\u2028Ä😀\ud800")])
    assert [record.line + b"\n" for record in records] == [encode(record.event) for record in records]
    assert records == (await store.after(HERE, None, 9))[1:]


async def test_an_empty_batch_is_stored_too(store: TranscriptStore) -> None:
    assert await store.append(HERE, []) == []
    assert len(await store.after(HERE, None, 9)) <= 1
    await store.append(HERE, [note("n")])
    assert await store.append(HERE, []) == []
    assert await everything(store) == [note("n")]


async def test_results_come_in_the_order_of_the_calls(store: TranscriptStore) -> None:
    done: list[int] = []
    futures = []
    for number in range(300):
        future = store.append(HERE, [note(str(number))], sync=number % 7 == 0)
        future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc] # mypy does not infer a default of a lambda
        futures.append(future)
        if number % 10 == 0:
            await asyncio.sleep(0)
    stored = await asyncio.gather(*futures)
    assert done == list(range(300))
    assert await everything(store) == [note(str(number)) for number in range(300)]
    assert [records[0] for records in stored] == (await store.after(HERE, None, 1_000))[1:]


async def test_many_sessions_at_once(store: TranscriptStore) -> None:
    async def talk(of: SessionId) -> None:
        for turn in range(5):
            records = await store.append(of, [user(f"{of} {turn}")])
            assert await store.end(of) == records[-1].cursor

    sessions = [session(number) for number in range(60)]
    await asyncio.gather(*map(talk, sessions))
    for of in sessions:
        assert await everything(store, of) == [user(f"{of} {turn}") for turn in range(5)]
    assert {entry.session for entry in await store.listing()} == set(sessions)


async def test_a_caller_that_goes_away_changes_nothing(store: TranscriptStore) -> None:
    await store.append(HERE, [user("m0")])
    for number in range(1, 30):
        store.append(HERE, [user(f"m{number}")]).cancel()
        if number % 3 == 0:
            await asyncio.sleep(0)
    await store.append(HERE, [user("last")])
    assert await everything(store) == [user(f"m{number}") for number in range(30)] + [user("last")]


async def test_a_reader_that_goes_away_is_no_burden(store: TranscriptStore) -> None:
    await store.append(HERE, [user("m0")])
    for number in range(20):
        reading = asyncio.create_task(store.after(HERE, None, 9))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
    assert await everything(store) == [user("m0")]


async def test_an_event_that_is_no_json_is_refused_alone(store: TranscriptStore) -> None:
    first = store.append(HERE, [note("1")])
    bad = store.append(HERE, [note("not stored either"), ToolCall(name="x", args=object())])
    good = store.append(HERE, [note("2")])
    await asyncio.gather(first, good)
    with pytest.raises(BadEvent):
        await bad
    assert store.fault is None
    assert await everything(store) == [note("1"), note("2")]


async def test_what_appends_took_is_told(store: TranscriptStore) -> None:
    told: list[float] = []
    store.timed = lambda appends, answer: told.extend(appends)
    await asyncio.gather(*(store.append(HERE, [note(str(number))]) for number in range(9)))
    assert len(told) == 9
    assert all(0 < seconds < 60 for seconds in told)


_HOMES: dict[str, tuple[Home, Iterator[int]]] = {}  # one of each kind for all examples


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(events, min_size=1, max_size=4), min_size=1, max_size=4), name=texts)
def test_any_event_of_any_session_comes_back(
    kind: str, batches: list[list[Event]], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if kind not in _HOMES:
        _HOMES[kind] = home(kind, tmp_path_factory.mktemp(kind)), count()
    where, numbers = _HOMES[kind]
    of = SessionId(f"agent:main:webchat:{next(numbers)}{name}")

    async def write_and_read() -> None:
        store = await where.open()
        try:
            stored: list[Record] = []
            for number, batch in enumerate(batches):
                try:
                    stored += await store.append(of, _unique(batch, number))
                except BadEvent:
                    continue
            lines = [record.line for record in stored]
            assert [record.line for record in await store.after(of, None, 99)][1:] == lines
            if stored:
                assert of in [entry.session for entry in await store.listing()]
                assert (await raw(store, of)).split(b"\n")[1:-1] == lines
        finally:
            await store.close()

    asyncio.run(write_and_read())


def _unique(batch: list[Event], number: int) -> list[Event]:
    """The ids are the messages', and a message comes once."""

    def named(event: Event, place: int) -> Event:
        id = getattr(event, "id", None)
        return event if id is None else replace(event, id=f"{id}{number}.{place}")

    return [named(event, place) for place, event in enumerate(batch)]


# -- cursors and pages -----------------------------------------------------------------------------


async def test_pages_of_a_long_session(store: TranscriptStore) -> None:
    for first in range(0, 1_000, 250):
        await asyncio.gather(*(store.append(HERE, [note(str(n))]) for n in range(first, first + 250)))
    known = await store.after(HERE, None, 5_000)
    assert len(known) == 1_001
    assert await store.recent(HERE, lambda record: False) == known
    for limit in (1, 63, 64, 65, 255, 256, 257, 600):
        assert await store.after(HERE, known[100].cursor, limit) == known[101 : 101 + limit]
        assert await store.before(HERE, known[900].cursor, limit) == known[901 - limit : 901]
        assert await store.before(HERE, None, limit) == known[-limit:]
        assert await store.recent(HERE, lambda record, limit=limit: record == known[-limit]) == known[-limit:]  # type: ignore[misc] # mypy does not infer a default of a lambda
        assert (
            await store.after(HERE, known[100].cursor, 900, known[100 + limit].cursor)
            == (known[101 : 101 + limit])
        )
    assert await store.after(HERE, known[-1].cursor, 5) == []
    assert await store.after(HERE, known[9].cursor, 5, known[5].cursor) == []


async def test_cursors_are_of_one_session_and_one_life_of_it(store: TranscriptStore) -> None:
    mine, others = await store.append(HERE, [user("m")]), await store.append(THERE, [user("m")])
    for bad in ("", "x", ".", "1", "-1.00000000", f"0{mine[0].cursor}", f"ffff{mine[0].cursor}", "١.0"):
        for read in (store.after(HERE, bad, 5), store.before(HERE, bad, 5), store.after(HERE, None, 5, bad)):
            with pytest.raises(BadCursor):
                await read
    with pytest.raises(BadCursor):
        await store.after(THERE, mine[0].cursor, 9)
    with pytest.raises(BadCursor):
        await store.before(HERE, others[0].cursor, 9)
    await store.delete(HERE)
    assert await store.after(HERE, mine[0].cursor, 9) == []
    await store.append(HERE, [user("m")])
    with pytest.raises(BadCursor):
        await store.after(HERE, mine[0].cursor, 9)


async def test_cursors_hold_after_a_restart(where: Home) -> None:
    store = await where.open()
    first = await store.append(HERE, [user("m1")])
    await store.close()
    store = await where.open()
    second = await store.append(HERE, [user("m2")])
    assert await store.after(HERE, first[0].cursor, 9) == second
    await store.close()


async def test_damaged_lines_are_passed_over_and_told(store: TranscriptStore, where: Home) -> None:
    known = await store.append(HERE, [note(str(number)) for number in range(6)])
    where.damage(HERE, 3, known[2].line.replace(b'"2"', b'"x"'))  # the checksum does not hold
    where.damage(HERE, 5, b"-" * len(known[4].line))
    sound = [known[0], known[1], known[3], known[5]]
    assert (await store.after(HERE, None, 5))[1:] == sound
    assert await store.before(HERE, None, 3) == sound[1:]
    assert (await store.recent(HERE, lambda record: False))[1:] == sound
    assert len(store.skipped) == 2
    assert await store.append(HERE, [note("7")]) == await store.before(HERE, None, 1)
    assert (await raw(store)).count(b"\n") == 8


# -- all sessions ----------------------------------------------------------------------------------


async def test_the_listing_gives_true_ids_newest_first(store: TranscriptStore) -> None:
    odd = SessionId("agent:main:telegram:chat:-1:topic:Ä%~\ud800\0")
    for of in (THERE, odd, LONG, HERE):
        await store.append(of, [user("m")])
        await asyncio.sleep(0.02)  # files tell their time in steps of some milliseconds
    listed = await store.listing()
    assert [entry.session for entry in listed] == [HERE, LONG, odd, THERE]
    assert [entry.size for entry in listed] == [len(await raw(store, of)) for of in (HERE, LONG, odd, THERE)]


async def test_a_deleted_session_is_gone(store: TranscriptStore) -> None:
    old = (await store.append(HERE, [user("m1")]))[0].cursor
    await store.append(THERE, [user("m1")])
    assert await store.delete(HERE)
    assert not await store.delete(HERE)
    assert await store.end(HERE) is None
    assert [entry.session for entry in await store.listing()] == [THERE]
    await store.append(HERE, [user("m1")])
    with pytest.raises(BadCursor):
        await store.after(HERE, old, 9)
    assert await everything(store) == [user("m1")]


async def test_what_was_called_before_a_delete_is_gone(store: TranscriptStore) -> None:
    await store.append(HERE, [user("m0")])
    before = store.append(HERE, [user("m1")])
    deleting = asyncio.create_task(store.delete(HERE))
    await asyncio.sleep(0)
    after = store.append(HERE, [user("m2")])
    await asyncio.gather(before, deleting, after)
    assert deleting.result()
    assert await everything(store) in ([], [user("m2")])


async def test_appends_during_deletes_are_stored_or_deleted_but_never_refused(
    store: TranscriptStore,
) -> None:
    appended = 0

    async def talk() -> None:
        nonlocal appended
        for _ in range(60):
            await store.append(HERE, [user(f"m{appended}")])
            appended += 1

    talking = asyncio.create_task(talk())
    while not talking.done():
        await store.delete(HERE)
        await store.end(HERE)
    await talking
    await store.delete(HERE)
    await store.append(HERE, [user("last")])
    assert await everything(store) == [user("last")]


async def test_what_came_with_a_session_goes_with_it(store: TranscriptStore) -> None:
    of = SessionId("agent:main:telegram:user:1")
    await store.append(of, [user("1_7"), note("n")])
    media = store.data_dir / "media" / "telegram"
    media.mkdir(parents=True)
    for name in ("1_7.jpg", "1_7.1.jpg", "1_8.jpg"):
        (media / name).touch()
    assert await store.delete(of)
    assert [path.name for path in media.iterdir()] == ["1_8.jpg"]


# -- life ------------------------------------------------------------------------------------------


async def test_closing_waits_for_what_is_being_written(where: Home) -> None:
    store = await where.open()
    stored = [store.append(session(number), [user("m")]) for number in range(20)]
    await store.close()
    assert all(future.done() for future in stored)
    store = await where.open()
    assert len(await store.listing()) == 20
    await store.close()


async def test_the_probe_finds_nothing(store: TranscriptStore) -> None:
    store.fault = "something"
    await store.probe()
    assert store.fault is None


async def test_one_process_alone_runs_every_session(store: TranscriptStore) -> None:
    await store.append(HERE, [user("m")])
    assert await store.claim(HERE)
    assert await store.append(HERE, [note("n")], leased=True)
    await store.settle(HERE)
    assert await store.claim(HERE)
    await store.release(HERE)
    assert await store.claim(HERE)
    assert await store.append(HERE, [note("n")], leased=True)
    assert store.repaired == store.salvaged == await store.tidy_archive() == []


async def test_who_follows_alone_hears_nothing(store: TranscriptStore) -> None:
    heard: list[object] = []
    records = await store.append(HERE, [user("m")])
    following = store.follow(HERE, records[-1].cursor, heard.append, lambda: heard.append("broken"))
    await store.append(HERE, [note("n")])
    await following.catch_up()
    await store.delete(HERE)
    await store.append(HERE, [note("n")])
    await following.catch_up()
    following.close()
    following.close()
    await following.catch_up()
    assert heard == []
