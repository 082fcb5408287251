"""A whole session that comes from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from session.ids import SessionId


class Incoming(NamedTuple):
    """When it was changed last (Unix seconds), whether something in it may wait for an answer.

    `blocks` gives its lines, in blocks that end with a line.
    """

    session: SessionId
    modified: float
    open: bool
    blocks: Callable[[], Iterator[bytes]]
