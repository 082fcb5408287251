"""Markdown as lines of a terminal."""

from __future__ import annotations

import re

import pytest

from channels.cli.draft import Draft, Reply
from channels.cli.paint import Painter, settled
from channels.cli.view import Faint, Part, Said, Trouble


def painted(source: str, width: int = 40) -> str:
    return "\n".join(line.ansi for line in Painter("none").reply(Reply(source), width))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("# Title\n\ntext", "Title\n\ntext"),
        ("one\ntwo", "one\ntwo"),
        ("- a\n- b\n  - c", " • a\n • b\n    • c"),
        ("- [x] a\n- [ ] b", " • ☑ a\n • ☐ b"),
        ("3. a\n4. b", " 3 a\n 4 b"),
        ("[here](https://a.b/c) https://a.b/d", "here (https://a.b/c) https://a.b/d"),
        ("![cat](https://a.b/c.png)", "cat (https://a.b/c.png)"),
        ("List<int> & <b>x</b>", "List<int> & <b>x</b>"),
        ("> said", "▌ said"),
        ("```py\nx = 1\n\n    y\n```", "── py\nx = 1\n\n    y\n──"),
        ("| a | b |\n|---|--:|\n| 1 | 22 |", "a    b\n──────\n1   22"),
        ("日本語です", "日本語です"),
        ("[x](javascript:alert(1))", "x"),
        ("\ud800", "\ufffd"),
        ("", ""),
    ],
)
def test_markdown(source: str, shown: str) -> None:
    assert [line.rstrip() for line in painted(source).split("\n")] == shown.split("\n")


def test_text_is_wrapped_and_code_is_not() -> None:
    words, code = "word " * 30, "x = " + "1 + " * 30 + "1"
    assert all(len(line) <= 40 for line in painted(words).split("\n"))
    assert code in painted(f"```\n{code}\n```").split("\n")
    (line,) = (line for line in Painter("none").reply(Reply(f"```\n{code}\n```"), 40) if "x =" in line.ansi)
    assert line.rows(40) == 4


def test_no_line_ends_in_blanks() -> None:
    source = "# T\n\nshort words\n\n- item\n\n| a | b |\n|---|---|\n| x | y |\n\n```\ncode   \n```"
    assert not re.search(r" (?:\x1b\[0m)?$", painted(source), re.MULTILINE)


def test_a_table_without_room_is_shown_as_its_source() -> None:
    source = "| " + " | ".join(f"c{n}" for n in range(12)) + " |\n|" + "---|" * 12
    assert painted(source) == source


def test_a_long_word_in_a_table_is_not_cut() -> None:
    word = "https://example.org/" + "x" * 60
    shown = painted(f"| a | b |\n|---|---|\n| 1 | {word} |")
    assert "".join(re.findall(r"\S{3,}", shown.split("─\n")[1])) == word


def test_wide_characters_are_counted() -> None:
    (line,) = Painter("none").reply(Reply("日本 🎉"), 40)
    assert line.cells == 7


@pytest.mark.parametrize(("styles", "codes"), [("none", set()), ("mono", {"1"}), ("colours", {"1", "36"})])
def test_colours_only_where_they_are_wanted(styles: str, codes: set[str]) -> None:
    lines = Painter(styles).reply(Reply("**bold** `code`"), 40)  # type: ignore[arg-type] # parametrized
    found = set(re.findall(r"\x1b\[([0-9;]+)m", "".join(line.ansi for line in lines)))
    assert found - {"0"} == codes


def test_parts_are_set_off_from_each_other() -> None:
    parts: list[Part] = [
        Faint("a"),
        Faint("b"),
        Said("q\nr"),
        Reply("x"),
        Reply("y", joined=True),
        Trouble("z"),
    ]
    lines = [line.ansi for line in Painter("none").paint(parts, 40)]
    assert lines == ["a", "b", "", "› q", "  r", "", "x", "y", "", "✗ z"]


LONG = """# Title

First paragraph
in two lines.

1. one
2. two
   with more

   - nested
3. three

```python
def f():
    return 1

# end
```

| a | b |
|---|---|
| 1 | 2 |
| 3 | 4 |

- x
- y

~~~
tilde ``` inside
~~~

> quote
> more

Last one."""


@pytest.mark.parametrize("step", [1, 3, 7, 20])
def test_what_has_settled_looks_the_same_in_the_end(step: int) -> None:
    """Shown for good as early as possible, piece by piece, a reply looks as it does at once."""
    painter = Painter("none")
    draft = Draft("t1")
    pieces = [Faint("before")]
    lines = painter.paint(pieces, 40)
    for at in range(0, len(LONG), step):
        draft.add(LONG[at : at + step])
        kept = settled(draft.rest)
        if kept.length:
            lines += painter.paint([draft.keep(kept.length, kept.lead, joined=kept.joined)], 40)
    rest, anew = draft.finish(LONG)
    lines += painter.paint([rest], 40)
    assert not anew
    whole = Painter("none").paint([*pieces, Reply(LONG)], 40)
    assert [line.ansi for line in lines] == [line.ansi for line in whole]
