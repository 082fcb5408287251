"""A relay in a thread of its own that counts what goes through it, in both directions."""

from __future__ import annotations

import socket
import threading
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Wiretap:
    """Listens on a free port while it is entered; `count` is the bytes so far."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))

    def url(self, url: str) -> str:
        """The same address, by way of this."""
        parts = urlsplit(url)
        user, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._listener.getsockname()[1]}"))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            far = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(1 << 16):
                self.count += len(piece)
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            sink.close()
