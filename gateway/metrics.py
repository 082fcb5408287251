"""`/metrics`: what the gateway says about itself, in the text format of Prometheus. No ids, no texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import counters
from gateway.counters import Counter, Histogram

PREFIX = "lunar_"


class Gauge(NamedTuple):
    """One value: its name after `lunar_`, and where `About.gateway` has it (None: not there now)."""

    name: str
    help: str
    value: Callable[[Mapping[str, Any]], float | None]


def _telegram(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda data: data["telegram"][name] if data["telegram"] else None


def _store(value: Callable[[Mapping[str, Any]], float]) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda data: value(data["store"]) if data["store"] else None


GAUGES = (
    Gauge("ready", "1 while messages are taken and answered.", lambda data: data["ready"]),
    Gauge("uptime_seconds", "Since the start.", lambda data: data["uptime_seconds"]),
    Gauge("resident_memory_bytes", "Memory in use.", lambda data: data["memory_bytes"]),
    Gauge("sessions_in_memory", "Sessions at work.", lambda data: data["sessions_in_memory"]),
    Gauge("turns_running", "Replies being written.", lambda data: data["turns_running"]),
    Gauge("turns_waiting", "Turns that wait for a slot or a person.", lambda data: data["turns_waiting"]),
    Gauge("messages_waiting", "For the next turn.", lambda data: data["messages_waiting"]),
    Gauge("store_leases", "Sessions whose turns this node runs.", _store(lambda store: store["leases"])),
    Gauge("store_nodes", "Nodes that live.", _store(lambda store: len(store["nodes"]))),
    Gauge("telegram_deliveries_waiting", "Replies on their way.", _telegram("waiting")),
    Gauge("telegram_poll_age_seconds", "Since getUpdates last came back.", _telegram("poll_age_seconds")),
)
# What a push channel counts by itself: name, help, and label values by where the figures have them.
TELEGRAM = (
    ("telegram_deliveries", "Replies brought.", {"delivered": "delivered", "failed": "failed"}),
    ("telegram_flood_waits", "Times Telegram asked us to wait.", {"floods": None}),
    ("telegram_dead_letters", "Updates put aside.", {"dead_letters": None}),
)


def text(data: Mapping[str, Any]) -> bytes:
    """The answer to a scrape, from the data of `About.gateway` and what was counted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(data))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def collect(self) -> Iterable[Metric]:
        data = self._data
        for gauge in GAUGES:
            if (value := gauge.value(data)) is not None:
                yield GaugeMetricFamily(PREFIX + gauge.name, gauge.help, float(value))
        yield _by_channel("connections", "Clients that are connected.", data["connections"])
        up = {name: state == "ready" for name, state in data["channels"].items()}
        yield _by_channel("channel_ready", "1 while a channel works.", up)
        yield from (_counter(one) for one in counters.COUNTERS)
        yield from (_histogram(one) for one in counters.HISTOGRAMS)
        if data["telegram"]:
            yield from _brought(data["telegram"])
        build = GaugeMetricFamily(f"{PREFIX}build_info", "The version that runs.", labels=["version"])
        build.add_metric([data["version"]], 1)
        yield build


def _by_channel(name: str, help: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, help, labels=["channel"])
    for channel, value in values.items():
        family.add_metric([channel], float(value))
    return family


def _counter(counter: Counter) -> CounterMetricFamily:
    family = CounterMetricFamily(PREFIX + counter.name, counter.help, labels=counter.labels)
    for labels, value in counter.values.items():
        family.add_metric(labels, value)
    return family


def _histogram(histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
    return HistogramMetricFamily(PREFIX + histogram.name, histogram.help, buckets, histogram.sum)


def _brought(figures: Mapping[str, Any]) -> Iterator[CounterMetricFamily]:
    for name, help, values in TELEGRAM:
        labelled = any(values.values())
        family = CounterMetricFamily(PREFIX + name, help, labels=["state"] if labelled else [])
        for key, state in values.items():
            family.add_metric([state] if state else [], float(figures[key]))
        yield family
