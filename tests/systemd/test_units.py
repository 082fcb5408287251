"""The unit files as text: what holds without a machine to run them on."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.config_secrets import CREDENTIALS
from tests.requirement import program

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = [UNITS / "lunar.service", UNITS / "user/lunar.service"]


class Repeated(dict[str, str]):
    """Directives that may be given more than once: each adds a line."""

    def __setitem__(self, key: str, value: str) -> None:
        if isinstance(value, list) and key in self:
            value = [*self[key], *value]
        super().__setitem__(key, value)


def unit(path: Path) -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser(dict_type=Repeated, strict=False, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s", text)
    assert found, text
    return float(found[1])


def test_the_sandbox_is_tight() -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=yes", "--threshold=15", "--no-pager",
         UNITS / "lunar.service"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-600:] + done.stderr


@pytest.mark.parametrize("path", SERVICES, ids=["system", "user"])
def test_it_is_restarted_unless_that_is_of_no_use(path: Path) -> None:
    service = unit(path)
    assert service["Service"]["Type"] == "notify"
    assert service["Service"]["Restart"] == "on-failure"
    assert service["Service"]["RestartPreventExitStatus"] == "78"
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Unit"]["OnFailure"] == "lunar-failed.target"
    assert seconds(service["Service"]["TimeoutStopSec"]) > Config().drain.total_seconds() + 20


def test_every_secret_that_has_a_name_of_its_own_is_taken_as_a_credential() -> None:
    secrets = set(CREDENTIALS) - {"openai_base_url"}  # an address
    taken = {line.partition(":")[0] for line in unit(SERVICES[0])["Service"]["LoadCredential"].splitlines()}
    assert taken == secrets
    docs = (UNITS.parent / "docs" / "systemd.md").read_text(encoding="utf-8")
    for name in secrets:
        assert f"| `lunar.{name}` |" in docs
        assert name in SERVICES[1].read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SERVICES, ids=["system", "user"])
def test_memory_that_is_written_is_never_run(path: Path) -> None:
    assert unit(path)["Service"]["MemoryDenyWriteExecute"] == "yes"


def test_the_socket_is_outside_of_what_goes_with_the_service() -> None:
    listening = unit(UNITS / "lunar.socket")["Socket"]
    assert listening["ListenStream"].split() == ["127.0.0.1:8420", "/run/lunar-gateway.sock"]
    assert (listening["SocketGroup"], listening["SocketMode"]) == ("lunar", "0660")
    assert unit(UNITS / "lunar.service")["Service"]["RuntimeDirectory"] == "lunar"
    assert "\ng lunar " in (UNITS / "lunar.sysusers.conf").read_text(encoding="utf-8")
