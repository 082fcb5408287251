"""`lunar config`: what the configuration comes to, and the schema that editors complete it by."""

from __future__ import annotations

import json
import shutil
import sys

from gateway import config_file
from gateway.config_origin import Row, rows, shown

_NARROWEST = 20


def show(config: str | None, as_json: bool) -> int:
    """Print every key with its value and where that comes from; raises `ConfigError`."""
    loaded = config_file.settle(config_file.read(config_file.find(config)))
    table = list(rows(loaded))
    if as_json:
        values = {
            row.key: {"value": row.value, "from": row.origin, "place": row.place or None} for row in table
        }
        print(json.dumps({"file": str(loaded.places.file or "") or None, "values": values}, indent=2))
        return 0
    print(f"# {loaded.places.file or 'no file: the built-in defaults'}")
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    key = max(len(row.key) for row in table)
    place = max(len(_place(row)) for row in table)
    value = min(max(len(shown(row.value)) for row in table), max(columns - key - place - 4, _NARROWEST))
    for row in table:
        print(f"{row.key:<{key}}  {_cut(shown(row.value), value):<{value}}  {_place(row)}")
    return 0


def _place(row: Row) -> str:
    return row.place or row.origin


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def schema() -> int:
    """Print the JSON Schema of config.yaml."""
    from gateway.config_schema import schema as built

    print(json.dumps(built(), indent=2))
    return 0
