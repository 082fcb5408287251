"""What all tests share."""

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.fakes import kept
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import OpenAIServer


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a name that is short enough for a Unix socket in it."""
    path = Path(tempfile.mkdtemp(prefix="lunar-"))
    yield path
    kept.forget(path)
    shutil.rmtree(path)


class Daemons(Protocol):
    def __call__(
        self, *, server: OpenAIServer | None = None, config: dict[str, Any] | None = None, **env: str
    ) -> Daemon: ...


@pytest.fixture
async def daemons(folder: Path) -> AsyncIterator[Daemons]:
    """Makes daemons, each on a folder of its own, not started yet; ends whatever is left of them."""
    made: list[Daemon] = []

    def make(
        *, server: OpenAIServer | None = None, config: dict[str, Any] | None = None, **env: str
    ) -> Daemon:
        daemon = Daemon(folder / str(len(made)), config=config, env=model(server) | env)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        await daemon.close()
        assert not [entry for entry in daemon.log if entry["level"] in ("error", "critical")]


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    """An OpenAI-compatible server."""
    async with OpenAIServer() as server:
        yield server


def model(server: OpenAIServer | None) -> dict[str, str]:
    """The environment that points a daemon at a server; at none, it finds the built-in demo."""
    if server is None:
        return {}
    return {
        "LUNAR_MODEL__BASE_URL": server.base_url,
        "LUNAR_MODEL__NAME": "fake-1",
        "LUNAR_MODEL__API_KEY": "sk-test-0123456789abcdef",
    }


def pytest_configure() -> None:
    """A shell without job control lets what it starts with `&` ignore SIGINT: what is tested must not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one group share what is dear to make: a machine, an environment. Be loud where they would not.

    pytest-xdist 3.8 writes the group into the test's id, which pytest 9.2 no longer lets it do.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    lost = [item for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if lost:
        raise pytest.UsageError(
            f"pytest {pytest.__version__} and pytest-xdist lose the groups of tests: {lost[0]}"
        )
