"""What is cut stays readable: no half flag, no family torn apart."""

from __future__ import annotations

import pytest

from channels.cli.printable import first_line
from channels.letters import boundary, shortened

FAMILY, FLAG, RED_HEART, ACCENT = "👩\u200d👩\u200d👧", "🇩🇪", "❤\ufe0f", "e\u0301"


@pytest.mark.parametrize("letter", [FAMILY, FLAG, RED_HEART, ACCENT, "👍🏽", "x"])
def test_no_letter_is_torn_apart(letter: str) -> None:
    for before in range(60):
        text = "a" * before + letter * 30
        shown = first_line(text, 60)
        if len(text) <= 60:
            assert shown == text
        else:
            whole = (59 - before) // len(letter)
            assert shown == "a" * before + letter * whole + "…"


def test_an_endless_letter_is_cut_all_the_same() -> None:
    assert shortened("e" + "\u0301" * 999, 60) == "e" + "\u0301" * 58 + "…"


def test_what_fits_is_whole() -> None:
    assert shortened(FAMILY, 5) == FAMILY
    assert shortened("abc", 2) == "a…"
    assert boundary(FAMILY, 5) == 5
    assert boundary(f"a{FAMILY}", 3) == 1
    assert boundary(f"ab{FAMILY}", 4, begin=2) == 2


@pytest.mark.parametrize(
    ("text", "shown"), [("one", "one"), ("one\ntwo", "one…"), (f"1234567{FLAG}", "1234567…"), ("\n", "")]
)
def test_the_first_line(text: str, shown: str) -> None:
    assert first_line(text, 8) == shown
