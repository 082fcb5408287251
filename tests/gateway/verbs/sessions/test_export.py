"""`lunar sessions export`: documents that stand for themselves and in which text is text."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from channels.webchat.highlight import CLASSES
from session.events import Assistant, Event, System, ToolCall, ToolResult, User
from tests.fakes.xss_payloads import PAYLOADS
from tests.gateway.verbs.lunar import LOCAL, archived, ran, wrote
from tests.gateway.verbs.sessions.said import CONVERSATION, HOSTILE


def exported(capsys: pytest.CaptureFixture[str], format: str, session: str = "local") -> str:
    code, out, err = ran(capsys, "sessions", "export", session, "--format", format)
    assert (code, err) == (0, "")
    return out


def test_markdown_reads_as_it_was_said(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(
        data_dir,
        *CONVERSATION,
        System(name="note", content="/stop", ts="2026-02-26T00:01:00.000Z"),
        ToolResult(name="cat", result="a\n````\nb", ok=False),
        Assistant(content="And", finish="stopped", ts="no time"),
    )
    assert exported(capsys, "md") == (
        "# agent:main:cli:local\n"
        "\n## You, 2026-02-25 10:05\n\nWhat time is it?\nI mean *now*.\n"
        '\n**Tool** `clock`\n\n```\n{"zone": "UTC"}\n```\n'
        "\n**Result** `clock`\n\n```\n10:05\n```\n"
        "\n## Assistant (demo), 2026-02-26 00:00\n\nIt is **10:05**.\n"
        "\n*note: /stop, 2026-02-26 00:01*\n"
        "\n**Failed** `cat`\n\n`````\na\n````\nb\n`````\n"
        "\n## Assistant\n\nAnd\n\n*[stopped]*\n"
    )


def test_json_has_the_events_as_they_are_stored(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION, User(content=HOSTILE))
    document = json.loads(exported(capsys, "json"))
    assert document["session"] == LOCAL
    assert document["exported"].endswith("Z")
    events = document["events"]
    assert [event["role"] for event in events] == [
        "system", "user", "system", "tool_call", "tool_result", "assistant", "user",
    ]  # fmt: skip
    assert events[-1]["content"] == HOSTILE
    assert not any("crc" in event for event in events)


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_file_that_loads_and_runs_nothing(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *CONVERSATION, System(name="turn_failed", content="Sorry"))
    document = exported(capsys, "html")
    page = Page(document)
    assert document.startswith("<!doctype html>")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "base"})
    (style,) = re.findall("<style>(.*?)</style>", document, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert ("meta", {"http-equiv": "Content-Security-Policy",
                     "content": f"default-src 'none'; style-src 'sha256-{digest}'"}) in page.tags  # fmt: skip
    assert "url(" not in style
    assert "@import" not in style
    assert "light-dark(" in style
    assert "<em>now</em>" in document
    assert "<strong>10:05</strong>" in document
    assert '<time datetime="2026-02-25T10:05:00.000Z">2026-02-25 10:05</time>' in document
    assert page.text.count("clock") == 2
    assert '<p class="note failed">Sorry</p>' in document


def test_code_has_its_colours(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, Assistant(content="```python\ndef f(): return 'x'  # y\n```"))
    document = exported(capsys, "html")
    assert '<span class="k">def</span>' in document
    style = document.partition("<style>")[2].partition("</style>")[0]
    assert {name for name in CLASSES if not re.search(rf"\.{name}\b", style)} == set()


_TAGS = """
    html head meta title style body header main article time details summary h1 b h3 h4 h5 h6 p div ul ol li
    blockquote pre code span a table thead tbody tr th td strong em s br hr
"""
TAGS = set(_TAGS.split())


def test_no_text_becomes_more_than_text(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = "agent:main:cli:</title><script>alert(1)</script>"
    said: list[Event] = []
    for payload in PAYLOADS:
        said += [
            User(content=payload, ts=payload),
            Assistant(content=payload, model=payload),
            ToolCall(name=payload, args={payload: payload}),
            ToolResult(name=payload, result=payload),
            System(name=payload, content=payload),
        ]
    wrote(data_dir, *said, session=session)
    page = Page(exported(capsys, "html", session))
    assert len(page.tags) > 5 * len(PAYLOADS)
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("style", "id", "src") for name in attributes), tag
        href = attributes.get("href") or "https:"
        assert href.startswith(("https:", "http:", "mailto:", "tel:")), href


@pytest.mark.parametrize("format", ["md", "html"])
def test_no_document_commands_a_terminal(
    format: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, User(content=HOSTILE), ToolCall(name=HOSTILE, args=HOSTILE), System(name=HOSTILE))
    document = exported(capsys, format)
    assert "back" in document
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", document)


def test_a_file_is_written_whole_and_for_its_owner(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *CONVERSATION)
    archived(data_dir)
    for name, beginning in (
        ("a.html", "<!doctype"),
        ("a.json", '{"session"'),
        ("a.md", "# agent"),
        ("a.txt", "# "),
    ):
        assert ran(capsys, "sessions", "export", "local", "--output", name) == (0, "", "")
        assert (tmp_path / name).read_text().startswith(beginning)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert ran(capsys, "sessions", "export", "local", "--output", "-").out == (tmp_path / "a.md").read_text()
    assert ran(capsys, "sessions", "export", "local", "--output", "a.html", "--format", "md").code == 0
    assert (tmp_path / "a.html").read_text() == (tmp_path / "a.md").read_text()
    assert not list(tmp_path.glob("*.part"))


def test_nothing_of_anybody_else_is_overwritten(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(data_dir, *CONVERSATION)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.md.part").symlink_to("mine")
    (tmp_path / "b.md.part").write_text("mine")
    (tmp_path / "b.md").symlink_to("mine")
    for name in ("a.md", "b.md"):
        assert ran(capsys, "sessions", "export", "local", "--output", name).code == 0
        assert (tmp_path / name).read_text().startswith("# agent")
        assert (tmp_path / f"{name}.part").read_text() == "mine"
    os.mkfifo(tmp_path / "pipe.md")
    for name in ("pipe.md", "."):
        code, _, err = ran(capsys, "sessions", "export", "local", "--output", name, "--format", "md")
        assert (code, err) == (os.EX_CANTCREAT, f"lunar: {name} is no file: choose another name.\n")
    damaged = archived(data_dir)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    before = set(tmp_path.iterdir())
    assert ran(capsys, "sessions", "export", "local", "--output", "c.md").code == os.EX_IOERR
    assert set(tmp_path.iterdir()) == before


def test_what_cannot_be(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, *CONVERSATION)
    code, _, err = ran(capsys, "sessions", "export", "local", "--output", "a.pdf")
    assert (code, err) == (
        os.EX_USAGE, "lunar: Which format? Say --format, or name the file with .md, .json, .html.\n"
    )  # fmt: skip
    code, _, err = ran(capsys, "sessions", "export", "local", "--output", "no/such/a.md")
    assert (code, err) == (os.EX_CANTCREAT, "lunar: no/such/a.md: No such file or directory\n")
    assert ran(capsys, "sessions", "export", "nobody").code == 1
    damaged = archived(data_dir)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    code, out, err = ran(capsys, "sessions", "export", "local", "--format", "md")
    assert (code, "What time is it?" in out) == (os.EX_IOERR, True)
    assert err.endswith("its end is missing. What stands before that was read.\n")
