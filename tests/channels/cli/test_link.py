"""The link against a scripted gateway, on both carriers."""

from __future__ import annotations

import asyncio
import grp
import os
import re
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest

from channels import wire
from channels.cli.carrier import CannotChat, how_to_be_let_in, open_socket, open_web
from channels.cli.link import Link, Lost, Pace, Received
from channels.cli.secret import SecretFile
from session import events
from tests.fakes.gateway_stub import SocketGateway, WebGateway

QUICK = Pace(first=0.01, most=0.02)
HELLO = wire.Hello(protocol=wire.PROTOCOL, session="local", token="t0ken")


class Ears:
    """Listens to a link in the background and keeps what it heard."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.heard: list[Received | Lost] = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async with aclosing(self._link.listen()) as heard:
            async for item in heard:
                self.heard.append(item)
                self._news.set()

    @property
    def frames(self) -> list[wire.ServerFrame | None]:
        return [item.frame for item in self.heard if isinstance(item, Received)]

    async def until(self, kind: type[object]) -> object:
        """The latest thing heard, once it is of this kind."""
        async with asyncio.timeout(10):
            while True:
                last = self.heard[-1] if self.heard else None
                found = last if isinstance(last, Lost) else last and last.frame
                if isinstance(found, kind):
                    return found
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listening(link: Link) -> AsyncIterator[Ears]:
    ears = Ears(link)
    try:
        yield ears
    finally:
        ears.task.cancel()
        await asyncio.gather(ears.task, return_exceptions=True)


@pytest.fixture(params=["socket", "web"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[SocketGateway | WebGateway]:
    stub = SocketGateway(tmp_path / "s.sock") if request.param == "socket" else WebGateway()
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
def link(gateway: SocketGateway | WebGateway) -> Link:
    return link_to(gateway)


def link_to(gateway: SocketGateway | WebGateway) -> Link:
    if isinstance(gateway, SocketGateway):
        return Link(partial(open_socket, gateway.path), HELLO, pace=QUICK)
    return Link(partial(open_web, gateway.url), HELLO, pace=QUICK)


async def test_says_hello_and_hears_frames(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        hello = await peer.welcome(turns=3)
        assert (hello.session, hello.token, hello.after, hello.render) == ("local", "t0ken", None, "text")
        welcome = await ears.until(wire.Welcome)
        assert isinstance(welcome, wire.Welcome)
        assert welcome.turns == 3
        assert link.up


async def test_resumes_after_the_last_event(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await peer.event(events.User(content="one"))
        cursor = await peer.event(events.User(content="two"))
        await ears.until(wire.EventFrame)
        await peer.close()
        again = await gateway.accept()
        assert (await again.welcome(reset=True)).after == cursor
        await again.close()
        anew = await gateway.accept()
        assert (await anew.welcome()).after is None


async def test_comes_back_after_a_restart(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        await (await gateway.accept()).welcome()
        await ears.until(wire.Welcome)
        await gateway.stop()
        await ears.until(Lost)
        assert not link.up
        assert not link.send(wire.Stop())
        said = link.say("typed while away")
        link.stop()
        await gateway.start()
        peer = await gateway.accept()
        await peer.welcome()
        await peer.hear(wire.Stop)
        message = await peer.take()
        assert (message.id, message.text) == (said, "typed while away")
        await ears.until(wire.EventFrame)
        assert link.unsettled == {}


async def test_says_again_what_was_not_acknowledged_and_nothing_else(
    gateway: SocketGateway | WebGateway, link: Link
) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await ears.until(wire.Welcome)
        first = link.say("first")
        assert (await peer.take()).id == first
        await ears.until(wire.EventFrame)
        second = link.say("second")
        assert (await peer.hear(wire.Message)).id == second
        await peer.close()

        again = await gateway.accept()
        await again.welcome()
        assert (await again.take()).id == second
        await again.close()

        last = await gateway.accept()
        await last.welcome()
        await ears.until(wire.Welcome)
        ears.task.cancel()
        await last.hears_nothing_more()


async def test_a_message_is_not_overtaken_but_by_control(
    gateway: SocketGateway | WebGateway, link: Link
) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await ears.until(wire.Welcome)
        for text in ("first", "second", "/stop"):
            link.say(text)
        first, stop = await peer.hear(wire.Message), await peer.hear(wire.Message)
        assert [first.text, stop.text] == ["first", "/stop"]
        await peer.say(wire.Ack(id=first.id, cursor="c", queued=0))
        assert (await peer.hear(wire.Message)).text == "second"


async def test_asks_again_where_the_gateway_is_busy(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await ears.until(wire.Welcome)
        said = link.say("hello")
        message = await peer.hear(wire.Message)
        await peer.say(wire.Error(code="rate_limited", message="Slower.", id=message.id, retry_after=0.01))
        assert (await peer.hear(wire.Message)).id == said
        await peer.say(wire.Ack(id=said, cursor="c", queued=0))
        await ears.until(wire.Ack)
        assert link.unsettled == {}


@pytest.mark.parametrize(
    "refusal",
    [
        wire.Error(code="queue_full", message="Too many wait.", id="ID"),
        wire.Error(code="bad_frame", message="The frame does not fit."),
    ],
)
async def test_a_refusal_is_the_last_word(
    gateway: SocketGateway | WebGateway, link: Link, refusal: wire.Error
) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await ears.until(wire.Welcome)
        said = link.say("first")
        link.say("second")
        await peer.hear(wire.Message)
        await peer.raw(wire.encode(refusal).replace(b'"ID"', f'"{said}"'.encode()))
        assert (await peer.hear(wire.Message)).text == "second"
        settled = [item.settled for item in ears.heard if isinstance(item, Received) and item.settled]
        assert [message.text for message in settled] == ["first"]


async def test_takes_frames_of_tomorrow(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.welcome()
        await peer.raw(b'{"type":"poke","strength":3}')
        await peer.raw(b'{"type":"error","code":"too_loud","message":"Quiet, please.","id":"m1"}')
        error = await ears.until(wire.Error)
        assert isinstance(error, wire.Error)
        assert (error.message, error.id) == ("Quiet, please.", "m1")
        assert ears.frames[1] is None


@pytest.mark.parametrize(
    ("code", "exit_code", "advice"),
    [("unsupported_protocol", 76, "protocol 1"), ("unauthorized", 77, "--token-file"), ("not_found", 69, "")],
)
async def test_gives_up_where_it_is_refused(
    gateway: SocketGateway | WebGateway, link: Link, code: str, exit_code: int, advice: str
) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.hear(wire.Hello)
        await peer.raw(b'{"type":"error","code":"%b","message":"No."}' % code.encode())
        with pytest.raises(CannotChat) as refused:
            await ears.task
    assert refused.value.exit_code == exit_code
    assert refused.value.public.startswith("No.")
    assert advice in refused.value.public


async def test_waits_where_the_first_gateway_is_shutting_down(
    gateway: SocketGateway | WebGateway, link: Link
) -> None:
    async with listening(link) as ears:
        peer = await gateway.accept()
        await peer.hear(wire.Hello)
        await peer.say(wire.Error(code="shutting_down", message="In a moment.", retry_after=0.01))
        await (await gateway.accept()).welcome()
        await ears.until(wire.Welcome)


async def test_says_that_nothing_answers(gateway: SocketGateway | WebGateway, link: Link) -> None:
    async with listening(link) as ears:
        await (await gateway.accept()).close()
        with pytest.raises(CannotChat, match="before it answered") as refused:
            await ears.task
    assert refused.value.exit_code == 69


# -- connecting ----------------------------------------------------------------------------------


async def test_tells_how_to_start_the_daemon(tmp_path: Path) -> None:
    for path in (tmp_path / "none.sock", stale_socket(tmp_path / "stale.sock")):
        with pytest.raises(CannotChat, match="`lunar run` starts it") as refused:
            await open_socket(path)
        assert refused.value.exit_code == 69


def stale_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that this user may not enter")
async def test_tells_that_it_is_not_let_in() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = stale_socket(Path(folder, "lunar.sock"))
        os.seteuid(65534)  # the kernel refuses root nothing
        try:
            with pytest.raises(CannotChat, match=f"may not look into {folder}") as refused:
                await open_socket(path)
        finally:
            os.seteuid(0)
    assert refused.value.exit_code == 77


def test_tells_which_group_helps(tmp_path: Path) -> None:
    path = stale_socket(tmp_path / "lunar.sock")
    path.chmod(0o660)
    group = grp.getgrgid(path.stat().st_gid).gr_name
    assert f"sudo usermod -aG {group} " in how_to_be_let_in(path)
    path.chmod(0o600)
    assert "channels.cli.group" in how_to_be_let_in(path)


async def test_tells_what_else_answers(unused_tcp_port: int) -> None:
    with pytest.raises(CannotChat, match="No gateway answers") as refused:
        await open_web(f"ws://127.0.0.1:{unused_tcp_port}/ws")
    assert refused.value.exit_code == 69


@pytest.mark.parametrize(("status", "exit_code", "advice"), [(403, 77, "allowed_origins"), (404, 69, "/ws")])
async def test_explains_an_http_status(status: int, exit_code: int, advice: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CannotChat, match=advice) as refused:
            await open_web(f"ws://127.0.0.1:{port}/ws")
    assert refused.value.exit_code == exit_code


@pytest.mark.parametrize("place", ["ws://host:99999/ws", "ws://a..b/ws", "ftp://host/"])
async def test_is_not_sent_on_to_an_address_that_is_none(place: str) -> None:
    async def send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 No\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % place.encode())
        writer.close()

    server = await asyncio.start_server(send_on, "127.0.0.1", 0)
    async with server:
        with pytest.raises(CannotChat):
            await open_web(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws")


# -- the secret of a remote session --------------------------------------------------------------


async def test_keeps_the_secret_of_a_remote_session(tmp_path: Path) -> None:
    gateway = WebGateway()
    await gateway.start()
    file = SecretFile(tmp_path / "state", gateway.url, "local")
    said = []
    for _ in range(2):
        async with listening(Link(partial(open_web, gateway.url), HELLO, memory=file, pace=QUICK)):
            said.append((await (await gateway.accept()).welcome()).session)
    (kept,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert said == [kept.read_text().strip()] * 2
    await gateway.stop()


def test_each_gateway_and_name_has_its_own_secret(tmp_path: Path) -> None:
    sessions = [("ws://a/ws", "local"), ("ws://a/ws", "work"), ("ws://b/ws", "local")]
    made = [SecretFile(tmp_path, *session).read() for session in sessions]
    assert len(set(made)) == 3
    assert [SecretFile(tmp_path, *session).read() for session in sessions] == made


def test_all_who_begin_at_once_have_the_same_secret(tmp_path: Path) -> None:
    for damaged in (False, True):
        state = tmp_path / str(damaged)
        if damaged:
            SecretFile(state, "ws://a/ws", "local").read()
            next(state.iterdir()).write_text("no secret")
        go = Barrier(8)

        def begin(_: int, state: Path = state, go: Barrier = go) -> str:
            file = SecretFile(state, "ws://a/ws", "local")
            go.wait()
            return file.read()

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(begin, range(8)))) == 1


def test_a_damaged_secret_is_made_anew(tmp_path: Path) -> None:
    file = SecretFile(tmp_path, "ws://a/ws", "local")
    secret = file.read()
    (kept,) = tmp_path.iterdir()
    kept.write_text("x" * 99)
    kept.chmod(0o644)
    assert file.read() != secret
    assert file.read() == kept.read_text().strip()
    assert re.fullmatch(r"[\w-]{43}", file.read())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_secret_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(CannotChat, match="cannot be kept") as refused:
        SecretFile(tmp_path / "state", "ws://a/ws", "local").read()
    assert refused.value.exit_code == 73
