"""`lunar` with standard streams that are full, closed, or of a locale that knows only ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from session.events import Assistant, User
from tests.gateway.verbs.lunar import plain_environment, wrote

FULL = "lunar: No space left on device\n"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    wrote(tmp_path / "data", User(content="Grüße \ud800"), Assistant(content="世界" * 9000))
    return tmp_path / "data"


def lunar(folder: Path, line: str, streams: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with these redirections of a shell, and to its end."""
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "gateway", *line.split()]
    env = plain_environment(folder) | {"PYTHONUNBUFFERED": ""} | environment
    return subprocess.run(shell, cwd=folder, env=env, input=b"", capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "line", ["sessions list", "sessions show local", "sessions export local", "config schema", "--version"]
)
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, data_dir: Path, line: str) -> None:
    done = lunar(tmp_path, line, ">/dev/full")
    assert (done.returncode, done.stderr.decode()) == (os.EX_IOERR, FULL)


@pytest.mark.parametrize("streams", [">&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
@pytest.mark.parametrize("line", ["sessions export local", "config show"])
def test_what_is_closed_leads_nowhere(tmp_path: Path, data_dir: Path, line: str, streams: str) -> None:
    before = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    done = lunar(tmp_path, line, streams)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()} == before


def test_nobody_is_asked_where_stdin_is_closed(tmp_path: Path, data_dir: Path) -> None:
    done = lunar(tmp_path, "sessions delete local", "<&-")
    assert (done.returncode, done.stderr) == (
        1,
        b"Not asked because there is no terminal; use --yes.\nNothing was deleted.\n",
    )


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
@pytest.mark.parametrize("verb", ["show", "show --json", "export"])
def test_a_pipe_gets_utf_8_in_any_locale(
    tmp_path: Path, data_dir: Path, locale: dict[str, str], verb: str
) -> None:
    name, *options = verb.split()
    done = lunar(tmp_path, " ".join(["sessions", name, "local", *options]), "", **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Grüße" in done.stdout.decode()
    assert "世界" in done.stdout.decode()


def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path, data_dir: Path) -> None:
    ours, theirs = os.openpty()
    env = plain_environment(tmp_path) | {"PYTHONIOENCODING": "ascii"}
    line = [sys.executable, "-m", "gateway", "sessions", "tail", "local", "-n", "2"]
    with open(ours, "rb", 0) as terminal:
        process = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        shown = terminal.readline() + terminal.readline()[:80]
        process.kill()
        _, said = process.communicate()
    assert b"Gr??e ?\r\n" in shown
    assert b"assistant  ????" in shown
    assert said == b""
