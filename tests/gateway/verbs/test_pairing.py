"""`lunar pairing`: what the operator's terminal is shown of strangers."""

import pytest

from gateway import ask, config_socket
from gateway.verbs import pairing


def test_a_strangers_name_is_nothing_that_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Ann \x1b]0;owned\x07\x1b[2K\u202e"
    waits = {"code": "ABCD", "peer": "user:7", "name": name, "expires": 0.0}
    told = {"waiting": [waits], "approved": [{"peer": "user:8", "name": name, "since": 0.0}]}
    monkeypatch.setattr(config_socket, "find", lambda config: None)
    monkeypatch.setattr(ask, "control", lambda socket, verb, args: told)
    assert pairing.list_(None, as_json=False) == 0
    shown = capsys.readouterr().out
    assert shown.count("Ann ") == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
