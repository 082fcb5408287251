"""What is a command, what is text, and what each command does."""

import asyncio
import threading
from pathlib import Path

import pytest

from channels.base import Answer, Approval
from channels.errors import Refused
from gateway import commands
from gateway.commands import COMMANDS, Call
from gateway.questions import NOT_ASKED
from session import transcript
from session.events import System
from tests.fakes.gateway import Gate, Gateway, ScriptedRunner, Tools, Watcher, asked, cli
from tests.fakes.ndjson import TIMEOUT
from tests.session.disk import Disk


@pytest.mark.parametrize(
    "text", ["/new", " /new\n", "/new now please", "/new\tx", "/stop", "/status", "/help"]
)
def test_a_known_word_is_a_command(text: str) -> None:
    call = commands.parse("m1", text)
    assert isinstance(call, Call)
    assert call.name == text.strip().split()[0][1:]
    assert call.argument == text.strip().partition(text.strip().split()[0])[2].strip()


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "//new",
        "/usr/bin/x",
        "/unknown with more",
        "/",
        "/ new",
        "/New",
        "/né",
        "new",
        "a /new",
        "/2",
        "",
    ],
)
def test_what_is_ordinary_text(text: str) -> None:
    assert commands.parse("m1", text) is None


@pytest.mark.parametrize(
    ("text", "hint"), [("/nwe", "Did you mean /new?"), ("/stopp", "/stop"), ("/xyzzy", "/help lists them")]
)
def test_an_unknown_word_alone(text: str, hint: str) -> None:
    answer = commands.parse("m1", text)
    assert isinstance(answer, str)
    assert hint in answer


def test_two_slashes_stand_for_one() -> None:
    assert commands.plain("//new") == "/new"
    assert commands.plain("/usr/bin/x") == "/usr/bin/x"
    assert commands.plain(" //x") == " //x"


async def test_help_names_every_command(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        for operator in (True, False):
            seat = await gateway.router.session(cli(), operator=operator)
            answer = await seat.submit("m1", "/help")
            assert isinstance(answer, Answer)
            for command in COMMANDS.values():
                shown = operator or not command.operators
                assert (f"/{command.name} " in answer.text) is shown
                assert (command.summary in answer.text) is shown


async def test_approving_is_for_operators(folder: Path) -> None:
    tried = []

    async def approve(code: str) -> tuple[bool, str]:
        tried.append(code)
        return True, "user:1 may talk from now on."

    async with Gateway(folder) as gateway:
        gateway.router.approve = approve
        anybody = await gateway.router.session(cli())
        refused = await anybody.submit("m1", "/approve ABC234")
        assert isinstance(refused, Answer)
        assert "operators" in refused.text
        assert tried == []
        owner = await gateway.router.session(cli(), operator=True)
        assert await owner.submit("m2", "/approve ABC234") == Answer("user:1 may talk from now on.")
        assert await owner.submit("m2", "/approve ABC234") == Answer("/approve was carried out already.")
        assert tried == ["ABC234"]


async def test_new_stops_the_turn_and_forgets(folder: Path) -> None:
    gate = Gate("Well")
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        seat = await gateway.router.session(cli())
        lane = await gateway.lane()
        watcher = Watcher(lane)
        await seat.submit("m1", "Hello")
        await gate.entered.wait()
        await seat.submit("m2", "A waiting one")
        answer = await seat.submit("c1", "/new")
        assert isinstance(answer, Answer)
        assert "new conversation" in answer.text
        assert (await watcher.done()).outcome == "stopped"
        gate.open.set()
        await watcher.done(2)
        assert [asked(ask) for ask in gateway.runner.asked] == ["Hello", "A waiting one"]
        assert gateway.runner.asked[1].history == []
        assert lane.conversation.window.size == 2


async def test_a_repeat_is_not_carried_out_again(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seat = await gateway.router.session(cli())
        watcher = Watcher(await gateway.lane())
        await seat.submit("c1", "/new")
        await seat.submit("m1", "Hello")
        await watcher.done()
        again = await seat.submit("c1", "/new")
        assert again == Answer("/new was carried out already.")
        assert [event for event in watcher.events if isinstance(event, System) and event.name == "reset"] == [
            event for event in watcher.events if isinstance(event, System) and event.id == "c1"
        ]
        assert (await gateway.lane()).conversation.window.size == 2
        with pytest.raises(Refused) as refused:
            await seat.submit("m1", "/new")
        assert refused.value.code == "id_conflict"


async def test_a_command_that_is_said_again_while_it_is_being_stored_is_carried_out_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(transcript, "os", disk)
    storing, go_on = threading.Event(), threading.Event()

    def fdatasync(fd: int) -> None:
        storing.set()
        go_on.wait(TIMEOUT)

    async with Gateway(folder) as gateway:
        seat = await gateway.router.session(cli())
        watcher = Watcher(await gateway.lane())
        for number in range(1, 4):
            await seat.submit(f"m{number}", f"Question {number}")
            await watcher.done(number)
        disk.instead["fdatasync"] = fdatasync
        first = asyncio.create_task(seat.submit("c1", "/undo"))
        await asyncio.to_thread(storing.wait, TIMEOUT)
        first.cancel()  # its connection breaks
        other = await gateway.router.session(cli())
        again = asyncio.create_task(other.submit("c1", "/undo"))
        await asyncio.sleep(0)
        go_on.set()
        told = await again
        assert isinstance(told, Answer)
        assert "Taken back: “Question 3”" in told.text
        assert await other.submit("c1", "/undo") == Answer("/undo was carried out already.")
        window = (await gateway.lane()).conversation.window
        assert [message.content for one in window.before("") for message in one.asked] == [
            "Question 1",
            "Question 2",
        ]


async def test_many_who_say_the_same_at_once_share_one_answer(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        seats = [await gateway.router.session(cli()) for _ in range(300)]
        answers = await asyncio.gather(*(seat.submit("c1", "/help") for seat in seats))
        assert len(set(answers)) == 1
        assert not (await gateway.lane()).commands


async def test_stop_says_what_it_did(folder: Path) -> None:
    gate = Gate("Well")
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        seat = await gateway.router.session(cli())
        watcher = Watcher(await gateway.lane())
        assert await seat.submit("c1", "/stop") == Answer("Nothing is running.")
        await seat.submit("m1", "Hello")
        await gate.entered.wait()
        assert await seat.submit("c2", "/stop") == Answer("Stopped.")
        assert (await watcher.done()).outcome == "stopped"
        assert await seat.submit("c2", "/stop") == Answer("/stop was carried out already.")


async def test_status_says_what_is_going_on(folder: Path) -> None:
    gate = Gate()
    async with Gateway(folder, ScriptedRunner(gate)) as gateway:
        seat = await gateway.router.session(cli())
        await seat.submit("m1", "Hello")
        await gate.entered.wait()
        await seat.submit("m2", "Hello")
        gateway.channel_faults.faults["telegram"] = "not reachable"
        answer = await seat.submit("c1", "/status")
        assert isinstance(answer, Answer)
        rows = dict(line.split(": ", 1) for line in answer.text.splitlines())
        assert rows["Agent"] == "main, in session agent:main:cli:local"
        assert rows["Model"] == "scripted"
        assert rows["Queue"] == "a reply is being written, 1 waiting"
        assert rows["Trouble"] == "channel telegram"
        assert len(rows) <= 8
        gate.open.set()


async def said(gateway: Gateway, id: str, text: str, *, operator: bool = False) -> str:
    seat = await gateway.router.session(cli(), operator=operator)
    answer = await seat.submit(id, text)
    seat.close()
    assert isinstance(answer, Answer)
    return answer.text


async def test_a_model_is_chosen_for_the_session_and_stays_chosen(folder: Path) -> None:
    runner = ScriptedRunner()
    async with Gateway(folder, runner) as gateway:
        assert (await said(gateway, "c1", "/model")).splitlines() == [
            "scripted answers here.",
            "/model default: scripted",
        ]
        assert "/model other: another" in await said(gateway, "c2", "/model", operator=True)
        assert "another answers here" in await said(gateway, "c3", "/model other", operator=True)
        assert "other (chosen here)" in await said(gateway, "c4", "/model", operator=True)
        assert await said(gateway, "c3", "/model other", operator=True) == "/model was carried out already."
        seat = await gateway.router.session(cli())
        assert seat.model == "another"
        assert "Model: another" in await said(gateway, "c6", "/status")
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "Hello")
        await watcher.done()
        assert runner.asked[-1].model == "other"
        seat.close()
    async with Gateway(folder, runner) as gateway:
        assert (await gateway.router.session(cli())).model == "another"
        assert "scripted answers here" in await said(gateway, "c5", "/model default")
        assert (await gateway.router.session(cli())).model == "scripted"


async def test_a_model_that_is_not_there_or_not_theirs_cannot_be_chosen(folder: Path) -> None:
    async with Gateway(folder) as gateway:
        answer = await said(gateway, "c1", "/model nothing", operator=True)
        assert answer == "There is no model 'nothing' to choose; there are: default, other."
        assert "There is no model 'other'" in await said(gateway, "c2", "/model other")
        assert (await gateway.router.session(cli())).model == "scripted"


async def test_a_word_lets_a_tool_run_or_not(folder: Path) -> None:
    tools = Tools("c1", "c2", "c3")
    async with Gateway(folder, ScriptedRunner(tools)) as gateway:
        seat = await gateway.router.session(cli())

        async def say(id: str, text: str) -> str:
            answer = await seat.submit(id, text)
            assert isinstance(answer, Answer)
            return answer.text

        assert await say("y0", "/yes") == "Nothing is being asked."
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "Delete them")
        await watcher.until(lambda update: isinstance(update, Approval), 3)
        which = await say("y1", "/yes")
        assert which.splitlines() == [
            "Which one? /yes NUMBER",
            *(f'{number}. delete {{"path": "c{number}"}}' for number in (1, 2, 3)),
        ]
        assert await say("y2", "/yes 2") == 'Allowed: delete {"path": "c2"}'
        assert await say("y2", "/yes 2") == "/yes was carried out already."
        assert "Which one?" in await say("y3", "/no 2")
        assert await say("y4", "/no 1") == 'Not allowed: delete {"path": "c1"}'
        assert await say("y5", "/yes") == 'Allowed: delete {"path": "c3"}'
        await watcher.done()
        assert tools.ran == ["c2", "c3"]


async def test_a_word_that_comes_too_late_says_so(folder: Path) -> None:
    async with Gateway(folder, ScriptedRunner(Tools("c1"))) as gateway:
        seat = await gateway.router.session(cli())
        watcher = Watcher(await gateway.lane())
        await seat.submit("m1", "Delete it")
        await watcher.until(lambda update: isinstance(update, Approval))
        first, second = await asyncio.gather(seat.submit("y1", "/no"), seat.submit("y2", "/yes"))
        assert isinstance(first, Answer)
        assert isinstance(second, Answer)
        assert first.text.startswith("Not allowed")
        assert second.text in ("Nothing is being asked.", NOT_ASKED)
        await watcher.done()
