"""A conversation with everything in it."""

from session.events import Assistant, System, ToolCall, ToolResult, Usage, User

CONVERSATION = (
    User(content="What time is it?\nI mean *now*.", id="m1", ts="2026-02-25T10:05:00.000Z"),
    System(name="started", turn="t1", messages=("m1",), attempt=1, ts="2026-02-25T10:05:00.100Z"),
    ToolCall(name="clock", args={"zone": "UTC"}, call_id="c1", turn="t1", ts="2026-02-25T10:05:01.000Z"),
    ToolResult(name="clock", result="10:05", call_id="c1", ok=True, turn="t1", ts="2026-02-25T10:05:01.000Z"),
    Assistant(
        content="It is **10:05**.", turn="t1", answers=("m1",), finish="stop", model="demo",
        usage=Usage(9, 5), ts="2026-02-26T00:00:02.000Z",
    ),
)  # fmt: skip

# What could command a terminal, or be more than text in a document.
HOSTILE = "\x1b]0;title\x07 \x9b31m \x7f \u202e back \ud800 \r over"
