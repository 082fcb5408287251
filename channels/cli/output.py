"""Where a single answer goes: to a pipe byte for byte, to a terminal as it is written, or frame by frame."""

from __future__ import annotations

from typing import TextIO

from channels.cli.printable import printable, printable_json


class Piped:
    """The reply alone, byte for byte; a newline is added where it has none."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._stdout = stdout
        self._stderr = stderr

    def frame(self, raw: bytes) -> None:
        """Frames are not shown."""

    def progress(self, text: str) -> None:
        """A pipe gets the reply when it is whole."""

    def reply(self, text: str) -> None:
        """Write the reply."""
        if text:
            write(self._stdout, text if text.endswith("\n") else text + "\n")

    def note(self, sentence: str) -> None:
        """Write to stderr."""
        write(self._stderr, f"lunar: {printable(sentence)}\n")


class Shown(Piped):
    """The reply as it is written, without the control characters that a terminal would obey."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        super().__init__(stdout, stderr)
        self._shown = ""
        self._in_line = False  # the cursor stands behind what was written

    def progress(self, text: str) -> None:
        """Write what is new; while a repeated turn catches up, nothing."""
        text = printable(text)
        if text.startswith(self._shown) and text != self._shown:
            write(self._stdout, text[len(self._shown) :])
            self._shown = text
            self._in_line = not text.endswith("\n")

    def reply(self, text: str) -> None:
        """Write the rest; the whole reply again, under a line that says so, where it turned out another."""
        text = printable(text)
        if text and not text.startswith(self._shown):
            self.note("The reply was begun anew:")
            self._shown = ""
        self.progress(text)
        self._end_line()

    def note(self, sentence: str) -> None:
        """Write to stderr, on a line of its own."""
        self._end_line()
        super().note(sentence)

    def _end_line(self) -> None:
        if self._in_line:
            write(self._stdout, "\n")
            self._in_line = False


class Frames(Piped):
    """Every frame as received, one JSON object a line."""

    def frame(self, raw: bytes) -> None:
        """Write the frame; a line break can only be white space between its members."""
        line = raw.decode("utf-8", "replace").replace("\n", " ").replace("\r", " ")
        write(self._stdout, (printable_json(line) if self._stdout.isatty() else line) + "\n")

    def reply(self, text: str) -> None:
        """The frames hold it."""


def write(stream: TextIO, text: str) -> None:
    """Write and flush; what the stream cannot carry is replaced. Files and pipes get UTF-8 in any locale."""
    buffer = None if stream.isatty() else getattr(stream, "buffer", None)
    if buffer is None:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    else:
        buffer.write(text.encode("utf-8", "replace"))
    stream.flush()
