from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import ask
from gateway.errors import GatewayError, NotPermitted, NotRunning
from tests.conftest import Daemons


@contextmanager
def answering(path: Path, *lines: bytes) -> Iterator[list[dict[str, Any]]]:
    """Something on a socket that reads hello and question, says these lines and hangs up."""
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as frames:
            asked.extend(json.loads(frames.readline()) for _ in range(2))
            connection.sendall(b"".join(line + b"\n" for line in lines))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            thread.join(10)


WELCOME = b'{"type":"welcome","protocol":1}'


def test_the_result_is_what_comes_after_all_the_rest(folder: Path) -> None:
    event = b'{"type":"event","cursor":"c","event":{"role":"user","content":"a"}}'
    result = b'{"type":"result","id":"c1","ok":true,"data":{"a":1}}'
    with answering(folder / "s", WELCOME, event, result) as asked:
        assert ask.control(folder / "s", "status", {"x": "y"}) == {"a": 1}
    assert [frame["type"] for frame in asked] == ["hello", "control"]
    assert asked[1]["verb"] == "status"
    assert asked[1]["args"] == {"x": "y"}


@pytest.mark.parametrize(
    ("line", "error", "sentence"),
    [
        (b'{"type":"error","code":"not_allowed","message":"No."}', NotPermitted, "No."),
        (b'{"type":"error","code":"storage_unavailable","message":"Full."}', GatewayError, "Full."),
        (b"HTTP/1.1 400 Bad Request", NotRunning, "is no gateway"),
        (b"[]", NotRunning, "is no gateway"),
        (b"{}", NotRunning, "is no gateway"),
        (b"\xff", NotRunning, "is no gateway"),
        (b"[" * 100_000, NotRunning, "is no gateway"),
        (WELCOME, NotRunning, "closed the connection without an answer"),
    ],
)
def test_other_answers(line: bytes, error: type[GatewayError], sentence: str, folder: Path) -> None:
    with answering(folder / "s", line), pytest.raises(error, match=sentence) as caught:
        ask.control(folder / "s", "status")
    assert type(caught.value) is error


def test_nobody_listens(folder: Path) -> None:
    with pytest.raises(NotRunning, match="No gateway is running here") as caught:
        ask.control(folder / "s", "status")
    assert caught.value.exit_code == os.EX_UNAVAILABLE
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "s"))
    with pytest.raises(NotRunning, match="Start it with: lunar run"):
        ask.control(folder / "s", "status")


def test_a_path_that_is_no_socket(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(NotRunning, match=r"cannot be used: Not a directory\."):
        ask.control(folder / "file" / "s", "status")
    with pytest.raises(NotRunning, match="cannot be used: AF_UNIX path too long"):
        ask.control(folder / ("s" * 200), "status")


def test_a_socket_of_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root, as whom tests may run, is let in everywhere: the kernel's refusal has to be made.
    class Refusing(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(NotPermitted, match="may not use the gateway's socket") as caught:
        ask.control(folder / "s", "status")
    assert caught.value.exit_code == os.EX_NOPERM


def test_one_that_never_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        with pytest.raises(NotRunning, match="does not answer: timed out"):
            ask.control(folder / "s", "status")


async def test_the_real_one(daemons: Daemons) -> None:
    async with daemons() as daemon:
        assert daemon.process is not None
        assert ask.control(daemon.socket, "status")["pid"] == daemon.process.pid
        with pytest.raises(GatewayError, match="There is no verb 'dance'"):
            ask.control(daemon.socket, "dance")
        with pytest.raises(GatewayError, match=r"needs args\.session"):
            ask.control(daemon.socket, "delete")
