"""The interactive face: a line editor at the bottom, the conversation above it in the terminal's scroll-back.

What is finished is printed once and never drawn again: it scrolls, it can be searched and copied. Between
that and the editor stands what still changes (the reply that is being written, what waits), and nothing
else is redrawn. No position is asked of the terminal, so it is as calm over a slow line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, AnyFormattedText
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.output.vt100 import Vt100_Output

from channels.cli.chat import Chat, leaves
from channels.cli.editing import Commands, history_in, remember
from channels.cli.link import Link
from channels.cli.paint import Line, Painter, settled
from channels.cli.printable import first_line
from channels.cli.view import Part

_FRAME = 0.04  # seconds from one drawing to the next
_QUIET = 0.2  # seconds without a frame after which the first replay counts as whole
_QUEUED_SHOWN = 3
_LEAST_ROOM = 4
# Synchronised output: what is written between the two appears at once. A terminal without it ignores them.
_HOLD, _RELEASE = "\x1b[?2026h", "\x1b[?2026l"


class Terminal:
    """One conversation on one terminal; `input` and `output` are for tests."""

    def __init__(
        self,
        link: Link,
        history: Path,
        stdin: TextIO,
        stdout: TextIO,
        *,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._chat = Chat(link)
        self._view = self._chat.view
        self._output = output or _calm_output(stdout)
        depth = ColorDepth.from_env() or self._output.get_default_color_depth()
        self._painter = Painter("mono" if depth is ColorDepth.DEPTH_1_BIT else "colours")
        self._live: AnyFormattedText = ""
        self._stopping = -1  # how many turns had ended when Ctrl-C was pressed
        self._changed = asyncio.Event()
        self._session: PromptSession[str] = PromptSession(
            "› ",
            multiline=True,
            prompt_continuation="  ",
            history=history_in(history),
            completer=Commands(),
            complete_while_typing=False,
            enable_suspend=True,
            erase_when_done=True,
            key_bindings=self._keys(),
            input=input or create_input(stdin),
            output=self._output,
        )
        self._app: Application[str] = self._session.app
        self._app.layout = self._layout()
        self._app.after_render += self._release

    # -- life ------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Converse until the person leaves; raises `CannotChat`, the first time before anything is drawn."""
        welcomed = asyncio.Event()
        listening = asyncio.create_task(self._chat.listen(welcomed.set, self._changed.set))
        waiting = asyncio.create_task(welcomed.wait())
        try:
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
            await self._edit(listening)
        finally:
            for task in (listening, waiting):
                task.cancel()
            await asyncio.gather(listening, waiting, return_exceptions=True)
        return 0

    async def _edit(self, listening: asyncio.Task[None]) -> None:
        """Run the editor until the person leaves or the link gives up."""
        drawing = asyncio.create_task(self._draw())
        for task in (listening, drawing):
            task.add_done_callback(self._leave)
        try:
            await self._session.prompt_async(set_exception_handler=False)
        except (EOFError, KeyboardInterrupt):
            pass
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
            if not listening.done():
                await self._chat.link.settle()
            self._print(self._view.take())
            for line in self._chat.unsent():
                self._write(self._painter.faint(line, self._width))

    def _leave(self, task: asyncio.Task[None]) -> None:
        """End the editor with the error of a task that ended by itself."""
        if not task.cancelled() and self._app.is_running and not self._app.is_done:
            self._app.exit(exception=task.exception() or EOFError())

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_QUIET)
        self._view.open_history()
        while True:
            began = loop.time()
            self._refresh()
            # A long table is drawn anew with each frame: the more that costs, the fewer there are.
            await asyncio.sleep(max(_FRAME, 4 * (loop.time() - began)))
            await self._changed.wait()
            self._changed.clear()

    # -- keys ------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        keys.add("enter")(self._enter)
        keys.add("c-c")(self._interrupt)
        keys.add("<sigint>")(self._interrupt)

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return keys

    def _enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if leaves(buffer.text):
            event.app.exit(exception=EOFError())
        elif self._chat.enter(buffer.text):
            remember(buffer.history, buffer.text)
            buffer.reset()
        self._refresh()

    def _interrupt(self, event: KeyPressEvent) -> None:
        if event.current_buffer.text and not self._view.busy:
            event.current_buffer.reset()
        else:
            self._stopping = self._view.closed if self._view.busy else -1
            self._chat.interrupt()
        self._refresh()

    # -- drawing ---------------------------------------------------------------------------------

    def _layout(self) -> Layout:
        live = FormattedTextControl(lambda: self._live)
        status = FormattedTextControl(lambda: self._status())
        return Layout(
            HSplit(
                [
                    Window(live, wrap_lines=True, dont_extend_height=True),
                    self._session.layout.container,
                    ConditionalContainer(
                        Window(status, height=1, style="fg:ansibrightblack"),
                        Condition(lambda: bool(self._status())),
                    ),
                ]
            ),
            focused_element=self._session.default_buffer,
        )

    @property
    def _width(self) -> int:
        return max(10, self._output.get_size().columns)

    def _status(self) -> str:
        if not self._view.online:
            waiting = len(self._chat.link.unsettled)
            return "reconnecting…" + (f" ({waiting} to be sent)" if waiting else "")
        if self._view.busy:
            return "stopping…" if self._stopping == self._view.closed else "Ctrl-C stops"
        return ""

    def _refresh(self) -> None:
        """Print what is finished, make room by printing what has settled of the reply, draw the rest."""
        self._print(self._view.take())
        live = self._live_lines()
        self._live = ANSI("\n".join(line.ansi for line in live))
        self._app.invalidate()

    def _live_lines(self) -> list[Line]:
        below = self._below()
        room = max(
            _LEAST_ROOM, self._output.get_size().rows - _rows(below, self._width) - self._editor_rows()
        )
        draft = self._draft_lines()
        if _rows(draft, self._width) > room and self._keep_settled():
            draft = self._draft_lines()
        blank = [Line("", 0)]
        groups = [group for group in (_last(draft, room, self._width), below) if group]
        joined = self._view.draft is not None and self._view.draft.rest.joined and bool(draft)
        return [*(() if joined else blank), *(line for group in groups for line in [*group, *blank])]

    def _draft_lines(self) -> list[Line]:
        return self._painter.reply(self._view.draft.rest, self._width) if self._view.draft else []

    def _keep_settled(self) -> bool:
        draft = self._view.draft
        if draft is None or not draft.may_keep:
            return False
        kept = settled(draft.rest)
        if kept.length:
            self._view.keep(kept.length, kept.lead, joined=kept.joined)
            self._print(self._view.take())
        return bool(kept.length)

    def _below(self) -> list[Line]:
        """What stands under the reply: tools at work, messages that wait."""
        remarks = []
        if self._view.tools:
            remarks.append("⚙ " + self._view.tools)
        elif self._view.turn and not (self._view.draft and self._view.draft.text):
            remarks.append("…")
        queued = list(self._view.queued.values())
        remarks += [f"waiting: {first_line(said.text, self._width - 12)}" for said in queued[:_QUEUED_SHOWN]]
        if len(queued) > _QUEUED_SHOWN:
            remarks.append(f"waiting: {len(queued) - _QUEUED_SHOWN} more")
        return [line for remark in remarks for line in self._painter.faint(remark, self._width)]

    def _editor_rows(self) -> int:
        """The rows that the editor, its blank lines and the status take, about."""
        text = self._session.default_buffer.text
        return 4 + sum(1 + (len(line) + 2) // self._width for line in text.split("\n"))

    def _release(self, app: Application[str]) -> None:
        self._output.write_raw(_RELEASE)
        self._output.flush()

    def _print(self, parts: Iterable[Part]) -> None:
        self._write(self._painter.paint(parts, self._width))

    def _write(self, lines: Iterable[Line]) -> None:
        """Put lines above the editor, into the scroll-back; the editor is drawn again below them."""
        text = "".join(line.ansi + "\r\n" for line in lines)
        if text:
            if self._app.is_running:
                self._output.write_raw(_HOLD)
                self._app.renderer.erase()
            self._output.write_raw(text)
            self._output.flush()


def _calm_output(stdout: TextIO) -> Output:
    output = Vt100_Output.from_pty(stdout, term=os.environ.get("TERM"))
    output.enable_cpr = False  # else each print would ask for the cursor's position and draw twice
    return output


def _rows(lines: Iterable[Line], width: int) -> int:
    return sum(line.rows(width) for line in lines)


def _last(lines: list[Line], room: int, width: int) -> list[Line]:
    """As many of the last lines as fit."""
    first = len(lines)
    while first and (room := room - lines[first - 1].rows(width)) >= 0:
        first -= 1
    return lines[first:]
