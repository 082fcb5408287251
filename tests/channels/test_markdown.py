from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from channels import markdown
from channels.markdown import blocks, normal, parse, parse_inline, plain
from tests.fakes.markdown_texts import FUZZ, markdown_texts


def inline(text: str) -> list[tuple[str, str]]:
    """The inline tokens of a text of one block, as (type, content or address)."""
    (found,) = (token for token in parse(text) if token.type == "inline")
    described = [
        (token.type, token.content or str(token.attrs.get("href", ""))) for token in found.children or []
    ]
    return [token for token in described if token != ("text", "")]


def shown(tokens: list[Token]) -> str:
    """Everything that a person would read."""
    return "\n".join(
        "".join("\n" if child.type.endswith("break") else child.content for child in token.children)
        if token.children
        else token.content
        for token in tokens
        if token.content
    )


def link(address: str, text: str) -> list[tuple[str, str]]:
    return [("link_open", address), ("text", text), ("link_close", "")]


def types(text: str) -> list[str]:
    return [token.type for token in parse(text)]


def test_raw_html_is_text() -> None:
    assert inline("a <b>x</b>") == [("text", "a <b>x</b>")]
    assert types("<div>\nx\n</div>") == ["paragraph_open", "inline", "paragraph_close"]


def test_table_keeps_its_alignment() -> None:
    cells = [token.attrs for token in parse("|a|b|c|\n|:-|:-:|-:|\n|1|2|3|") if token.type == "td_open"]
    assert [cell["style"] for cell in cells] == ["text-align:left", "text-align:center", "text-align:right"]


def test_task_list_items_say_whether_they_are_done() -> None:
    items = [token.meta for token in parse("- [x] a\n- [ ] b\n- c") if token.type == "list_item_open"]
    assert items == [{"checked": True}, {"checked": False}, {}]


def test_strikethrough_needs_two_tildes() -> None:
    assert [kind for kind, _ in inline("~~gone~~ ~5 minutes~")] == ["s_open", "text", "s_close", "text"]


def test_fence_keeps_its_language_and_its_text() -> None:
    (token,) = parse("```python title=x\n<a> &amp; **b**\n```")
    assert (token.type, token.info, token.content) == ("fence", "python title=x", "<a> &amp; **b**\n")


@pytest.mark.parametrize(
    ("text", "address", "after"),
    [
        ("https://a.example", "https://a.example", ""),
        ("HTTPS://A.example/x", "HTTPS://A.example/x", ""),
        ("https://a.example/x?y=1&z=2#f.", "https://a.example/x?y=1&z=2#f", "."),
        ("https://a.example/x), and", "https://a.example/x", "), and"),
        ("https://a.example/x_(y))", "https://a.example/x_(y)", ")"),
        ("https://a.example/?!", "https://a.example/", "?!"),
        ("https://a.example，然后", "https://a.example", "，然后"),
        ("https://a.example>", "https://a.example", ">"),
        ('https://a.example"x', "https://a.example", '"x'),
        ("http://http://a.example", "http://http://a.example", ""),
    ],
)
def test_bare_address_becomes_a_link_without_the_sentence_around_it(
    text: str, address: str, after: str
) -> None:
    expected = link(address, address) + ([("text", after)] if after else [])
    assert inline(text) == expected
    assert inline(f"({text}") == [("text", "("), *expected]


@pytest.mark.parametrize(
    "text",
    ["http://", "https://...", "xhttp://a", "a-http://b", "ftp://a.example", "http:/a", "://a", "`http://a`"],
)
def test_what_only_resembles_an_address_stays_text(text: str) -> None:
    assert "link_open" not in [kind for kind, _ in inline(text)]


def test_bare_address_within_emphasis_and_links() -> None:
    strong = [("strong_open", ""), *link("https://a.example", "https://a.example"), ("strong_close", "")]
    assert inline("**https://a.example**") == strong
    assert inline("[see https://a.example now](https://b.example)") == link(
        "https://b.example", "see https://a.example now"
    )


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:image/png;base64,xx", "README.md", "//x.example", "/x", "#x", "https:x"],
)
def test_link_that_leads_elsewhere_is_dissolved_into_its_text(address: str) -> None:
    assert inline(f"[**text**]({address}) [ok](https://a.example)") == [
        ("strong_open", ""),
        ("text", "text"),
        ("strong_close", ""),
        ("text", " "),
        *link("https://a.example", "ok"),
    ]


@pytest.mark.parametrize(
    "address", ["http://a.example", "mailto:a@b.example", "tel:+123", "HTTPS://A.example"]
)
def test_allowed_schemes(address: str) -> None:
    assert inline(f"[x]({address})") == link(address, "x")


def test_image_becomes_a_link_with_its_alternative_text() -> None:
    assert inline("![a **b**\n`c`](https://a.example/i.png)") == link("https://a.example/i.png", "a b c")
    assert inline("![](https://a.example/i.png)") == link(
        "https://a.example/i.png", "https://a.example/i.png"
    )
    assert inline("![alt](data:image/png;base64,xx)") == [("text", "alt")]
    assert inline("![](data:image/png;base64,xx)") == [("text", "image")]


def test_image_within_a_link_is_its_alternative_text() -> None:
    assert inline("[![build](https://a.example/b.svg)](https://b.example)") == link(
        "https://b.example", "build"
    )
    assert inline("[![build](https://a.example/b.svg)](x)") == link("https://a.example/b.svg", "build")


def test_definition_that_is_a_note_stays_visible() -> None:
    assert shown(parse("[TODO]: buy\n\n[r]: https://a.example")) == "[TODO]: buy"
    assert inline("[r]\n\n[r]: https://a.example") == link("https://a.example", "r")


def test_references_of_earlier_text_are_known_and_win() -> None:
    references: markdown.References = {}
    parse("[r]: https://a.example", references)
    (_, paragraph, _) = parse("[r]\n\n[r]: https://b.example", references)
    assert paragraph.children is not None
    assert paragraph.children[0].attrs == {"href": "https://a.example"}


def test_blocks_are_cut_at_the_top_level_with_their_lines() -> None:
    text = "# a\nb\nc\n\n- d\n\n  e\n- f\n\n```\ng\n```\n***\n    h\n"
    found = [(block.tokens[0].type, block.start, block.end) for block in blocks(parse(text))]
    assert found == [
        ("heading_open", 0, 1),
        ("paragraph_open", 1, 3),
        ("bullet_list_open", 4, 9),
        ("fence", 9, 12),
        ("hr", 12, 13),
        ("code_block", 13, 14),
    ]


@given(markdown_texts)
@settings(FUZZ, max_examples=200)
def test_blocks_hold_every_token_and_do_not_overlap(text: str) -> None:
    tokens = parse(text)
    found = list(blocks(tokens))
    assert [token for block in found for token in block.tokens] == tokens
    assert all(block.start < block.end for block in found)
    assert all(one.start < two.start for one, two in pairwise(found))


@pytest.mark.parametrize("marker", [">", "> ", "- ", "1. ", "* > "])
def test_markers_nested_too_deep_are_text_and_what_follows_is_not_lost(marker: str) -> None:
    tokens = parse(f"**before**\n\n{marker * 60}kept\n\n**after**")
    before, deep, after = shown(tokens).split("\n")
    assert (before, after) == ("before", "after")
    assert deep.endswith(f"{marker}kept")
    assert max(token.level for token in tokens) <= markdown.MAX_NESTING


def test_nesting_that_people_write_is_kept() -> None:
    text = "\n".join("  " * depth + f"- level{depth}" for depth in range(9))
    assert types(text).count("list_item_open") == 9
    assert types(">" * 18 + " x").count("blockquote_open") == 18


@pytest.mark.parametrize("text", ["*a " * 400 + "b* " * 400, "![" * 300 + "a" + "](http://b)" * 300])
def test_inline_nested_too_deep_is_plain(text: str) -> None:
    assert {kind for kind, _ in inline(text)} <= {"text", "link_open", "link_close"}
    assert shown(parse(text)).replace("http://b", "").count("a") >= 1


def test_text_that_is_too_long_is_plain() -> None:
    text = "**a**\n\n- b\n" * (markdown.MAX_TEXT // 10)
    tokens = parse(text)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert shown(tokens) == text.strip("\n")


def test_table_ends_after_its_last_cell_and_loses_no_row() -> None:
    text = "|" + "a|" * 100 + "\n|" + "-|" * 100 + "\n" + "|x\n" * 1000
    tokens = parse(text)
    assert 0 < sum(token.type == "td_open" for token in tokens) <= markdown.MAX_CELLS
    assert shown(tokens).count("x") == 1000


_HOSTILE = [
    "[",
    "![",
    "> ",
    "*a ",
    "a**b",
    "*_",
    "[a](",
    "[a](<b",
    "[]",
    "`a ",
    "<a ",
    "&a",
    "\\",
    "|a\n",
    "- a\n",
]
_HOSTILE += [
    "[a\n",
    "a\n=\n",
    "http://",
    "x://",
    "http://a)",
    "https://a. ",
    "[r]: http://a\n",
    "#\n",
    "-\n*\n",
]


@pytest.mark.parametrize("piece", _HOSTILE)
def test_work_is_in_proportion_to_the_length(piece: str) -> None:
    """Four times the text, at most six times the calls: counted, not timed."""
    assert calls(piece * 1000) < 6 * calls(piece * 250)


def calls(text: str) -> int:
    """Count the function calls, of Python and of C, that a parse makes."""
    count = 0

    def tick(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    parse("warm")
    previous = sys.getprofile()
    sys.setprofile(tick)
    try:
        parse(text)
    finally:
        sys.setprofile(previous)
    return count


def test_carriers_differences_are_removed() -> None:
    assert normal("a\r\nb\rc\0\ud800d") == "a\nb\nc\ufffd\ufffdd"
    assert shown(parse("a\ud800\r\n\r\nb\0")) == "a\ufffd\nb\ufffd"


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("**bold", "**"),
        ("*em **both", "***"),
        ("~~gone *em", "*~~"),
        ("_em", "_"),
        ("a_b 2*3 * x", ""),
        ("中**文", "**"),
        ("**closed** *x*", ""),
        ("**first line\nsecond", ""),
    ],
)
def test_open_emphasis_is_told(text: str, markers: str) -> None:
    assert "".join(parse_inline(text)[1]) == markers
    assert parse_inline(text + markers)[1] == []


@given(st.text())
@settings(FUZZ, max_examples=200)
def test_plain_text_is_kept_whole(text: str) -> None:
    assert shown(plain(text)) == text.strip("\n")


@given(st.one_of(st.text(), markdown_texts))
@settings(FUZZ, max_examples=300)
def test_any_text_can_be_parsed_and_keeps_the_promises(text: str) -> None:
    for token in parse(text):
        assert not token.type.startswith("html")
        for child in token.children or []:
            assert child.type not in ("image", "html_inline")
            if child.type == "link_open":
                address = str(child.attrs["href"])
                assert address.partition(":")[0].lower() in markdown.SCHEMES
                address.encode()


def test_importing_it_does_not_import_the_parser() -> None:
    code = "import sys, channels.markdown; assert 'markdown_it' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
