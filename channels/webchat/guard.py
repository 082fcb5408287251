"""Which pages and which host names may reach us: the checks that come before everything else.

A browser lets any site open a WebSocket to localhost, and a name under somebody else's control can be made
to resolve to 127.0.0.1 (DNS rebinding). So `Origin` and `Host` are both checked, on loopback too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Asked(NamedTuple):
    """What a request says about itself: every value of each header, as sent."""

    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    forwarded_for: tuple[str, ...] = ()
    forwarded_proto: tuple[str, ...] = ()
    remote: str | None = None


class Guard:
    """Answers by a fixed policy; holds nothing about anybody."""

    def __init__(
        self, bound: str, allowed_origins: Iterable[str] = (), trusted_proxies: Iterable[Network] = ()
    ) -> None:
        self._bound = bound.lower()
        self._open = not is_loopback(bound)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        self._names = frozenset(urlsplit(origin).hostname for origin in self._origins)
        self._proxies = tuple(trusted_proxies)

    def refusal(self, asked: Asked) -> str | None:
        """One sentence why the request is refused; None where it may go on."""
        if len(asked.hosts) != 1 or not self._host_allowed(asked.hosts[0]):
            return (
                "This gateway does not answer to that host name. Use http://127.0.0.1 with its port, or add "
                "the address that you open to http.allowed_origins."
            )
        if len(asked.origins) > 1 or (asked.origins and not self._origin_allowed(asked)):
            return (
                "Another site's page asked for this. If it is yours, add its origin to http.allowed_origins."
            )
        return None

    def _host_allowed(self, host: str) -> bool:
        name = _name_of(host)
        if name is None:
            return False
        if name == "localhost" or name == self._bound or name in self._names:
            return True
        address = _address(name)
        return address is not None and (address.is_loopback or self._open)

    def _origin_allowed(self, asked: Asked) -> bool:
        origin = asked.origins[0].lower()
        own = f"{self._scheme(asked)}://{asked.hosts[0].lower()}"
        return origin == own or origin in self._origins

    def _scheme(self, asked: Asked) -> str:
        proxied = asked.forwarded_proto if self._trusted(asked.remote) else ()
        return "https" if [value.strip().lower() for value in proxied] == ["https"] else "http"

    def _trusted(self, remote: str | None) -> bool:
        address = _address(remote or "")
        return address is not None and any(address in network for network in self._proxies)

    def client(self, asked: Asked) -> str:
        """The address that counts for limits: the nearest one that is not a proxy of ours."""
        nearest = asked.remote or "unknown"
        hops = [hop.strip() for value in asked.forwarded_for for hop in value.split(",")]
        while hops and self._trusted(nearest):
            nearest = hops.pop()
        return nearest


def is_loopback(host: str) -> bool:
    """Whether binding to it lets in nobody but this machine."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _name_of(host: str) -> str | None:
    """The host of a `Host` header, lower-case, without its port and brackets; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 - raises ValueError for a port that is none
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None or not parts.hostname:
        return None
    return parts.hostname


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
