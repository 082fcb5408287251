from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from session import ids
from session.events import Assistant, System, ToolCall, ToolResult, User
from session.lock import DirectoryLock
from tests.conftest import Daemons
from tests.gateway.environment import clear
from tests.gateway.verbs.lunar import LOCAL, lunar, path, plain_environment, wrote

WORK = "agent:main:cli:work"
LONG = "agent:main:telegram:" + "x" * 300

CONVERSATION = (
    User(content="What time is it?\nI mean now.", id="m1", ts="2026-02-25T10:05:00.000Z"),
    ToolCall(name="clock", args={"zone": "UTC"}, call_id="c1", turn="t1", ts="2026-02-25T10:05:01.000Z"),
    ToolResult(name="clock", result="10:05", call_id="c1", ok=True, turn="t1", ts="2026-02-25T10:05:01.000Z"),
    Assistant(
        content="It is 10:05.", turn="t1", answers=("m1",), finish="stop", ts="2026-02-25T10:05:02.000Z"
    ),
)


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("LUNAR_DATA_DIR", str(tmp_path / "d"))
    return tmp_path / "d"


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["sessions", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def aged(file: Path, seconds: int) -> None:
    os.utime(file, (seconds, seconds))


# -- list ------------------------------------------------------------------------------------------


def test_the_list_has_the_latest_first(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aged(wrote(data_dir, User(content="a")), 1_000_000_000)
    aged(wrote(data_dir, User(content="b" * 5000), session=WORK), 2_000_000_000)
    code, out, err = ran(capsys, "list")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith("agent:main:cli:work   2033-05-18 ")
    assert first.endswith("5.1 KiB")
    assert second.startswith("agent:main:cli:local  2001-09-09 ")


def test_the_list_as_json(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = wrote(data_dir, User(content="a"))
    aged(file, 2_000_000_000)
    (entry,) = objects(ran(capsys, "list", "--json")[1])
    assert entry["session"] == LOCAL
    assert entry["bytes"] == file.stat().st_size
    assert entry["modified"].startswith("2033-05-1")


def test_there_may_be_none(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "list") == (0, "", f"No sessions in {data_dir}.\n")
    assert ran(capsys, "list", "--json") == (0, "", "")
    assert ran(capsys, "verify") == (0, "0 sessions, 0 damaged\n", "")


def test_a_shortened_name_is_listed_and_found_by_its_whole_id(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids.is_shortened(wrote(data_dir, User(content="hello"), session=LONG).name)
    assert ran(capsys, "list")[1].startswith(LONG + "  ")
    assert "hello" in ran(capsys, "show", LONG)[1]
    assert ran(capsys, "verify", LONG)[:2] == (0, f"{LONG}: 2 lines; sound\n1 session, 0 damaged\n")
    assert ran(capsys, "delete", "--yes", LONG)[0] == 0
    assert ran(capsys, "list")[1] == ""


def test_files_of_others_are_passed_over(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = wrote(data_dir, User(content="a"))
    for name in (
        "notes.txt",
        "notes.jsonl",
        "Agent-main-cli-x.jsonl",
        f"{file.name}.torn-20260101",
        "x%~y.jsonl",
    ):
        (file.parent / name).write_text("{}\n")
    (file.parent / "agent-main-cli-folder").mkdir()
    assert len(ran(capsys, "list")[1].splitlines()) == 1
    assert ran(capsys, "verify")[:2] == (0, "1 session, 0 damaged\n")


def test_a_transcript_of_another_program_is_shown(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = path(data_dir)
    file.parent.mkdir(parents=True)
    file.write_text('{"role":"user","content":"hi"}\n{"role":"dreamer","of":"sheep"}\n[]\n')
    code, out, _ = ran(capsys, "show", "local")
    assert code == 0
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["you", "hi"],
        ["?", '{"role": "dreamer", "of": "sheep"}'],
    ]
    code, out, _ = ran(capsys, "verify", "local")
    assert (code, out) == (1, f"{LOCAL}: 3 lines; damaged: line 3\n1 session, 1 damaged\n")


# -- show ------------------------------------------------------------------------------------------


def test_a_transcript_reads_like_a_conversation(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote(data_dir, *CONVERSATION, Assistant(content="And", finish="stopped"), System(name="reset", id="m2"))
    code, out, err = ran(capsys, "show", LOCAL)
    assert (code, err) == (0, "")
    lines = [line[18:] for line in out.splitlines()]
    assert lines == [
        "·          session: agent:main:cli:local",
        "you        What time is it?",
        "           I mean now.",
        'tool       clock({"zone": "UTC"})',
        "tool       clock → 10:05",
        "assistant  It is 10:05.",
        "assistant  And [stopped]",
        "·          reset",
    ]


def test_a_tool_that_failed_says_so(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, ToolResult(name="clock", result="x" * 501, ok=False))
    assert f"clock failed: {'x' * 500}…\n" in ran(capsys, "show", "local")[1]


def test_show_as_json_is_the_events_without_their_checksums(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *CONVERSATION)
    header, *said = objects(ran(capsys, "show", "--json", "local")[1])
    assert header["content"] == LOCAL
    assert [event["role"] for event in said] == ["user", "tool_call", "tool_result", "assistant"]
    assert said[0]["content"] == "What time is it?\nI mean now."
    assert not any("crc" in event for event in said)


def test_many_more_events_than_are_read_at_once(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *(User(content=f"number {n}") for n in range(1000)))
    out = ran(capsys, "show", "local")[1]
    assert [line.split()[-1] for line in out.splitlines()[1:]] == [str(n) for n in range(1000)]


HOSTILE = "\x1b]0;title\x07 \x9b31m \x7f \u202e back \ud800 \r over"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_no_text_commands_the_terminal(
    option: list[str], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(
        data_dir,
        User(content=HOSTILE, id=HOSTILE),
        Assistant(content=HOSTILE),
        ToolCall(name=HOSTILE, args=[HOSTILE]),
        ToolResult(name=HOSTILE, result=HOSTILE),
        System(name=HOSTILE, content=HOSTILE),
    )
    code, out, _ = ran(capsys, "show", "local", *option)
    assert code == 0
    assert "back" in out
    assert {unicodedata.category(c) for c in out if c != "\n"}.isdisjoint({"Cc", "Cs", "Cf"})
    if option:
        assert objects(out)[1]["content"] == HOSTILE


def test_no_file_name_commands_the_terminal(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = f"agent:main:cli:{HOSTILE}"
    wrote(data_dir, User(content="a"), session=hostile)
    shown = ran(capsys, "list")[1]
    shown += ran(capsys, "verify", hostile)[1] + ran(capsys, "show", hostile + "!")[2]
    shown += ran(capsys, "delete", "--yes", hostile)[1]
    assert shown.count("title") >= 5
    assert {unicodedata.category(c) for c in shown if c != "\n"}.isdisjoint({"Cc", "Cs", "Cf"})


def test_every_language_passes_as_it_is(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "größe\u00a0 мир 世界\u3000 नमस्ते می\u200cخواهم 👩\u200d👩\u200d👧 \t tab"
    wrote(data_dir, User(content=text))
    assert text in ran(capsys, "show", "local")[1]
    assert objects(ran(capsys, "show", "--json", "local")[1])[1]["content"] == text


@pytest.mark.parametrize("verb", ["show", "verify", "delete"])
def test_a_session_that_is_not_there(verb: str, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, User(content="a"), session=WORK)
    assert ran(capsys, verb, "agent:main:cli:wrok") == (
        1, "", f"lunar: There is no session agent:main:cli:wrok. Did you mean {WORK}?\n"
    )  # fmt: skip
    assert ran(capsys, verb, "zzz")[2] == (
        "lunar: There is no session zzz. `lunar sessions list` shows all.\n"
    )


# -- verify ----------------------------------------------------------------------------------------


def test_a_sound_transcript(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION)
    assert ran(capsys, "verify") == (0, "1 session, 0 damaged\n", "")
    assert ran(capsys, "verify", "--json")[:2] == (
        0, json.dumps({"session": LOCAL, "lines": 5, "bad": [], "torn": 0}) + "\n"
    )  # fmt: skip


def test_a_flipped_byte_is_found_and_its_neighbours_are_shown(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrote(data_dir, *CONVERSATION)
    wrote(data_dir, User(content="fine"), session=WORK)
    file.write_bytes(file.read_bytes().replace(b"What time", b"What tine"))
    code, out, _ = ran(capsys, "verify")
    assert (code, out) == (1, f"{LOCAL}: 5 lines; damaged: line 2\n2 sessions, 1 damaged\n")
    assert [entry["bad"] for entry in objects(ran(capsys, "verify", "--json")[1])] == [[2], []]
    shown = ran(capsys, "show", "local")[1]
    assert "What" not in shown
    assert "It is 10:05." in shown


def test_a_torn_tail_is_told_and_left_alone(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = wrote(data_dir, *CONVERSATION)
    with file.open("ab") as end:
        end.write(b'{"role":"us')
    before = file.read_bytes()
    code, out, _ = ran(capsys, "verify")
    assert code == 0
    assert out.startswith(f"{LOCAL}: 5 lines; an unfinished last line of 11 bytes, which the gateway will")
    assert ran(capsys, "show", "local")[1].count("\n") == 6
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_transcript_that_cannot_be_read_does_not_hide_the_others(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = path(data_dir)
    folder.mkdir(parents=True)
    wrote(data_dir, User(content="a"), session=WORK)
    code, out, err = ran(capsys, "verify")
    assert (code, out) == (1, "2 sessions, 1 damaged\n")
    assert err == f"lunar: {LOCAL}: cannot be read: Is a directory\n"
    code, _, err = ran(capsys, "show", "local")
    assert (code, err) == (os.EX_IOERR, "lunar: Is a directory\n")


def test_a_data_directory_that_is_none(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir.mkdir()
    (data_dir / "sessions").write_text("")
    for verb in ("list", "verify"):
        code, _, err = ran(capsys, verb)
        assert (code, err) == (os.EX_IOERR, f"lunar: {data_dir}/sessions: Not a directory\n")


# -- delete ----------------------------------------------------------------------------------------


def test_delete_removes_the_transcript_and_what_was_torn_off_it(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrote(data_dir, User(content="a"))
    file.with_name(f"{file.name}.torn-20260101").write_text("x")
    kept = wrote(data_dir, User(content="a"), session=WORK)
    assert ran(capsys, "delete", "local", "--yes") == (0, f"{LOCAL} is deleted.\n", "")
    assert list(file.parent.iterdir()) == [kept]


async def test_delete_asks_nobody_where_nobody_is(data_dir: Path, tmp_path: Path) -> None:
    file = wrote(data_dir, User(content="a"))
    ran = await lunar("sessions", "delete", "local", cwd=tmp_path, LUNAR_DATA_DIR=str(data_dir), stdin=b"y\n")
    assert ran == (1, "", "Not asked because there is no terminal; use --yes.\nNothing was deleted.\n")
    assert file.exists()


@pytest.mark.parametrize(
    ("typed", "deleted"), [(b"y\n", True), (b"\n", False), (b"no\n", False), (b"\x04", False)]
)
def test_delete_asks_first(typed: bytes, deleted: bool, data_dir: Path, tmp_path: Path) -> None:
    file = wrote(data_dir, User(content="a"))
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    ran = subprocess.run(
        [sys.executable, "-m", "gateway", "sessions", "delete", "local"],
        stdin=theirs, capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False,
        env=plain_environment(tmp_path) | {"LUNAR_DATA_DIR": str(data_dir)},
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert f"Delete {LOCAL} for good? [y/N] " in ran.stderr
    assert file.exists() != deleted
    assert ran.returncode == (0 if deleted else 1)
    assert ("Nothing was deleted." in ran.stderr) != deleted
    assert ran.stdout == (f"{LOCAL} is deleted.\n" if deleted else "")


def test_a_gateway_that_does_not_answer_keeps_its_files(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrote(data_dir, User(content="a"))
    lock = DirectoryLock(data_dir)
    lock.acquire()
    try:
        code, _, err = ran(capsys, "delete", "local", "--yes")
    finally:
        lock.release()
    assert code == os.EX_TEMPFAIL
    assert f"in use by process {os.getpid()}" in err
    assert file.exists()


# -- beside a running gateway ----------------------------------------------------------------------


async def test_beside_a_running_gateway(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = daemons()
    wrote(daemon.data_dir, *CONVERSATION)
    async with daemon:
        monkeypatch.setenv("LUNAR_DATA_DIR", str(daemon.data_dir))
        client = await daemon.client("work")
        await client.ask("hello")
        assert {entry["session"] for entry in objects(ran(capsys, "list", "--json")[1])} == {LOCAL, WORK}
        assert "  you        hello\n" in ran(capsys, "show", "work")[1]
        assert ran(capsys, "verify") == (0, "2 sessions, 0 damaged\n", "")

        assert await asyncio.to_thread(ran, capsys, "delete", "work", "--yes") == (
            0,
            f"{WORK} is deleted.\n",
            "",
        )
        assert not daemon.path(WORK).exists()
        await client.ask("hello again")  # the daemon knows that the file is gone, and begins a new one
        assert [event["content"] for event in daemon.events(WORK) if event["role"] == "user"] == [
            "hello again"
        ]


async def test_the_list_into_head_ends_quietly(data_dir: Path, tmp_path: Path) -> None:
    for number in range(300):
        file = path(data_dir, f"agent:main:cli:{'long-' * 10}{number}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    command = f"{sys.executable} -m gateway sessions list | head -1; echo ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=plain_environment(tmp_path) | {"LUNAR_DATA_DIR": str(data_dir)},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 20)
    line, code = out.decode().splitlines()
    assert line.startswith("agent:main:cli:long-")
    assert (code, err) == ("0", b"")
