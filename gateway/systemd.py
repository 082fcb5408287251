"""What we tell systemd and what we take from it, on plain sockets: sd_notify(3) and sd_listen_fds(3)."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

_FIRST_FD = 3
_LONGEST_STATUS = 1000  # characters; a message of more than a datagram holds would say nothing at all
_SLOW_LOOP = 1.0  # seconds that the event loop may be late before it is worth a line


class Notifier:
    """Tells the service manager how we are. Without one (`$NOTIFY_SOCKET`) every method does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = f"\0{self._address[1:]}"  # a name in the abstract namespace
        self._said = ""
        self.watchdog = _watchdog(environ) if self._address else None
        """Seconds within which `alive` must be called again; None where nobody watches."""

    def ready(self) -> None:
        """The start, or the reload, is done."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people, as `systemctl status` shows it; sent only where it is new."""
        line = " ".join(text.split())[:_LONGEST_STATUS]
        if line != self._said:
            self._said = line
            self._send(f"STATUS={line}")

    def extend(self, seconds: float) -> None:
        """Ask for so much time from now on, for the start or the stop that is going on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def alive(self) -> None:
        """Hold the watchdog off."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)
                notify.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            log.warning("systemd could not be told", message=message, error=str(error))


def _watchdog(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


async def watch(
    notifier: Notifier,
    probe: Callable[[], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Hold the watchdog off for as long as the probe comes back; returns at once where nobody watches.

    A loop that does not turn cannot call, a probe that hangs or breaks keeps us from calling: both end in a
    restart. So the probe must come back also where only the disk or somebody else's server is in trouble.
    """
    if notifier.watchdog is None:
        return
    pause = notifier.watchdog / 3
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + pause
        try:
            async with asyncio.timeout(pause):
                await probe()
        except TimeoutError:
            log.error(  # noqa: TRY400 - where the probe waits for itself is no news
                "the gateway's probe hangs; systemd restarts it unless it comes back", seconds=pause
            )
        except Exception:
            log.exception("the gateway's probe broke; systemd restarts it unless it comes back")
        else:
            notifier.alive()
        await sleep(max(0.0, due - clock()))
        if (late := clock() - due) > _SLOW_LOOP:
            log.warning("the event loop was blocked", seconds=round(late, 1))


class Inherited(NamedTuple):
    """The listening sockets that the service manager holds for us, through every restart."""

    cli: socket.socket | None = None
    http: tuple[socket.socket, ...] = ()

    @property
    def host(self) -> str | None:
        """Where HTTP listens, the most exposed address of all; None where nothing was passed."""
        hosts = [str(listener.getsockname()[0]) for listener in self.http]
        return min(hosts, key=lambda host: ipaddress.ip_address(host).is_loopback, default=None)

    def compare(self, port: int) -> None:
        """Say so where HTTP will not be at the port of the configuration."""
        ports = [listener.getsockname()[1] for listener in self.http]
        if ports and port not in ports:
            log.warning(
                "lunar.socket decides where HTTP listens", port=ports[0], configured=port,
                next="run `lunar service install` to make the socket follow the configuration",
            )  # fmt: skip


def inherited(environ: MutableMapping[str, str] = os.environ) -> Inherited:
    """Take what was passed over (`$LISTEN_FDS`): the Unix socket for the CLI, all others for HTTP.

    The variables are removed and the descriptors marked, so that no child inherits any of it.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return Inherited()
    cli: socket.socket | None = None
    http = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        if not _listens(listener):
            log.warning("systemd passed a socket that is of no use here", socket=str(listener.getsockname()))
            listener.close()
        elif listener.family != socket.AF_UNIX:
            http.append(listener)
        elif cli is None:
            cli = listener
        else:
            log.warning("systemd passed a second Unix socket; it is not used", socket=listener.getsockname())
            listener.close()
    return Inherited(cli, tuple(http))


def _listens(candidate: socket.socket) -> bool:
    return candidate.type == socket.SOCK_STREAM and bool(
        candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
