"""What `lunar check` says of configured functions, which are loaded for it."""

from pathlib import Path

import pytest

from gateway.checks.finding import Scene
from gateway.checks.tools import tools
from gateway.config import Config
from gateway.config_problem import NOWHERE


def found(folder: Path, source: str, name: str = "note") -> list[tuple[str, str]]:
    (folder / "mine.py").write_text(source)
    config = Config.model_validate({"tools": {"functions": {"note": {"call": f"{folder}/mine.py:{name}"}}}})
    return [(finding.level, finding.text) for finding in tools(Scene(config, NOWHERE, None, False))]


def test_a_function_that_can_be_called(tmp_path: Path) -> None:
    assert found(tmp_path, "def note(x: int) -> str:\n    'Note.'\n    return ''") == [
        ("ok", "1 of your own")
    ]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def note(x) -> str:\n    'Note.'\n", "{}/mine.py:1, note: the parameter x has no type hint"),
        (
            "def other() -> str:\n    'Do.'\n",
            "{}/mine.py: there is no function note; its functions are: other",
        ),
        ("import nowhere", "{}/mine.py: there is no module nowhere; install it"),
    ],
)
def test_a_function_that_cannot_be_called_is_named_with_the_reason(
    tmp_path: Path, source: str, why: str
) -> None:
    [(level, text)] = found(tmp_path, source)
    assert level == "warning"
    assert text.startswith(f"tools.functions.note.call: {why.format(tmp_path)}")
