"""The statement that stores lines: what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from session import events
from session.appends import Append, refuse
from session.errors import BadEvent, Repeated
from session.events import FORMAT, BadLine, Record, System, Unknown
from session.ids import SessionId
from session.postgres_database import Database, Row
from session.postgres_desk import Desk
from session.postgres_reading import Place, key_of

_STATEMENT = "select * from lunar.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"


class Group(NamedTuple):
    """Appends of one session that are stored by one statement, with their lines and message ids."""

    items: list[Append]
    lines: list[bytes]
    ids: dict[bytes, int]  # and the place of each one's event among the lines

    @property
    def leased(self) -> bool:
        """Whether one of them may only be stored under the lease."""
        return any(item.leased for item in self.items)

    @property
    def opens(self) -> bool:
        """Whether a message is in it that waits for an answer."""
        return any(item.opens() for item in self.items)

    def records(self, first: int, tag: str) -> list[Record]:
        """As they are stored, the first line under this number."""
        batch = (event for item in self.items for event in item.batch)
        return [
            Record(str(Place(seq, tag)), event, line)
            for seq, (event, line) in enumerate(zip(batch, self.lines, strict=True), first)
        ]


class Stored(NamedTuple):
    """What the database did. `outcome`: stored, repeated (nothing was), lost (the lease; nothing was).

    `place`: the first line's number; of a repeat, that of the line that was there before.
    """

    outcome: str
    tag: str
    place: int
    line: bytes
    owner: int | None
    epoch: int
    gap: list[bytes]

    def before(self) -> Repeated:
        """What was stored under the message's id."""
        try:
            event = events.decode(self.line)
        except BadLine:
            event = Unknown()
        return Repeated(Record(str(Place(self.place, self.tag)), event, self.line))


def grouped(items: list[Append]) -> tuple[Group, list[Append]]:
    """What can be stored together, from the first one on, and what comes after that.

    What is no JSON is refused. A message id that comes once more is for the next statement, which refuses it.
    """
    group = Group([], [], {})
    for number, item in enumerate(items):
        try:
            lines = [events.encode(event)[:-1] for event in item.batch]
        except BadEvent as error:
            refuse([item], error)
            continue
        ids = {key_of(id): place for place, id in enumerate(_ids(item), len(group.lines)) if id is not None}
        if not group.ids.keys().isdisjoint(ids):
            return group, items[number:]
        group.items.append(item)
        group.lines.extend(lines)
        group.ids.update(ids)
    return group, []


def _ids(item: Append) -> Iterable[str | None]:
    return (getattr(event, "id", None) for event in item.batch)


async def store(database: Database, desk: Desk, group: Group, node: int, *, claim: bool) -> Stored:
    """Store them, or none of them; raises `StorageError`."""
    raw = desk.session.encode("utf-8", "surrogatepass")
    row = await database.row(
        _STATEMENT,
        key_of(desk.session),
        raw,
        node,
        claim,
        desk.epoch if group.leased else None,
        desk.tag,
        desk.head if desk.follower else None,
        group.opens,
        sum(map(len, group.lines)) + len(group.lines),
        _header(desk.session),
        group.lines,
        list(group.ids),
        list(group.ids.values()),
    )
    assert row is not None
    return _stored(row)


def _stored(row: Row) -> Stored:
    return Stored(
        row["outcome"], row["tag"] or "", row["place"] or 0, row["line"] or b"", row["owner"],
        row["epoch"] or 0, row["gap"] or [],
    )  # fmt: skip


def _header(session: SessionId) -> bytes:
    return events.encode(events.stamped(System(name="session", content=session, format=FORMAT)))[:-1]
