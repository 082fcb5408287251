"""What a scrape gets, and that the documentation knows all of it."""

import re
from pathlib import Path

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import FIGURES, text
from tests.conftest import Daemons

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
DATA = {
    "version": "1.2.3",
    "ready": True,
    "uptime_seconds": 5.0,
    "memory_bytes": 1000,
    "sessions_in_memory": 2,
    "turns_running": 1,
    "messages_waiting": 3,
    "telegram": None,
}
TELEGRAM = {
    "delivered": 4,
    "failed": 1,
    "waiting": 2,
    "floods": 6,
    "dead_letters": 7,
    "poll_age_seconds": 0.5,
    "last_failure": "canary",
}


def samples(exposed: bytes) -> dict[str, float]:
    return {
        sample.name + str(sorted(sample.labels.items()) or ""): sample.value
        for family in text_string_to_metric_families(exposed.decode())
        for sample in family.samples
    }


def test_every_figure_is_exposed_with_its_value() -> None:
    found = samples(text({**DATA, "telegram": TELEGRAM}))
    assert found["lunar_ready"] == 1
    assert found["lunar_turns_running"] == 1
    assert found["lunar_telegram_deliveries_total[('state', 'delivered')]"] == 4
    assert found["lunar_telegram_deliveries_total[('state', 'failed')]"] == 1
    assert found["lunar_telegram_dead_letters_total"] == 7
    assert found["lunar_build_info[('version', '1.2.3')]"] == 1
    assert len(found) == len(FIGURES) + 1


def test_without_telegram_there_is_nothing_of_it() -> None:
    assert not any("telegram" in name for name in samples(text(DATA)))


def test_nothing_that_people_wrote_is_exposed() -> None:
    assert b"canary" not in text({**DATA, "telegram": TELEGRAM})


def test_the_documentation_names_exactly_these() -> None:
    exposed = {name.partition("[")[0] for name in samples(text({**DATA, "telegram": TELEGRAM}))}
    assert set(re.findall(r"^\| `(lunar_\w+)`", DOCS.read_text(), re.MULTILINE)) == exposed


async def test_a_scrape(daemons: Daemons) -> None:
    daemon = await daemons().start()
    async with ClientSession() as http, http.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert samples(await answer.read())["lunar_ready"] in (0, 1)
