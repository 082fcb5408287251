"""`lunar service`: put the gateway under systemd, look at it, and take it away again."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.errors import CannotCreate, ConfigError, GatewayError, NotPermitted, NotRunning
from gateway.verbs import units
from gateway.verbs.units import FAILED, SERVICE, SOCKET, Place


class Step(NamedTuple):
    """One thing that is to be done: what is shown of it, and how it is done."""

    shown: str
    do: Callable[[], None]


def install(config: str | None, user: bool, dry_run: bool) -> int:
    """Install, enable and start the units; what is right already is left alone.

    Raises `CannotCreate` where the service could not see this installation, `NotPermitted` without root.
    """
    place = _place(user)
    program, file = _program(place), _config(place, config)
    wanted = units.files(place, program, file, _listen(file))
    _allowed(place, dry_run)
    changes = _changes(wanted, place)
    steps = [_remove(path) if text is None else _write(path, text) for path, text in changes.items()]
    if not file.exists():
        steps.append(_write(file, units.first_config(place)))
    steps += _activated(place, set(changes))
    _carry_out(steps, dry_run)
    print(f"{'Would be installed' if dry_run else 'Installed'}: {program} run, configured by {file}.")
    for note in _notes(place):
        print(note)
    return 0


def uninstall(user: bool, dry_run: bool) -> int:
    """Stop, disable and remove the units and our drop-ins; data, configuration and credentials stay."""
    place = _place(user)
    _allowed(place, dry_run)
    present = [path for path in _ours(place) if path.exists()]
    steps = []
    if any(path.parent == place.units for path in present):
        steps.append(_command([*place.systemctl, "disable", "--now", SOCKET, SERVICE]))
        steps.append(_command([*place.systemctl, "stop", FAILED]))
    steps += [_remove(path) for path in present]
    if steps:
        steps.append(_command([*place.systemctl, "daemon-reload"]))
        steps.append(_command([*place.systemctl, "reset-failed", SERVICE, SOCKET], may_fail=True))
    _carry_out(steps, dry_run)
    print(
        f"Kept: {place.config.parent}, {place.data_dir}{'' if user else ', /etc/credstore, the group lunar'}."
    )
    return 0


def print_(config: str | None, user: bool) -> int:
    """Print every file that `install` would write."""
    place = _place(user)
    file = _config(place, config)
    for path, text in units.files(place, _executable(), file, _listen(file)).items():
        print(f"# {path}\n{text}")
    return 0


def status(config: str | None, user: bool) -> int:
    """Print which files are in place and what systemd says of the units; exits 1 where it does not run."""
    place = _place(user)
    file = _config(place, config)
    for path, text in units.files(place, _executable(), file, _listen(file)).items():
        found = _read(path)
        print(f"{'missing' if found is None else 'as shipped' if found == text else 'differs':<12}{path}")
    active = True
    for unit in (SOCKET, SERVICE):
        shown = _asked(place, "show", "--property=UnitFileState,ActiveState,SubState,StatusText", unit)
        told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        state = f"{told.get('ActiveState', '?')} ({told.get('SubState', '?')})"
        print(f"{state:<20} {unit}, {told.get('UnitFileState') or 'not installed'}")
        if said := told.get("StatusText"):
            print(f"{'':<20} {said}")
        active &= told.get("ActiveState") == "active"
    return 0 if active else 1


# -- what is there ---------------------------------------------------------------------------------


def _place(user: bool) -> Place:
    return units.of_user() if user else units.SYSTEM


def _executable() -> Path:
    return Path(sys.prefix, "bin", "lunar")


def _program(place: Place) -> Path:
    program = _executable()
    if not program.exists():
        raise CannotCreate(f"{program} is missing: install the gateway into this environment first.")
    needed = [program, Path(sys.base_prefix), Path(__file__), Path(sys.executable).resolve()]
    if not place.user and (found := units.hidden([path.absolute() for path in needed])):
        path, directive = found
        raise CannotCreate(
            f"The service could not see {path} ({directive}= hides it). Install the gateway to /opt/lunar "
            "with the system's own Python, and try again from there:\n"
            "    sudo /usr/bin/python3 -m venv /opt/lunar\n"
            "    sudo /opt/lunar/bin/pip install FOLDER_OF_THE_CHECKOUT\n"
            "    sudo /opt/lunar/bin/lunar service install\n"
            "(or run it as yourself, without the sandbox: lunar service install --user)"
        )
    return program


def _config(place: Place, asked: str | None) -> Path:
    if asked is None:
        return place.config
    file = Path(asked).absolute()
    if not file.is_file():
        raise CannotCreate(f"{file}: there is no such file (--config names it).")
    if not place.user and (found := units.hidden([file])):
        raise CannotCreate(
            f"The service could not see {file} ({found[1]}= hides it). Move it to {place.config}."
        )
    return file


def _listen(file: Path) -> str:
    """Where the configuration wants HTTP to be; without its secrets, which are for the service alone.

    Raises `ConfigError`.
    """
    from gateway import config_file

    http = config_file.listening(config_file.read(file if file.exists() else None))
    try:  # systemd knows no names; the same address as without it
        found = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError([f"{file}: http.host: no address for {http.host!r} ({error})"]) from error
    host = str(found[0][4][0])
    return f"[{host}]:{http.port}" if ":" in host else f"{host}:{http.port}"


def _allowed(place: Place, dry_run: bool) -> None:
    if dry_run:
        return
    if not place.user and os.geteuid() != 0:
        raise NotPermitted(
            "Only root may do this: use sudo. For your own user alone: lunar service install --user"
        )
    if not _running():
        raise NotRunning("systemd does not run here. --dry-run shows what would be done.")


def _running() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _ours(place: Place) -> list[Path]:
    paths = [place.units / name for name in (SERVICE, SOCKET, FAILED)]
    paths += [units.drop_in(place, name) for name in (SERVICE, SOCKET)]
    return paths + ([place.sysusers] if place.sysusers else [])


def _asked(place: Place, *arguments: str) -> str:
    try:
        done = subprocess.run([*place.systemctl, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a machine without systemd, where --dry-run is all that works
        return ""
    return done.stdout.strip()


# -- what is done ----------------------------------------------------------------------------------


def _changes(wanted: dict[Path, str], place: Place) -> dict[Path, str | None]:
    """What a file is to hold; None for a drop-in of an earlier installation that is no longer needed."""
    stale = {path: None for path in _ours(place) if path not in wanted and path.exists()}
    return {path: text for path, text in wanted.items() if _read(path) != text} | stale


def _activated(place: Place, changed: set[Path]) -> list[Step]:
    systemctl = place.systemctl
    touched = {path.parent.stem if path.name == units.DROP_IN else path.name for path in changed}
    steps = []
    if place.sysusers in changed:
        steps.append(_command(["systemd-sysusers", str(place.sysusers)]))
    if touched:
        steps.append(_command([*systemctl, "daemon-reload"]))
    for unit in (SOCKET, SERVICE):
        active = _asked(place, "is-active", unit) == "active"
        if unit in touched and active:
            steps.append(_command([*systemctl, "restart", unit]))
        if not active or _asked(place, "is-enabled", unit) != "enabled":
            steps.append(_command([*systemctl, "enable", "--now", unit]))
    return steps


def _write(path: Path, text: str) -> Step:
    why = "changed" if path.exists() else "new"

    def do() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)

    return Step(f"write {path} ({why})", do)


def _remove(path: Path) -> Step:
    def do() -> None:
        path.unlink()
        if path.name == units.DROP_IN and not any(path.parent.iterdir()):
            path.parent.rmdir()

    return Step(f"remove {path}", do)


def _command(command: list[str], *, may_fail: bool = False) -> Step:
    def do() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and not may_fail:
            raise GatewayError(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")

    return Step(f"run {shlex.join(command)}", do)


def _carry_out(steps: list[Step], dry_run: bool) -> None:
    if not steps:
        print("Nothing to do.")
    for step in steps:
        print(f"{'would ' if dry_run else ''}{step.shown}", flush=True)
        if not dry_run:
            try:
                step.do()
            except OSError as error:
                raise CannotCreate(f"{error.filename}: {error.strerror}") from error


def _notes(place: Place) -> list[str]:
    if place.user:
        return [
            f"Secrets: files openai_api_key and telegram_bot_token in {place.config.parent}/credentials.",
            "To keep it running while you are logged out: loginctl enable-linger",
        ]
    return [
        "Secrets: files lunar.openai_api_key and lunar.telegram_bot_token in /etc/credstore (mode 600).",
        "Who may use `lunar chat`: root, and the members of the group lunar (usermod -aG lunar NAME).",
    ]
