from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import pairwise
from re import sub

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from channels import markdown
from channels.webchat import blocks
from channels.webchat.blocks import Blocks
from channels.webchat.html import render, render_tokens
from tests.fakes import page_html
from tests.fakes.markdown_texts import FUZZ, markdown_texts
from tests.fakes.xss_payloads import PAYLOADS

REPLY = """\
# Two ways, *compared*

Use **one process** first: it is `simple`, see [the docs](https://a.example/x) or https://b.example/y.
It is **not** ~~slow~~ bad.

1. Measure
2. Then *decide*
   - with `care`
   - [x] done

> Quoted **words**

| a | b |
|---|--:|
| **1** | `2` |

```python
x = ["*a*", '`']  # [no](link)
```

5 * 3 & more < less
"""


class Page:
    """What a page shows that only applies what `changed` and `finish` tell."""

    def __init__(self) -> None:
        self.blocks: dict[int, str] = {}

    def apply(self, changes: list[tuple[int, str]]) -> None:
        assert [index for index, _ in changes] == sorted({index for index, _ in changes})
        for index, html in changes:
            assert self.blocks.get(index, "") != html, "told again without a change"
            self.blocks[index] = html

    @property
    def html(self) -> str:
        return "".join(self.blocks[index] for index in sorted(self.blocks))


def chunks(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def texts(pieces: list[str]) -> list[str]:
    """What a person reads after each piece."""
    reply, page, seen = Blocks(), Page(), []
    for piece in pieces:
        reply.feed(piece)
        page.apply(reply.changed())
        seen.append(unescape(sub("<[^>]*>", "", page.html)))
    return seen


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_reply_in_any_chunks_is_the_reply_rendered_at_once(size: int) -> None:
    reply, page = Blocks(), Page()
    for piece in chunks(REPLY, size):
        reply.feed(piece)
        page.apply(reply.changed())
        assert page.html == "".join(reply.html_blocks())
    page.apply(reply.finish())
    assert page.html == "".join(reply.html_blocks()) == render(REPLY)
    assert len(reply.html_blocks()) == 7
    assert reply.changed() == []


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("a\n```" + "b" * 4100, "`c\n"),
        ("a\n#" + " " * 4100, "b\n"),
        ("a\n|b|c|\n|-|-|" + " " * 4100, "d\n"),
        ("a\n| b | c |\n| --- |" + " " * 4100, "--- |\n"),
    ],
)
def test_block_is_finished_only_when_the_next_has_begun_beyond_doubt(start: str, rest: str) -> None:
    """On lines so long that they are shown undecided, and then turn out to be something else."""
    reply, page = Blocks(), Page()
    for piece in (start, rest):
        reply.feed(piece)
        page.apply(reply.changed())
    page.apply(reply.finish())
    assert page.html == render(start + rest)


@given(markdown_texts, st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["changed", "snapshot", ""]))))
@settings(FUZZ, max_examples=250)
def test_markdown_in_any_chunks_is_the_text_rendered_at_once(text: str, steps: list[tuple[int, str]]) -> None:
    """Without exception: `finish` renders once more where a definition could have changed an earlier link."""
    reply, page, at = Blocks(), Page(), 0
    for size, action in steps:
        reply.feed(text[at : at + size])
        at += size
        if action == "changed":
            page.apply(reply.changed())
            page_html.check(page.html)
        elif action == "snapshot":
            page_html.check("".join(reply.html_blocks()))
    reply.feed(text[at:])
    page.apply(reply.finish())
    assert page.html == "".join(reply.html_blocks()) == render(text)


def test_finished_blocks_are_told_once_and_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def counting(tokens: Sequence[Token]) -> str:
        rendered.append(render_tokens(tokens))
        return rendered[-1]

    monkeypatch.setattr(blocks, "render_tokens", counting)
    reply, told = Blocks(), []
    for number in range(200):
        reply.feed(f"Paragraph {number}\n\n")
        told += [index for index, _ in reply.changed()]
    assert told == list(range(200))
    assert len(rendered) < 3 * 200


@pytest.mark.parametrize("piece", ["lorem *ipsum* ", "- item\n", "| a | b |\n"])
def test_one_long_block_costs_in_proportion_to_its_length(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0
    original = markdown.parse

    def counting(text: str, references: markdown.References | None = None) -> list[Token]:
        nonlocal parsed
        parsed += len(text)
        return original(text, references)

    monkeypatch.setattr(markdown, "parse", counting)
    monkeypatch.setattr(blocks, "SMALL", 512)
    text = ("| a | b |\n|---|---|\n" if "|" in piece else "") + piece * (8 * 1024 // len(piece))
    reply = Blocks()
    for chunk in chunks(text, 32):
        reply.feed(chunk)
        reply.changed()
    reply.finish()
    assert parsed < len(text) * (blocks.GROWTH + 20)
    assert "".join(reply.html_blocks()) == render(text)


def test_a_small_reply_is_shown_whole_at_each_call() -> None:
    assert texts(["Hello", ", how", " are you"]) == ["Hello", "Hello, how", "Hello, how are you"]


def test_no_marker_is_ever_seen_on_the_way() -> None:
    seen = texts(list(REPLY))
    code = next(i for i, text in enumerate(seen) if "x = " in text)
    assert not any(
        mark in text for text in seen[:code] for mark in ("*", "~", "`", "[", "|", "#", "](", "--", ">")
    )


def test_text_only_grows() -> None:
    """Calm: what was read stays where it is."""
    seen = texts(list(REPLY))
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **bo", '<p dir="auto">a <strong>bo</strong></p>'),
        ("a **bo*", '<p dir="auto">a <strong>bo</strong></p>'),
        ("a **b *c", '<p dir="auto">a <strong>b <em>c</em></strong></p>'),
        ("a `co *d", '<p dir="auto">a <code>co *d</code></p>'),
        ("**a `b", '<p dir="auto"><strong>a <code>b</code></strong></p>'),
        ("a ~~b", '<p dir="auto">a <s>b</s></p>'),
        ("a **", '<p dir="auto">a</p>'),
        ("a 2*3", '<p dir="auto">a 2*3</p>'),
        ("a [b", '<p dir="auto">a</p>'),
        ("a [b](https://c", '<p dir="auto">a</p>'),
        ("a ![b](https://c.example/", '<p dir="auto">a</p>'),
        ("a `[` b", '<p dir="auto">a <code>[</code> b</p>'),
        ("a <https://b", '<p dir="auto">a</p>'),
        ("a &am", '<p dir="auto">a</p>'),
        ("a\n-", '<p dir="auto">a</p>'),
        ("a\n#", '<p dir="auto">a</p>'),
        ("- a\n- ", '<ul dir="auto"><li>a</li></ul>'),
        ("a\n\n| b | c |", '<p dir="auto">a</p>'),
        ("a\n\n| b | c |\n|--", '<p dir="auto">a</p>'),
        ("```py", ""),
        ("```\na\n``", '<pre dir="ltr"><code>a</code></pre>'),
        ("```\n- ![a", '<pre dir="ltr"><code>- ![a</code></pre>'),
    ],
)
def test_what_is_unfinished_looks_as_it_will(text: str, shown: str) -> None:
    reply = Blocks()
    reply.feed(text)
    assert "".join(reply.html_blocks()) == shown
    reply.finish()
    assert "".join(reply.html_blocks()) == render(text)


def test_what_was_held_back_is_shown_when_it_proves_to_be_text() -> None:
    assert texts(["a [b", " c] d"])[-1] == "a [b c] d"
    assert texts(["x\n\n| a | b |\n", "no table"])[-1] == "x| a | b |no table"
    assert texts(["a [" + "b" * 200])[-1] == "a [" + "b" * 200
    assert texts(["a **b\n\n", "c"])[-1] == "a **bc"


def test_links_are_resolved_at_the_end_when_their_definition_comes_last() -> None:
    reply, page = Blocks(), Page()
    text = "See [a].\n\nMore.\n\n[a]: https://a.example\n"
    for piece in chunks(text, 5):
        reply.feed(piece)
        page.apply(reply.changed())
    assert "<a " not in page.html
    page.apply(reply.finish())
    assert page.html == render(text)
    assert "<a " in page.html


def test_earlier_definitions_are_used_on_the_way() -> None:
    reply = Blocks()
    reply.feed("[a]: https://a.example\n\nOne\n\nTwo\n\n")
    reply.changed()
    reply.feed("See [a] now")
    assert '<a href="https://a.example"' in "".join(reply.html_blocks())


def test_text_past_the_limit_becomes_plain_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "MAX_TEXT", 4096)
    text = "**a** b\n\n" * 500
    reply, page = Blocks(), Page()
    for piece in chunks(text, 512):
        reply.feed(piece)
        page.apply(reply.changed())
    page.apply(reply.finish())
    assert page.html == render(text)


@pytest.mark.parametrize("payload", [*PAYLOADS[:-1:6], *(p for p in PAYLOADS if "```" in p)])
def test_payload_is_safe_at_every_split(payload: str) -> None:
    for split in range(len(payload) + 1):
        reply = Blocks()
        reply.feed(payload[:split])
        page_html.check("".join(html for _, html in reply.changed()))
        reply.feed(payload[split:])
        page_html.check("".join(reply.html_blocks()))
        reply.finish()
        assert "".join(reply.html_blocks()) == render(payload)


def test_feeding_while_another_thread_renders_loses_nothing() -> None:
    reply, pieces = Blocks(), chunks(REPLY * 20, 3)
    with ThreadPoolExecutor(1) as pool:
        renders = []
        for number, piece in enumerate(pieces):
            reply.feed(piece)
            if number % 20 == 0:
                renders.append(pool.submit(reply.changed))
        for done in renders:
            done.result()
    reply.finish()
    assert "".join(reply.html_blocks()) == render(REPLY * 20)
