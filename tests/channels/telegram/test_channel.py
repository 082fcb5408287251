"""The whole way in: a Bot API server on loopback, the real library, the channel, a ledger for a gateway."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from channels.errors import Refused
from channels.telegram import intake
from channels.telegram.chat import Chat
from channels.telegram.dead_letters import FILE
from channels.telegram.welcome import Welcome
from session.ids import PeerId
from tests.channels.telegram.ledger import House
from tests.channels.telegram.stage import until
from tests.channels.telegram.test_adapter import POISON
from tests.fakes.telegram_server import Hang, Html, Refuse, TelegramServer, unauthorized

GROUP = -100


def dead(house: House) -> list[dict[str, Any]]:
    path = house.folder / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# -- nothing lost, nothing twice -------------------------------------------------------------------


async def test_a_message_is_stored_and_confirmed(house: House, server: TelegramServer) -> None:
    await house.start()
    server.user(7, "Ann").says("Hello")
    await house.settled()
    [message] = house.ledger.messages
    assert (message.peer, message.id, message.text) == (("telegram", "user:7"), "7_1", "Hello")
    assert message.insistent
    assert house.channel.health is None


async def test_what_was_sent_while_nobody_was_there_is_taken_in(house: House, server: TelegramServer) -> None:
    for number in range(120):
        server.user(7 + number % 3).says(str(number))
    await house.start()
    await house.settled()
    for user in range(3):
        expected = [str(number) for number in range(120) if number % 3 == user]
        assert house.ledger.texts(f"user:{7 + user}") == expected


def _scene(server: TelegramServer) -> None:
    ann, bea, group = server.user(7, "Ann"), server.user(8, "Bea"), server.group(GROUP)
    ann.says("a1")
    bea.says("b1")
    server.push_raw({"message": {"message_id": "x"}})
    ann.sends_album([b"1", b"2"], "a2")
    ann.says("/new")
    bea.says("@lunar_bot g1", into=group)
    ann.edits(ann.says("a3"), "a3, better")
    bea.says("b2")


_ANN = ["a1", "[photo, 1280×1280, 1 B, kept as media/telegram/7_3.jpg]\na2"]
_ANN += ["[photo, 1280×1280, 1 B, kept as media/telegram/7_4.jpg]", "a3"]


def _check_scene(house: House) -> None:
    assert house.ledger.texts("user:7") == _ANN
    assert house.ledger.texts("user:8") == ["b1", "b2"]
    assert house.ledger.texts("chat:-100") == ["Bea: @lunar_bot g1"]
    assert len(house.ledger.systems("user:7", "reset")) == 1
    assert [edit.content for edit in house.ledger.systems("user:7", "edit")] == ["a3, better"]
    assert len(dead(house)) == 1


@pytest.mark.parametrize("step", range(1, 15))
async def test_a_crash_at_any_step_of_the_store_loses_and_doubles_nothing(
    house: House, server: TelegramServer, step: int
) -> None:
    steps = 0

    def crash() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            house.break_off()
            raise asyncio.CancelledError

    house.ledger.step = crash
    _scene(server)
    await house.start(wait=False)
    assert house.task is not None
    await house.until(lambda: house.task.done() or not server.updates.pending)  # type: ignore[union-attr]  # set above
    await house.stop()
    await house.start()
    await house.settled()
    _check_scene(house)


@pytest.mark.parametrize("count", range(1, 11))
async def test_a_crash_at_any_call_loses_and_doubles_nothing(
    house: House, server: TelegramServer, count: int
) -> None:
    _scene(server)
    await house.start(wait=False)
    await house.until(lambda: len(server.calls) >= count)
    await house.stop()
    await house.start()
    await house.settled()
    _check_scene(house)


async def test_a_process_that_dies_before_it_confirms_is_no_repeat(
    house: House, server: TelegramServer
) -> None:
    await house.start()
    hang = server.fail("getUpdates", Hang(), when=lambda params: "offset" in params)
    server.user(7).says("Hello")
    await house.until(lambda: hang.happened)
    await house.stop()
    assert server.updates.pending
    await house.start()
    await house.settled()
    assert house.ledger.texts() == ["Hello"]
    assert house.ledger.repeats == 1


async def test_messages_of_many_chats_share_one_wait_for_the_disk(
    house: House, server: TelegramServer
) -> None:
    server.group(GROUP)
    for number in range(10):
        forum = server.group(-1_001_000_000_000 - number)
        server.user(7).says(f"@lunar_bot {number}", into=forum)
    house.ledger.gate.clear()
    await house.start()
    await house.until(lambda: house.ledger.at_once == 10)
    house.ledger.gate.set()
    await house.settled()
    assert len(house.ledger.messages) == 10
    assert intake.AT_ONCE >= 10


async def test_one_chat_is_in_order_however_slow_the_disk_is(house: House, server: TelegramServer) -> None:
    house.ledger.gate.clear()
    for number in range(30):
        server.user(7).says(str(number))
    await house.start()
    await house.until(lambda: house.ledger.at_once)
    assert house.ledger.at_once == 1
    house.ledger.gate.set()
    await house.settled()
    assert house.ledger.texts() == [str(number) for number in range(30)]


# -- what cannot be stored -------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["storage_unavailable", "shutting_down"])
async def test_a_disk_that_refuses_holds_the_offset(house: House, server: TelegramServer, code: str) -> None:
    house.ledger.refuse = lambda _: Refused(code, "not now")  # type: ignore[arg-type]  # one of the codes
    await house.start()
    server.user(7).says("one")
    server.user(7).says("two")
    server.user(8).says("three")
    began = house.time.now
    await house.until(lambda: house.time.now - began > 30)
    assert len(server.updates.pending) == 3
    assert house.channel.health is None  # Telegram is reached; the store says of itself that it is not
    house.ledger.refuse = lambda _: None
    await house.settled()
    assert house.ledger.texts("user:7") == ["one", "two"]
    assert house.ledger.texts("user:8") == ["three"]
    assert not dead(house)


async def test_one_chat_that_waits_for_the_disk_is_not_overtaken_by_itself(
    house: House, server: TelegramServer
) -> None:
    refusals = [Refused("storage_unavailable", "not now")] * 2
    house.ledger.refuse = lambda message: refusals.pop() if refusals and message.text == "one" else None
    await house.start()
    server.user(7).says("one")
    server.user(8).says("other")
    server.user(7).says("two")
    await house.settled()
    assert house.ledger.texts("user:7") == ["one", "two"]
    assert house.ledger.texts("user:8") == ["other"]
    assert house.ledger.repeats == 0


async def test_a_session_that_alone_cannot_be_written_holds_nobody_up_for_ever(
    house: House, server: TelegramServer
) -> None:
    broken = PeerId("user:7")
    house.ledger.refuse = lambda message: (
        Refused("storage_unavailable", "not here") if message.peer.peer_id == broken else None
    )
    await house.start()
    server.user(7).says("lost")
    await house.until(lambda: len(server.calls_of("getUpdates")) > 10)
    assert not dead(house)
    server.user(8).says("stored")
    await house.settled()
    assert [letter["why"] for letter in dead(house)] == ["storage_unavailable: not here"]
    assert house.ledger.texts() == ["stored"]
    await house.until(lambda: server.user(7).chat.texts() == ["not here"])


@pytest.mark.parametrize(
    "failure",
    [
        Refused("text_too_large", "A message may have at most 64 KiB of text."),
        Refused("not_found", "There is no agent."),
        ValueError("a defect"),
        OSError("a defect"),
    ],
)
async def test_whatever_else_goes_wrong_costs_one_dead_letter(
    house: House, server: TelegramServer, failure: Exception
) -> None:
    house.ledger.refuse = lambda message: failure if message.text == "bad" else None
    await house.start()
    for text in ("one", "bad", "two"):
        server.user(7).says(text)
    await house.settled()
    assert house.ledger.texts() == ["one", "two"]
    assert len(dead(house)) == house.channel.dead_letters.count == 1
    await house.until(lambda: server.user(7).chat.texts())
    [told] = server.user(7).chat.texts()
    assert told == (failure.public if isinstance(failure, Refused) else Welcome.LOST)


async def test_a_message_that_is_stored_and_reads_otherwise_is_a_repeat(
    house: House, server: TelegramServer
) -> None:
    house.ledger.refuse = lambda message: Refused("id_conflict", "used for another text")
    await house.start()
    server.user(7).says("Hello")
    await house.settled()
    assert not dead(house)


async def test_each_poison_costs_one_dead_letter_and_nothing_else(
    house: House, server: TelegramServer
) -> None:
    poison = [update for update in POISON if isinstance(update, dict)]
    for number, update in enumerate(poison):
        server.user(7).says(str(number))
        server.push_raw(update)
    server.user(7).says("last")
    await house.start()
    await house.settled()
    assert house.ledger.texts() == [*map(str, range(len(poison))), "last"]
    kept = sorted((letter["update"] for letter in dead(house)), key=lambda update: update["update_id"])
    assert [update | {"update_id": 0} for update in kept] == [update | {"update_id": 0} for update in poison]
    assert house.channel.dead_letters.count == len(poison)


async def test_poison_that_comes_again_after_a_crash_is_kept_once(
    house: House, server: TelegramServer
) -> None:
    server.push_raw({"message": 5})
    hang = server.fail("getUpdates", Hang(), when=lambda params: "offset" in params)
    await house.start()
    await house.until(lambda: hang.happened)
    await house.stop()
    await house.start()
    await house.settled()
    assert len(dead(house)) == 1


async def test_dead_letters_that_cannot_be_written_hold_the_offset(
    house: House, server: TelegramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (house.folder / FILE).mkdir()
    server.push_raw({"message": 5})
    await house.start()
    await house.until(lambda: len(server.calls_of("getUpdates")) > 4)
    assert len(server.updates.pending) == 1
    (house.folder / FILE).rmdir()
    await house.settled()
    assert len(dead(house)) == 1


# -- commands, greetings, strangers ----------------------------------------------------------------


async def test_commands_are_answered_and_in_the_menu(house: House, server: TelegramServer) -> None:
    await house.start()
    ann, group = server.user(7, "Ann"), server.group(GROUP)
    ann.says("/new")
    asked = ann.says("/new@lunar_bot", into=group)
    ann.says("/new@another_bot", into=group)
    ann.says("/start")
    await house.settled()
    await house.until(lambda: len(ann.chat.texts()) == 2 and group.chat.texts())
    assert ann.chat.texts()[0] == "new was carried out"
    assert ann.chat.texts()[1].startswith("Hello!")
    assert "/new – begin a new conversation" in ann.chat.texts()[1]
    [answer] = group.chat.bot_messages()
    assert answer.reply_to_id == asked.id
    [menu] = server.commands.values()
    assert [entry["command"] for entry in menu] == ["new", "help"]
    assert not house.ledger.messages


async def test_a_stranger_gets_a_code_and_talks_when_it_is_approved(
    houses: Callable[..., House], server: TelegramServer
) -> None:
    house = houses(allow=None)
    await house.start()
    ann = server.user(7, "Ann")
    ann.says("/start")
    ann.says("Hello?")
    await house.settled()
    [code] = house.pairing.waiting()
    assert (code.peer, code.name) == ("user:7", "Ann")
    await house.until(lambda: ann.chat.texts())
    [sentence] = ann.chat.texts()
    assert f"/approve {code.code}" in sentence
    await house.stop()
    assert house.pairing.approve(code.code) == "user:7"
    await house.start()
    ann.says("Hello!")
    await house.settled()
    assert house.ledger.texts() == ["Hello!"]
    told = "You may talk to me now. Write to me, and I will answer."
    await house.until(lambda: len(ann.chat.texts()) == 2)
    await house.stop()
    await house.start()  # whoever was told is not told again
    await house.stop()
    assert ann.chat.texts() == [sentence, told]


async def test_a_group_is_let_in_as_a_whole(houses: Callable[..., House], server: TelegramServer) -> None:
    house = houses(allow=None)
    await house.start()
    ann, group = server.user(7, "Ann"), server.group(GROUP, "Club")
    ann.says("among us", into=group)
    ann.says("@lunar_bot hi", into=group)
    await house.settled()
    [code] = house.pairing.waiting()
    assert (code.peer, code.name) == ("chat:-100", "Club, asked for by Ann")
    house.pairing.approve(code.code)
    await house.until(lambda: any("group may talk to me now" in text for text in group.chat.texts()))
    server.user(8, "Bea").says("@lunar_bot hi", into=group)
    server.user(8, "Bea").says("hi")
    await house.settled()
    assert house.ledger.texts() == ["Bea: @lunar_bot hi"]


@pytest.mark.parametrize("allow", [(), ("8",)])
async def test_a_list_turns_strangers_away_in_silence(
    houses: Callable[..., House], server: TelegramServer, allow: tuple[str, ...]
) -> None:
    house = houses(allow=allow)
    await house.start()
    server.user(7).says("/start")
    server.user(7).says("Hello?")
    await house.settled()
    assert not house.ledger.messages
    assert not house.pairing.waiting()
    assert not server.calls_of("sendMessage")


async def test_a_notice_that_waits_holds_nothing_up(house: House, server: TelegramServer) -> None:
    await house.start()
    server.fail("sendMessage", Hang())
    server.user(7).says("/start")
    server.user(7).says("Hello")
    await house.settled()
    assert house.ledger.texts() == ["Hello"]
    server.release.set()


async def test_what_one_chat_is_to_be_told_takes_no_place_from_others(
    house: House, server: TelegramServer
) -> None:
    await house.start()
    bea = server.user(8, "Bea")
    for _ in range(300):
        house.channel._say(Chat(-100), "You asked for help.")  # a group is told twenty things a minute
    house.channel._say(Chat(8), "Done.")
    await until(server, house.time, lambda: bea.chat.texts() == ["Done."], still=True)


async def test_what_cannot_be_read_is_answered_with_one_line(house: House, server: TelegramServer) -> None:
    await house.start()
    server.user(7).sends_sticker(b"1")
    await house.until(lambda: server.user(7).chat.texts())
    [line] = server.user(7).chat.texts()
    assert line.startswith("I cannot read stickers yet.")
    assert "\n" not in line
    assert not house.ledger.messages


# -- files -----------------------------------------------------------------------------------------


async def test_files_are_fetched_after_their_message_is_stored(house: House, server: TelegramServer) -> None:
    house.ledger.gate.clear()
    await house.start()
    server.user(7).sends_document(b"words", "notes.txt")
    await house.until(lambda: house.ledger.at_once)
    assert not server.calls_of("getFile")
    house.ledger.gate.set()
    path = house.folder / "media" / "telegram" / "7_1.txt"
    await house.until(path.exists)
    assert path.read_bytes() == b"words"
    assert path.stat().st_mode & 0o777 == 0o600
    await house.until(lambda: [file.name for file in path.parent.iterdir()] == ["7_1.txt"])


async def test_files_that_were_not_fetched_before_a_restart_are_fetched_after_it(
    house: House, server: TelegramServer
) -> None:
    server.fail("getFile", Html(502), times=2)
    await house.start()
    server.user(7).sends_photo(b"cat")
    await house.settled()
    await house.until(lambda: server.calls_of("getFile"))
    await house.stop()
    await house.start()
    await house.until((house.folder / "media" / "telegram" / "7_1.jpg").exists)


async def test_a_file_that_cannot_be_fetched_is_said_so(house: House, server: TelegramServer) -> None:
    server.fail("getFile", Refuse(400, "Bad Request: wrong file_id"), times=1)
    server.fail("file", Html(502), times=None)
    await house.start()
    ann = server.user(7)
    ann.sends_photo(b"cat")
    ann.sends_voice(b"sound")
    await house.until(lambda: len(ann.chat.texts()) == 2)
    assert ann.chat.texts()[0] == "I could not fetch the photo. Please send it again, or as text."
    assert "voice message" in ann.chat.texts()[1]
    assert not list((house.folder / "media" / "telegram").iterdir())


async def test_a_file_over_the_limit_is_not_fetched(
    houses: Callable[..., House], server: TelegramServer
) -> None:
    house = houses(media_limit=4)
    await house.start()
    server.user(7).sends_document(b"12345", "big.txt")
    server.user(7).sends_document(b"1234", "small.txt")
    await house.until((house.folder / "media" / "telegram" / "7_2.txt").exists)
    assert "too large" in house.ledger.texts()[0]
    assert len(server.calls_of("getFile")) == 1


# -- groups ----------------------------------------------------------------------------------------


async def test_an_edit_is_stored_once_and_answered_by_nobody(house: House, server: TelegramServer) -> None:
    await house.start()
    ann = server.user(7)
    first, command = ann.says("Helo"), ann.says("/new")
    ann.edits(first, "Hello")
    ann.edits(first, "Hello")
    ann.edits(first, "Hello!")
    ann.edits(command, "not any more")
    ann.edits(server.user(7).says("second"), "second")
    await house.settled()
    assert house.ledger.texts() == ["Helo", "second"]
    edits = house.ledger.systems("user:7", "edit")
    assert [(edit.of, edit.content) for edit in edits] == [("7_1", "Hello"), ("7_1", "Hello!")]


async def test_what_was_overheard_goes_along_where_it_is_asked_for(
    houses: Callable[..., House], server: TelegramServer
) -> None:
    house = houses(group_context=2)
    await house.start()
    ann, bea, group = server.user(7, "Ann"), server.user(8, "Bea"), server.group(GROUP)
    ann.says("one", into=group)
    bea.edits(bea.says("two", into=group), "two!")
    ann.says("three", into=group)
    await house.settled()
    await house.stop()
    await house.start()
    bea.says("@lunar_bot what?", into=group)
    bea.says("@lunar_bot and now?", into=group)
    await house.settled()
    heard = "[said in the group before, not to you]\nBea: two\nAnn: three\n[said to you]\n"
    assert house.ledger.texts() == [f"{heard}Bea: @lunar_bot what?", "Bea: @lunar_bot and now?"]
    assert [event.sender for event in house.ledger.systems("chat:-100", "context")] == ["Ann", "Bea", "Ann"]


async def test_a_message_that_took_what_was_overheard_along_is_known_again(
    houses: Callable[..., House], server: TelegramServer
) -> None:
    house = houses(group_context=2)
    ann, group = server.user(7, "Ann"), server.group(GROUP)
    ann.says("one", into=group)
    ann.says("@lunar_bot two", into=group)
    hang = server.fail("getUpdates", Hang(), when=lambda params: "offset" in params)
    await house.start()
    await house.until(lambda: hang.happened)
    await house.stop()
    await house.start()
    await house.settled()
    assert len(house.ledger.messages) == 1
    assert len(house.ledger.systems("chat:-100", "context")) == 1
    assert house.ledger.repeats == 1
    assert not dead(house)


async def test_what_goes_along_has_its_bounds(houses: Callable[..., House], server: TelegramServer) -> None:
    house = houses(group_context=50)
    ann, group = server.user(7, "Ann"), server.group(GROUP)
    for number in range(20):
        ann.sends_photo(b"1", f"{number} " + "x" * 900, into=group)
    ann.says("y" * 4000, into=group)
    ann.says("@lunar_bot hi", into=group)
    await house.start()
    await house.settled()
    [text] = house.ledger.texts()
    assert 7000 < len(text) < 8200
    assert "Ann: " + "y" * 995 + "…\n[said to you]" in text
    assert "Ann: [photo, 1280×1280, 1 B]\n19 x" in text
    assert not (house.folder / "media" / "telegram").exists()


async def test_nothing_is_overheard_unless_it_is_asked_for(house: House, server: TelegramServer) -> None:
    await house.start()
    server.user(7).says("among us", into=server.group(GROUP))
    await house.settled()
    assert not house.ledger.transcripts


async def test_a_group_that_moves_keeps_its_session(house: House, server: TelegramServer) -> None:
    await house.start()
    ann, group = server.user(7, "Ann"), server.group(GROUP)
    ann.says("@lunar_bot before", into=group)
    new = group.migrates()
    ann.says("@lunar_bot after", into=new)
    await house.settled()
    await house.stop()
    await house.start()
    ann.says("@lunar_bot later", into=new)
    await house.settled()
    assert house.ledger.texts("chat:-100") == [
        f"Ann: @lunar_bot {when}" for when in ("before", "after", "later")
    ]
    assert [event.chat for event in house.ledger.systems("chat:-100", "address")] == [str(new.id)]


async def test_a_strangers_group_that_moves_leaves_no_trace(
    houses: Callable[..., House], server: TelegramServer
) -> None:
    house = houses(allow=("7",))
    await house.start()
    new = server.group(GROUP).migrates()
    server.user(7, "Ann").says("@lunar_bot hi", into=new)
    await house.settled()
    assert house.ledger.texts(f"chat:{new.id}") == ["Ann: @lunar_bot hi"]
    assert not house.ledger.transcripts["chat:-100"]
    assert not (house.folder / "telegram-moves.jsonl").exists()


# -- life ------------------------------------------------------------------------------------------


async def test_numbers_that_begin_anew_hide_nothing(house: House, server: TelegramServer) -> None:
    await house.start()
    for first in (500, 500, 3):
        server.restart_update_ids(first)
        server.user(7).says("Hello")
        await house.settled()
        await house.until(lambda: server.calls_of("getUpdates")[-1].params.get("offset") is None)
    assert house.ledger.texts() == ["Hello"] * 3


async def test_a_bad_token_shows_in_health_and_is_waited_out(house: House, server: TelegramServer) -> None:
    server.fail("getMe", unauthorized(), times=3)
    server.user(7).says("Hello")
    await house.start(wait=False)
    await house.until(lambda: house.channel.health)
    assert "TELEGRAM_BOT_TOKEN" in (house.channel.health or "")
    assert not house.readied
    await house.settled()
    assert house.readied
    assert house.ledger.texts() == ["Hello"]


async def test_a_menu_that_is_refused_keeps_nobody_waiting(house: House, server: TelegramServer) -> None:
    server.fail("setMyCommands", Refuse(400, "Bad Request: BOT_COMMAND_INVALID"), times=2)
    await house.start()
    server.user(7).says("Hello")
    await house.settled()
    assert house.channel.health is None
    await house.until(lambda: server.commands)


async def test_a_server_that_is_away_is_waited_for(house: House, server: TelegramServer) -> None:
    await house.start()
    await server.stop_listening()
    server.user(7).says("Hello")
    await house.until(lambda: house.channel.health)
    await server.start_listening()
    await house.until(lambda: house.channel.health is None)
    await house.settled()
    assert house.ledger.texts() == ["Hello"]


async def test_the_token_is_nowhere(
    house: House, server: TelegramServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    secret = server.token.split(":")[1]
    server.fail("getMe", unauthorized())
    server.fail("getUpdates", Html(502), times=3)
    server.fail("getFile", Html(502), times=1)
    server.fail("setMyCommands", Html(404), times=1)
    server.push_raw({"message": 5})
    server.user(7).sends_photo(b"1", "Hello")
    await house.start()
    await house.settled()
    await house.until((house.folder / "media" / "telegram" / "7_1.jpg").exists)
    await server.stop_listening()
    await house.until(lambda: house.channel.health)
    assert secret not in (house.channel.health or "")
    await house.stop()
    logged = capsys.readouterr()
    assert secret not in logged.out + logged.err
    assert "an update went to the dead letters" in logged.out
    ours = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    assert not [message for message in ours if secret in message]
    for path in list(house.folder.rglob("*")):
        assert path.is_dir() or secret.encode() not in path.read_bytes()
