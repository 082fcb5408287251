"""A terminal's screen with its scroll-back: what a person sees after all that was written to it."""

from __future__ import annotations

import asyncio
import re

from prompt_toolkit.utils import get_cwidth

_TOKEN = re.compile(r"\x1b\[(?P<args>[?0-9;]*)(?P<code>[A-Za-z])|\x1b\[[0-9] q|(?P<char>.)", re.DOTALL)
_WITHIN = 10.0  # seconds; no test waits for it unless it fails


class Screen:
    """Understands what the editor writes and nothing else: any other escape sequence is an error."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self._lines: list[list[str]] = [[]]  # with the scroll-back; a wide character is followed by ""
        self._top = 0
        self._y = 0
        self._x = 0
        self._wraps = True
        self._held = False  # synchronised output: nothing is to be seen until it ends
        self._changed = asyncio.Event()

    # -- as a file -------------------------------------------------------------------------------

    def write(self, data: str) -> None:
        for token in _TOKEN.finditer(data):
            if token["code"]:
                self._control(token["args"], token["code"])
            elif token["char"]:
                self._char(token["char"])
        if not self._held:
            self._changed.set()

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    # -- as a person sees it ---------------------------------------------------------------------

    @property
    def text(self) -> str:
        """Everything, the scroll-back included, without trailing white space."""
        return "\n".join("".join(line).rstrip() for line in self._lines).rstrip()

    async def shows(self, text: str) -> None:
        """Wait until this is to be seen."""
        await self._until(lambda: text in self.text, f"{text!r} is not shown")

    async def hides(self, text: str) -> None:
        """Wait until this is not to be seen."""
        await self._until(lambda: text not in self.text, f"{text!r} is still shown")

    async def _until(self, met: object, otherwise: str) -> None:
        assert callable(met)
        try:
            async with asyncio.timeout(_WITHIN):
                while self._held or not met():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{otherwise}:\n{self.text}") from None

    # -- what the terminal does ------------------------------------------------------------------

    def _control(self, args: str, code: str) -> None:
        count = int(args) if args.isdecimal() else 1
        if code == "A":
            self._y = max(self._top, self._y - count)
        elif code == "C":
            self._x = min(self.columns - 1, self._x + count)
        elif code == "D":
            self._x = max(0, min(self._x, self.columns - 1) - count)
        elif code == "K":
            del self._lines[self._y][self._x :]
        elif code == "J":
            del self._lines[self._y][self._x :]
            del self._lines[self._y + 1 :]
        elif args == "?7":
            self._wraps = code == "h"
        elif args == "?2026":
            self._held = code == "h"
        else:
            assert code in "mhl", f"CSI {args} {code}"

    def _char(self, char: str) -> None:
        if char == "\r":
            self._x = 0
        elif char == "\n":
            self._down()
        elif char == "\b":
            self._x = max(0, self._x - 1)
        else:
            assert char.isprintable() or char == "\u200d", repr(char)
            self._put(char, get_cwidth(char))

    def _put(self, char: str, width: int) -> None:
        if self._x + width > self.columns:
            if self._wraps:
                self._x = 0
                self._down()
            else:
                self._x = self.columns - width
        line = self._lines[self._y]
        line.extend(" " * (self._x - len(line)))
        line[self._x : self._x + width] = [char, *[""] * (width - 1)]
        self._x += width

    def _down(self) -> None:
        self._y += 1
        while len(self._lines) <= self._y:
            self._lines.append([])
        self._top = max(self._top, self._y - self.rows + 1)
