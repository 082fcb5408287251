"""The documentation has a place for everything that people can type, set, send or be told."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from channels import wire
from channels.cli import carrier
from channels.cli.chat import OWN_COMMANDS
from channels.connection import CLOSING, TOO_SLOW
from channels.errors import ErrorCode
from gateway import config_file, errors
from gateway.__main__ import parser
from gateway.commands import COMMANDS
from gateway.config_problem import written
from gateway.control import VERBS
from session import events
from tests.gateway.environment import clear

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands below a title, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no section {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by what stands in their first cell, without backticks."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("|---")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("` "): row[1:] for row in cells}


def words(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def fences(name: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page(name)) if kind == language]


# -- the command line ------------------------------------------------------------------------------


def commands(
    below: argparse.ArgumentParser, name: str = "lunar"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, with its parser."""
    verbs = [action for action in below._actions if isinstance(action, argparse._SubParsersAction)]
    if not verbs:
        yield name, below
    for action in verbs:
        for verb, inner in action.choices.items():
            yield from commands(inner, f"{name} {verb}")


ALL_COMMANDS = dict(commands(parser()))
EVERYWHERE = {"-h", "--help", "--config", "--version"}


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_command_has_a_section_with_all_that_it_takes(name: str) -> None:
    documented = set(rows(section(page("commands.md"), f"`{name}`"))) - {""}
    takes = set()
    for action in ALL_COMMANDS[name]._actions:
        if EVERYWHERE.isdisjoint(action.option_strings):
            label = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
            takes.add(f"{label} {action.metavar}" if action.option_strings and action.metavar else label)
    assert documented == takes


def test_no_section_is_about_a_command_that_is_gone() -> None:
    assert re.findall(r"^### `(.+)`$", page("commands.md"), re.MULTILINE) == list(ALL_COMMANDS)


def test_options_that_every_command_has() -> None:
    for option in EVERYWHERE - {"-h"}:
        assert f"`{option}" in page("commands.md") or f"lunar {option}`" in page("commands.md")


def test_exit_codes() -> None:
    def below(error: type[errors.GatewayError]) -> Iterator[int]:
        yield error.exit_code
        for kind in error.__subclasses__():
            yield from below(kind)

    documented = {int(code) for code in rows(section(page("commands.md"), "Exit codes")) if code.isdigit()}
    chat = {value for name, value in vars(carrier).items() if name.isupper() and 64 <= _number(value) <= 78}
    assert documented >= {0, 64, 130, 141, *below(errors.GatewayError), *chat}
    for error in errors.GatewayError.__subclasses__():
        assert re.search(rf"{error.__name__} +{error.exit_code} ", errors.__doc__ or "")


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1


def test_slash_commands() -> None:
    text = section(page("commands.md"), "In a chat")
    assert set(rows(text)) - {"command"} == {f"/{name}" for name in COMMANDS}
    assert set(OWN_COMMANDS) <= words(text)


# -- the configuration -----------------------------------------------------------------------------


def test_every_key_has_a_row() -> None:
    """What stands in it is made from the models: tests/gateway/test_config_schema.py."""
    documented = rows(section(page("configuration.md"), "The keys"))
    assert set(documented) - {"key"} == {".".join(key) for key in written() if key[0] != "model"}


def test_variables_and_files_of_the_surroundings() -> None:
    text = page("configuration.md")
    for name in ("LUNAR_CONFIG", "XDG_CONFIG_HOME", "CREDENTIALS_DIRECTORY", "/etc/lunar/config.yaml"):
        assert name in text
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LUNAR_HTTP_TOKEN", "TELEGRAM_BOT_TOKEN"):
        assert name in rows(section(text, "Secrets"))


@pytest.mark.parametrize(
    "text", [text for name in ("configuration.md", "proxy.md") for text in fences(name, "yaml")]
)
def test_examples_of_the_configuration_load(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear(monkeypatch, tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in re.findall(r"{env: (\w+)}", text):
        monkeypatch.setenv(name, "from-the-environment")
    for name in re.findall(r"{credential: (\w+)}", text):
        (tmp_path / name).write_text("from-a-file")
    (tmp_path / "config.yaml").write_text(text)
    config_file.load()


# -- the protocol ----------------------------------------------------------------------------------


def fields(frame: type[msgspec.Struct]) -> set[str]:
    """The fields as the documentation writes them: with `?` where they may be left out."""
    leaves_out = frame.__struct_config__.omit_defaults
    named = set()
    for field in msgspec.structs.fields(frame):
        optional = not field.required and (leaves_out or field.default is msgspec.UNSET)
        named.add(field.encode_name + "?" * optional)
    return named


def frames(union: Any) -> dict[str, type[msgspec.Struct]]:
    return {str(kind.__struct_config__.tag): kind for kind in get_args(union)}


@pytest.mark.parametrize(
    ("title", "union"), [("From the client", wire.ClientFrame), ("From the gateway", wire.ServerFrame)]
)
def test_every_frame_has_a_row_with_its_fields(title: str, union: Any) -> None:
    documented = rows(section(page("protocol.md"), title))
    assert set(documented) - {"type"} == set(frames(union))
    for tag, frame in frames(union).items():
        assert words(documented[tag][0]) == fields(frame), tag


def test_the_inner_parts_of_frames() -> None:
    text = section(page("protocol.md"), "From the gateway")
    for part in (wire.RunningFrame, wire.EventItem):
        assert fields(part) <= words(text), part.__name__


@pytest.mark.parametrize("frame", [*frames(wire.ClientFrame).values(), *frames(wire.ServerFrame).values()])
def test_the_words_that_a_field_may_hold(frame: type[msgspec.Struct]) -> None:
    text = page("protocol.md")
    for field in msgspec.structs.fields(frame):
        if getattr(field.type, "__origin__", None) is not None and field.name not in ("code",):
            assert all(f'"{word}"' in text for word in get_args(field.type) if isinstance(word, str))


def test_every_error_code_has_a_row_that_says_what_becomes_of_the_connection() -> None:
    documented = rows(section(page("protocol.md"), "Errors"))
    assert set(documented) - {"code"} == set(get_args(ErrorCode))
    for code, (_, connection) in documented.items():
        if code != "code":
            assert (connection == "is closed") == (code in CLOSING), code


def test_close_codes_verbs_and_limits() -> None:
    text = page("protocol.md")
    assert all(str(code) in section(text, "Errors") for code in {*CLOSING.values(), TOO_SLOW, 1001})
    assert set(VERBS) <= words(section(text, "From the client"))
    limits = section(text, "Limits")
    for size in (wire.MAX_CLIENT_FRAME, wire.MAX_TEXT):
        assert f"{size // 1024} KiB" in limits
    assert f"{wire.MAX_SERVER_FRAME // 2**20} MiB" in limits
    assert f"1 to {wire.HISTORY_LIMIT}" in text


# -- transcripts -----------------------------------------------------------------------------------


def test_every_role_has_a_row_with_its_fields() -> None:
    documented = rows(section(page("transcript.md"), "What is in a line"))
    for event in get_args(events._Known):
        role = str(event.__struct_config__.tag)
        named = {field.encode_name for field in msgspec.structs.fields(event)} - {"ts"}
        assert named <= words(documented[role][0]), role
    for finish in get_args(events.Finish):
        assert f"`{finish}`" in page("transcript.md")


def test_every_system_event_that_is_written_has_a_row() -> None:
    documented = rows(section(page("transcript.md"), "What is in a line"))
    sources = [
        path for package in ("session", "channels", "gateway") for path in (ROOT / package).rglob("*.py")
    ]
    for path in sources:
        for name in re.findall(r'System\(\s*name="(\w+)"', path.read_text(encoding="utf-8")):
            assert name in documented, f"{path.relative_to(ROOT)} knows {name}"


def test_the_example_is_a_transcript() -> None:
    (text,) = fences("transcript.md", "json")
    kinds = [type(events.decode(line.encode())) for line in text.splitlines()]
    assert set(kinds) == set(get_args(events._Known))


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_example_can_be_read_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "agent-main-cli-local.jsonl").write_text(fences("transcript.md", "json")[0])
    (shell,) = fences("transcript.md", "sh")
    for line in shell.splitlines():
        if line.startswith("jq"):
            ran = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert (ran.returncode, ran.stderr) == (0, ""), line
            assert ran.stdout.strip(), line


# -- troubleshooting -------------------------------------------------------------------------------


def test_what_people_see_is_quoted_as_it_is_said() -> None:
    """Numbers, names and `…` stand for what differs from case to case."""
    sources = [path for package in ("channels", "gateway") for path in (ROOT / package).rglob("*.[pj][ys]")]
    # Texts of several lines are joined as Python does.
    said = re.sub(r'"\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    symptoms = [row for row in rows(page("troubleshooting.md")) if '"' in row]
    assert len(symptoms) > 10
    for quoted in (text for row in symptoms for text in re.findall(r'"([^"]+)"', row)):
        pieces = [piece.strip() for piece in re.split(r"…|\d+", quoted)]
        assert all(piece in said for piece in pieces), quoted


# -- all pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name} links {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{path.name} links {target}"


def test_the_architecture_is_short_and_names_files_that_exist() -> None:
    lines = page("architecture.md").splitlines()
    assert len(lines) < 150
    for line in lines:
        named = re.findall(r"`((?:session|channels|gateway|tests)/[\w/]+\.py|gateway/verbs/)`", line)
        beside = (
            [f"{Path(named[0]).parent}/{name}" for name in re.findall(r"`(\w+\.py)`", line)] if named else []
        )
        for name in named + beside:
            assert (ROOT / name).exists(), name


def test_the_changelog_has_what_is_not_released() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
