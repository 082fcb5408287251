"""A machine with the real systemd as its first process, and Lunar installed at /opt/lunar.

It needs root and a Linux that has overlayfs and cgroup2, but neither KVM nor D-Bus: it is namespaces over an
overlay of this machine's own root, so that nothing of what happens in it is seen outside.

with Machine(venv(cache)) as machine:
    machine.run("systemctl", "start", "lunar.service")
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.requirement import missing, program

T = TypeVar("T")
HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SYSTEMD = Path("/lib/systemd/systemd")
PYTHON = Path("/usr/bin/python3")
_CLONE_NEWNET = 0x40000000
_BOOT_SECONDS = 30.0


def required() -> None:
    """Skip (or fail) where no such machine can be made."""
    if os.geteuid() != 0:
        missing("a real systemd is only run as root")
    if not SYSTEMD.exists():
        missing("systemd is not installed")
    for name in ("unshare", "nsenter", "pivot_root", "mount", "setpriv"):
        program(name)
    if "overlay" not in Path("/proc/filesystems").read_text():
        missing("this kernel has no overlayfs")
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import ensurepip"], stderr=-3).returncode:
        missing("the system's own Python cannot make virtual environments (python3-venv)")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "mount", "-t", "tmpfs", "x", "/mnt"],
        capture_output=True, text=True,
    )  # fmt: skip
    if tried.returncode:
        missing(f"namespaces and mounts are not allowed here ({tried.stderr.strip()})")


def venv(cache: Path) -> Path:
    """A virtual environment that believes to be /opt/lunar, with all that the project depends on.

    Built from the system's own Python, once for each pyproject.toml and constraints.txt.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    version = subprocess.run([PYTHON, "-V"], capture_output=True, check=True).stdout
    constraints = (CHECKOUT / "constraints.txt").read_bytes()
    key = hashlib.sha256(json.dumps(needed).encode() + constraints + version).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = cache / key
        if not (made / "complete").exists():
            for old in cache.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            made.mkdir()
            _build(made, needed)
            (made / "complete").touch()
    return made


def _build(folder: Path, needed: list[str]) -> None:
    # An overlay, and not a tmpfs: what this machine itself has below /opt stays visible.
    script = """
    set -eu
    folder=$1; constraints=$2; shift 2
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work
    mount -t overlay overlay -o lowerdir=/opt,upperdir=/mnt/upper,workdir=/mnt/work /opt
    mkdir -p /opt/lunar
    mount --bind "$folder" /opt/lunar
    /usr/bin/python3 -m venv /opt/lunar
    /opt/lunar/bin/python -m pip install -q --disable-pip-version-check -c "$constraints" "$@"
    """
    built = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", folder, CHECKOUT / "constraints.txt", *needed],
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, f"the virtual environment could not be built: {built.stderr[-2000:]}"


class Machine:
    """One machine; `with` boots it and takes it away."""

    def __init__(self, venv: Path) -> None:
        self._venv = venv
        self._room = Path(tempfile.mkdtemp(prefix="lunar-machine-"))
        self._outer: subprocess.Popen[str] | None = None
        self._init = 0  # the pid that its systemd has outside
        self._network: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _boot(self) -> None:
        with self._log.open("w") as log:
            self._outer = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
                 "sh", HERE / "launch.sh", self._room, self._venv, CHECKOUT, self._room.name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._booted():
            if self._outer.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the machine did not boot: {self._log.read_text()[-2000:]}")
            threading.Event().wait(0.05)
        self._network = ThreadPoolExecutor(1, "inside", initializer=self._enter_network)

    @property
    def _log(self) -> Path:
        return self._room.parent / f"{self._room.name}.log"

    def _booted(self) -> bool:
        assert self._outer is not None
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self._init = int(children[0])
        said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return said in ("running", "degraded")

    def __exit__(self, *exc: object) -> None:
        if self._network is not None:
            self._network.shutdown()
        if self._outer is not None:
            self._outer.send_signal(signal.SIGKILL)  # whose child, the machine's first process, goes with it
            self._outer.wait()
            self._remove_cgroup()
        self._log.unlink(missing_ok=True)
        self._room.rmdir()

    def _remove_cgroup(self) -> None:
        script = """
        mount -t cgroup2 cgroup2 "$1"
        for try in 1 2 3 4 5 6 7 8 9 10; do
          find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null
          test -d "$1/$2" || exit 0
          sleep 0.1
        done
        exit 1
        """
        arguments = ["sh", self._room, self._room.name]
        subprocess.run(["unshare", "--mount", "sh", "-c", script, *arguments], check=True)

    # -- in it -----------------------------------------------------------------------------------

    def run(
        self, *command: str, check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root."""
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", "--wd=/", *command],
            capture_output=True, text=True, input=input, timeout=60, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def path(self, path: str) -> Path:
        """One of its files, as it is reached from outside."""
        return Path(f"/proc/{self._init}/root", path.lstrip("/"))

    def show(self, unit: str, *properties: str) -> list[str]:
        """What systemd knows of a unit; a property that comes more than once has a line for each."""
        said = self.run("systemctl", "show", f"--property={','.join(properties)}", unit).stdout
        found = [line.partition("=") for line in said.splitlines()]
        return ["\n".join(value for name, _, value in found if name == asked) for asked in properties]

    def until(self, unit: str, **wanted: str) -> None:
        """Wait for properties of a unit to have these values."""
        deadline = time.monotonic() + 30
        while (found := self.show(unit, *wanted)) != list(wanted.values()):
            assert time.monotonic() < deadline, (
                f"{unit}: {wanted} did not come: {found}\n{self.journal(unit)}"
            )
            threading.Event().wait(0.05)

    def journal(self, unit: str, since: str = "") -> str:
        """What a unit has written, behind a cursor of `mark`."""
        more = [f"--after-cursor={since}"] if since else []
        return self.run("journalctl", "-u", unit, "--output=cat", "--no-pager", *more).stdout

    def mark(self) -> str:
        """The journal's end."""
        self.run("journalctl", "--sync")
        return (
            self.run("journalctl", "--no-pager", "-n1", "--show-cursor")
            .stdout.rsplit("-- cursor: ", 1)[1]
            .strip()
        )

    # -- its network -----------------------------------------------------------------------------

    def _enter_network(self) -> None:
        with Path(f"/proc/{self._init}/ns/net").open() as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def inside(self, call: Callable[..., T], *args: Any) -> T:
        """Call something in a thread that is in the machine's network: a socket stays where it was made."""
        assert self._network is not None
        return self._network.submit(call, *args).result(timeout=30)

    def listener(self) -> socket.socket:
        """A socket that listens in the machine, for a server that runs in this process."""
        return self.inside(socket.create_server, ("127.0.0.1", 0))
