"""The log of a process of its own: `configure` changes what a whole process does."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.log import MASK, Redactor

ROOT = Path(__file__).parents[2]
SECRET = "correct-horse-battery"
KEY = "sk-" + "a1B2" * 8
BOT = "123456789:" + "A" * 34 + "-"
URL = f"https://api.example.org/bot{BOT}/getUpdates"

SCRIPT = f"""
import asyncio, logging, sys, warnings
warnings.simplefilter("error")
import structlog
from gateway import log
log.configure([{SECRET!r}, "abc"], human=sys.argv[1] == "human", level=getattr(logging, sys.argv[2]))
ours, theirs = structlog.get_logger("ours"), logging.getLogger("theirs")

def fail():
    raise ValueError("no " + {SECRET!r})

ours.info("ready", z=1, a="{SECRET} {KEY} abc", nested={{"k {SECRET}": [("{SECRET}",), {{1: {SECRET!r}}}]}})
ours.info("odd", surrogate="\\ud800", big=2**80, nan=float("nan"), bytes=b"{SECRET}", none=None, yes=True,
    key={{(1, 2): 3}})
ours.debug("detail")
try:
    fail()
except ValueError:
    ours.exception("broken", url={URL!r})
    theirs.exception("broken too")
theirs.warning("GET %s by %s", {URL!r}, {SECRET!r}, extra={{"more": {SECRET!r}}})
theirs.info("of theirs")
for name in ("httpx", "httpx2", "asyncio", "openai"):
    logging.getLogger(name).info("chatter")
ours.warning("steer\\x1b]0;title\\x07\\nme \\ud800", value="\\x1b[31m", lines="two\\nlines",
    of={{"x": "\\x1b[31m"}})
structlog.contextvars.bind_contextvars(session="s")
ours.error("bound")
"""


@cache
def written(form: str, level: str = "INFO") -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, form, level],
        capture_output=True,
        timeout=20,
        check=True,
        env=environment,
    )
    assert ran.stdout == b""
    return ran.stderr.decode()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return written("json").splitlines()


@pytest.fixture(scope="module")
def entries(lines: list[str]) -> dict[str, dict[str, Any]]:
    return {entry["event"]: entry for entry in map(json.loads, lines)}


def test_time_level_and_event_come_first(lines: list[str]) -> None:
    for line in lines:
        assert list(json.loads(line))[:3] == ["time", "level", "event"]
    time, level = json.loads(lines[0])["time"], json.loads(lines[0])["level"]
    assert (time[10], time[-1], level) == ("T", "Z", "info")


def test_known_secrets_and_what_looks_like_one_are_masked(entries: dict[str, dict[str, Any]]) -> None:
    ready = entries["ready"]
    assert ready["a"] == f"{MASK} {MASK} abc"  # three characters are a word, not a secret
    assert ready["nested"] == {f"k {MASK}": [[MASK], {"1": MASK}]}


def test_no_secret_is_anywhere_in_the_log(lines: list[str]) -> None:
    for form in ("\n".join(lines), written("human"), written("json", "DEBUG")):
        for secret in (SECRET, KEY, BOT, "A" * 34):
            assert secret not in form


def test_the_text_of_an_exception_is_masked_too(entries: dict[str, dict[str, Any]]) -> None:
    for event in ("broken", "broken too"):
        assert entries[event]["level"] == "error"
        assert entries[event]["exception"].endswith(f"ValueError: no {MASK}")
        assert "in fail\n" in entries[event]["exception"]
    assert entries["broken"]["url"] == f"https://api.example.org/bot{MASK}/getUpdates"


def test_foreign_loggers_write_the_same_form(entries: dict[str, dict[str, Any]]) -> None:
    theirs = entries[f"GET https://api.example.org/bot{MASK}/getUpdates by {MASK}"]
    assert (theirs["level"], theirs["more"]) == ("warning", MASK)
    assert "of theirs" in entries


def test_libraries_that_chatter_are_only_heard_when_they_warn(lines: list[str]) -> None:
    assert not any("chatter" in line for line in lines)
    assert "chatter" not in written("json", "DEBUG")


def test_what_json_has_no_form_for(entries: dict[str, dict[str, Any]]) -> None:
    odd = entries["odd"]
    assert (odd["surrogate"], odd["big"], odd["nan"], odd["none"], odd["yes"]) == (
        "\ud800",
        2**80,
        "nan",
        None,
        True,
    )
    assert odd["bytes"] == f"b'{MASK}'"
    assert odd["key"] == {"(1, 2)": 3}


def test_the_level_counts(entries: dict[str, dict[str, Any]]) -> None:
    assert "detail" not in entries
    assert '"detail"' in written("json", "DEBUG")


def test_what_is_bound_to_the_context_is_in_the_entry(entries: dict[str, dict[str, Any]]) -> None:
    assert entries["bound"]["session"] == "s"


def test_people_get_one_line_for_each_entry_and_the_whole_traceback() -> None:
    shown = written("human")
    assert "ready" in shown
    assert "ValueError: no " in shown
    assert "in fail\n" in shown
    assert "Warning" not in shown


def test_no_text_steers_the_terminal() -> None:
    shown = written("human")
    assert "steer\u241b]0;title\u2407\u240ame \ufffd" in shown
    assert "value\x1b[0m=\x1b[35m\u241b[31m\x1b[0m" in shown
    assert "{'x': '\\x1b[31m'}" in shown
    assert "two\nlines" not in shown


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"x={KEY}",
        "sk-proj-" + "x_-1" * 10,
        BOT,
        f"/bot{BOT}/x",
        "Bearer abcdefgh123",
        "authorization: bearer abcdefgh123",
        "http://h/?token=abcdefgh",
        "http://h/#token=abcdefgh",
        "http://h/?a=b&api_key=abcdefgh",
        "http://h/?key=abcdefgh&a=b",
    ],
)
def test_shapes_of_secrets(text: str) -> None:
    masked = Redactor([]).text(text)
    assert MASK in masked
    assert not any(part in masked for part in ("abcdefgh", "a1B2", "x_-1", "AAAA"))


@pytest.mark.parametrize(
    "text",
    ["sk-8", "task-force-of-sixteen-words", "12:34:56.789", "port 8420: taken", "the token=budget rule"],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor([]).text(text) == text


def test_the_longest_of_overlapping_secrets_is_masked() -> None:
    assert Redactor(["hush", "hush-hush"]).text("hush-hush hush") == f"{MASK} {MASK}"
    assert Redactor(["a.c*d"]).text("a.c*d abcd") == f"{MASK} abcd"


# -- in the journal ------------------------------------------------------------------------------


def test_journald_gets_the_priority_before_the_json(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("wb+") as journal:
        status = os.fstat(journal.fileno())
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}",
        }
        run = [sys.executable, "-c", SCRIPT, "json", "DEBUG"]
        subprocess.run(run, stderr=journal, timeout=20, check=True, env=environment)
    priorities = {}
    for line in (tmp_path / "journal").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line[3:])
        priorities[entry["level"]] = line[:3]
    assert priorities == {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}


CRASH = f"""
import sys, threading, warnings
from gateway import log
log.configure([{SECRET!r}], human=False)
thread = threading.Thread(target=lambda: 1 / int({SECRET!r}))
thread.start()
thread.join()
warnings.warn("beware of " + {SECRET!r})
raise RuntimeError({SECRET!r})
"""


def test_what_nobody_caught_is_logged_and_masked_too() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CRASH],
        capture_output=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 1
    assert SECRET not in ran.stderr.decode()
    entries = list(map(json.loads, ran.stderr.splitlines()))
    assert [entry["event"] for entry in entries if entry["level"] == "critical"] == [
        "a thread broke",
        "the main thread broke",
    ]
    assert f"RuntimeError: {MASK}" in entries[-1]["exception"]
    assert any(f"beware of {MASK}" in entry["event"] for entry in entries)


def test_the_last_warnings_and_errors_are_remembered() -> None:
    program = SCRIPT + "\nprint(log.recent(3))\n"
    ran = subprocess.run(
        [sys.executable, "-c", program, "json", "INFO"],
        capture_output=True,
        timeout=20,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    remembered = ast.literal_eval(ran.stdout.decode())
    assert [entry["level"] for entry in remembered] == ["warning", "warning", "error"]
    assert remembered[-1]["event"] == "bound"
    assert remembered[-1]["session"] == "s"
    assert SECRET not in ran.stdout.decode()


UNREAD = """
import os, structlog
from gateway import log
ours, theirs = os.pipe()
os.dup2(theirs, 2)
log.configure(human=False)
log._PATIENCE = 0.01
logger = structlog.get_logger("ours")
for number in range(100):
    logger.info("line", number=number, more="x" * 5000)
read = os.read(ours, 1 << 20)
logger.info("last")
read += os.read(ours, 1 << 20)
os.write(1, read)
"""


def test_where_nobody_reads_lines_are_left_out_and_nobody_waits() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", UNREAD], cwd=ROOT, capture_output=True, timeout=60, check=True
    )
    *lines, torn, last, told = ran.stdout.decode().splitlines()
    written = [json.loads(line)["number"] for line in lines]
    assert written == list(range(len(written)))
    assert 5 < len(written) < 20
    assert torn.startswith('{"time"')
    assert json.loads(last)["event"] == "last"
    assert json.loads(told)["left_out"] == 100 - len(written)
