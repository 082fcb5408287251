"""Code in colours: pygments' tokens as a few `<span class>` elements, which the page's style sheet colours.

Pygments takes 10 ms to import and a few more for each language, so both wait for the first code block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from html import escape
from itertools import groupby
from operator import itemgetter
from time import thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from pygments.token import _TokenType

MAX_CODE = 16 * 1024  # characters
MAX_LINE = 1_000  # many a lexer takes time in proportion to the square of a line
# Seconds of the thread's own processor time, several times what honest code of that size takes: pygments'
# lexers for C#, Java or Python take seconds (C# 25) for 16 KiB of blank or one-letter lines.
MAX_SECONDS = 0.5

# Those whose lexers spend little time on any single token, whatever the text: between tokens time can be
# called, within one nothing can interrupt a regular expression, and it holds up every other thread.
_LANGUAGES = """
    bash c c# c++ clojure cmake console cpp cs csharp css dart diff docker dockerfile elixir elm erlang fish
    go golang graphql groovy haskell hcl html ini java javascript js json json5 jsx julia kotlin latex lua
    make makefile md markdown nginx nim nix objective-c ocaml perl php powershell ps1 py python pycon r rb
    ruby rs rust scala scheme scss sh shell shell-session sql swift terraform tex toml ts tsx typescript vim
    vue xml yaml yml zig zsh
"""
LANGUAGES = frozenset(_LANGUAGES.split())

# Pygments' own short names, for the nearest of a token type and its ancestors.
_CLASSES = {
    "Comment": "c",
    "Comment.Preproc": "cp",
    "Generic.Deleted": "gd",
    "Generic.Heading": "gh",
    "Generic.Inserted": "gi",
    "Generic.Prompt": "gp",
    "Generic.Subheading": "gh",
    "Keyword": "k",
    "Keyword.Constant": "kc",
    "Keyword.Type": "kt",
    "Literal.Number": "m",
    "Literal.String": "s",
    "Literal.String.Doc": "c",
    "Literal.String.Escape": "se",
    "Literal.String.Interpol": "se",
    "Name.Attribute": "na",
    "Name.Builtin": "nb",
    "Name.Class": "nc",
    "Name.Constant": "kc",
    "Name.Decorator": "nd",
    "Name.Exception": "nc",
    "Name.Function": "nf",
    "Name.Tag": "nt",
    "Name.Variable": "nv",
    "Operator.Word": "k",
}
CLASSES = frozenset(_CLASSES.values())


def highlight(code: str, language: str, clock: Callable[[], float] = thread_time) -> str | None:
    """Render code as escaped HTML with spans of `CLASSES`.

    None for a language that is not one of `LANGUAGES`, and for code that is too large or takes too long, by
    `clock` (seconds).
    """
    if language not in LANGUAGES or len(code) > MAX_CODE or max(map(len, code.split("\n"))) > MAX_LINE:
        return None
    tokens: list[tuple[str, str]] = []
    lexer = _lexer(language)
    deadline = clock() + MAX_SECONDS
    for kind, text in lexer.get_tokens(code):
        if clock() > deadline:
            return None
        tokens.append((_class_of(kind), text))
    if "".join(text for _, text in tokens) != code:
        return None  # a lexer that adds or drops something would change what a person copies
    return "".join(_span(name, run) for name, run in groupby(tokens, key=itemgetter(0)))


def _span(name: str, run: Iterator[tuple[str, str]]) -> str:
    text = escape("".join(text for _, text in run), quote=False)
    return f'<span class="{name}">{text}</span>' if name else text


@cache
def _lexer(language: str) -> Lexer:
    """Build a lexer, once; it keeps no state between texts, so threads share it."""
    from pygments.lexers import find_lexer_class_by_name

    return find_lexer_class_by_name(language)(stripnl=False, ensurenl=False)


@cache
def _class_of(kind: _TokenType) -> str:
    name = re.sub(r"^Token\.?", "", str(kind))
    while name:
        if name in _CLASSES:
            return _CLASSES[name]
        name = name.rpartition(".")[0]
    return ""
