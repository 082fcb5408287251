"""How a text of any length becomes messages."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from telegram import MessageEntity

from channels.telegram import chunks
from channels.telegram.chunks import opening, split
from channels.telegram.formatted import MAX_UNITS, Formatted, Span, joined, units, visible
from channels.telegram.render import render
from tests.fakes.markdown_texts import FUZZ, markdown_texts
from tests.fakes.telegram_checks import Refusal, checked

FAMILY = "👨‍👩‍👧‍👦"
SMALL = 40  # units, where a property is tried with many short messages


def texts(parts: Sequence[Formatted]) -> list[str]:
    return [part.text for part in parts]


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", []),
        (" \n\u200b\u2800", []),
        ("x" * 4096, [4096]),
        ("x" * 4097, [4096, 1]),
        ("😀" * 2048, [4096]),
        ("😀" * 2049, [4096, 2]),
        ("x" + "😀" * 2048, [4095, 2]),
        (FAMILY * 400, [4092, 308]),  # 11 units each
    ],
)
def test_a_message_has_4096_utf16_units(text: str, sizes: list[int]) -> None:
    parts = texts(split(Formatted(text)))
    assert [units(part) for part in parts] == sizes
    assert "".join(parts) == text if sizes else True


@pytest.mark.parametrize(
    ("before", "between"),
    [
        ("Paragraph one. Still one.\nA line.", "\n\n"),
        ("A line. A sentence.", "\n"),
        ("A sentence of words.", " "),
        ("一个句子。", ""),
        ("words and words", " "),
    ],
)
def test_a_text_is_cut_at_the_most_natural_place(before: str, between: str) -> None:
    first = "w" * 3_000 + " " + before
    second = "x" * 1_500
    assert texts(split(Formatted(first + between + second)))[0] == first


def test_a_word_is_cut_where_there_is_nothing_else() -> None:
    assert texts(split(Formatted("é" * 5_000))) == ["é" * 4_096, "é" * 904]


def test_a_letter_of_several_code_points_is_not_cut() -> None:
    first, second = texts(split(Formatted("x" * 4_090 + FAMILY + "y")))
    assert (first, second) == ("x" * 4_090, FAMILY + "y")


def test_code_that_fits_into_a_message_is_not_cut() -> None:
    code = "\n".join(f"line {number}" for number in range(300))
    first, second = split(render("x" * 2_000 + f"\n\n```py\n{code}\n```\n\nafter"))
    assert first == Formatted("x" * 2_000)
    assert second.text == code + "\n\nafter"
    assert second.spans == (Span("pre", 0, len(code), language="py"),)


def test_longer_code_goes_on_in_the_next_message_with_its_language() -> None:
    lines = [f"    call(number={number})" for number in range(500)]
    parts = split(render("Look:\n\n```py\n" + "\n".join(lines) + "\n```"))
    assert len(parts) > 2
    assert all(part.spans[-1].language == "py" and part.spans[-1].kind == "pre" for part in parts)
    codes = [part.text[part.spans[-1].start : part.spans[-1].end] for part in parts]
    assert "\n".join(codes).split("\n") == lines  # no line is cut, none loses its indentation


def test_a_link_is_not_cut() -> None:
    label = ("a long label " * 20).strip()
    parts = split(render("word " * 790 + f"[{label}](https://a.example) after" + " word" * 300))
    links = [(part.text[s.start : s.end], s.url) for part in parts for s in part.spans]
    assert links == [(label, "https://a.example")]


def test_a_span_without_any_break_in_it_is_not_cut() -> None:
    parts = split(render("a" * 3_000 + "**" + "b" * 2_000 + "**"))
    assert texts(parts) == ["a" * 3_000, "b" * 2_000]


def test_what_is_bold_for_longer_than_a_message_is_bold_in_both() -> None:
    parts = split(render("**" + "words " * 1_000 + "end**"))
    assert [part.spans for part in parts] == [(Span("bold", 0, len(part.text)),) for part in parts]
    assert len(parts) == 2


def test_a_message_has_100_entities_and_the_important_ones() -> None:
    formatted = render("**b** " * 90 + "*i* " * 90 + "`c` [l](https://a.example)\n```py\nx\n```")
    entities = formatted.entities()
    assert len(entities) == 100
    kinds = [entity.type for entity in entities]
    assert (kinds.count("bold"), kinds.count("italic")) == (90, 7)
    assert kinds[-3:] == ["code", "text_link", "pre"]


def test_entities_count_in_utf16() -> None:
    assert render("😀 **b😀** `c`").entities() == [
        MessageEntity("bold", 3, 3),
        MessageEntity("code", 7, 1),
    ]


def test_joined_texts_keep_their_spans() -> None:
    whole = joined([render("*a*"), render("**b**")])
    assert whole == Formatted("a\n\nb", (Span("italic", 0, 1), Span("bold", 3, 4)))


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ("It is **five** past ten, and all is well.", "It is five past …"),
        ("Hi!", "H …"),
        ("H", "…"),
        ("…", "⏳"),
        ("x …", "…"),
        ("一个很长的句子没有空格", "一个很长的 …"),
        (FAMILY, "…"),
        ("   ", "…"),
    ],
)
def test_an_opening_is_a_part(text: str, begun: str) -> None:
    assert opening(render(text) if text.strip() else Formatted(text)).text == begun


def test_an_opening_keeps_its_formatting() -> None:
    assert opening(render("It is **five past ten** or a bit more")).spans == (Span("bold", 6, 15),)


_texts = (
    markdown_texts
    | st.text()
    | st.lists(st.sampled_from(["a", "é", "😀", FAMILY, "\u200d", " ", "\n", "。"])).map("".join)
)


@FUZZ
@given(_texts)
@example("```\n" + "    x\n" * 20 + "```")
@example("> " + "q\n> " * 40)
@example("**" + "b" * 100 + "**")
def test_any_text_becomes_messages_that_telegram_takes(source: str) -> None:
    whole = render(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MAX_UNITS", SMALL)
        parts = split(whole)
    for part in parts:
        assert 0 < units(part.text) <= SMALL
        assert not re.search("[\ud800-\udfff]", part.text)
        entities = [entity.to_dict() for entity in part.entities()]
        assert checked(part.text, entities).entities == entities or _trimmed_there(part)
    blank = {char for char in whole.text if not visible(char)}
    kept = "".join(char for char in "".join(texts(parts)) if char not in blank)
    assert kept == "".join(char for char in whole.text if char not in blank)


def _trimmed_there(part: Formatted) -> bool:
    """Telegram drops white space and controls that we would keep; then offsets are others."""
    try:
        plain = checked(part.text, [])
    except Refusal:
        return False
    return plain.text != part.text


@FUZZ
@given(_texts)
def test_what_fits_into_one_message_is_not_cut(source: str) -> None:
    whole = render(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MAX_UNITS", SMALL)
        parts = split(whole)
    pieces = [(s.kind, part.text[s.start : s.end].strip()) for part in parts for s in part.spans]
    outer: list[Span] = []
    for span in whole.spans:
        if not outer or span.start >= outer[-1].end:
            outer.append(span)
    for span in outer:
        text = whole.text[span.start : span.end].strip()
        if visible(text) and units(whole.text[span.start : span.end]) <= SMALL:
            assert (span.kind, text) in pieces


@FUZZ
@given(_texts)
def test_a_message_of_the_real_size_is_never_too_long(source: str) -> None:
    for part in split(render(source * 40)):
        assert units(part.text) <= MAX_UNITS
