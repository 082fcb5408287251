"""The command as a process: pipes, a pseudo-terminal, exit codes, and what it costs to start."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from channels import wire
from channels.cli.client import Target, chat
from tests.fakes.gateway_stub import SocketGateway, WebGateway

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
from pathlib import Path
from channels.cli.client import Target, chat
socket, url, text, options, state = json.loads(sys.argv[1])
code = chat(Target(socket and Path(socket), url), text=text, state_dir=Path(state), **options)
if "--modules" in sys.argv:
    print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


class Console(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[SocketGateway]:
    stub = SocketGateway(tmp_path / "s.sock")
    await stub.start()
    yield stub
    await stub.stop()


def command(
    gateway: SocketGateway | WebGateway, state: Path, text: str | None, **options: object
) -> list[str]:
    socket = str(gateway.path) if isinstance(gateway, SocketGateway) else None
    url = gateway.url if isinstance(gateway, WebGateway) else None
    arguments = msgspec_json([socket, url, text, options, str(state)])
    return [sys.executable, "-c", PROGRAM, arguments]


def msgspec_json(value: object) -> str:
    return wire.encode(value).decode()


async def run(
    *argv: str, stdin: int | bytes = b"", stdout: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    if isinstance(stdin, bytes) and process.stdin:
        process.stdin.write(stdin)
        process.stdin.close()
    return process


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    return process.returncode, (stdout or b"").decode(), stderr.decode()


async def test_answers_a_pipe(gateway: SocketGateway, tmp_path: Path) -> None:
    process = await run(*command(gateway, tmp_path, None, session="work"), stdin="Grüße\n".encode())
    peer = await gateway.accept()
    assert (await peer.welcome()).session == "work"
    message = await peer.take()
    assert message.text == "Grüße"
    await peer.answer("t1", message.id, "Grüße zurück \ud800")
    assert await ended(process) == (0, "Grüße zurück ?\n", "")


async def test_one_answer_over_the_socket_is_cheap(gateway: SocketGateway, tmp_path: Path) -> None:
    process = await run(*command(gateway, tmp_path, "hi"), "--modules")
    peer = await gateway.accept()
    await peer.welcome()
    await peer.answer("t1", (await peer.take()).id, "Hello")
    code, stdout, modules = await ended(process)
    assert (code, stdout) == (0, "Hello\n")
    loaded = {name.partition(".")[0] for name in modules.split()}
    assert "msgspec" in loaded
    assert not loaded & {"prompt_toolkit", "rich", "websockets", "markdown_it", "pygments", "uvloop"}


async def test_answers_over_a_web_socket(tmp_path: Path) -> None:
    gateway = WebGateway()
    await gateway.start()
    process = await run(*command(gateway, tmp_path / "state", "hi"))
    peer = await gateway.accept()
    secret = (await peer.welcome()).session
    await peer.answer("t1", (await peer.take()).id, "Hello")
    assert await ended(process) == (0, "Hello\n", "")
    assert [path.read_text() for path in (tmp_path / "state").iterdir()] == [f"{secret}\n"]
    await gateway.stop()


async def test_ctrl_c_stops_and_says_so_in_its_exit_code(gateway: SocketGateway, tmp_path: Path) -> None:
    process = await run(*command(gateway, tmp_path, "hi", as_json=True))
    peer = await gateway.accept()
    await peer.welcome()
    message = await peer.take()
    await peer.start("t1", message.id)
    assert process.stdout
    while b'"started"' not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    await peer.hear(wire.Stop)
    code, _, stderr = await ended(process)
    assert (code, stderr) == (130, "")


async def test_leaves_quietly_where_nobody_reads(gateway: SocketGateway, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = await run(*command(gateway, tmp_path, "hi"), stdout=writing)
    os.close(writing)
    os.close(reading)
    peer = await gateway.accept()
    await peer.welcome()
    await peer.answer("t1", (await peer.take()).id, "Hello")
    assert await ended(process) == (141, "", "")


# -- a pseudo-terminal ---------------------------------------------------------------------------


class Pty:
    """The far end of a process's terminal."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = ""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            asyncio.get_running_loop().remove_reader(self._ours)
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def shows(self, text: str) -> None:
        try:
            async with asyncio.timeout(20):
                while text not in self.shown:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.shown!r}") from None

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
async def terminal() -> AsyncIterator[Pty]:
    end = Pty()
    yield end
    end.close()


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
async def test_converses_on_a_terminal(
    gateway: SocketGateway, tmp_path: Path, terminal: Pty, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", kind)
    monkeypatch.delenv("NO_COLOR", raising=False)
    process = await run(*command(gateway, tmp_path, None), stdin=terminal.theirs, stdout=terminal.theirs)
    peer = await gateway.accept()
    await peer.welcome(turns=2)
    await terminal.shows("📜 Loaded 2 previous turns")
    terminal.type("hello\r")
    message = await peer.take()
    assert message.text == "hello"
    await peer.answer("t1", message.id, "- **one**\x1b]0;x\x07\n- two")
    await terminal.shows("two")
    if kind == "dumb":
        assert "\x1b" not in terminal.shown
        assert " • one]0;x\r\n • two" in terminal.shown
    assert "\x1b]0" not in terminal.shown
    terminal.type("/exit\r")
    assert (await ended(process))[0] == 0


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
async def test_what_is_said_before_leaving_is_sent(
    gateway: SocketGateway, tmp_path: Path, terminal: Pty, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", kind)
    process = await run(*command(gateway, tmp_path, None), stdin=terminal.theirs, stdout=terminal.theirs)
    peer = await gateway.accept()
    await peer.welcome()
    await terminal.shows("Ctrl-D leaves")
    terminal.type("last words\r\x04")
    message = await peer.hear(wire.Message)
    assert message.text == "last words"
    await peer.say(wire.Ack(id=message.id, cursor="ack", queued=0))
    assert (await ended(process))[0] == 0
    assert "Not sent" not in terminal.shown
    assert "No word" not in terminal.shown


async def test_one_answer_on_a_terminal_is_harmless(
    gateway: SocketGateway, tmp_path: Path, terminal: Pty
) -> None:
    process = await run(*command(gateway, tmp_path, "hi"), stdout=terminal.theirs)
    peer = await gateway.accept()
    await peer.welcome()
    await peer.answer("t1", (await peer.take()).id, "a\x1b]0;x\x07 \x9b31mb")
    assert (await ended(process))[0] == 0
    await terminal.shows("a]0;x 31mb\r\n")


# -- what is told before anything is sent --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "session", "sentence", "exit_code"),
    [
        ("hi", "local", "`lunar run` starts it", 69),
        ("", "local", "nothing to ask", 64),
        (" \n", "local", "nothing to ask", 64),
        ("x" * (wire.MAX_TEXT + 1), "local", "64 KiB", 65),
        ("hi", "Not a name", "--session", 64),
    ],
)
def test_tells_why_it_does_not_ask(
    tmp_path: Path, text: str, session: str, sentence: str, exit_code: int
) -> None:
    stdout, stderr = Console(), Console()
    target = Target(tmp_path / "none.sock")
    code = chat(target, text=text, session=session, state_dir=tmp_path, stdout=stdout, stderr=stderr)
    assert (code, stdout.getvalue()) == (exit_code, "")
    assert stderr.getvalue().startswith("lunar: ")
    assert sentence in stderr.getvalue()
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize(("data", "exit_code"), [(b"", 64), (b"\xff\xfe", 65), (b"x" * 70_000, 65)])
def test_tells_what_is_wrong_with_stdin(tmp_path: Path, data: bytes, exit_code: int) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(data))
    stderr = io.StringIO()
    target = Target(tmp_path / "none.sock")
    assert chat(target, text=None, state_dir=tmp_path, stdin=stdin, stderr=stderr) == exit_code
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8420", "ftp://host/ws", "ws://", "ws://[::1/ws", "ws://host:99999/ws", "ws://host:-1",
        "ws://a..b/ws", "ws://ü..x/ws", f"ws://{'x' * 64}.example/ws",
    ],
)  # fmt: skip
def test_tells_what_an_address_is(tmp_path: Path, url: str) -> None:
    stderr = io.StringIO()
    assert chat(Target(None, url), text="hi", state_dir=tmp_path, stderr=stderr) == 64
    assert "--url" in stderr.getvalue()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://ann:{}@127.0.0.1:1/ws", "ws://ann:***@127.0.0.1:1/ws"),
        ("ftp://ann:{}@host/", "ftp://ann:***@host/"),
        ("ann:{}@host:8420", "ann:***@host:8420"),
        ("ws://ann:{}@[::1/ws", "ws://ann:***@[::1/ws"),
        ("ws://ann:x#{}@host/ws", "ws://ann:***@host/ws"),
        ("ws://ann@127.0.0.1:1/ws", "ws://ann@127.0.0.1:1/ws"),
    ],
)
def test_no_password_is_shown(tmp_path: Path, url: str, shown: str) -> None:
    stderr = io.StringIO()
    chat(Target(None, url.format("pa:ss")), text="hi", state_dir=tmp_path, stderr=stderr)
    assert shown in stderr.getvalue()
    assert "pa:ss" not in stderr.getvalue()


@pytest.mark.parametrize("form", ["ws://127.0.0.1:{}", "http://127.0.0.1:{}/", "ws://127.0.0.1:{}/ws"])
def test_takes_the_address_of_the_page(tmp_path: Path, unused_tcp_port: int, form: str) -> None:
    stderr = io.StringIO()
    assert (
        chat(Target(None, form.format(unused_tcp_port)), text="hi", state_dir=tmp_path, stderr=stderr) == 69
    )
    assert f"ws://127.0.0.1:{unused_tcp_port}/ws" in stderr.getvalue()
