"""What the tree must look like: who may import whom, what has its tests, how large things may grow."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gateway import config_file
from gateway.config import Config
from gateway.config_problem import ANY, written

ROOT = Path(__file__).parents[1]
PACKAGES = ("session", "channels", "gateway")
LONGEST_FILE = 330  # lines
LONGEST_FUNCTION = 60
VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc"}

# Which libraries are only for whom: folders end with a slash. Everything else may be imported anywhere.
RESERVED = {
    "asyncpg": ("session/postgres_database.py", "session/postgres_state.py"),
    "telegram": ("channels/telegram/",),
    "aiohttp": (
        "channels/webchat/",
        "channels/connections.py",
        "channels/telegram/request.py",
        "gateway/http.py",
        "gateway/agent/model.py",
    ),
    "openai": ("gateway/agent/model.py", "gateway/agent/discover.py"),
    "httpx2": (
        "gateway/agent/model.py",
        "gateway/agent/brief.py",
        "gateway/agent/discover.py",
        "gateway/agent/demo.py",
        "gateway/agent/mcp_connection.py",
    ),  # the MCP library takes its client
    "httpx": ("channels/telegram/request.py",),
    "yaml": ("gateway/config_file.py",),
    "pydantic": (
        "gateway/config.py",
        "gateway/config_channels.py",
        "gateway/config_file.py",
        "gateway/config_leaves.py",
        "gateway/config_problem.py",
        "gateway/config_schema.py",
        "gateway/config_secrets.py",
        "gateway/config_values.py",
        "gateway/agent/signature.py",  # type hints of functions -> JSON Schema, by the same library
    ),
    "mcp": ("gateway/agent/mcp_connection.py",),
    "mcp_types": ("gateway/agent/mcp_connection.py",),
    "prompt_toolkit": ("channels/cli/",),
    "rich": ("channels/cli/", "gateway/verbs/"),
    "websockets": ("channels/cli/", "channels/webchat/"),
    "markdown_it": ("channels/markdown.py", "channels/webchat/", "channels/cli/", "channels/telegram/"),
    "nh3": ("channels/webchat/",),
    "pygments": ("channels/webchat/",),
    "uvloop": ("gateway/verbs/run.py",),
}
# Who may know of concrete channels, and of what in them; `channels.*` stands for all.
CONCRETE = {
    "gateway/daemon.py": ("channels.*",),
    "gateway/verbs/chat.py": ("channels.cli.client",),
    "gateway/verbs/sessions/export_html.py": ("channels.webchat.html",),
    "gateway/config.py": ("channels.cli.address",),  # where the socket is, as daemon and clients compute it
    "gateway/config_file.py": ("channels.cli.address",),
    "gateway/config_socket.py": ("channels.cli.address",),
}
SESSION_FOR_CHANNELS = {"session", "session.events", "session.ids", "session.errors"}


def modules() -> list[Path]:
    """Every Python file of the three packages, relative to the root."""
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), str(module))


@cache
def imports(module: Path) -> frozenset[str]:
    """Every module that it imports, anywhere in it; `from a import b` is `a.b` where that is a module."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(origin), names=names, level=0):
                below = {f"{origin}.{alias.name}" for alias in names if _is_module(f"{origin}.{alias.name}")}
                found.update(below or {origin})
            case ast.ImportFrom():
                raise AssertionError(f"{module}:{node.lineno}: imports are absolute here")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name))]):
                found.add(name)
    return frozenset(found)


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def committed() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# -- imports ---------------------------------------------------------------------------------------


def test_the_packages_stand_on_each_other_in_one_order() -> None:
    for place, package in enumerate(PACKAGES):
        above = PACKAGES[place + 1 :]
        wrong = [
            f"{module} imports {name}"
            for module in modules()
            if module.parts[0] == package
            for name in imports(module)
            if name.split(".")[0] in above
        ]
        assert not wrong


def test_channels_know_events_ids_and_errors_of_sessions_and_no_more() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module.parts[0] == "channels"
        for name in imports(module)
        if name.split(".")[0] == "session" and name not in SESSION_FOR_CHANNELS
    ]
    assert not wrong


@pytest.mark.parametrize("library", RESERVED)
def test_a_library_is_used_where_it_belongs_and_nowhere_else(library: str) -> None:
    wrong = [
        f"{module} imports {library}"
        for module in modules()
        if any(name.split(".")[0] == library for name in imports(module))
        if not any(_within(str(module), place) for place in RESERVED[library])
    ]
    assert not wrong


def _within(module: str, place: str) -> bool:
    return module.startswith(place) if place.endswith("/") else module == place


def test_concrete_channels_are_named_where_everything_is_wired() -> None:
    channels = {path.name for path in (ROOT / "channels").iterdir() if (path / "__init__.py").exists()}
    wrong = []
    for module in modules():
        inside = module.parts[1] if module.parts[0] == "channels" and len(module.parts) == 3 else None
        for name in imports(module):
            package, _, rest = name.partition(".")
            if package != "channels" or rest.split(".")[0] not in channels - {inside}:
                continue
            allowed = CONCRETE.get(str(module), ())
            if name not in allowed and "channels.*" not in allowed:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in memory after a statement, in a fresh interpreter."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(ran.stdout.splitlines()[-1].split())


def test_the_daemon_starts_without_what_it_may_never_need() -> None:
    # structlog imports rich by itself where that is installed; nothing of ours may.
    heavy = {
        "mcp",
        "openai",
        "httpx2",
        "telegram",
        "prompt_toolkit",
        "rich",
        "markdown_it",
        "nh3",
    }
    assert not heavy & (loaded_by("import gateway.daemon") - loaded_by("import structlog"))


def test_help_is_printed_by_the_standard_library_alone() -> None:
    program = (
        "import contextlib\nfrom gateway.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])"
    )
    ours = {*PACKAGES, "__main__"}
    foreign = loaded_by(program) - set(sys.stdlib_module_names) - ours - loaded_by("")
    assert not {name for name in foreign if not name.startswith("_")}


# -- the tree --------------------------------------------------------------------------------------


def test_every_package_has_its_tests() -> None:
    packages = {path.parent for path in modules() if path.name == "__init__.py"}
    missing = [
        str(package) for package in packages if not (ROOT / "tests" / package / "__init__.py").exists()
    ]
    assert not missing


def test_every_test_file_names_a_module() -> None:
    wrong = []
    for package in PACKAGES:
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            if not any(_tested(path)):
                wrong.append(str(path.relative_to(ROOT)))
    assert not wrong


def _tested(path: Path) -> Iterator[bool]:
    """Whether test_x_y.py stands for x_y.py, for x.py of which it tries one aspect, or for a folder;
    test_main.py is about __main__.py.
    """
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    words = path.stem.removeprefix("test_").split("_")
    for length in range(len(words), 0, -1):
        name = "_".join(words[:length])
        yield any((folder / file).exists() for file in (f"{name}.py", f"__{name}__.py", name))


def test_no_file_is_named_after_nothing() -> None:
    assert not [str(path) for path in modules() if {part.removesuffix(".py") for part in path.parts} & VAGUE]


class Function(NamedTuple):
    place: str
    lines: int


def functions(module: Path) -> Iterator[Function]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield Function(f"{module}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1)


def test_no_file_needs_an_index() -> None:
    sizes = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {path: size for path, size in sizes.items() if size > LONGEST_FILE}


def test_no_function_needs_scrolling() -> None:
    long = [f for module in modules() for f in functions(module) if f.lines > LONGEST_FUNCTION]
    assert not long


# -- the default configuration ---------------------------------------------------------------------


def test_the_example_configuration_is_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LUNAR_HTTP_TOKEN", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    source = config_file.read(ROOT / "config.yaml")
    assert not source.places.variables, "this machine's environment configures the gateway"
    monkeypatch.chdir(ROOT)
    assert config_file.resolve(source) == config_file.resolve(config_file.read(None))
    assert Config.model_validate(source.data) == Config()


def test_the_example_configuration_has_every_key() -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    for key in written():
        if key[0] == "models":
            key = ("model", *key[2:])  # the short form stands for all of them
        section = data
        for part in key:
            if part == ANY and section == {}:
                break  # nothing of the kind is there until somebody names it
            part = "main" if part == ANY else part
            assert part in section, f"config.yaml has no {'.'.join(key)}"
            section = section[part]


# -- what no file may hold -------------------------------------------------------------------------

# In pieces: this file is in the repository, too.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
    )
)
# A path in somebody's home, or in a folder at the root that only a developer's machine has.
FOREIGN = re.compile(
    r"(?<![\w.~/:-])/(?:" + "|".join(("ho" + "me", "Us" + "ers", "ro" + "ot", "wo" + "rk")) + r")/\w"
)


def test_no_file_names_a_package_registry_or_somebodys_machine() -> None:
    wrong = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace")
        found = [host for host in REGISTRIES if host in text]
        found += [line.strip() for line in text.splitlines() if FOREIGN.search(line)]
        wrong += [f"{path.relative_to(ROOT)}: {what}" for what in found]
    assert not wrong
