"""An attachment as text for a model: what a text file holds, or what any other is."""

from __future__ import annotations

from gateway.agent.attachments import Attachment
from gateway.agent.tools import MAX_OUTPUT

_MOST = MAX_OUTPUT - 1024  # bytes of text; the rest is for what is said about it
_KINDS = {"image": "an image", "audio": "a recording", "video": "a video"}


def described(attachment: Attachment) -> str:
    """The text of a text file, or a line that says what the file is; raises `OSError`. Reads the disk."""
    about = f"{attachment.name} ({attachment.mime}, {attachment.size} bytes)"
    head = attachment.read(_MOST)
    text = (
        _text(head, cut=attachment.size > len(head))
        if attachment.mime.startswith("text/") or _looks_like_text(head)
        else None
    )
    if text is None:
        kind = _KINDS.get(attachment.mime.partition("/")[0], "a file that is not text")
        if attachment.mime == "application/pdf":
            kind = "a PDF document"
        return f"{about} is {kind}: its content cannot be read as text."
    if attachment.size > len(head):
        return f"{about}, its first {len(head)} bytes:\n\n{text}"
    return f"{about}:\n\n{text}"


def _text(head: bytes, *, cut: bool) -> str:
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if cut and error.start >= len(head) - 4:  # the last character's end was not read
            return head[: error.start].decode("utf-8-sig")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "replace")
    return head.decode("cp1252", "replace")


def _looks_like_text(head: bytes) -> bool:
    """Whether it is text of an older encoding: hardly any control characters in it."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    control = sum((byte < 32 and byte not in b"\t\n\r\f") or byte == 127 for byte in head)
    return (
        bool(head) and control == 0 and not head.startswith((b"%PDF", b"\x89", b"GIF8", b"\xff\xd8", b"RIFF"))
    )
