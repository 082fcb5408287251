"""`lunar sessions search`: what is found, where, and how it is shown."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadArgument
from gateway.verbs.sessions.matching import Needle
from session.events import Assistant, System, ToolCall, ToolResult, User, encode
from tests.gateway.verbs.lunar import LOCAL, archived, path, plain_environment, ran, wrote
from tests.gateway.verbs.sessions.said import CONVERSATION, HOSTILE

WORK = "agent:main:cli:work"


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, str, str]]:
    """Session, role and what was marked, of every line that is found."""
    code, out, _ = ran(capsys, "sessions", "search", "--json", *arguments)
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == (0 if hits else 1)
    return [(hit["session"], hit["role"], hit["line"][hit["start"] : hit["end"]]) for hit in hits]


def test_a_line_is_shown_with_its_place(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION)
    assert ran(capsys, "sessions", "search", "i MEAN") == (
        0, f"{LOCAL}  2026-02-25 10:05  user       I mean *now*.\n", ""
    )  # fmt: skip
    assert ran(capsys, "sessions", "search", "nothing such") == (1, "", "")


def test_the_latest_sessions_come_first_and_archived_ones_count(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, session in enumerate((LOCAL, WORK, "agent:main:cli:new")):
        file = wrote(data_dir, User(content="invoice"), Assistant(content="an Invoice"), session=session)
        os.utime(file, (number, number))
    archived(data_dir, WORK)
    assert found(capsys, "invoice") == [
        (session, role, text)
        for session in ("agent:main:cli:new", WORK, LOCAL)
        for role, text in (("user", "invoice"), ("assistant", "Invoice"))
    ]
    assert found(capsys, "invoice", "--session", "work", "--role", "user") == [(WORK, "user", "invoice")]
    assert len(found(capsys, "invoice", "--session", "work", "--session", "local")) == 4
    assert found(capsys, "invoice", "--case", "--role", "assistant") == []


def test_tools_and_notes_are_searched_and_names_of_sessions_are_not(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(
        data_dir,
        ToolCall(name="clock", args={"zone": "Nowhere"}),
        ToolResult(name="clock", result={"time": "nowhere"}),
        System(name="turn_failed", content="Nowhere to be seen"),
    )
    file = path(data_dir)
    file.write_bytes(file.read_bytes() + b'{"role":"dreamer","of":"nowhere"}\n')
    assert [role for _, role, _ in found(capsys, "nowhere")] == ["tool", "tool", "system", "other"]
    assert found(capsys, "agent:main") == []


def test_a_long_line_is_cut_around_what_was_found(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, User(content=f"{'a' * 5000} needle {'b' * 5000}\n{'c' * 900}needle"))
    out = ran(capsys, "sessions", "search", "needle").out.splitlines()
    assert [line[-40:] for line in out] == ["b" * 39 + "…", "c" * 34 + "needle"]
    assert all(len(line) < 320 and "…" in line for line in out)
    assert [text for _, _, text in found(capsys, "needle")] == ["needle"] * 2


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ('she said "no"', '"NO"'),
        ("a\\b", "a\\B"),
        ("http://x/y", "X/Y"),
        ("größe", "GRÖSSE".replace("SS", "ß")),
        ("ГОРОД", "город"),
        ("世界", "界"),
        ("a\tb", "a\tb"),
        ("emoji 👩\u200d👩 family", "👩\u200d👩"),
        ("\ud800 lone", "lone"),
    ],
)
def test_whatever_is_written_is_found(
    text: str, needle: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, User(content=text))
    assert len(found(capsys, needle)) == 1


def test_what_another_program_escaped_is_found(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = path(data_dir)
    file.parent.mkdir(parents=True)
    file.write_text('{"role":"user","content":"gr\\u00f6\\u00dfe \\u006eeedle a\\/b"}\n')
    for needle in ("GRÖßE", "needle", "a/b"):
        assert len(found(capsys, needle)) == 1, needle


@given(st.text(max_size=30), st.text(min_size=1, max_size=4), st.text(max_size=30), st.booleans())
def test_no_text_is_passed_over(before: str, needle: str, behind: str, case: bool) -> None:
    if needle.splitlines() != [needle]:
        return  # a line is searched, not what ends it
    event = User(content=before + needle + behind)
    wanted = Needle(needle, case=case)
    assert wanted.may_be_in(encode(event))
    (first, *_) = wanted.hits(event)
    assert len(first.line[first.start : first.end]) == len(needle)


def test_regular_expressions(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, User(content="order 4711\norder none"))
    assert [text for _, _, text in found(capsys, "--regex", r"ORDER \d+$")] == ["order 4711"]
    assert found(capsys, "--regex", "--case", r"ORDER \d+") == []
    for pattern in ("(", "a{99999999999}", "(" * 5000):
        code, _, err = ran(capsys, "sessions", "search", "--regex", pattern)
        assert (code, err.count("\n")) == (os.EX_USAGE, 1)
        assert err.startswith(f"lunar: '{pattern}' is no regular expression: ")
    with pytest.raises(BadArgument):
        Needle("")


def test_a_damaged_line_hides_nothing_and_a_file_that_is_none_is_told(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrote(data_dir, User(content="needle one"), User(content="needle two"))
    file.write_bytes(file.read_bytes().replace(b"needle one", b"needle 0ne"))
    path(data_dir, WORK).mkdir()
    code, out, err = ran(capsys, "sessions", "search", "needle")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err == f"lunar: {WORK}: Is a directory\n"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_no_text_commands_the_terminal(
    option: list[str], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, User(content=HOSTILE), session=f"agent:main:cli:{HOSTILE}")
    out = ran(capsys, "sessions", "search", "back", *option).out
    assert out
    assert {unicodedata.category(c) for c in out if c != "\n"}.isdisjoint({"Cc", "Cs", "Cf"})


def many(data_dir: Path) -> None:
    """More sessions than one process looks at."""
    file = wrote(data_dir, *CONVERSATION)
    for number in range(2500):
        session = f"agent:main:cli:s{number}"
        os.link(file, path(data_dir, session))


def test_many_sessions_are_searched_by_all_processors(data_dir: Path, tmp_path: Path) -> None:
    many(data_dir)
    environment = plain_environment(tmp_path) | {"LUNAR_DATA_DIR": str(data_dir)}

    def lunar(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", "sessions", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    ran = lunar("search", "i mean")
    assert (ran.returncode, ran.stderr, ran.stdout.count("\n")) == (0, "", 2501)
    assert ran.stdout.count("I mean *now*.") == 2501
    assert lunar("verify").stdout == "2501 sessions, 0 damaged\n"
    counted = lunar("stats", "--json")
    assert counted.stderr == ""
    assert json.loads(counted.stdout)["messages"]["user"] == 2501


def test_on_a_terminal_the_match_is_marked_and_a_bar_shows_how_far_it_is(
    data_dir: Path, tmp_path: Path
) -> None:
    many(data_dir)
    ours, theirs = pty.openpty()
    environment = plain_environment(tmp_path) | {"LUNAR_DATA_DIR": str(data_dir), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "sessions", "search", "i mean"],
        cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # that is how a terminal ends
    os.close(ours)
    assert process.returncode == 0
    assert "Searching" in shown.decode()
    assert shown.decode().count("\x1b[1;7mI mean\x1b[0m") == 2501
