"""Files that people sent, as a model may read them: those of its own session, as text."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.agent.builtin_tools import BuiltinTools
from gateway.agent.tools import MAX_OUTPUT, Outcome, Scope, Toolbox
from session.events import User
from session.ids import SessionId
from session.store import Store

TOPIC = SessionId("agent:main:telegram:chat:-100:topic:7")
OTHER = SessionId("agent:main:telegram:chat:-100:topic:8")
PRIVATE = SessionId("agent:main:telegram:user:42")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    store.start()
    yield store
    await store.close()


async def sent(store: Store, session: SessionId, name: str, content: bytes) -> None:
    """A message that came with a file."""
    folder = store.data_dir / "media" / "telegram"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    id = name.partition(".")[0]
    await store.append(session, [User(content=f"[file, kept as media/telegram/{name}]", id=id)])


async def read(store: Store, session: SessionId, name: str) -> Outcome:
    scope = Scope(session, "t", "c")
    return await Toolbox((), [BuiltinTools(store)]).call("read_attachment", {"name": name}, scope)


@pytest.mark.parametrize("name", ["media/telegram/-100_5.txt", "-100_5.txt", " -100_5.txt "])
async def test_a_text_is_read(store: Store, name: str) -> None:
    await sent(store, TOPIC, "-100_5.txt", "Grüße aus 東京".encode())
    outcome = await read(store, TOPIC, name)
    assert outcome == (True, "-100_5.txt (text/plain, 18 bytes):\n\nGrüße aus 東京", False)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("-100_5.txt", "Grüße".encode("cp1252"), "Grüße"),
        ("-100_5.txt", "Grüße".encode("utf-16"), "Grüße"),
        ("-100_5.csv", b"a;b\r\n1;2", "a;b\r\n1;2"),
        ("-100_5.pdf", b"%PDF-1.7 x", "is a PDF document: its content cannot be read as text"),
        ("-100_5.png", b"\x89PNG\r\n\x1a\n123", "(image/png, 11 bytes) is an image"),
        ("-100_5.bin", bytes(range(256)), "is a file that is not text"),
        ("-100_5", b"plain", "plain"),
    ],
)
async def test_what_a_file_is_is_told(store: Store, name: str, content: bytes, words: str) -> None:
    await sent(store, TOPIC, name, content)
    outcome = await read(store, TOPIC, name)
    assert outcome.ok
    assert words in outcome.text


async def test_of_a_large_file_the_beginning_is_read(store: Store) -> None:
    await sent(store, TOPIC, "-100_5.txt", b"line\n" * 1_000_000)
    outcome = await read(store, TOPIC, "-100_5.txt")
    assert outcome.ok
    assert "(text/plain, 5000000 bytes), its first" in outcome.text
    assert "[cut:" not in outcome.text
    assert MAX_OUTPUT - 2048 < len(outcome.text) <= MAX_OUTPUT


async def test_it_is_found_behind_a_thousand_messages(store: Store) -> None:
    await sent(store, TOPIC, "-100_5.txt", b"found")
    await store.append(TOPIC, [User(content="x", id=f"-100_x{number}") for number in range(1200)])
    assert (await read(store, TOPIC, "-100_5.txt")).ok


@pytest.mark.parametrize(
    ("session", "name"),
    [
        (OTHER, "-100_5.txt"),  # a topic of the same chat: the same number
        (OTHER, "media/telegram/-100_5.txt"),
        (PRIVATE, "-100_5.txt"),
        (PRIVATE, "43_5.txt"),
        (SessionId("agent:main:cli:local"), "-100_5.txt"),
        (SessionId("agent:main:webchat:session:0123456789abcdef"), "media/telegram/-100_5.txt"),
    ],
)
async def test_a_file_of_another_session_is_not_there(store: Store, session: SessionId, name: str) -> None:
    await sent(store, TOPIC, "-100_5.txt", b"secret")
    await sent(store, SessionId("agent:main:telegram:user:43"), "43_5.txt", b"secret")
    outcome = await read(store, session, name)
    assert outcome.misused
    assert "No message of this conversation has a file" in outcome.text


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/", "/etc/passwd", "../../../etc/passwd", "media/telegram/../../lock",
        "-100_5.txt/..", "-100_5.txt/../../../lock", "-100_5", "-100_5.*", "*", "-100_5.txt\x00",
        "-100_5.TXT", "-100_5.txt.part", "-100_5.txt.wanted", "~/.ssh/id_rsa", "file:///etc/passwd",
        "link.txt", "-100_6.txt", "\ud800", "a" * 5000, "sessions/agent-main-cli-local.jsonl",
        "config.yaml", "%2e%2e%2fetc%2fpasswd", "-100_5\n.txt",
    ],
)  # fmt: skip
async def test_no_name_leads_out(store: Store, tmp_path: Path, name: str) -> None:
    await sent(store, TOPIC, "-100_5.txt", b"mine")
    secret = tmp_path / "secret"
    secret.write_text("canary")
    for link in ("-100_6.txt", "link.txt"):
        (tmp_path / "media" / "telegram" / link).symlink_to(secret)
    await store.append(TOPIC, [User(content="x", id="-100_6"), User(content="y", id="link")])
    outcome = await read(store, TOPIC, name)
    assert not outcome.ok
    assert "canary" not in outcome.text
