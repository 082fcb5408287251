"""Words of all scripts, and queries that are never syntax."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agent.search_words import queries, searchable


def matches(text: str, query: str) -> bool:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE VIRTUAL TABLE t USING fts5(w, tokenize='unicode61 remove_diacritics 2')")
        database.execute("INSERT INTO t VALUES (?)", (searchable(text),))
        return any(
            database.execute("SELECT 1 FROM t WHERE t MATCH ?", (query,)).fetchone()
            for query in queries(query)
        )
    finally:
        database.close()


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("My dog is called Émile", "emile"),
        ("Mein Hund heißt Bello", "HUND"),
        ("the appointments of May", "appointment"),
        ("我住在東京都港区", "東京"),
        ("我住在東京都港区", "京"),
        ("きのうカレーを食べた", "カレー"),
        ("서울에서 만나요", "서울"),
        ("ฉันชอบแมวสีดำ", "แมว"),
        ("version 2.0 of app_x", "app_x"),
        ("Ich mag GitHub東京meetup", "meetup"),
        ("a needle in it", "needle that nobody else said"),
    ],
)
def test_what_was_said_is_found(text: str, query: str) -> None:
    assert matches(text, query)


def test_what_was_not_said_is_not_found() -> None:
    assert not matches("我住在東京都港区", "京東")
    assert not matches("a cat", "ca")  # two letters are a word, not a beginning
    assert not list(queries('"*^:- ()'))


@pytest.mark.parametrize(
    "query",
    ['"', '""', "a OR", "NEAR(a b", "w:x", "-a", "^a", "a*b", "AND", "{w} : x", "a' --", "x; DROP TABLE t"],
)
def test_no_query_is_syntax(query: str) -> None:
    matches("a OR x", query)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_searched_for_any_other(text: str, query: str) -> None:
    matches(text.encode("utf-8", "replace").decode(), query)
