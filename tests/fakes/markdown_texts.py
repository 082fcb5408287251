"""Random texts that look like Markdown: what hypothesis draws where plain random text would hit no rule."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_WORDS = r"""
    word **bold** *em* __bold__ _em_ ~~gone~~ `code` ``co`de`` ** * _ ~~ ` `` \ \* & &amp; &lt &#x41; < <b>
    </b> <!-- --> <http://a.example> <a@b.example> http://a.example https://b.example/x_(y). [x](http://a.example)
    [y](javascript:1) ![i](https://c.example/i.png) [r] [x][r] [ ] ( ) ! | 1. 2) 42 a_b 2*3 " ' é 重点 שלום
"""
_INLINE = _WORDS.split()
_LINES = [
    "- item",
    "* item",
    "1. one",
    "3) three",
    "- [ ] open",
    "- [x] done",
    "  - inner",
    "    code or inner",
    "\tcode",
    "# Heading",
    "### *Heading*",
    "===",
    "---",
    "***",
    "> quote",
    ">> deeper",
    "> - item",
    "```",
    "```python",
    "~~~ js",
    "> ```",
    "- ```",
    "| a | b |",
    "|---|:-:|",
    "| 1 | 2 |",
    "a | b",
    "-|-",
    "[r]: http://r.example",
    "[r]: <http://s.example> 'title'",
    "[s]: http://s.example 'title",
    "def f(): return 1",
    "<div>",
    "",
]
_ENDS = ["\n", "\n", "\n\n", "\n\n\n", "  \n", "\r\n", "\r"]
_ODD = ["\x00", "\x0b", "\x0c", "\u2028", "\u202e", "\ufeff", "\ud800", " ", "\t"]

_line = st.one_of(
    st.sampled_from(_LINES),
    st.lists(st.sampled_from([*_INLINE, *_INLINE, *_ODD]), max_size=6).map(" ".join),
    st.lists(st.sampled_from([*_INLINE, *_ODD]), max_size=6).map("".join),
    st.tuples(st.sampled_from(_LINES), st.sampled_from(_INLINE)).map(" ".join),
)

markdown_texts = st.lists(st.tuples(_line, st.sampled_from(_ENDS)).map("".join), max_size=12).map("".join)

FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # nothing here is about time
