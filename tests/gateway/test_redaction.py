from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from gateway.redaction import MASK, Redactor

ODD = 'P"a/s\\s+w ö?'


@pytest.mark.parametrize(
    "written",
    [
        ODD,
        quote(ODD, safe=""),
        quote(ODD),
        quote_plus(ODD),
        json.dumps(ODD)[1:-1],
        json.dumps(ODD)[1:-1].replace("/", "\\/"),
        html.escape(ODD),
        ODD.lower(),
        repr(ODD),
        f"x{ODD}y",
    ],
)
def test_a_secret_is_known_however_it_is_written(written: str) -> None:
    masked = Redactor([ODD]).text(f"it was {written}!")
    assert MASK in masked
    assert "p" not in masked.lower().replace(MASK, "").replace("it was", "")


def test_of_an_address_the_password_is_secret_and_the_rest_is_not() -> None:
    redactor = Redactor(["https://anna:hunter%2Ftwo@llm.example.org/v1"])
    sent = base64.b64encode(b"anna:hunter/two").decode()
    masked = redactor.text(f"llm.example.org refused anna with hunter/two, hunter%2Ftwo, Basic {sent}")
    assert masked == f"llm.example.org refused anna with {MASK}, {MASK}, Basic {MASK}"


@pytest.mark.parametrize("address", ["http://[", "http://h/", "http://user@h/", "://"])
def test_addresses_without_a_password(address: str) -> None:
    assert Redactor([address]).ours(f"see {address}") == f"see {address}"


def test_secrets_that_come_later_and_those_that_are_too_short() -> None:
    redactor = Redactor(["abc", None, ""])
    assert redactor.text("abc hunter2") == "abc hunter2"
    redactor.learn(["hunter2"])
    assert redactor.text("abc hunter2") == f"abc {MASK}"


def test_what_only_looks_like_a_secret_is_left_to_tools() -> None:
    text = "sk-0123456789abcdef0123 https://a:b@h/"
    assert Redactor([]).ours(text) == text
    assert Redactor([]).text(text) == f"{MASK} https://{MASK}@h/"


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication failed",
        "Basic information",
        "write to anna@example.org at 10:30",
        "https://example.org/a@b",
        "the keys of a dict?key",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor([]).text(text) == text


def test_what_is_cut_is_masked_before() -> None:
    assert Redactor(["hunter2"]).beginning("it is hunter2, is it?", 10) == "it is [sec"


def test_values_of_every_kind() -> None:
    assert Redactor(["hunter2"]).value(
        {"hunter2": ["hunter2", 1, None, True, 0.5, float("inf"), {"a"}, b"hunter2"]}
    ) == {MASK: [MASK, 1, None, True, 0.5, "inf", "{'a'}", f"b'{MASK}'"]}
