"""One machine for all tests of a run."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.fakes.openai_server import OpenAIServer
from tests.systemd import machine as machines
from tests.systemd.gateway import Gateway
from tests.systemd.machine import Machine


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with Lunar at /opt/lunar, not yet known to its systemd."""
    machines.required()
    with Machine(machines.venv(request.config.cache.mkdir("lunar-venv"))) as machine:
        yield machine


@pytest.fixture
async def model(machine: Machine) -> AsyncIterator[OpenAIServer]:
    """An OpenAI-compatible server in the machine."""
    async with OpenAIServer(listener=machine.listener()) as server:
        yield server


@pytest.fixture
async def gateway(machine: Machine, model: OpenAIServer) -> AsyncIterator[Gateway]:
    """The installed service, running as the test's own configuration says."""
    gateway = Gateway(machine, model)
    await gateway.start()
    yield gateway
    await gateway.close()
