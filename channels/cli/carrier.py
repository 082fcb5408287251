"""A connection to a gateway: one frame out, one frame in, whatever carries them."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from channels.errors import ChannelError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

# sysexits.h
USAGE, DATA, UNAVAILABLE, CANNOT_CREATE, TEMPORARY, PROTOCOL, NO_PERMISSION = 64, 65, 69, 73, 75, 76, 77

_LONGEST_FRAME = 2 * 1024 * 1024  # bytes; the protocol allows half of that
_CLOSE_WITHIN = 1.0  # seconds that leaving may take where the other side is gone
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PASSWORD = re.compile(r"\A((?:\w+://)?+[^/?#@:]*+):.*@", re.DOTALL)


class CannotChat(ChannelError):
    """No conversation is possible: `public` says why and what to do, `exit_code` is a sysexits code."""

    def __init__(self, public: str, exit_code: int = UNAVAILABLE) -> None:
        super().__init__(public)
        self.public = public
        self.exit_code = exit_code


class Dropped(ChannelError):
    """The connection ended; `after` is how long to wait at least before the next, in seconds."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Carrier(Protocol):
    """Frames as JSON, in order."""

    async def send(self, frame: bytes) -> None:
        """Send one frame; raises `Dropped`."""

    async def receive(self) -> bytes:
        """Wait for one frame; raises `Dropped`."""

    async def close(self) -> None:
        """End the connection; calling it again does nothing."""


class SocketCarrier:
    """The Unix socket: one JSON object a line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, frame: bytes) -> None:
        """Send one frame; raises `Dropped`."""
        try:
            self._writer.write(frame + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise Dropped(f"the connection broke: {error}") from error

    async def receive(self) -> bytes:
        """Wait for one frame; raises `Dropped`."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:  # ValueError: a line beyond the limit
            raise Dropped(f"the connection broke: {error}") from error
        if not line.endswith(b"\n"):
            raise Dropped("the gateway closed the connection")
        return line[:-1]

    async def close(self) -> None:
        """End the connection; calling it again does nothing."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass


class WebCarrier:
    """A WebSocket: one JSON object per text message."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        """Send one frame; raises `Dropped`."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed as error:
            raise Dropped(f"the connection broke: {error}") from error

    async def receive(self) -> bytes:
        """Wait for one frame; raises `Dropped`."""
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise Dropped(f"the connection was closed: {error}") from error

    async def close(self) -> None:
        """End the connection; calling it again does nothing."""
        await self._socket.close()


async def open_socket(path: Path) -> Carrier:
    """Connect to the daemon's Unix socket; raises `CannotChat`."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_FRAME)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CannotChat(f"No daemon is running at {path}; `lunar run` starts it.") from error
    except PermissionError as error:
        raise CannotChat(how_to_be_let_in(path), NO_PERMISSION) from error
    except OSError as error:
        raise CannotChat(f"Cannot connect to {path}: {error.strerror or error}.") from error
    return SocketCarrier(reader, writer)


def how_to_be_let_in(path: Path) -> str:
    """What a person can do who may not use the socket."""
    try:
        status = path.stat()
    except OSError:
        return f"You may not look into {path.parent}, where the daemon's socket is; ask whoever runs it."
    if status.st_mode & 0o060 == 0o060:
        group, user = _group_name(status.st_gid), _user_name(os.getuid())
        return (
            f"Only members of the group {group} may use {path}: "
            f"`sudo usermod -aG {group} {user}`, then log in again."
        )
    return f"Only the daemon's own user may use {path}; `channels.cli.group` in its config lets a group in."


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def without_password(url: str) -> str:
    """The address as it may be shown: of all that stands before its last `@`, only the user's name."""
    return _PASSWORD.sub(r"\1:***@", url, count=1)


async def open_web(url: str) -> Carrier:
    """Connect to a gateway's WebSocket (`ws://` or `wss://`); raises `CannotChat`."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

    shown = without_password(url)
    proxy: Literal[True] | None = None if urlsplit(url).hostname in _LOOPBACK else True
    try:
        connection = await connect(
            url, proxy=proxy, max_size=_LONGEST_FRAME, compression=None, close_timeout=_CLOSE_WITHIN
        )
    except (InvalidURI, InvalidProxy) as error:  # either begins with an address
        raise CannotChat(f"{without_password(str(error))}.", USAGE) from error
    except InvalidStatus as error:
        status = error.response.status_code
        refused = NO_PERMISSION if status in (401, 403) else UNAVAILABLE
        why = _STATUS.get(status, "It is no gateway, or something in front of it is in the way.")
        raise CannotChat(f"{shown} answers with HTTP status {status}. {why}", refused) from error
    except (OSError, InvalidHandshake, EOFError, ImportError, ValueError) as error:
        # EOFError: closed before it answered; ImportError: a SOCKS proxy without the library for it;
        # ValueError: sent on to an address that is none.
        raise CannotChat(f"No gateway answers at {shown}: {error}.") from error
    return WebCarrier(connection)


_STATUS: Mapping[int, str] = {
    403: "It does not know itself by this name: reach it by an address it is bound to, or a host in"
    " `http.allowed_origins`.",
    404: "The chat is at /ws.",
}
