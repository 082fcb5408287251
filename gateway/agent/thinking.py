"""What a model thinks before it answers, taken out of the reply: `<think>…</think>` at its beginning."""

_OPEN = "<think>"
_CLOSE = "</think>"


class Thinking:
    """Reads one reply piece by piece. With `keep`, what was thought is in `thoughts`."""

    def __init__(self, keep: bool = False) -> None:
        self.over = False  # the reply itself has begun: everything from here on is shown
        self.thoughts: list[str] = []
        self.size = 0  # characters thought so far
        self._keep = keep
        self._inside = False
        self._answering = False  # only the white space between thought and answer may still be dropped
        self._held = ""  # may be the beginning of a mark

    def shown(self, text: str) -> str:
        """What of the next piece belongs to the reply."""
        if self.over:
            return text
        self._held += text
        if not (self._inside or self._answering):
            beginning = self._held.lstrip()
            if _OPEN.startswith(beginning):  # which an empty one does, too
                return ""
            if not beginning.startswith(_OPEN):
                self.over = True
                return self.rest()
            self._inside, self._held = True, beginning[len(_OPEN) :]
        return self._after_thought()

    @property
    def held(self) -> int:
        """How many characters wait for what follows them: white space at the beginning may be a lot."""
        return len(self._held)

    def rest(self) -> str:
        """What was held back, once it is known that it is no mark."""
        held, self._held = self._held, ""
        return "" if self._inside else held

    def thought(self, text: str) -> None:
        """More of what was thought, where a server tells it apart by itself."""
        self.size += len(text)
        if self._keep:
            self.thoughts.append(text)

    def _after_thought(self) -> str:
        if self._inside:
            end = self._held.find(_CLOSE)
            if end < 0:
                sure = max(0, len(self._held) - len(_CLOSE) + 1)
                self.thought(self._held[:sure])
                self._held = self._held[sure:]
                return ""
            self.thought(self._held[:end])
            self._inside, self._answering = False, True
            self._held = self._held[end + len(_CLOSE) :]
        self._held = self._held.lstrip()
        self.over = bool(self._held)
        return self.rest() if self.over else ""
