"""`lunar status`: what a running daemon says about itself."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gateway import ask, config_socket
from gateway.errors import NotRunning
from gateway.verbs.sessions.printing import count, printable, size

_EVERY = 2.0  # seconds, of --watch
_LITTLE_SPACE = 0.05  # of the disk
_REASONS = ("why", "error", "reason")
# Not shown in the table: what is said otherwise, and whose turn it was; --json has all.
_UNSAID = {"time", "level", "event", "session", "peer", "turn", *_REASONS}
_BOLD, _DIM, _RED, _GREEN, _YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_PLAIN = "\x1b[0m"
_FULL_SCREEN, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_TOP, _TO_LINE_END, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"


class Row(NamedTuple):
    """One line of the table; `state` colours it, and in plain text `bad` is marked by `!`."""

    label: str
    text: str
    state: Literal["", "good", "bad", "past"] = ""


def main(config: str | None, as_json: bool, watch: bool) -> int:
    """Print the status, with `watch` again and again; exits 1 where something is in trouble.

    Raises `NotRunning`, `ConfigError`.
    """
    socket = config_socket.find(config)
    if watch:
        return _watch(socket, as_json)
    data = ask.control(socket, "status")
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        print("\n".join(_painted(data) if _colourful() else _plain(data)))
    return 0 if data["ready"] else 1


def _watch(socket: Path, as_json: bool) -> int:
    full_screen = _colourful() and not as_json
    try:
        if full_screen:
            print(_FULL_SCREEN, end="")
        while True:
            if full_screen:
                _repaint(socket)
            else:
                data = ask.control(socket, "status")
                print(json.dumps(data) if as_json else "\n".join([*_plain(data), ""]), flush=True)
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        return 0
    finally:
        if full_screen:
            print(_LEAVE, end="", flush=True)


def _repaint(socket: Path) -> None:
    try:
        lines = _painted(ask.control(socket, "status"))
    except NotRunning as error:  # it may be restarting
        lines = ["", f"  {_RED}●{_PLAIN} {printable(str(error))}"]
    lines += [
        "",
        f"  {_DIM}{datetime.now().astimezone():%H:%M:%S}, every {_EVERY:g} s; Ctrl-C leaves{_PLAIN}",
    ]
    print(_TOP + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_END, end="", flush=True)


def _colourful() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


# -- the rows --------------------------------------------------------------------------------------


def _rows(data: dict[str, Any]) -> Iterator[Row]:
    yield from (_channel(data, name, state) for name, state in data["channels"].items())
    trouble = {name: why for name, why in data["trouble"].items() if not name.startswith("channel ")}
    yield from (Row("Trouble", f"{name}: {why}", "bad") for name, why in sorted(trouble.items()))
    models = ", ".join(f"{name}: {model}" for name, model in data["agents"].items())
    yield Row("Models", models + (" (demo)" if data["demo"] else ""))
    if data["demo"]:
        yield Row("", data["demo_notice"])
    waiting = f"{data['turns_waiting']} waiting; {count(data['messages_waiting'], 'message')} queued"
    yield Row("Turns", f"{data['turns_running']} running, {waiting}")
    yield Row("Sessions", f"{data['sessions_today']} today (UTC), {data['sessions_in_memory']} in memory")
    yield from (Row("Tools", f"{name}: {state}") for name, state in data["tools"].items())
    if store := data.get("store"):
        said = (
            f"node {store['node']} of {', '.join(sorted(store['nodes']))}; {count(store['leases'], 'lease')}"
        )
        yield Row("Store", f"{store['kind']}: {said}")
    if disk := data["disk"]:
        little = disk["free_bytes"] < _LITTLE_SPACE * disk["total_bytes"]
        free = f"{size(disk['free_bytes'])} of {size(disk['total_bytes'])} free"
        yield Row("Disk", free, "bad" if little else "")
    yield Row("Process", f"{data['pid']}, up {data['uptime']}, {data['memory_bytes'] / 2**20:.0f} MiB")
    yield from (Row("Last errors", _error(entry), "past") for entry in data["last_errors"])


def _channel(data: dict[str, Any], name: str, state: str) -> Row:
    said = [state]
    if (connected := data["connections"].get(name)) is not None:
        said.append(count(connected, "client"))
    if name == "http":
        said.append(data["http"])
    bad = state != "ready"
    if name == "telegram" and (figures := data["telegram"]):
        said.append(figures.get("note") or f"heard of {figures['poll_age_seconds']:.0f} s ago")
        said.append(f"{figures['delivered']} delivered, {figures['waiting']} on their way")
        if figures["failed"]:
            bad = True
            said.append(f"{figures['failed']} replies not delivered: {figures['last_failure']}")
        if figures["dead_letters"]:
            said.append(f"{count(figures['dead_letters'], 'update')} put aside (telegram-dead-letters.jsonl)")
    return Row("Channels", f"{name}: {', '.join(said)}", "bad" if bad else "good")


def _error(entry: dict[str, Any]) -> str:
    when = datetime.fromisoformat(entry["time"]).astimezone()
    more = ", ".join(f"{key} {value}" for key, value in entry.items() if key not in _UNSAID)
    event = f"{entry['event']} ({more})" if more else entry["event"]
    return f"{when:%d %b %H:%M:%S}  " + ": ".join([event, *(entry[key] for key in _REASONS if key in entry)])


# -- on paper and on a screen ----------------------------------------------------------------------


def _plain(data: dict[str, Any]) -> list[str]:
    state = "ready" if data["ready"] else "in trouble"
    rows = [Row("Gateway", f"{state}, version {data['version']}"), *_rows(data)]
    width = max(len(row.label) for row in rows)
    marked = [(row.label, f"! {row.text}" if row.state == "bad" else row.text) for row in rows]
    return [printable(f"{label:<{width}}  {text}").replace("\n", " ") for label, text in marked]


def _painted(data: dict[str, Any]) -> list[str]:
    rows = list(_rows(data))
    width = max(len(row.label) for row in rows)
    room = max(20, shutil.get_terminal_size().columns - width - 7)
    colour, state = (_GREEN, "is ready") if data["ready"] else (_RED, "is in trouble")
    lines = ["", f"  {colour}●{_PLAIN} {_BOLD}Lunar {state}{_PLAIN} {_DIM}{data['version']}{_PLAIN}"]
    before = ""
    for row in rows:
        if row.label in ("Channels", "Models", "Last errors") and row.label != before:
            lines.append("")
        label = "" if row.label == before else row.label
        before = row.label or before
        text = printable(row.text).replace("\n", " ")
        text = text if len(text) <= room else text[: room - 1] + "…"
        lines.append(f"  {_DIM}{label:<{width}}{_PLAIN}  {_shown(row.state, text)}")
    return lines


def _shown(state: str, text: str) -> str:
    match state:
        case "good":
            return f"{_GREEN}●{_PLAIN} {text}"
        case "bad":
            return f"{_RED}● {text}{_PLAIN}"
        case "past":
            return f"{_YELLOW}{text}{_PLAIN}"
    return text
