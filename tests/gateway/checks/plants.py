"""Problems to be planted, one at a time, and what must be said of each."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

KEY = "sk-0123456789abcdefghij"
BOT = "123456:" + "A" * 35
TOKEN = "correct-horse-battery-staple"


class Site:
    """Where a problem is planted: a folder of its own, which is home and working directory."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.folder = folder
        self.patch = patch
        self.stack = stack

    def listen(self) -> int:
        """Another program that has a port; returns which."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        return int(listener.getsockname()[1])

    def disk(self, free: int, files: int = 1_000_000) -> None:
        figures = SimpleNamespace(f_blocks=1, f_bavail=free, f_frsize=1, f_files=1_000_000, f_favail=files)
        self.patch.setattr(os, "statvfs", lambda path: figures)

    def credential(self, name: str, content: bytes) -> None:
        (self.folder / "credentials").mkdir()
        (self.folder / "credentials" / name).write_bytes(content)
        self.patch.setenv("CREDENTIALS_DIRECTORY", str(self.folder / "credentials"))

    def data(self) -> Path:
        directory = self.folder / "data"
        directory.mkdir(mode=0o700)
        return directory


class Plant(NamedTuple):
    """A problem: the file, what else is done, and what must be said of it."""

    name: str
    yaml: str | bytes | None
    check: str
    code: int
    text: str
    fix: str
    plant: Callable[[Site], object] = lambda site: None
    level: str = "problem"


CONFIG = os.EX_CONFIG


def _lock(site: Site) -> None:
    lock = site.stack.enter_context((site.data() / "lock").open("w"))
    lock.write("process 4711\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)


def _only_for_root(site: Site) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    site.patch.setenv("LUNAR_HTTP__PORT", "80")
    site.patch.setattr(socket, "create_server", refused)


def _left_by_root(site: Site) -> None:
    directory = site.data()
    (directory / "sessions").mkdir()
    (directory / "open.log").touch()
    may = os.access
    site.patch.setattr(os, "access", lambda path, mode: Path(path).name != "open.log" and may(path, mode))


def _in_the_future(site: Site) -> None:
    log = site.data() / "open.log"
    log.touch()
    os.utime(log, (4_000_000_000, 4_000_000_000))


def _port(site: Site) -> None:
    site.patch.setenv("LUNAR_HTTP__PORT", str(site.listen()))


def _env(name: str, value: str) -> Callable[[Site], None]:
    return lambda site: site.patch.setenv(name, value)


PLANTS = [
    # -- a newcomer's file ---------------------------------------------------------------------------
    Plant("tab", "http:\n\tport: 1", "config", CONFIG, "config.yaml:2: not valid YAML: a tab", "spaces"),
    Plant(
        "indent",
        "http:\n  port: 1\n host: x",
        "config",
        CONFIG,
        "config.yaml:3: not valid YAML: the indentation does not fit",
        "begin all keys of a section in the same column",
    ),
    Plant(
        "no colon",
        "drain: 1s\nhttp\n",
        "config",
        CONFIG,
        "config.yaml:3: not valid YAML: a `:` is missing",
        "write `key: value`",
    ),
    Plant(
        "misspelt key", "http: {prot: 1}", "config", CONFIG, "http.prot: unknown key", "did you mean `port`?"
    ),
    Plant(
        "misspelt section",
        "chanels: {}",
        "config",
        CONFIG,
        "chanels: unknown key",
        "did you mean `channels`?",
    ),
    Plant("key in the wrong place", "port: 1", "config", CONFIG, "port: unknown key", "`http.port`?"),
    Plant(
        "string for a list",
        "agents:\n  main:\n    tools: foo",
        "config",
        CONFIG,
        "config.yaml:3: agents.main.tools: must be a list",
        "write a list, such as [a, b]",
    ),
    Plant(
        "text for a number",
        "queue: {running: abc}",
        "config",
        CONFIG,
        "queue.running",
        "write a whole number",
    ),
    Plant(
        "no unit", "drain: 20", "config", CONFIG, "drain: must be", "write a number with a unit, such as 20s"
    ),
    Plant(
        "number too large",
        "queue: {running: 70000}",
        "config",
        CONFIG,
        "queue.running",
        "write at most 10000",
    ),
    Plant(
        "twice the same key",
        "drain: 1s\ndrain: 2s",
        "config",
        CONFIG,
        "config.yaml:2: not valid YAML: the key `drain` is written twice",
        "keep one of them",
    ),
    Plant(
        "not UTF-8", b"drain: 1s\n# \xff", "config", CONFIG, "config.yaml:2: is not UTF-8", "save the file as"
    ),
    Plant(
        "no such model", "agents: {main: {model: big}}", "config", CONFIG, "there is no models.big", "correct"
    ),
    Plant(
        "no such tool",
        "agents: {main: {tools: [nope]}}",
        "config",
        CONFIG,
        "no tool 'nope'",
        "get_current_datetime",
    ),
    Plant(
        "open to all",
        "http: {host: 0.0.0.0}",
        "config",
        CONFIG,
        "http.token: anybody who can reach",
        "set a token",
    ),
    Plant(
        "socket path too long",
        f"channels: {{cli: {{socket: /{'x' * 120}}}}}",
        "config",
        CONFIG,
        "has 121 bytes",
        "choose a shorter one",
    ),
    Plant(
        "token with a newline",
        f'channels: {{telegram: {{bot_token: "{BOT}\\n"}}}}',
        "config",
        CONFIG,
        "channels.telegram.bot_token: holds a line break",
        "write the secret again, as one line",
    ),
    Plant(
        "variable with a newline",
        None,
        "config",
        CONFIG,
        "$TELEGRAM_BOT_TOKEN (channels.telegram.bot_token): holds a line break",
        "as one line",
        _env("TELEGRAM_BOT_TOKEN", "123:\nabc"),
    ),
    Plant(
        "credential with a newline",
        None,
        "config",
        CONFIG,
        "$CREDENTIALS_DIRECTORY/openai_api_key (models.default.api_key): holds a line break",
        "as one line",
        lambda site: site.credential("openai_api_key", b"sk-one\nsk-two\n"),
    ),
    Plant(
        "no such variable",
        "model: {api_key: {env: MY_KEY}}",
        "config",
        CONFIG,
        "the environment has no MY_KEY",
        "correct",
    ),
    Plant(
        "misspelt variable",
        None,
        "config",
        CONFIG,
        "$LUNAR_HTTP__PROT",
        "did you mean LUNAR_HTTP__PORT?",
        _env("LUNAR_HTTP__PROT", "1"),
    ),
    Plant(
        "no such file",
        None,
        "config",
        CONFIG,
        "nope.yaml: there is no such file",
        "correct",
        _env("LUNAR_CONFIG", "nope.yaml"),
    ),
    Plant(
        "a secret for all to read",
        f"model: {{api_key: {KEY}}}",
        "config",
        CONFIG,
        "others can read this file",
        "chmod 600 config.yaml",
        lambda site: (site.folder / "config.yaml").chmod(0o644),
    ),
    Plant(
        "a file that others may change",
        "drain: 1s",
        "config",
        0,
        "everybody may change it",
        "chmod go-w config.yaml",
        lambda site: (site.folder / "config.yaml").chmod(0o666),
        "warning",
    ),
    Plant(
        "another name",
        None,
        "config",
        0,
        "config.yml is not read",
        "mv config.yml config.yaml",
        lambda site: (site.folder / "config.yml").touch(),
        "warning",
    ),
    Plant(
        ".env",
        None,
        "config",
        0,
        ".env holds TELEGRAM_BOT_TOKEN, and is not read",
        "set -a; . ./.env",
        lambda site: (site.folder / ".env").write_text(f"A=1\nexport TELEGRAM_BOT_TOKEN={BOT}\n"),
        "warning",
    ),
    # -- the disk ------------------------------------------------------------------------------------
    Plant(
        "data_dir is a file",
        "data_dir: x",
        "data",
        os.EX_CANTCREAT,
        "data_dir: ",
        "choose another data_dir",
        lambda site: (site.folder / "x").touch(),
    ),
    Plant(
        "data_dir cannot be written",
        "data_dir: /proc/lunar",
        "data",
        os.EX_CANTCREAT,
        "/proc belongs to root",
        "choose another data_dir",
    ),
    Plant(
        "left by root", None, "data", os.EX_CANTCREAT, "open.log belongs to", "sudo chown -R", _left_by_root
    ),
    Plant(
        "data for all to read",
        None,
        "data",
        0,
        "others may look into it",
        "chmod 700",
        lambda site: site.data().chmod(0o755),
        "warning",
    ),
    Plant(
        "disk full",
        None,
        "disk",
        os.EX_IOERR,
        "the disk is full (3 MiB free)",
        "free some space",
        lambda site: site.disk(3 << 20),
    ),
    Plant(
        "disk nearly full",
        None,
        "disk",
        0,
        "nearly full (700 MiB free)",
        "free some space",
        lambda site: site.disk(700 << 20),
        "warning",
    ),
    Plant(
        "no more files",
        None,
        "disk",
        os.EX_IOERR,
        "room for 3 more files",
        "free some space",
        lambda site: site.disk(9 << 30, 3),
    ),
    # -- the machine ---------------------------------------------------------------------------------
    Plant(
        "lock held",
        None,
        "gateway",
        os.EX_TEMPFAIL,
        "in use by another gateway (process 4711)",
        "kill 4711",
        _lock,
    ),
    Plant(
        "port held",
        None,
        "port",
        os.EX_TEMPFAIL,
        f"taken by {Path('/proc/self/comm').read_text().strip()} (process {os.getpid()})",
        "choose another http.port (LUNAR_HTTP__PORT=",
        _port,
    ),
    Plant(
        "port of root's",
        None,
        "port",
        os.EX_CANTCREAT,
        "port 80 is only for root",
        "above 1023",
        _only_for_root,
    ),
    Plant(
        "somebody else's address",
        f"http: {{host: 192.0.2.1, token: {TOKEN}}}",
        "port",
        CONFIG,
        "http.host: 192.0.2.1: Cannot assign",
        "an address of this machine",
    ),
    Plant(
        "no address",
        f"http: {{host: 'not a host', token: {TOKEN}}}",
        "port",
        CONFIG,
        "not a host is no address",
        "write 127.0.0.1",
    ),
    Plant(
        "socket is a file",
        "channels: {cli: {socket: x}}",
        "socket",
        os.EX_CANTCREAT,
        "is no socket",
        "choose another channels.cli.socket",
        lambda site: (site.folder / "x").touch(),
    ),
    Plant(
        "socket cannot be made",
        "channels: {cli: {socket: /proc/x/y}}",
        "socket",
        os.EX_CANTCREAT,
        "no socket can be made in /proc",
        "choose another channels.cli.socket",
    ),
    Plant(
        "no such group",
        "channels: {cli: {group: nobodys}}",
        "socket",
        CONFIG,
        "has no group 'nobodys'",
        "sudo groupadd --system nobodys",
    ),
    Plant(
        "no such user",
        "channels: {cli: {operators: [noone]}}",
        "socket",
        CONFIG,
        "has no user 'noone'",
        "correct the name",
    ),
    Plant(
        "few descriptors",
        None,
        "limits",
        0,
        "only 64 files",
        "LimitNOFILE=4096",
        lambda site: site.patch.setattr(resource, "getrlimit", lambda which: (64, 64)),
        "warning",
    ),
    Plant(
        "the past",
        None,
        "clock",
        os.EX_OSERR,
        "it is not 1970-01-01",
        "timedatectl",
        lambda site: site.patch.setattr("gateway.checks.upstream.time.time", lambda: 1.0),
    ),
    Plant("the future", None, "clock", 0, "the clock was set back", "timedatectl", _in_the_future, "warning"),
    # -- secrets -------------------------------------------------------------------------------------
    Plant(
        "placeholder",
        None,
        "secrets",
        CONFIG,
        "$OPENAI_API_KEY (models.default.api_key): this is a placeholder",
        "put the real secret",
        _env("OPENAI_API_KEY", "your-api-key"),
    ),
    Plant(
        "no key",
        "model: {name: gpt-5}",
        "secrets",
        CONFIG,
        "model.api_key: there is no key for OpenAI",
        "set OPENAI_API_KEY",
    ),
    Plant(
        "quotes",
        None,
        "secrets",
        CONFIG,
        "quotes in the secret itself",
        "remove them",
        _env("OPENAI_API_KEY", f'"{KEY}"'),
    ),
    Plant(
        "Bearer",
        None,
        "secrets",
        CONFIG,
        "begins with `Bearer`",
        "the key alone",
        _env("OPENAI_API_KEY", f"Bearer {KEY}"),
    ),
    Plant(
        "typographic",
        None,
        "secrets",
        CONFIG,
        "a letter that no key has",
        "copy it again",
        _env("OPENAI_API_KEY", KEY + "…x"),
    ),
    Plant(
        "half a bot token",
        None,
        "secrets",
        CONFIG,
        "is no bot's token",
        "@BotFather",
        _env("TELEGRAM_BOT_TOKEN", BOT[:-3]),
    ),
    Plant(
        "another variable",
        None,
        "secrets",
        0,
        "$TELEGRAM_TOKEN is not read",
        "export TELEGRAM_BOT_TOKEN=",
        _env("TELEGRAM_TOKEN", BOT),
        "warning",
    ),
    Plant(
        "binary credential",
        None,
        "secrets",
        CONFIG,
        "lunar_http_token is not a text",
        "as one line",
        lambda site: site.credential("lunar_http_token", b"\xff\xfe"),
    ),
    Plant(
        "empty credential",
        None,
        "secrets",
        0,
        "openai_api_key is empty",
        "put the secret in",
        lambda site: site.credential("openai_api_key", b"\n"),
        "warning",
    ),
    Plant(
        "no credentials",
        None,
        "secrets",
        CONFIG,
        "there is no directory /nowhere",
        "unset it",
        _env("CREDENTIALS_DIRECTORY", "/nowhere"),
    ),
    Plant(
        "short token",
        "http: {host: 0.0.0.0}",
        "secrets",
        0,
        "7 characters can be guessed",
        "openssl rand",
        _env("LUNAR_HTTP_TOKEN", "hunter2"),
        "warning",
    ),
    Plant(
        "open proxy",
        "http: {trusted_proxies: [127.0.0.1]}",
        "secrets",
        0,
        "everybody who reaches the proxy",
        "LUNAR_HTTP_TOKEN=",
        level="warning",
    ),
    Plant(
        "in the clear",
        "model: {base_url: 'http://llm.example.org/v1'}",
        "secrets",
        0,
        "goes to llm.example.org without encryption",
        "https://",
        _env("OPENAI_API_KEY", KEY),
        "warning",
    ),
    Plant(
        "no such function",
        "tools: {functions: {mine: {call: 'nope.py:mine'}}}",
        "tools",
        0,
        "tools.functions.mine.call: ",
        "correct the path",
        level="warning",
    ),
    Plant(
        "no such program",
        "tools: {mcp: {mine: {command: [no-such-program, x]}}}",
        "tools",
        0,
        "there is no program no-such-program",
        "install it",
        level="warning",
    ),
    # -- upstream, as far as nobody has to be asked ------------------------------------------------------
    Plant(
        "base_url of a call",
        "model: {base_url: 'http://127.0.0.1:1/v1/chat/completions'}",
        "model",
        CONFIG,
        "model.base_url: names one call",
        "end it before that, mostly with /v1",
    ),
    Plant(
        "nobody allowed",
        "channels: {telegram: {allow: []}}",
        "telegram",
        0,
        "nobody may talk",
        "name ids",
        _env("TELEGRAM_BOT_TOKEN", BOT),
        "warning",
    ),
    Plant(
        "plain webhook",
        "channels: {telegram: {mode: webhook, webhook_url: 'http://a.example'}}",
        "telegram",
        CONFIG,
        "https alone",
        "write https://",
        _env("TELEGRAM_BOT_TOKEN", BOT),
    ),
]
