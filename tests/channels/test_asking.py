"""A call's arguments as a person is shown them."""

from typing import Any

import pytest

from channels.asking import arguments


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({}, "{}"),
        ({"path": "/tmp/é 漢"}, '{"path": "/tmp/é 漢"}'),
        ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
        ("not\njson\t", "not\\njson\\t"),
        ({"x": "\x1b]0;title\x07"}, '{"x": "\\u001b]0;title\\u0007"}'),
        ({"x": "\x9b2J\x7f"}, '{"x": "\\u009b2J\\u007f"}'),
        ({"x": "\u202egpj.exe\u2066"}, '{"x": "\\u202egpj.exe\\u2066"}'),
        ({"x": "\ud800"}, '{"x": "\\ud800"}'),
        ({"x": "\U000e0041"}, '{"x": "\\U000e0041"}'),
        ({"x": "a\u200bb"}, '{"x": "a\\u200bb"}'),
    ],
)
def test_nothing_is_hidden(args: Any, shown: str) -> None:
    assert arguments(args, 100) == shown


def test_a_cut_says_so() -> None:
    assert arguments("x" * 100, 100) == "x" * 100
    assert arguments("x" * 101, 100) == "x" * 100 + "… (cut: 101 characters in all)"
