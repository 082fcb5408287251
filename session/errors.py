"""What can go wrong with what was said.

SessionError
├── BadSessionId        an id or a file name that is not one
├── BadCursor           a cursor that is not of this session
├── BadEvent            an event that cannot be written as JSON
├── StorageError        the disk refused: nothing of the append is stored; or the database cannot tell
├── LeaseLost           another node runs the session's turns: nothing of the append is stored
├── Repeated            a message of this id is stored already: nothing of the append is
├── StoreUnfit          a store that a person must put right: its address, its rights, its version
├── DamagedArchive      a compressed transcript that cannot be read to its end
└── StoreLocked         another daemon holds the data directory
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session.events import Record


class SessionError(Exception):
    """Base of every error of this package."""


class BadSessionId(SessionError, ValueError):
    """The text is not `agent:<agentId>:<provider>:<peerId>`, or the name is not a transcript's."""


class BadCursor(SessionError, ValueError):
    """The cursor does not name a place in this session (another session's, or of a deleted one)."""


class BadEvent(SessionError, ValueError):
    """The event cannot be written: too deep, or holding what JSON has no form for."""


class StorageError(SessionError, OSError):
    """The append failed and left nothing behind; what was stored before is untouched.

    Where the store is a database, an append whose answer was lost may be stored all the same.
    """


class LeaseLost(SessionError):
    """This process does not run the session's turns, or no longer: it must not write for them."""


class Repeated(SessionError):
    """A message of the batch is stored already; `record` is what was stored under its id."""

    def __init__(self, record: Record) -> None:
        super().__init__("a message of this id is stored already")
        self.record = record

    @property
    def cursor(self) -> str:
        """The cursor after what was stored."""
        return self.record.cursor


class StoreUnfit(SessionError):
    """The store cannot be used until somebody changes something; the text says what, without a password."""


class DamagedArchive(SessionError, OSError):
    """An archived transcript cannot be read to its end; what stands before the damage can."""


class StoreLocked(SessionError):
    """The data directory is in use; `holder` names the process as the lock file tells it."""

    def __init__(self, data_dir: str, holder: str) -> None:
        super().__init__(f"{data_dir} is in use by {holder or 'another process'}")
        self.holder = holder
