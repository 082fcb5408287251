"""What can go wrong with what was said.

SessionError
├── BadSessionId        an id or a file name that is not one
├── BadCursor           a cursor that is not of this session
├── BadEvent            an event that cannot be written as JSON
├── StorageError        the disk refused: nothing of the append is stored
├── DamagedArchive      a compressed transcript that cannot be read to its end
└── StoreLocked         another daemon holds the data directory
"""

from __future__ import annotations


class SessionError(Exception):
    """Base of every error of this package."""


class BadSessionId(SessionError, ValueError):
    """The text is not `agent:<agentId>:<provider>:<peerId>`, or the name is not a transcript's."""


class BadCursor(SessionError, ValueError):
    """The cursor does not name a place in this session (another session's, or of a deleted one)."""


class BadEvent(SessionError, ValueError):
    """The event cannot be written: too deep, or holding what JSON has no form for."""


class StorageError(SessionError, OSError):
    """The append failed and left nothing behind; what was stored before is untouched."""


class DamagedArchive(SessionError, OSError):
    """An archived transcript cannot be read to its end; what stands before the damage can."""


class StoreLocked(SessionError):
    """The data directory is in use; `holder` names the process as the lock file tells it."""

    def __init__(self, data_dir: str, holder: str) -> None:
        super().__init__(f"{data_dir} is in use by {holder or 'another process'}")
        self.holder = holder
