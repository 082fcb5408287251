"""What was said in a group and was not for us, as the transcript keeps it; and how messages read now."""

from __future__ import annotations

from msgspec.structs import replace

from channels.base import InboundMessage, Session
from session.events import System, User

_RECENT = 200  # events among which a message is looked for
_BETWEEN = 50  # events that may stand between overheard messages, beside them
_LINE, _ALL = 1000, 8000  # characters of one overheard message, and of all that go along with a message


async def standing(session: Session, id: str) -> str | None:
    """How a recent message reads, with its last edit; None where there is none of this id."""
    text: str | None = None
    for record in await session.before(None, _RECENT):
        match record.event:
            case User(id=same, content=content) | System(name="context", id=same, content=content) if (
                same == id
            ):
                text = content
            case System(name="edit", of=same, content=content) if same == id and text is not None:
                text = content
    return text


async def gathered(session: Session, message: InboundMessage, most: int) -> InboundMessage:
    """The message, with up to `most` of those that were overheard since the last one that was for us."""
    lines: list[str] = []
    room = _ALL
    for record in reversed(await session.before(None, most + _BETWEEN)):
        match record.event:
            case User():
                break
            case System(name="context", content=str(content), sender=sender) if len(lines) < most:
                line = f"{sender or 'somebody'}: {content}"
                lines.append(line if len(line) <= _LINE else f"{line[:_LINE]}…")
                if (room := room - len(lines[-1])) < 0:
                    lines.pop()
                    break
    if not lines:
        return message
    heard = "\n".join(["[said in the group before, not to you]", *reversed(lines), "[said to you]"])
    return replace(message, text=f"{heard}\n{message.text}")
