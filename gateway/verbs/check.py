"""`lunar check`: whether the gateway could do its work here; every problem with what mends it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from gateway import ask, config_file
from gateway.checks import table
from gateway.checks.finding import Finding, Scene, exit_code, problem, warning
from gateway.config import Config
from gateway.config_problem import Places, located
from gateway.daemon import Daemon
from gateway.errors import ConfigError, GatewayError, NotPermitted, NotRunning
from gateway.log import Redactor

Row = tuple[str, Finding]
_COLOURS = {"ok": "32", "warning": "33", "problem": "31"}


def main(config: str | None, as_json: bool, offline: bool) -> int:
    """Print a line for each finding; returns 0 where there is no problem, else the fitting sysexit."""
    findings: list[Finding] = []
    secrets: list[str] = []  # known as soon as the configuration was read
    with _quiet():
        for name, finding in _rows(config, offline, secrets):
            redacted = Redactor(secrets).text
            finding = finding._replace(text=redacted(finding.text), fix=redacted(finding.fix))
            findings.append(finding)
            _tell(name, finding, as_json)
    code = exit_code(findings)
    if not as_json:
        print(_summary(findings))
    return code


def _rows(config: str | None, offline: bool, secrets: list[str]) -> Iterator[Row]:
    try:
        loaded = config_file.settle(config_file.read(config_file.find(config)))
        secrets += config_file.secrets(loaded.config)
        _built(loaded.config, loaded.places)
    except ConfigError as error:
        yield from (("config", _misconfigured(words)) for words in error.problems)
        return
    running, said = _running(loaded.config)
    if said is not None:
        yield "gateway", said
    yield from table.run(Scene(loaded.config, loaded.places, running, offline))


def _built(config: Config, places: Places) -> None:
    """What the daemon refuses to be built of is found before it is run; raises `ConfigError`."""
    try:
        Daemon(config)
    except ConfigError as error:
        raise ConfigError([located(words, places) for words in error.problems]) from error


def _running(config: Config) -> tuple[Mapping[str, Any] | None, Finding | None]:
    """What the gateway of this configuration says of itself; or why it does not, where that is news."""
    try:
        return ask.control(config.socket, "status"), None
    except NotRunning:
        return None, None
    except NotPermitted as error:
        fix = "run this check as the gateway's user, or as one of channels.cli.operators"
        return None, warning(f"one is running, and does not answer this user: {error}", fix)
    except GatewayError as error:
        return None, problem(f"what runs here refuses to answer: {error}", "look at its log", os.EX_TEMPFAIL)


def _misconfigured(words: str) -> Finding:
    """A problem of the configuration; what to do is behind its semicolon, or what the value must be."""
    text, _, fix = words.partition("; ")
    if not fix and (must := re.search(r"must (be|begin with|have) (.+?)(, not [^,]+)?$", text)):
        fix = f"write {'a value that begins with ' if must[1] == 'begin with' else ''}{must[2]}"
    return problem(text, fix or "correct it there; docs/configuration.md describes every key", os.EX_CONFIG)


@contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong is told by the findings, and not by the log as well."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


def _tell(name: str, finding: Finding, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"check": name, **finding._asdict()}), flush=True)
        return
    colour = _COLOURS[finding.level] if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ""
    level = f"{finding.level:<8}"
    print(f"\x1b[{colour}m{level}\x1b[0m" if colour else level, f"{name:<9}", _printable(finding.text))
    if finding.fix:
        print(" " * 18, f"→ {_printable(finding.fix)}")
    sys.stdout.flush()


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _summary(findings: Iterable[Finding]) -> str:
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    if not problems and not warnings:
        return "No problems."
    parts = [_count(problems, "problem")] * bool(problems) + [_count(warnings, "warning")] * bool(warnings)
    return f"{' and '.join(parts)}." if problems else f"No problems, {parts[0]}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
