"""The interactive face for a terminal that can do nothing, and for output to a file: lines in, lines out."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from typing import TextIO

from channels.cli.chat import Chat, leaves
from channels.cli.link import Link
from channels.cli.output import write
from channels.cli.paint import Painter
from channels.cli.view import Said

_QUIET = 0.2  # seconds without a frame after which the first replay counts as whole


class PlainTerminal:
    """One conversation; a reply is printed when it is whole."""

    def __init__(self, link: Link, stdin: TextIO, stdout: TextIO) -> None:
        self._chat = Chat(link)
        self._stdin = stdin
        self._stdout = stdout
        self._painter = Painter("none")
        self._typed = b""
        self._left = asyncio.Event()

    async def run(self) -> int:
        """Converse until the person leaves; raises `CannotChat`."""
        loop = asyncio.get_running_loop()
        listening = asyncio.create_task(self._chat.listen(self._welcomed, self._show))
        leaving = asyncio.create_task(self._left.wait())
        loop.add_reader(self._stdin.fileno(), self._read)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            await asyncio.wait({listening, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
            loop.remove_reader(self._stdin.fileno())  # it would tell the end again and again
            await self._chat.link.settle()
        finally:
            loop.remove_reader(self._stdin.fileno())
            loop.remove_signal_handler(signal.SIGINT)
            for task in (listening, leaving):
                task.cancel()
            await asyncio.gather(listening, leaving, return_exceptions=True)
        self._show()
        for line in self._chat.unsent():
            write(self._stdout, line + "\n")
        return 0

    def _read(self) -> None:
        data = os.read(self._stdin.fileno(), 65536)
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if leaves(text):
                self._left.set()
            else:
                self._chat.enter(text)
        if not data:
            self._left.set()
        self._show()

    def _interrupt(self) -> None:
        self._chat.interrupt()
        self._show()

    def _welcomed(self) -> None:
        asyncio.get_running_loop().call_later(_QUIET, self._open_history)

    def _open_history(self) -> None:
        self._chat.view.open_history()
        self._show()

    def _show(self) -> None:
        echoed = self._stdout.isatty()  # by the terminal itself, as it was typed
        parts = [
            part
            for part in self._chat.view.take()
            if not (echoed and isinstance(part, Said) and part.where == "here")
        ]
        lines = self._painter.paint(parts, shutil.get_terminal_size().columns)
        write(self._stdout, "".join(line.ansi + "\n" for line in lines))
