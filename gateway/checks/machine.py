"""What else runs here: another gateway, whoever has the port; and what the system gives us."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from gateway.checks.finding import Finding, Scene, ok, problem, warning
from session.errors import StoreLocked
from session.lock import reading

_SYSTEMD = "systemd (process 1)"
FEW = 512  # descriptors; each connection takes one, each open transcript another


def gateway(scene: Scene) -> Iterator[Finding]:
    """Whether a gateway runs on this data directory, and what it says of itself."""
    if scene.running is not None:
        yield ok(f"running: process {scene.running['pid']}, up {scene.running['uptime']}")
        for part, why in sorted(scene.running["trouble"].items()):
            yield warning(
                f"the running gateway has trouble with {part}: {why}", "see its log, and `lunar status`"
            )
        return
    try:
        with reading(scene.config.data_dir):
            yield ok("not running")
        return
    except StoreLocked as error:
        holder = error.holder
    pid = holder.removeprefix("process ")
    yield problem(
        f"{scene.config.data_dir} is in use by another gateway ({holder or 'unknown'}), "
        f"which does not answer on {scene.config.socket}",
        f"stop it first: kill {pid}" if pid.isdecimal() else "stop it first",
        os.EX_TEMPFAIL,
    )


def port(scene: Scene) -> Iterator[Finding]:
    """Whether the HTTP port can be listened on."""
    http = scene.config.http
    url = f"http://{http.host}:{http.port}/"
    try:
        family, _, _, _, address = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM)[0]
    except OSError:
        text = f"{scene.key('http', 'host')}: {http.host} is no address of a machine"
        yield problem(text, "write 127.0.0.1, or an address of this machine", os.EX_CONFIG)
        return
    try:
        socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield _taken(scene, url)
        elif error.errno in (errno.EACCES, errno.EPERM):
            fix = "choose an http.port above 1023, with a proxy in front (docs/proxy.md)"
            text = f"{scene.key('http', 'port')}: port {http.port} is only for root"
            yield problem(text, fix, os.EX_CANTCREAT)
        else:
            text = f"{scene.key('http', 'host')}: {http.host}: {error.strerror}"
            yield problem(text, "write an address of this machine, such as 127.0.0.1", os.EX_CONFIG)
    else:
        yield ok(url)


def _taken(scene: Scene, url: str) -> Finding:
    port = scene.config.http.port
    if _ours(scene):
        return ok(f"{url}, where the running gateway listens")
    by = _listener(port) or "another program"
    if by == _SYSTEMD:
        return ok(f"{url}, where systemd listens for the gateway (lunar.socket)")
    fix = f"stop that one, or choose another http.port (LUNAR_HTTP__PORT={port + 1})"
    return problem(f"{scene.key('http', 'port')}: port {port} is taken by {by}", fix, os.EX_TEMPFAIL)


def _ours(scene: Scene) -> bool:
    """Whether the gateway that runs listens on the port; `http` is the address that it says."""
    url = str(scene.running.get("http", "")) if scene.running else ""
    return url.rstrip("/").rpartition(":")[2] == str(scene.config.http.port)


def _listener(port: int) -> str | None:
    """Name and id of the process that listens on a port, as far as this user may know (`/proc/net/tcp`)."""
    try:
        inodes = set(_listening(port))
        for process in Path("/proc").glob("[0-9]*"):
            if any(link in inodes for link in _sockets(process)):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    except OSError:
        return None
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for row in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: TCP_LISTEN
                yield f"socket:[{fields[9]}]"


def _sockets(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            yield os.readlink(descriptor)
    except OSError:
        return  # of another user, or just gone


def limits(scene: Scene) -> Iterator[Finding]:
    """Whether we may open enough files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW:
        fix = "raise it: ulimit -n 4096, or LimitNOFILE=4096 in the unit"
        yield warning(f"only {soft} files may be open at once, connections included", fix)
    else:
        yield ok(f"{'any number of' if soft < 0 else soft} open files")
