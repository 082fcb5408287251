"""A PostgreSQL of our own: a real server, on a directory that is thrown away.

The methods wait for their programs: a test with an event loop that must go on calls them by
`asyncio.to_thread`.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests import requirement
from tests.fakes.processes import below, gone

_SECONDS = 30.0
_FAST = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
_ALL = {
    "max_connections": "200",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "jit": "off",
    "log_min_messages": "warning",
    "shared_preload_libraries": "pg_stat_statements",
    "track_activity_query_size": "1024",
}
# Everybody is trusted, but for one user, with whom passwords are tried.
_ACCESS = "host all locked all scram-sha-256\n"


@cache
def binaries() -> Path:
    """The folder of PostgreSQL's programs; skips where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True
    )
    if found:
        return found[0].parent
    if path := shutil.which("initdb"):
        return Path(path).resolve().parent
    requirement.missing("PostgreSQL's server programs (initdb, postgres) are not installed")
    raise AssertionError("unreachable")


def _somebody() -> dict[str, Any]:
    """As whom `subprocess` has to start PostgreSQL, which refuses root."""
    if os.geteuid():
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _folder() -> Path:
    """One that PostgreSQL's user may enter; the test's own may be closed to it."""
    path = Path(tempfile.mkdtemp(prefix="lunar-pg-"))
    if who := _somebody():
        os.chown(path, who["user"], who["group"])
    return path


def _run(program: str, *arguments: str, **options: Any) -> str:
    ran = subprocess.run(
        [str(binaries() / program), *arguments],
        capture_output=True, text=True, timeout=_SECONDS, cwd="/", check=False, **options,
    )  # fmt: skip
    assert not ran.returncode, f"{program} {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
    return str(ran.stdout)


@cache
def _template() -> Path:
    """A directory as `initdb` leaves it, made once by each process of the tests."""
    folder = _folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = folder / "data"
    _run(
        "initdb", "-D", str(data), "-U", "lunar", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C",
        **_somebody(),
    )  # fmt: skip
    access = data / "pg_hba.conf"
    access.write_text(_ACCESS + access.read_text())
    return data


class PostgresServer:
    """One server with a data directory of its own, on one port for its whole life; `start` it, `close` it.

    `durable`: it waits for the disk as it does by default; otherwise it does not, and is faster.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self.folder = _folder()
        self.data = self.folder / "data"
        self.port = _free_port()
        self._settings = _ALL | ({} if durable else _FAST) | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._guard: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []
        self._standbys: list[PostgresServer] = []

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> PostgresServer:
        """Make the data directory where there is none, and wait until connections are taken."""
        if not self.data.exists():
            # cp keeps the owner, which shutil does not.
            subprocess.run(["cp", "-a", str(_template()), str(self.data)], check=True)
        settings = self._settings | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **_somebody(),
            )  # fmt: skip
        self._guard = _end_with_us(self._process.pid)
        self._until_ready()
        return self

    def _until_ready(self) -> None:
        assert self._process is not None
        state = self.data / "postmaster.pid"
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            assert self._process.poll() is None, f"PostgreSQL ended: {self.log()[-2000:]}"
            told = state.read_text().splitlines() if state.exists() else []
            if len(told) >= 8 and told[0] == str(self._process.pid) and told[7].strip() == "ready":
                return
            time.sleep(0.01)
        raise AssertionError(f"PostgreSQL does not become ready: {self.log()[-2000:]}")

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What it wrote so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self, mode: str = "fast") -> None:
        """End it: `smart` waits for its clients, `fast` cuts them off, `immediate` is a crash."""
        assert self._process is not None
        self.cont()
        how = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        self._process.send_signal(how[mode])
        self._process.wait(_SECONDS)
        self._unguard()

    def kill(self) -> None:
        """Kill every process of it with -9: nothing is written any more."""
        processes = self._all(signal.SIGSTOP)
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(_SECONDS)
        end = time.monotonic() + _SECONDS
        while not all(map(gone, processes)):
            assert time.monotonic() < end
            time.sleep(0.01)
        self._paused.clear()
        self._unguard()
        # The next start would take it for the file of a server that lives, where the pid was given away.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _unguard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()

    def pause(self) -> None:
        """Stop every process of it: connections stay, and nothing answers."""
        self._paused = self._all(signal.SIGSTOP)

    def cont(self) -> None:
        """Let the paused processes go on."""
        while self._paused:
            _signal(self._paused.pop(), signal.SIGCONT)

    def _all(self, number: signal.Signals) -> list[int]:
        """Send it to every process, the first one first: it must make no more of them."""
        _signal(self.pid, number)
        found = [self.pid, *below(self.pid)]
        for pid in found[1:]:
            _signal(pid, number)
        return found

    def close(self) -> None:
        """End it, and its standbys, and remove all there is of it."""
        for standby in self._standbys:
            standby.close()
        if self.running:
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- use -------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", **options: str) -> str:
        """How clients reach a database of it."""
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"postgresql://lunar@127.0.0.1:{self.port}/{database}" + (f"?{query}" if query else "")

    def database(self) -> str:
        """A fresh empty database; returns its url."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.sql(f"create database {name}")
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Carry out a statement as the superuser; what came, one row a line, columns by `|`."""
        return _run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database),
                    "-c", statement).strip()  # fmt: skip

    # -- two of them -----------------------------------------------------------------------------

    def standby(self, *, synchronous: bool = True) -> PostgresServer:
        """A second server that follows this one; with `synchronous`, each commit here waits for it."""
        follower = PostgresServer(settings=self._settings)
        self._standbys.append(follower)
        source = f"host=127.0.0.1 port={self.port} user=lunar application_name=standby"
        _run("pg_basebackup", "-d", source, "-D", str(follower.data), "-X", "stream", "-R", "-c", "fast",
             "--no-sync", **_somebody())  # fmt: skip
        follower.start()
        if synchronous:
            self.sql("alter system set synchronous_standby_names = 'standby'")
            self.sql("select pg_reload_conf()")
        wanted = "sync" if synchronous else "async"
        end = time.monotonic() + _SECONDS
        while self.sql("select state, sync_state from pg_stat_replication") != f"streaming|{wanted}":
            assert time.monotonic() < end, self.log()[-2000:] + follower.log()[-2000:]
            time.sleep(0.02)
        return follower

    def promote(self) -> None:
        """Make a standby the primary; returns when it takes writes."""
        assert self.sql("select pg_promote(true, 30)") == "t", self.log()[-2000:]


def _end_with_us(pid: int) -> subprocess.Popen[bytes]:
    """Something that ends a process when this one does, however it does: then its pipe is closed."""
    script = 'read _; kill -QUIT "$1"; kill -CONT "$1"'
    return subprocess.Popen(["sh", "-c", script, "sh", str(pid)], stdin=subprocess.PIPE)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def shared() -> PostgresServer:
    """The one server of this process of the tests, for those that do nothing to it; ends with the process."""
    server = PostgresServer().start()
    atexit.register(server.close)
    return server
