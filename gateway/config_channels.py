"""The sections of the configuration that say how people reach us: `http` and `channels`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, IPvAnyNetwork, model_validator

from gateway.config_values import HttpUrl, Origin, PeerName, Secret, Section, WholeNumber, is_loopback


class Http(Section):
    """The one HTTP port."""

    host: str = "127.0.0.1"
    """the address to listen on; anything but this machine's own needs `http.token`"""
    port: WholeNumber = Field(default=8420, ge=0, le=65535)
    """the port of the chat page, the WebSocket and the health checks; `0` takes any free one"""
    token: Secret = None
    """a secret that web clients must know; without it everybody who reaches the port may chat"""
    allowed_origins: tuple[Origin, ...] = ()
    """addresses under which people open the page through a proxy, such as `https://chat.example.org`"""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed"""
    agents: tuple[str, ...] = Field(default=("main",), min_length=1)
    """the agents that web clients may ask for; the first answers those who ask for none"""

    @model_validator(mode="after")
    def _closed(self) -> Http:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"http.token: anybody who can reach {self.host} could use the gateway; set a token "
                "(LUNAR_HTTP_TOKEN), or bind to 127.0.0.1"
            )
        return self


class Cli(Section):
    """The Unix socket."""

    socket: Path | None = None
    """the path of the Unix socket (at most 107 bytes); `null` is `lunar.sock` in `data_dir`"""
    group: str | None = None
    """a group of the system whose members may use the socket, each with conversations of their own"""
    operators: tuple[str, ...] = ()
    """users who count as you: they share your conversations on the socket and may operate the gateway, as
    root may"""


class Webchat(Section):
    """The chat page and its WebSocket."""

    enabled: bool = True
    """whether the page and its WebSocket are served"""


class Telegram(Section):
    """A Telegram bot; on as soon as there is a token."""

    enabled: bool = True
    """whether the bot runs, once there is a token"""
    bot_token: Secret = None
    """the bot's token; best as `TELEGRAM_BOT_TOKEN` in the environment"""
    api_url: HttpUrl = "https://api.telegram.org"
    """the root of the Bot API server, without `/bot`"""
    mode: Literal["polling", "webhook"] = "polling"
    """`polling` asks Telegram for news, `webhook` lets Telegram bring them"""
    webhook_url: HttpUrl = None
    """for `webhook`: this gateway's address as Telegram sees it, such as `https://chat.example.org`"""
    allow: tuple[PeerName, ...] | None = None
    """ids and @names of people and groups who may talk; `[]` is nobody; `null` is pairing: strangers get a
    code that you approve"""
    streaming: Literal["edit", "draft", "off"] = "edit"
    """`edit` shows a reply while it is written, `draft` does so with drafts in private chats, `off` sends
    it whole"""
    groups: Literal["addressed", "all"] = "addressed"
    """in groups: answer when mentioned, replied to or commanded (`addressed`), or everything (`all`)"""
    group_context: WholeNumber = Field(default=0, ge=0, le=50)
    """how many of a group's last messages that were not for the bot go along with one that is"""

    @model_validator(mode="after")
    def _reachable(self) -> Telegram:
        if self.mode == "webhook" and not self.webhook_url:
            raise ValueError(
                "channels.telegram.webhook_url: mode webhook needs the address at which Telegram reaches "
                "this gateway, such as https://chat.example.org"
            )
        return self

    @property
    def active(self) -> bool:
        """Whether there is a bot to run."""
        return self.enabled and self.bot_token is not None


class Channels(Section):
    """How people reach us."""

    cli: Cli = Cli()
    """the Unix socket"""
    webchat: Webchat = Webchat()
    """the chat page"""
    telegram: Telegram = Telegram()
    """a Telegram bot"""
