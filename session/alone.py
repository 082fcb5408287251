"""Following a session that no other process writes to."""

from __future__ import annotations

import asyncio


class Alone:
    """The `session.protocols.Following` of a store of files."""

    def catch_up(self) -> asyncio.Future[bool]:
        """There is never anything new."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done

    def close(self) -> None:
        """Nothing was begun."""
