"""`lunar status`: what a running daemon says about itself."""

from __future__ import annotations

import json
from typing import Any

from gateway import ask, config_file


def main(config: str | None, as_json: bool) -> int:
    """Print the status; exits 1 where something is in trouble. Raises `NotRunning`, `ConfigError`."""
    data = ask.control(config_file.load(config).socket, "status")
    print(json.dumps(data, indent=2) if as_json else "\n".join(_rows(data)))
    return 0 if data["ready"] else 1


def _rows(data: dict[str, Any]) -> list[str]:
    models = ", ".join(f"{name}: {model}" for name, model in data["agents"].items())
    rows = [
        ("Gateway", f"{'ready' if data['ready'] else 'in trouble'}, version {data['version']}"),
        ("Process", f"{data['pid']}, up {data['uptime']}, {data['memory_bytes'] / 2**20:.0f} MiB"),
        ("Models", models + (" (demo)" if data["demo"] else "")),
        ("Turns", f"{data['turns_running']} running, {data['messages_waiting']} messages waiting"),
        ("Sessions", f"{data['sessions_in_memory']} in memory"),
        *_telegram(data["telegram"]),
        *((f"! {name}", why) for name, why in sorted(data["trouble"].items())),
    ]
    if data["demo"]:
        rows.append(("Demo", data["demo_notice"]))
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {value}" for label, value in rows]


def _telegram(figures: dict[str, Any] | None) -> list[tuple[str, str]]:
    if figures is None:
        return []
    counts = f"{figures['delivered']} replies delivered, {figures['waiting']} on their way"
    rows = [("Telegram", f"{counts}; last heard of {figures['poll_age_seconds']:.0f} s ago")]
    if figures["failed"]:
        rows.append(("! Telegram", f"{figures['failed']} replies not delivered: {figures['last_failure']}"))
    if figures["dead_letters"]:
        rows.append(
            ("! Telegram", f"{figures['dead_letters']} updates put aside (telegram-dead-letters.jsonl)")
        )
    return rows
