from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import count
from re import findall, sub

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from channels.webchat import highlight as colours
from channels.webchat import html
from channels.webchat.highlight import highlight
from channels.webchat.html import render, render_tokens
from tests.fakes import page_html
from tests.fakes.markdown_texts import FUZZ, markdown_texts
from tests.fakes.xss_payloads import PAYLOADS

LINK = 'target="_blank" rel="noopener noreferrer"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a **b** *c* ~~d~~ `e<f>`",
            "<p>a <strong>b</strong> <em>c</em> <s>d</s> <code>e&lt;f&gt;</code></p>",
        ),
        ("one\ntwo  \nthree", "<p>one<br>two<br>three</p>"),
        ("# a\n\n## b\n\n### c\n\n#### d", "<h3>a</h3><h4>b</h4><h5>c</h5><h6>d</h6>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("3. a\n\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ('[a](https://b.example "c")', f'<p><a href="https://b.example" title="c" {LINK}>a</a></p>'),
        ("![a](https://b.example/i.png)", f'<p><a href="https://b.example/i.png" {LINK}>a</a></p>'),
        ("mail <a@b.example>", f'<p>mail <a href="mailto:a@b.example" {LINK}>a@b.example</a></p>'),
        ("<b>a</b> & &copy;", "<p>&lt;b&gt;a&lt;/b&gt; &amp; ©</p>"),
        ("    a\n     b", "<pre><code>a\n b</code></pre>"),
        ("", ""),
        (" \n\n", ""),
    ],
)
def test_rendering(text: str, expected: str) -> None:
    assert sub(' dir="(auto|ltr)"', "", render(text)) == expected


def test_table_scrolls_in_its_own_box_and_keeps_its_alignment() -> None:
    assert render("| a | b |\n|:-:|---|\n| 1 | 2 |") == (
        '<div class="table" dir="auto"><table><thead><tr><th class="center">a</th><th>b</th></tr></thead>'
        '<tbody><tr><td class="center">1</td><td>2</td></tr></tbody></table></div>'
    )


def test_task_list_says_its_state_in_words() -> None:
    done = '<span class="check" role="img" aria-label="done">☑</span> '
    not_done = '<span class="check" role="img" aria-label="not done">☐</span> '
    assert render("- [x] a\n- [ ] b\n- c") == (
        f'<ul dir="auto"><li class="task">{done}a</li><li class="task">{not_done}b</li><li>c</li></ul>'
    )
    assert f'<li class="task"><p>{done}a</p></li>' in render("- [x] a\n\n- b")
    assert f'<li class="task">{done}</li><li>b</li>' in render("- [x] \n- b")
    assert f'<li class="task">{done}<pre' in render("- [x] ```\n  a")


def test_direction_follows_the_text_of_each_top_level_block() -> None:
    found = findall(r"<(\w+)[^>]* dir=\"auto\"", render("שלום\n\n- a\n\n> b\n\n1. c\n\n# d\n\n|e|\n|-|"))
    assert found == ["p", "ul", "blockquote", "ol", "h3", "div"]
    assert render("> - a").count("dir=") == 1, "a nested direction would hide its text from the outer one"
    assert '<pre dir="ltr">' in render("```\nשלום\n```")


def test_code_has_its_language_and_colours() -> None:
    assert render('```python title="x"\nif x:\n    "<s>"  # c\n```') == (
        '<pre dir="ltr" data-language="python"><code class="language-python"><span class="k">if</span> x:\n'
        '    <span class="s">"&lt;s&gt;"</span>  <span class="c"># c</span></code></pre>'
    )


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("C++", "c++"),
        ("{.py}", ""),
        ("py:main.py", "py"),
        ("js{1,3}", "js"),
        ("x" * 33, ""),
        ("ünï", ""),
        ("f#", "f#"),
    ],
)
def test_language_of_a_fence(info: str, language: str) -> None:
    assert findall('data-language="(.*?)"', render(f"```{info}\nx\n```")) == ([language] if language else [])


@pytest.mark.parametrize("language", sorted(colours.LANGUAGES))
def test_every_language_is_coloured_without_changing_the_code(language: str) -> None:
    code = "a = 'x' # < & >\n\n\tif (1) { return \"y\"; }\n\n"
    coloured = highlight(code, language)
    assert coloured is not None
    assert unescape(sub(r'<span class="\w+">|</span>', "", coloured)) == code


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("x", "nosuch"),
        ("x", ""),
        ("x\n" * (colours.MAX_CODE // 2 + 1), "python"),
        ("x" * (colours.MAX_LINE + 1), "python"),
        ("\ufeffx", "python"),
    ],
)
def test_code_without_colours(code: str, language: str) -> None:
    assert highlight(code, language) is None
    assert page_html.check(render(f"```{language}\n{code}\n```")) == code


def test_colouring_is_given_up_when_it_takes_too_long() -> None:
    ticks = count(step=0.01)
    assert highlight("x = 1\n" * 100, "python", clock=lambda: next(ticks)) is None
    assert highlight("x = 1\n" * 100, "python", clock=lambda: 0.0) is not None


def test_text_that_grows_too_much_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_HTML", 2000)
    assert render("-\n*\n" * 20).startswith("<ul")
    assert render("-\n*\n" * 200) == '<p dir="auto">' + "-<br>*<br>" * 199 + "-<br>*</p>"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload_stays_text(payload: str) -> None:
    page_html.check(render(payload))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//x.example", "https:x", "/x"])
@pytest.mark.parametrize("tag", ["a", "img", "svg", "script"])
def test_second_wall_holds_without_the_first(url: str, tag: str) -> None:
    """Tokens that `parse` would never make: what a bug in it could let through."""
    tokens = [
        Token("paragraph_open", "p", 1, attrs={"id": "x"}),
        Token(
            "inline", "", 0, children=[Token("link_open", tag, 1, attrs={"href": url, "onclick": "alert(1)"})]
        ),
    ]
    rendered = render_tokens(tokens)
    assert set(findall(r"<(\w+)", rendered)) <= {"p", "a"}
    assert not findall(r"href|onclick|id=", rendered)


def test_second_wall_knows_no_other_values() -> None:
    bad = [
        '<p dir="rtl" class="x" style="color:red" id="x">a</p>',
        '<span class="composer c" role="button" aria-label="Send">a</span>',
        '<code class="language-x composer">a</code>',
        '<div class="message">a</div><form><input></form><img src="https://x.example">',
        '<a href="https://a.example" target="_top" rel="opener">a</a>',
    ]
    assert html._cleaner().clean("".join(bad)) == (
        '<p>a</p><span class="c">a</span><code>a</code><div class="">a</div>'
        f'<a href="https://a.example" {LINK}>a</a>'
    )


@given(st.text())
@settings(FUZZ, max_examples=300)
def test_any_text_is_safe(text: str) -> None:
    page_html.check(render(text))


@given(st.one_of(markdown_texts, st.lists(st.sampled_from(PAYLOADS), max_size=4).map("\n".join)))
@settings(FUZZ, max_examples=300)
def test_any_markdown_is_safe(text: str) -> None:
    page_html.check(render(text))


def test_threads_render_alike() -> None:
    texts = [f"# {i}\n\n- **a** {i}\n\n```python\nx = {i}\n```" for i in range(20)] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(render, texts)) == [render(text) for text in texts]


def test_importing_it_imports_no_library() -> None:
    code = (
        "import sys, channels.webchat.html, channels.webchat.blocks\n"
        "assert not {'markdown_it', 'nh3', 'pygments'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
