"""What Telegram shows of Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import markdown
from channels.telegram import tables
from channels.telegram.formatted import Formatted
from channels.telegram.render import render
from tests.fakes.markdown_texts import FUZZ, markdown_texts
from tests.fakes.telegram_checks import nested

_TAGS = {"bold": "b", "italic": "i", "strikethrough": "s", "code": "code", "blockquote": "q"}


def marked(formatted: Formatted) -> str:
    """The text with its spans as tags."""
    at: dict[int, list[tuple[int, str]]] = {}
    for order, span in enumerate(formatted.spans):
        tag = _TAGS.get(span.kind, "")
        if span.kind == "pre":
            tag = f"pre:{span.language}" if span.language else "pre"
        opening = f"<{tag}>" if tag else f"<{span.url}>"
        at.setdefault(span.start, []).append((order, opening))
        at.setdefault(span.end, []).insert(0, (-order - 1, f"</{tag}>"))
    text = formatted.text + "\0"
    tagged = ("".join(tag for _, tag in sorted(at.get(index, []))) + char for index, char in enumerate(text))
    return "".join(tagged)[:-1]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("plain", "plain"),
        ("**b** *i* ~~s~~ `c`", "<b>b</b> <i>i</i> <s>s</s> <code>c</code>"),
        ("***both***", "<i><b>both</b></i>"),
        ("**outer *inner* outer**", "<b>outer <i>inner</i> outer</b>"),
        ("**a `c` b**", "<b>a </b><code>c</code><b> b</b>"),
        ("one\ntwo  \nthree", "one\ntwo\nthree"),
        ("one\n\n\n\ntwo", "one\n\ntwo"),
        ("# One\n## *Two* `c`", "<b>One</b>\n\n<b><i>Two</i> </b><code>c</code>"),
        ("# A **bold** word", "<b>A bold word</b>"),
        ("[a](https://a.example)", "<https://a.example>a</>"),
        ("[`c` **b**](https://a.example)", "<https://a.example>c <b>b</b></>"),
        ("![alt](https://a.example/i.png)", "<https://a.example/i.png>alt</>"),
        (
            "https://a.example <https://b.example> <a@b.example>",
            "https://a.example https://b.example a@b.example",
        ),
        ("[call](tel:+123) [mail](mailto:a@b.example)", "call (+123) mail (a@b.example)"),
        ("[bad](javascript:alert(1))", "bad"),
        ("```py\nx = 1\n  y\n```", "<pre:py>x = 1\n  y</pre:py>"),
        ("``` C++ {1}\nx\n```", "<pre:c++>x</pre:c++>"),
        ("a\n\n    indented\n\nb", "a\n\n<pre>indented</pre>\n\nb"),
        ("```\n```", ""),
        ("- a\n- b\n  more", "• a\n• b\n  more"),
        ("Here:\n- a\n  1. x\n  2. y\n- b", "Here:\n\n• a\n  1. x\n  2. y\n• b"),
        ("- a\n\n- b", "• a\n\n• b"),
        ("7) seven\n8) eight", "7) seven\n8) eight"),
        ("- [x] done\n- [ ] open\n1. [x] first", "☑ done\n☐ open\n\n1. ☑ first"),
        ("-\n- b", "• \n• b"),
        ("- a\n  ```\n  x\n  ```\n- b", "• a\n<pre>x</pre>\n• b"),
        ("- ```\n  x\n  ```", "• \n<pre>x</pre>"),
        ("> a\n> b\n\nc", "<q>a\nb</q>\n\nc"),
        ("> a\n>> b\n>> c", "<q>a\n\n> b\n> c</q>"),
        ("- > a\n  > b", "• <q>a\n  b</q>"),
        ("> ```js\n> x\n> ```", "<q><pre:js>x</pre:js></q>"),
        ("a\n\n---\n\nb", "a\n\n──────────\n\nb"),
        ("&lt;b&gt; <i>no html</i>", "<b> <i>no html</i>"),
    ],
)
def test_each_part_of_markdown(source: str, shown: str) -> None:
    assert marked(render(source)) == shown


def test_a_narrow_table_is_set_in_columns() -> None:
    shown = marked(render("| Fruit | No. |\n|---|--:|\n| **Pear** | 12 |\n| 重点 | `3` |"))
    assert shown == "<pre>Fruit | No.\n------+----\nPear  |  12\n重点  |   3</pre>"


def test_a_wide_table_is_lines_with_their_heads() -> None:
    wide = "x" * 38
    shown = marked(render(f"| Name | What it *is* | |\n|---|---|---|\n| a | {wide} | **z** |\n| b | | y |"))
    assert shown == (
        f"<b>Name: a</b>\nWhat it <i>is</i>: {wide}\n<b>z</b>\n\n<b>Name: b</b>\nWhat it <i>is</i>\ny"
    )


def test_a_table_keeps_its_links() -> None:
    shown = marked(render("| a | b |\n|---|---|\n| 1 | [two](https://a.example) |"))
    assert shown == "<b>a: 1</b>\nb: <https://a.example>two</>"


def test_the_heads_of_a_long_table_are_not_repeated_without_end() -> None:
    head = "| " + "h" * 2_000 + " |\n|---|\n"
    assert len(render(head + "| a |\n" * 2_000).text) < 2_000 + 3 * 2_000


def test_deep_nesting_does_not_move_out_of_the_screen() -> None:
    text = "".join("   " * depth + "1. x\n" for depth in range(10))
    assert max(len(line) for line in render(text).text.split("\n")) < 20


def test_all_of_the_worst_is_text() -> None:
    for worst in (
        "[" * 20_000,
        "> " * 9 + "- " * 40_000,
        "a\ud800\0b",
        "*" * 30_000,
        "|a|\n|-|\n" + "|\n" * 9_000,
    ):
        render(worst)


def _letters(source: str) -> list[str]:
    """What the parse says that there is to see, in order."""
    found: list[str] = []
    for token in markdown.parse(source):
        if token.type == "inline":
            found += [word for child in token.children or [] for word in child.content.split()]
        elif token.type in ("fence", "code_block"):
            found += token.content.split()
    return found


@FUZZ
@given(markdown_texts | st.text())
def test_nothing_visible_is_lost(source: str) -> None:
    rest = "".join(render(source).text.split())
    in_order = all(token.type != "table_open" for token in markdown.parse(source))  # or row by row
    for letters in _letters(source):
        assert letters in rest
        if in_order:
            rest = rest[rest.index(letters) + len(letters) :]


@FUZZ
@given(markdown_texts)
def test_entities_are_as_telegram_wants_them(source: str) -> None:
    formatted = render(source)
    spans = [{"type": s.kind, "offset": s.start, "length": s.end - s.start} for s in formatted.spans]
    assert nested(list(spans)) == spans
    assert all(0 <= s.start < s.end <= len(formatted.text) for s in formatted.spans)


def test_table_parts() -> None:
    table = tables.read(markdown.parse("| a | b |\n|:-:|--:|\n| 1 | `2` |"))
    assert table.texts == [["a", "b"], ["1", "2"]]
    assert table.right == [False, True]
