"""Who is speaking, and the name of the file that remembers it."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, NewType

from session.errors import BadSessionId

AgentId = NewType("AgentId", str)
Provider = NewType("Provider", str)
PeerId = NewType("PeerId", str)
SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
MessageId = NewType("MessageId", str)

SUFFIX = ".jsonl"
_WORD = re.compile(r"[a-z0-9_]+\Z")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_.")
_CODES = ["-" if b == 0x3A else chr(b) if b in _PLAIN else f"%{b:02X}" for b in range(256)]
_SIMPLE = re.compile(r"agent-[a-z0-9_]+-[a-z0-9_]+-[a-z0-9_.-]+\Z")  # nothing in it is escaped
_LONGEST_NAME = 180
_KEPT_OF_LONG = 100


class Peer(NamedTuple):
    """One person or place that writes to us, such as `("telegram", "user:123456")`."""

    provider: Provider
    peer_id: PeerId


def session_id(agent: str, peer: Peer) -> SessionId:
    """Return `agent:<agentId>:<provider>:<peerId>`.

    Raises `BadSessionId` where agent or provider is not `[a-z0-9_]+` or the peer id is empty.
    """
    for what, word in (("agent id", agent), ("provider", peer.provider)):
        if not _WORD.match(word):
            raise BadSessionId(f"{what} {word!r} may only have a-z, 0-9 and _")
    if not peer.peer_id:
        raise BadSessionId("the peer id is empty")
    return SessionId(f"agent:{agent}:{peer.provider}:{peer.peer_id}")


def parse(text: str) -> tuple[AgentId, Peer]:
    """Split a session id into its agent and its peer; raises `BadSessionId`."""
    parts = text.split(":", 3)
    if len(parts) != 4 or parts[0] != "agent":
        raise BadSessionId(f"{text!r} is not agent:<agentId>:<provider>:<peerId>")
    agent, peer = AgentId(parts[1]), Peer(Provider(parts[2]), PeerId(parts[3]))
    session_id(agent, peer)
    return agent, peer


def file_name(session: str) -> str:
    """Return the transcript's file name; no two ids share one, also where the disk folds case."""
    raw = session.encode("utf-8", "surrogatepass")
    name = "".join(map(_CODES.__getitem__, raw))
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_KEPT_OF_LONG]}%~{hashlib.sha256(raw).hexdigest()}"
    return name + SUFFIX


def is_shortened(name: str) -> bool:
    """Whether the file name holds only the beginning of its session id (the header has it whole)."""
    return "%~" in name


def from_file_name(name: str) -> SessionId:
    """Invert `file_name`; raises `BadSessionId` for a name that it cannot have made, or a shortened one."""
    stem = name.removesuffix(SUFFIX)
    if stem == name or is_shortened(stem):
        raise BadSessionId(f"{name!r} does not hold a whole session id")
    if len(stem) <= _LONGEST_NAME and _SIMPLE.match(stem):  # most are, and a listing has many
        return SessionId(stem.replace("-", ":"))
    try:
        raw = b"".join(_bytes_of(stem))
        session = raw.decode("utf-8", "surrogatepass")
    except ValueError as error:
        raise BadSessionId(f"{name!r} is not a transcript's file name") from error
    parse(session)
    if file_name(session) != name:
        raise BadSessionId(f"{name!r} is not how {session!r} is written")
    return SessionId(session)


def _bytes_of(stem: str) -> list[bytes]:
    parts = stem.replace("-", ":").split("%")
    out = [parts[0].encode("ascii")]
    for part in parts[1:]:
        out.append(bytes.fromhex(part[:2]))
        out.append(part[2:].encode("ascii"))
    return out
