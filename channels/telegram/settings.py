"""What the Telegram channel is told by the configuration."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

TOP_SIZE = 20 << 20  # bytes; Telegram gives bots no larger file


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`api_url`: the Bot API server's root. `webhook_url`: the gateway's public address.

    `allow`: ids of people and groups, and @names; None: pairing; empty: nobody. `group_context`: how many of
    the last messages of a group that were not for us go along with one that is. `media_limit`: bytes.
    """

    bot_token: str
    api_url: str = "https://api.telegram.org"
    mode: Literal["polling", "webhook"] = "polling"
    webhook_url: str | None = None
    allow: tuple[str, ...] | None = None
    streaming: Literal["edit", "draft", "off"] = "edit"
    groups: Literal["addressed", "all"] = "addressed"
    group_context: int = 0
    media_limit: int = TOP_SIZE

    @property
    def webhook_secret(self) -> str:
        """What Telegram must show with each update that it brings."""
        return hashlib.sha256(self.bot_token.encode()).hexdigest()

    @property
    def webhook_path(self) -> str | None:
        """The path that Telegram brings updates to, None when polling."""
        if self.mode != "webhook":
            return None
        return f"/telegram/{hashlib.sha256(b'path ' + self.bot_token.encode()).hexdigest()[:32]}"
