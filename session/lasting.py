"""Facts that hold until others replace them: they must not grow older than what is read when a lane opens."""

from __future__ import annotations

from msgspec.structs import replace

from session.events import Event, System, User

CARRIED = 128  # user messages after which such a fact is written again; half of what is always read


class Lasting:
    """The newest `setting` of each key, `summary` and `address`. `apply` must get every event, in order."""

    __slots__ = ("_facts", "_users")

    def __init__(self) -> None:
        self._users = 0  # messages so far
        self._facts: dict[tuple[str, str | None], tuple[int, System]] = {}  # since how many messages

    def apply(self, event: Event) -> None:
        """Take in one stored event."""
        match event:
            case User():
                self._users += 1
            case System(name="reset"):
                self._facts.pop(("summary", None), None)
            case System(name="setting", key=key, value=None):
                self._facts.pop(("setting", key), None)  # chosen no longer
            case System(name="setting" | "summary" | "address" as name, key=key):
                self._facts[name, key] = (self._users, event)

    def carry(self, coming: int) -> list[System]:
        """The facts that grow too old with `coming` more messages, to be stored together with them.

        The copies have neither the message's id nor the usage: nobody sent them, and nothing was spent.
        """
        now = self._users + coming
        old = [key for key, (since, _) in self._facts.items() if now - since >= CARRIED]
        for key in old:
            self._facts[key] = (now, self._facts[key][1])  # not carried twice while it is being stored
        return [replace(self._facts[key][1], id=None, model=None, usage=None, ts="") for key in old]
