from __future__ import annotations

from pathlib import Path

import pytest

from gateway.verbs import units
from gateway.verbs.units import SYSTEM, drop_in, files, first_config, hidden
from tests.gateway.environment import clear

SHIPPED = Path(__file__).parents[3] / "systemd"


def test_the_usual_installation_is_the_shipped_files_and_nothing_else() -> None:
    wanted = files(SYSTEM, units.PROGRAM, SYSTEM.config, units.LISTEN)
    assert {str(path) for path in wanted} == {
        "/etc/systemd/system/lunar.service",
        "/etc/systemd/system/lunar.socket",
        "/etc/systemd/system/lunar-failed.target",
        "/etc/sysusers.d/lunar.conf",
    }
    for path, text in wanted.items():
        name = "lunar.sysusers.conf" if path == SYSTEM.sysusers else path.name
        assert text == (SHIPPED / name).read_text(encoding="utf-8")


def test_what_differs_is_a_drop_in() -> None:
    wanted = files(SYSTEM, Path("/srv/my env/100%/bin/lunar"), Path("/srv/lunar.yaml"), "[::1]:9000")
    assert wanted[drop_in(SYSTEM, units.SERVICE)].splitlines() == [
        "[Service]",
        "ExecStart=",
        'ExecStart="/srv/my env/100%%/bin/lunar" run',
        'Environment="LUNAR_CONFIG=/srv/lunar.yaml"',
    ]
    assert wanted[drop_in(SYSTEM, units.SOCKET)].splitlines() == [
        "[Socket]",
        "ListenStream=",
        "ListenStream=[::1]:9000",
        "ListenStream=/run/lunar-gateway.sock",
    ]
    assert wanted[SYSTEM.units / units.SERVICE] == (SHIPPED / "lunar.service").read_text(encoding="utf-8")


def test_a_users_units_are_in_their_own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    place = units.of_user()
    wanted = files(place, units.PROGRAM, place.config, "127.0.0.1:81")
    assert {path.parent for path in wanted} == {place.units, place.units / "lunar.socket.d"}
    assert "%t/lunar-gateway.sock" in wanted[drop_in(place, units.SOCKET)]
    assert place.config == tmp_path / "config/lunar/config.yaml"


def test_the_first_configuration_is_sound_and_leads_to_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gateway import config_file

    clear(monkeypatch, tmp_path)
    file = tmp_path / "first.yaml"
    file.write_text(first_config(SYSTEM), encoding="utf-8")
    config = config_file.load(str(file))
    assert (str(config.data_dir), str(config.socket)) == ("/var/lib/lunar", "/run/lunar-gateway.sock")


@pytest.mark.parametrize("folder", ["/home", "/root", "/tmp", "/run/user"])
def test_what_the_sandbox_hides_is_known(folder: str) -> None:
    found = hidden([Path("/usr"), Path(folder, "x")])
    assert found is not None
    assert found[0] == Path(folder, "x")


def test_what_it_shows_is_not_refused() -> None:
    assert hidden([Path("/opt/lunar/bin/lunar"), Path("/usr"), Path("/homes/x"), Path("/srv/home/x")]) is None
