"""The unit files: what is shipped, where it goes, and what a machine's drop-ins add to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import gateway

PROGRAM = Path("/opt/lunar/bin/lunar")  # what the shipped units run
LISTEN = "127.0.0.1:8420"  # where the shipped socket listens
DROP_IN = "50-lunar-install.conf"
SERVICE, SOCKET, FAILED = "lunar.service", "lunar.socket", "lunar-failed.target"
# What the sandbox hides from the service, with the directive that does it.
HIDDEN = {"/home": "ProtectHome", "/root": "ProtectHome", "/run/user": "ProtectHome"} | {
    "/tmp": "PrivateTmp",
    "/var/tmp": "PrivateTmp",
}


class Place(NamedTuple):
    """Where the system, or one user, keeps units and configuration."""

    user: bool
    units: Path
    sysusers: Path | None
    config: Path
    data_dir: str  # as the first configuration says it
    socket: str

    @property
    def systemctl(self) -> list[str]:
        return ["systemctl", "--user"] if self.user else ["systemctl"]


SYSTEM = Place(
    user=False,
    units=Path("/etc/systemd/system"),
    sysusers=Path("/etc/sysusers.d/lunar.conf"),
    config=Path("/etc/lunar/config.yaml"),
    data_dir="/var/lib/lunar",
    socket="/run/lunar-gateway.sock",
)


def of_user() -> Place:
    """The place of whoever runs this."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return Place(
        user=True,
        units=config / "systemd/user",
        sysusers=None,
        config=config / "lunar/config.yaml",
        data_dir="~/.local/share/lunar",
        socket=f"{runtime}/lunar-gateway.sock",
    )


def shipped(name: str) -> str:
    """The text of a file below systemd/; `config.yaml` is the default configuration."""
    package = Path(gateway.__file__).parent
    for folder in (
        package / "data",
        package.parent,
    ):  # a wheel has them as data, a checkout beside the package
        for path in (folder / "systemd" / name, folder / name):
            if path.is_file():
                return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"this installation lacks {name}")


def files(place: Place, program: Path, config: Path, listen: str) -> dict[Path, str]:
    """Everything that belongs on the machine, by its path: the shipped units as they are, and drop-ins."""
    below = "user/" if place.user else ""
    wanted = {place.units / name: shipped(below + name) for name in (SERVICE, SOCKET, FAILED)}
    if place.sysusers is not None:
        wanted[place.sysusers] = shipped("lunar.sysusers.conf")
    service = []
    if program != PROGRAM:
        service += ["ExecStart=", f"ExecStart={_quoted(program)} run"]
    if config != place.config:
        service.append(f'Environment="LUNAR_CONFIG={_percent(config)}"')
    if service:
        wanted[drop_in(place, SERVICE)] = "\n".join(["[Service]", *service, ""])
    if listen != LISTEN:
        # An empty ListenStream takes all of the shipped ones back.
        unix = "%t/lunar-gateway.sock" if place.user else place.socket
        lines = ["[Socket]", "ListenStream=", f"ListenStream={listen}", f"ListenStream={unix}", ""]
        wanted[drop_in(place, SOCKET)] = "\n".join(lines)
    return wanted


def drop_in(place: Place, unit: str) -> Path:
    """The one drop-in of a unit that is ours; all others are somebody else's."""
    return place.units / f"{unit}.d" / DROP_IN


def first_config(place: Place) -> str:
    """The default configuration, with the paths that the units use, so that commands find the gateway too."""
    text = shipped("config.yaml")
    for default, ours in (
        ("\ndata_dir: ./data\n", f"\ndata_dir: {place.data_dir}\n"),
        ("\n    socket: null\n", f"\n    socket: {place.socket}\n"),
    ):
        assert text.count(default) == 1, default
        text = text.replace(default, ours)
    return text


def hidden(paths: list[Path]) -> tuple[Path, str] | None:
    """The first of these that the service could not see, and the directive that hides it."""
    for path in paths:
        for folder, directive in HIDDEN.items():
            if path.is_relative_to(folder):
                return path, directive
    return None


def _percent(path: Path) -> str:
    return str(path).replace("%", "%%")  # a unit file's specifiers begin with %


def _quoted(path: Path) -> str:
    text = _percent(path).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if any(sign in text for sign in " \t'\"\\;") else text
