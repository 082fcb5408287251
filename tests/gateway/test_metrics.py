"""What a scrape gets, that the documentation knows all of it, and that Prometheus itself takes it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from gateway import counters
from gateway.metrics import GAUGES, text
from tests import requirement
from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer

DOCS = Path(__file__).parents[2] / "docs"
TELEGRAM = {
    "delivered": 4,
    "failed": 1,
    "waiting": 2,
    "floods": 6,
    "dead_letters": 7,
    "poll_age_seconds": 0.5,
    "last_failure": "canary",
}
DATA = {
    "version": "1.2.3",
    "ready": True,
    "uptime_seconds": 5.0,
    "memory_bytes": 1000,
    "sessions_in_memory": 2,
    "turns_running": 1,
    "turns_waiting": 0,
    "messages_waiting": 3,
    "connections": {"cli": 2, "http": 0},
    "channels": {"cli": "ready", "http": "canary"},
    "telegram": TELEGRAM,
    "store": {"kind": "postgresql", "node": "a", "leases": 2, "nodes": ["a", "b"]},
}
# What is known before anybody was served; of a histogram, what a query may name.
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def samples(exposed: bytes) -> dict[str, float]:
    return {
        sample.name + str(sorted(sample.labels.items()) or ""): sample.value
        for family in text_string_to_metric_families(exposed.decode())
        for sample in family.samples
    }


def families() -> dict[str, str]:
    """Every metric of ours, and its kind."""
    found = text_string_to_metric_families(text(DATA).decode())
    return {family.name: family.type for family in found if family.name.startswith("lunar_")}


@pytest.fixture(autouse=True)
def _nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for counter in counters.COUNTERS:
        monkeypatch.setattr(counter, "values", type(counter.values)())
    for histogram in counters.HISTOGRAMS:
        monkeypatch.setattr(histogram, "counts", [0] * len(histogram.counts))
        monkeypatch.setattr(histogram, "sum", 0.0)


def test_every_gauge_is_exposed_with_its_value() -> None:
    found = samples(text(DATA))
    assert {f"lunar_{gauge.name}" for gauge in GAUGES} <= set(found)
    assert found["lunar_ready"] == 1
    assert found["lunar_turns_running"] == 1
    assert found["lunar_connections[('channel', 'cli')]"] == 2
    assert found["lunar_channel_ready[('channel', 'cli')]"] == 1
    assert found["lunar_channel_ready[('channel', 'http')]"] == 0
    assert found["lunar_telegram_deliveries_total[('state', 'delivered')]"] == 4
    assert found["lunar_telegram_deliveries_total[('state', 'failed')]"] == 1
    assert found["lunar_telegram_dead_letters_total"] == 7
    assert found["lunar_build_info[('version', '1.2.3')]"] == 1
    assert found["process_open_fds"] > 0


def test_what_was_counted_is_exposed() -> None:
    counters.TURNS.add("main", "completed")
    counters.TURNS.add("main", "completed")
    counters.COST.add("main", by=0.25)
    for seconds in (0.05, 0.06, 1000.0):
        counters.TURN_SECONDS.observe(seconds)
    counters.append_timed([0.001, 0.002], 0.001)
    found = samples(text(DATA))
    assert found["lunar_turns_total[('agent', 'main'), ('outcome', 'completed')]"] == 2
    assert found["lunar_cost_total[('agent', 'main')]"] == 0.25
    assert found["lunar_turn_seconds_bucket[('le', '0.05')]"] == 1  # a bound is in its own bucket
    assert found["lunar_turn_seconds_bucket[('le', '0.1')]"] == 2
    assert found["lunar_turn_seconds_bucket[('le', '+Inf')]"] == 3
    assert found["lunar_turn_seconds_count"] == 3
    assert found["lunar_turn_seconds_sum"] == pytest.approx(1000.11)
    assert found["lunar_append_seconds_count"] == 2
    assert found["lunar_fsync_seconds_count"] == 1


def test_without_telegram_there_is_nothing_of_it() -> None:
    assert not any("telegram" in name for name in samples(text({**DATA, "telegram": None})))


def test_nothing_that_people_wrote_is_exposed() -> None:
    assert b"canary" not in text(DATA)


def test_the_documentation_names_exactly_these() -> None:
    documented = re.findall(r"^\| `(lunar_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    exposed = {name + ("_total" if kind == "counter" else "") for name, kind in families().items()}
    assert set(documented) == exposed


# -- the dashboard ---------------------------------------------------------------------------------


def queries() -> list[str]:
    dashboard = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_query_of_the_dashboard_names_a_metric_and_every_metric_is_in_it() -> None:
    names = {name + suffix for name, kind in families().items() for suffix in SUFFIXES[kind]}
    used = set()
    for query in queries():
        named = set(re.findall(r"lunar_\w+", query))
        assert named, query
        assert named <= names, query
        used |= {re.sub(r"_(total|bucket)$", "", name) for name in named}
    assert used == set(families())


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    promtool = requirement.program("promtool")
    rules = [
        {
            "record": f"query:{number}",
            "expr": query.replace("$__rate_interval", "5m").replace("$instance", ".*"),
        }
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    ran = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# -- a real scrape ---------------------------------------------------------------------------------


async def scraped(port: int) -> bytes:
    async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return await answer.read()


async def test_a_daemon_counts_its_turns(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await daemon.client()
        await client.ask("Hello")
        found = samples(await scraped(daemon.port))
        assert found["lunar_turns_total[('agent', 'main'), ('outcome', 'completed')]"] == 1
        assert found["lunar_turn_seconds_count"] == found["lunar_first_token_seconds_count"] == 1
        assert found["lunar_append_seconds_count"] >= 3  # the message, `started`, the answer
        assert 0 < found["lunar_fsync_seconds_count"] <= found["lunar_append_seconds_count"]
        assert sum(value for name, value in found.items() if name.startswith("lunar_model_calls_total")) == 1
        assert found["lunar_tokens_total[('agent', 'main'), ('direction', 'input')]"] > 0
        assert found["lunar_connections[('channel', 'cli')]"] == 1
        ran = await asyncio.to_thread(
            subprocess.run,
            [requirement.program("promtool"), "check", "metrics"],
            input=await scraped(daemon.port),
            capture_output=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


async def test_prometheus_scrapes_it(daemons: Daemons, tmp_path: Path) -> None:
    program = requirement.program("prometheus")
    async with daemons() as daemon:
        scrape = {"job_name": "lunar", "static_configs": [{"targets": [f"127.0.0.1:{daemon.port}"]}]}
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [scrape],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            "--web.listen-address=127.0.0.1:0",
            "--log.format=json",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                address = await _address(process)
                series = await _series(address, "lunar_build_info")
        finally:
            process.kill()
            await process.communicate()
        assert series["metric"]["job"] == "lunar"
        assert series["value"][1] == "1"


async def _address(process: asyncio.subprocess.Process) -> str:
    """Where it listens, as it says itself."""
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb'"address":"(127\.0\.0\.1:[1-9]\d*)"', line):
            return found[1].decode()
    raise AssertionError("prometheus ended")


async def _series(address: str, query: str) -> dict[str, Any]:
    async with ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://{address}/api/v1/query?query={quote(query)}") as answer:
                    found = (await answer.json())["data"]["result"] if answer.status == 200 else []
            except OSError:
                found = []
            if found:
                first: dict[str, Any] = found[0]
                return first
            await asyncio.sleep(0.1)  # it has no way to tell that it has scraped
