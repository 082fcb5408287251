"""`/metrics`: what the gateway says about itself, in the text format of Prometheus. No ids, no texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Figure(NamedTuple):
    """One metric: its name after `lunar_`, and where `About.gateway` has its value (None: not there now)."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    value: Callable[[Mapping[str, Any]], float | None]
    labels: tuple[tuple[str, str], ...] = ()


def _telegram(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda data: data["telegram"][name] if data["telegram"] else None


FIGURES = (
    Figure("ready", "gauge", "1 while messages are taken and answered.", lambda data: data["ready"]),
    Figure("uptime_seconds", "gauge", "Since the start.", lambda data: data["uptime_seconds"]),
    Figure("resident_memory_bytes", "gauge", "Memory in use.", lambda data: data["memory_bytes"]),
    Figure("sessions_in_memory", "gauge", "Sessions at work.", lambda data: data["sessions_in_memory"]),
    Figure("turns_running", "gauge", "Replies being written.", lambda data: data["turns_running"]),
    Figure("messages_waiting", "gauge", "For the next turn.", lambda data: data["messages_waiting"]),
    Figure(
        "telegram_deliveries",
        "counter",
        "Replies brought, since the start.",
        _telegram("delivered"),
        (("state", "delivered"),),
    ),
    Figure(
        "telegram_deliveries",
        "counter",
        "Replies brought, since the start.",
        _telegram("failed"),
        (("state", "failed"),),
    ),
    Figure("telegram_deliveries_waiting", "gauge", "Replies on their way.", _telegram("waiting")),
    Figure("telegram_flood_waits", "counter", "Times Telegram asked us to wait.", _telegram("floods")),
    Figure("telegram_dead_letters", "counter", "Updates put aside.", _telegram("dead_letters")),
    Figure("telegram_poll_age_seconds", "gauge", "Since it last answered.", _telegram("poll_age_seconds")),
)


def text(data: Mapping[str, Any]) -> bytes:
    """The answer to a scrape, from the data of `About.gateway`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(data))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for figure in FIGURES:
            value = figure.value(self._data)
            if value is None:
                continue
            labels = dict(figure.labels)
            made = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            name = f"lunar_{figure.name}"
            family = families.get(name) or made(name, figure.help, labels=list(labels))
            family.add_metric(list(labels.values()), float(value))
            families[name] = family
        build = GaugeMetricFamily("lunar_build_info", "The version that runs.", labels=["version"])
        build.add_metric([self._data["version"]], 1)
        return [*families.values(), build]
