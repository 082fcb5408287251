"""The Unix socket: the protocol as lines of JSON, for whoever the kernel says is calling."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import re
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from channels import connection, wire
from channels.cli.address import prepare_directory
from channels.connection import Entry, House
from channels.errors import ChannelError, Refused, SocketInUse
from session.ids import AgentId, Peer, PeerId, Provider

log = structlog.get_logger(__name__)

PROVIDER = Provider("cli")
_NAME = re.compile(r"[a-z0-9_.-]{1,64}\Z")
_BACKLOG = 4096  # connections that wait, such as those of a restart; the kernel caps it (net.core.somaxconn)
_LAST_GUESTS = 0.25  # seconds for those who were let in just before a stop; whoever comes later waits outside
_TOO_LARGE = 1009
_READ_OUT = 8 * 1024 * 1024  # bytes of a frame that is too large, as long as somebody may have pasted
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class UnknownName(ChannelError):
    """A user or group of the configuration that this machine does not have."""


class CliChannel:
    """Listens on one path. `bind` first, so that a start can fail before anybody is told that it worked."""

    name = "cli"

    def __init__(
        self, path: Path, house: House, group: str | None = None, operators: Iterable[str] = ()
    ) -> None:
        self._path = path
        self._house = house
        self._group = _group_id(group) if group else None
        self.operators = user_ids(operators)  # others when the configuration was read again
        self._inherited: socket.socket | None = None
        self._socket: socket.socket | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def adopt(self, inherited: socket.socket) -> None:
        """Serve on a listening socket that somebody else keeps open (systemd); it is not ours to unlink."""
        self._inherited = inherited

    def bind(self) -> None:
        """Take the path over from a dead daemon, never from a living one.

        Raises `SocketInUse`, `UnsafeDirectory`, or `OSError` where the socket cannot be made.
        """
        if self._inherited is not None:
            self._socket = self._inherited.dup()  # serving closes the copy alone
            return
        prepare_directory(self._path)
        self._remove_stale()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(self._path))
            if self._group is not None:
                os.chown(self._path, -1, self._group)
                os.chmod(self._path, 0o660)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(mask)
        listener.setblocking(False)
        self._socket = listener

    def _remove_stale(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(self._path))
            except FileNotFoundError:
                return
            except TimeoutError:
                pass  # a full backlog is a sign of life, too
            except OSError as error:
                if error.errno != errno.ECONNREFUSED:
                    raise
                self._unlink_socket()
                return
        raise SocketInUse(f"{self._path}: another daemon is listening there")

    def _unlink_socket(self) -> None:
        # Connecting to an ordinary file is refused, too: that one is somebody's, and stays.
        if not stat.S_ISSOCK(self._path.lstat().st_mode):
            reason = f"{self._path} is there already, and is no socket; choose another channels.cli.socket"
            raise FileExistsError(errno.EEXIST, reason)
        self._path.unlink()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""
        if self._socket is None:
            self.bind()
        listener, self._socket = self._socket, None
        server = await asyncio.start_unix_server(
            self._accept, sock=listener, limit=wire.MAX_CLIENT_FRAME, backlog=_BACKLOG
        )
        mine = None if self._inherited else self._path.stat().st_ino
        ready()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            if self._inherited is not None:
                await asyncio.sleep(_LAST_GUESTS)
            for client in self._clients:
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients)
            self._unlink(mine)

    def _unlink(self, mine: int | None) -> None:
        if mine is None:
            return
        try:
            if self._path.stat().st_ino == mine:
                self._path.unlink()
        except FileNotFoundError:
            return

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            uid = _caller(writer)
            await connection.serve(
                _Lines(reader, writer), _SocketDoor(uid, uid in self.operators), self._house
            )
        except Exception:
            log.exception("a connection broke", channel=self.name)


def _caller(writer: asyncio.StreamWriter) -> int:
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise UnknownName(f"channels.cli.group: this machine has no group {name!r}") from None


def user_ids(operators: Iterable[str]) -> set[int]:
    """The users who are operators: these, we ourselves and root; raises `UnknownName`."""
    return {0, os.getuid(), *map(_user_id, operators)}


def _user_id(name: str) -> int:
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UnknownName(f"channels.cli.operators: this machine has no user {name!r}") from None


class _SocketDoor:
    """Operators own the plain names; anybody else whom the socket's group lets in is `uid:<n>`."""

    def __init__(self, uid: int, operator: bool) -> None:
        self._uid = uid
        self._operator = operator

    def enter(self, hello: wire.Hello) -> Entry:
        name = hello.session or "local"
        if not _NAME.match(name):
            raise Refused("unauthorized", "A session's name has 1 to 64 of a-z, 0-9, _, . and -.")
        if not self._operator:
            name = f"uid:{self._uid}" if name == "local" else f"uid:{self._uid}:{name}"
        agent = AgentId(hello.agent) if hello.agent else None
        return Entry(Peer(PROVIDER, PeerId(name)), agent, operator=self._operator)

    def spend(self) -> float:
        return 0.0  # the network's limit; whoever is on this machine has other ways to keep it busy


class _Lines:
    """A `Carrier`: one frame, one line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=256 * 1024)

    async def receive(self) -> bytes | None:
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return None  # what has no end was never sent
            except asyncio.LimitOverrunError:
                raise Refused(
                    "frame_too_large", f"A frame may have at most {wire.MAX_CLIENT_FRAME} bytes."
                ) from None
            except ConnectionError:
                return None
            if line.strip():
                return line
            await asyncio.sleep(0)  # thousands may be read at once: everybody has a turn in between

    async def send(self, frames: list[bytes]) -> None:
        if self._writer.transport.is_closing():
            # uvloop raises a RuntimeError for a write to a closed transport, asyncio nothing at all.
            raise ConnectionResetError("the client is gone")
        self._writer.write(b"\n".join((*frames, b"")))
        await self._writer.drain()

    async def close(self, code: int) -> None:
        if code == _TOO_LARGE:
            await self._read_out()
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()

    async def _read_out(self) -> None:
        """Let the client finish what is too large: whoever is cut off while it writes never reads why."""
        left = _READ_OUT
        try:
            async with asyncio.timeout(1.0):
                while left > 0 and (data := await self._reader.read(1 << 16)):
                    left -= len(data)
        except (TimeoutError, ConnectionError):
            return
