"""How many tokens a request takes, roughly: for what the server has not reported, or not yet."""

from collections.abc import Iterable
from typing import Any

BYTES_A_TOKEN = 4  # of English; other languages take fewer bytes a token, and more bytes a character
IMAGE = 1000  # tokens; providers scale pictures down to 85 to 1,600
_FILE_BYTES_A_TOKEN = 40  # of a PDF in base64: mostly fonts and pictures
_AROUND = 4  # tokens around each message


def tokens(messages: Iterable[dict[str, Any]], tools: Iterable[dict[str, Any]] = ()) -> int:
    """The tokens of a request in the form of Chat Completions."""
    count = sum(len(str(tool)) // BYTES_A_TOKEN for tool in tools)
    for message in messages:
        count += _AROUND
        match message.get("content"):
            case str(text):
                count += of_text(text)
            case list(parts):
                count += _of_parts(parts)
        for call in message.get("tool_calls", ()):
            count += _AROUND + of_text(call["function"]["arguments"])
    return count


def of_text(text: str) -> int:
    """The tokens of a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // BYTES_A_TOKEN)


def _of_parts(parts: Iterable[dict[str, Any]]) -> int:
    count = 0
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                count += of_text(text)
            case {"type": "file", "file": {"file_data": str(data)}}:
                count += len(data) // _FILE_BYTES_A_TOKEN
            case _:
                count += IMAGE
    return count
