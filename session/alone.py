"""Following a session that no other process writes to."""

from __future__ import annotations

import asyncio


class Alone:
    """The `session.protocols.Following` of a store of files."""

    def catch_up(self) -> asyncio.Future[None]:
        """There is never anything new."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Nothing was begun."""
