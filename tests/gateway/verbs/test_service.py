"""`lunar service` on a machine whose systemd is a program that writes down what it was asked for."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.verbs import service
from tests.gateway.environment import clear

FAKE = """#!/bin/sh
echo "$@" >>"$ASKED"
case "$*" in
  *is-active*) test -e "$ASKED.active" && echo active ;;
  *is-enabled*) test -e "$ASKED.active" && echo enabled ;;
  *"enable --now"*) touch "$ASKED.active" ;;
esac
true
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Everything that `systemctl` is asked for, one call a line; the units are the user's own."""
    clear(monkeypatch, tmp_path)
    log = tmp_path / "asked"
    log.touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(FAKE)
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(log))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/lunar").touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(service, "_running", lambda: True)
    return log


def installed(tmp_path: Path) -> list[str]:
    return sorted(
        str(path.relative_to(tmp_path / "config"))
        for path in (tmp_path / "config").rglob("*.*")
        if path.is_file()
    )


def test_a_dry_run_touches_nothing(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--user", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"would write {tmp_path}/config/systemd/user/lunar.service (new)" in shown
    assert "would run systemctl --user enable --now lunar.service" in shown
    assert not (tmp_path / "config").exists()
    assert not [line for line in asked.read_text().splitlines() if "is-" not in line]


def test_it_does_what_it_shows_and_nothing_twice(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", "--user", "--dry-run"]) == 0
    would = capsys.readouterr().out.replace("would ", "").splitlines()
    assert main(["service", "install", "--user"]) == 0
    assert capsys.readouterr().out.splitlines()[:-3] == would[:-3]
    assert installed(tmp_path) == [
        "lunar/config.yaml",
        "systemd/user/lunar-failed.target",
        "systemd/user/lunar.service",
        "systemd/user/lunar.service.d/50-lunar-install.conf",
        "systemd/user/lunar.socket",
    ]
    drop_in = tmp_path / "config/systemd/user/lunar.service.d/50-lunar-install.conf"
    assert f"ExecStart={tmp_path}/environment/bin/lunar run" in drop_in.read_text()
    asked.write_text("")
    assert main(["service", "install", "--user"]) == 0
    assert capsys.readouterr().out.startswith("Nothing to do.\n")
    assert not [line for line in asked.read_text().splitlines() if "is-" not in line]


def test_a_change_restarts_only_what_it_concerns(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", "--user"]) == 0
    config = tmp_path / "config/lunar/config.yaml"
    config.write_text(config.read_text().replace("port: 8420", "port: 8421"))
    asked.write_text("")
    assert main(["service", "install", "--user"]) == 0
    assert "lunar.socket.d/50-lunar-install.conf (new)" in capsys.readouterr().out
    done = [line for line in asked.read_text().splitlines() if "is-" not in line]
    assert done == ["--user daemon-reload", "--user restart lunar.socket"]


def test_an_uninstall_leaves_what_is_not_ours(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", "--user"]) == 0
    theirs = tmp_path / "config/systemd/user/lunar.service.d/theirs.conf"
    theirs.write_text("[Service]\nNice=5\n")
    assert main(["service", "uninstall", "--user"]) == 0
    assert installed(tmp_path) == ["lunar/config.yaml", "systemd/user/lunar.service.d/theirs.conf"]
    capsys.readouterr()
    assert main(["service", "uninstall", "--user"]) == 0
    assert capsys.readouterr().out.startswith("Nothing to do.\n")


def test_what_would_be_hidden_is_refused_with_the_way_out(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "base_prefix", os.path.join("/home", "somebody", "python"))
    assert main(["service", "install", "--dry-run"]) == os.EX_CANTCREAT
    said = capsys.readouterr().err
    assert "ProtectHome= hides it" in said or "PrivateTmp= hides it" in said
    assert "python3 -m venv /opt/lunar" in said


def test_a_configuration_that_would_be_hidden_is_refused(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "_program", lambda place: Path("/opt/lunar/bin/lunar"))
    monkeypatch.setattr(service.units, "HIDDEN", {str(tmp_path): "ProtectHome"})
    (tmp_path / "mine.yaml").write_text("drain: 5s")
    asked_for = ["--config", str(tmp_path / "mine.yaml"), "service", "install", "--dry-run"]
    assert main(asked_for) == os.EX_CANTCREAT
    assert "Move it to /etc/lunar/config.yaml" in capsys.readouterr().err


def test_where_systemd_does_not_run_nothing_is_done(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "_running", lambda: False)
    assert main(["service", "install", "--user"]) == os.EX_UNAVAILABLE
    assert "--dry-run" in capsys.readouterr().err
    assert not (tmp_path / "config").exists()


def test_print_shows_every_file(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "print"]) == 0
    shown = capsys.readouterr().out
    shipped = Path(__file__).parents[3] / "systemd"
    for name in ("lunar.service", "lunar.socket", "lunar-failed.target", "lunar.sysusers.conf"):
        assert (shipped / name).read_text(encoding="utf-8") in shown


@pytest.mark.parametrize(
    ("place", "socket"),
    [
        ("host: 0.0.0.0", "0.0.0.0:8420"),
        ("{host: '::1', port: 81}", "[::1]:81"),
        ("port: '82'", "127.0.0.1:82"),
    ],
)
def test_print_shows_where_the_configuration_listens(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, socket: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"http:\n  {place}\n")
    assert main(["--config", str(tmp_path / "mine.yaml"), "service", "print", "--user"]) == 0
    assert f"ListenStream={socket}\n" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["host: null", "host: [1]", "port: abc", "port: null", "port: 70000"])
def test_no_unit_listens_where_nothing_can(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"http:\n  {wrong}\n")
    assert main(["--config", str(tmp_path / "mine.yaml"), "service", "print", "--user"]) == os.EX_CONFIG
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"lunar: {tmp_path}/mine.yaml:2: http.{wrong[:4]}: must be ")) == ("", True)


def test_a_unit_listens_at_an_address_for_systemd_takes_no_names(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("http:\n  host: localhost\n")
    assert main(["--config", str(tmp_path / "mine.yaml"), "service", "print", "--user"]) == 0
    assert re.search(r"^ListenStream=(127\.0\.0\.1|\[::1\]):8420$", capsys.readouterr().out, re.MULTILINE)


def test_no_unit_listens_at_a_name_that_nobody_knows(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("http:\n  host: nowhere.invalid\n")
    assert main(["--config", str(tmp_path / "mine.yaml"), "service", "print", "--user"]) == os.EX_CONFIG
    out, err = capsys.readouterr()
    assert (out, "http.host: no address for 'nowhere.invalid'" in err) == ("", True)


def test_status_tells_what_is_missing(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "status", "--user"]) == 1
    assert "missing" in capsys.readouterr().out
    assert main(["service", "install", "--user"]) == 0
    capsys.readouterr()
    main(["service", "status", "--user"])
    assert "missing" not in capsys.readouterr().out
