"""What a turn says, as messages."""

from channels.base import Delta, ToolActivity
from channels.telegram.formatted import MAX_UNITS, Formatted
from channels.telegram.said import Said, Snapshot


def test_a_status_stands_below_the_last_message_where_there_is_room() -> None:
    first, last, full = Formatted("first"), Formatted("last"), Formatted("x" * (MAX_UNITS - 5))
    assert Snapshot([first, last], "").shown() == [first, last]
    assert Snapshot([first, last], "🔧 a").shown() == [first, Formatted("last\n\n🔧 a")]
    assert Snapshot([first, full], "🔧 a").shown() == [first, full]
    assert Snapshot([], "🔧 a").shown() == [Formatted("🔧 a")]


async def test_it_changes_with_every_update_and_a_snapshot_is_of_its_moment() -> None:
    said = Said()
    assert not said.changed.is_set()
    said.hear(Delta("t1", "Hel"))
    said.hear(ToolActivity("t1", "c1", "one\ud800", "started"))
    said.hear(ToolActivity("t1", "c2", "two", "started"))
    assert said.changed.is_set()
    assert await said.snapshot() == Snapshot([Formatted("Hel")], "🔧 one\ufffd, two")
    assert not said.changed.is_set()
    said.hear(ToolActivity("t1", "c1", "one", "failed"))
    said.hear(Delta("t1", "lo"))
    assert await said.snapshot() == Snapshot([Formatted("Hello")], "🔧 two")
