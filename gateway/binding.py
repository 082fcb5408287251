"""What keeps a channel from listening -> the error that ends the start, and says what to do."""

from __future__ import annotations

import errno
from typing import Protocol

from channels.errors import ChannelError, SocketInUse
from gateway.errors import CannotCreate, Held


class Listening(Protocol):
    """A channel that takes its address before it runs."""

    name: str

    def bind(self) -> None:
        """Listen; raises `ChannelError` or `OSError`."""


def bind(channel: Listening, port: int | None = None) -> None:
    """Let a channel listen, on this TCP port where it has one; raises `Held` or `CannotCreate`."""
    try:
        channel.bind()
    except SocketInUse as error:
        raise Held(f"{error}.") from error
    except ChannelError as error:
        raise CannotCreate(f"{error}.") from error
    except OSError as error:
        if port is not None and error.errno == errno.EADDRINUSE:
            raise Held(
                f"Port {port} is taken by another program. Stop that one, or choose another http.port "
                f"(LUNAR_HTTP__PORT={port + 1})."
            ) from error
        raise CannotCreate(f"channel {channel.name}: {error.strerror or error}") from error
