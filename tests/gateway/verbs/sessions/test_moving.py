"""Sessions between files and PostgreSQL: every byte of them, each whole or not at all, none twice."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.verbs.sessions.database import Database, Tables
from gateway.verbs.sessions.moving import Folder, Tally, folder, move
from gateway.verbs.sessions.source import Files
from session import events, ids
from session.events import Assistant, BadLine, System, User
from session.ids import SessionId
from session.lock import DirectoryLock
from tests.fakes.postgres_server import shared
from tests.gateway.verbs.lunar import LOCAL, archived, path, ran, wrote
from tests.session import strategies

TRANSCRIPTS, LINES = 2000, 300

raw_lines = st.one_of(
    strategies.events.map(lambda event: events.encode(event)[:-1]),
    st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")),
    st.sampled_from(
        [
            b"",
            b" ",
            b"\r",
            b"\0",
            b"\xff\xfe",
            b'{"role":"user","content":"\\ud800\\u0000"}',
            b' { "role" : "user" , "content" : "spaced"  , "id":"m1" } ',
            b'{"role":"user","content":"again","id":"m1"}',
            b'{"role":"system","name":"context","id":"m1"}',
            b'{"role":"user","content":"\\u00e4","\\u0069d":"m2"}',
            b"[" * 2000,
            b"x" * 70_000,
        ]
    ),
)
peers = st.one_of(st.just("local"), strategies.texts, st.just("x" * 400))


def whole(content: bytes) -> bytes:
    """What a start of the gateway finds in it."""
    lines, newline, rest = content.rpartition(b"\n")
    try:
        events.decode(rest)
    except BadLine:
        rest = b""
    return lines + newline + (rest + b"\n" if rest else b"")


def put(data_dir: Path, contents: dict[SessionId, bytes]) -> None:
    (data_dir / "sessions").mkdir(parents=True, exist_ok=True)
    for session, content in contents.items():
        path(data_dir, session).write_bytes(content)
        os.utime(path(data_dir, session), (1_700_000_000, 1_700_000_000.25))


def moved(source: Files | Database, target: Folder | Tables) -> Tally:
    return move(source, list(source.entries()), target, "Moving")


def generated(seed: int) -> dict[SessionId, bytes]:
    """Thousands of transcripts, of lines and ids that hypothesis finds; some end without a newline."""
    lines: list[bytes] = []
    names: list[str] = []

    @settings(max_examples=LINES, deadline=None, database=None, phases=[Phase.generate])
    @given(raw_lines, peers)
    def another(line: bytes, peer: str) -> None:
        lines.append(line)
        names.append(peer)

    another()
    made: dict[SessionId, bytes] = {}
    dice = random.Random(seed)
    for number in range(TRANSCRIPTS):
        session = SessionId(f"agent:main:cli:{number}{dice.choice(names)}")
        content = b"".join(line + b"\n" for line in dice.choices(lines, k=dice.randrange(9)))
        if ids.is_shortened(ids.file_name(session)):  # only its header tells whose it is
            header = System(name="session", content=session, format=events.FORMAT)
            content = events.encode(events.stamped(header)) + content
        made[session] = content + dice.choice([b"", dice.choice(lines)])
    return made


def test_every_byte_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back, url = tmp_path / "there", tmp_path / "back", shared().database()
    seed = random.randrange(2**32)
    print("the seed is", seed)
    made = generated(seed)
    wanted = {session: kept for session, content in made.items() if (kept := whole(content))}
    assert len(wanted) > TRANSCRIPTS // 2
    put(there, made)
    assert moved(Files(there), Tables(url)) == Tally(len(wanted), 0, 0)
    assert moved(Files(there), Tables(url)) == Tally(0, len(wanted), 0)
    with folder(back) as target:
        assert moved(Database(url), target) == Tally(len(wanted), 0, 0)
        assert moved(Database(url), target) == Tally(0, len(wanted), 0)
    files = {entry.session: entry for entry in Files(back).entries()}
    assert {session: path(back, session).read_bytes() for session in files} == wanted
    assert {round(entry.modified, 3) for entry in files.values()} == {1_700_000_000.25}
    for session in sorted(wanted)[:: len(wanted) // 100]:
        assert Database(url).doubt(session) is None
        was, _ = Files(back).opened(session)
        now, _ = Database(url).opened(session)
        assert now.verify() == was.verify()
        was.close()
        now.close()


def asked(text: str, id: str) -> User:
    return User(content=text, id=id)


def sql(url: str, statement: str) -> str:
    return shared().sql(statement, url.rpartition("/")[2])


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> str:
    """A `lunar` whose store is an empty database."""
    fresh = shared().database()
    monkeypatch.setenv("LUNAR_STORE_URL", fresh)
    return fresh


def test_only_what_waits_for_an_answer_is_open(
    over: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = Assistant(content="Hi", turn="t1", answers=("m1",), finish="stop")
    telegram = "agent:main:telegram:user:7"
    wrote(tmp_path, asked("Hello", "m1"), session=LOCAL)
    wrote(tmp_path, asked("Hello", "m1"), answered, session="agent:main:cli:answered")
    wrote(tmp_path, asked("Hello", "m1"), answered, session=telegram)
    delivered = System(name="delivered", turn="t1")
    wrote(tmp_path, asked("Hello", "m1"), answered, delivered, session="agent:main:telegram:user:8")
    assert ran(capsys, "sessions", "import", str(tmp_path)) == (0, "4 sessions imported.\n", "")
    assert sql(over, "select convert_from(id, 'UTF8') from lunar.session where open order by 1").split() == [
        LOCAL,
        telegram,
    ]
    assert sql(over, "select count(*) from lunar.message where seq = 2") == "4"


def test_named_ones_are_imported_and_what_is_there_is_never_mixed(
    over: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(tmp_path, asked("Hello", "m1"))
    wrote(tmp_path, asked("Bye", "m2"), session="agent:main:cli:work")
    assert ran(capsys, "sessions", "import", str(tmp_path), "work").out == "1 session imported.\n"
    with path(tmp_path, "agent:main:cli:work").open("ab") as file:
        file.write(b'{"role":"user","content":"more"}\n')
    done = ran(capsys, "sessions", "import", str(tmp_path))
    assert done.code == 1
    assert done.out == "1 session imported, 1 could not be.\n"
    assert done.err == (
        "agent:main:cli:work: is there already and holds something else: nothing was changed.\n"
    )
    assert len(ran(capsys, "sessions", "show", "work").out.splitlines()) == 2


def test_a_session_that_went_on_since_is_there_already(
    over: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(tmp_path, asked("Hello", "m1"))
    assert ran(capsys, "sessions", "import", str(tmp_path)).code == 0
    sql(over, "insert into lunar.event select key, seq + 1, 'more' from lunar.session")
    sql(over, "update lunar.session set seq = seq + 1, bytes = bytes + 5")
    assert ran(capsys, "sessions", "import", str(tmp_path)).out == (
        "0 sessions imported, 1 were there already.\n"
    )


def test_archived_torn_and_empty_ones(over: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = wrote(tmp_path, asked("Hello", "m1"))
    content = torn.read_bytes()
    with torn.open("ab") as file:
        file.write(b'{"role":"us')
    kept = wrote(tmp_path, asked("Old", "m1"), session="agent:main:cli:old").read_bytes()
    archived(tmp_path, "agent:main:cli:old")
    path(tmp_path, "agent:main:cli:empty").write_bytes(b"")
    wrote(tmp_path, asked("Lost" * 1000, "m1"), session="agent:main:cli:lost")
    packed = archived(tmp_path, "agent:main:cli:lost")
    packed.write_bytes(packed.read_bytes()[:-9])
    done = ran(capsys, "sessions", "import", str(tmp_path))
    assert (done.code, done.out) == (1, "2 sessions imported, 1 could not be.\n")
    assert sorted(done.err.splitlines()) == [
        "agent:main:cli:empty: holds no whole line, and is left out.",
        "agent:main:cli:local: a torn last line of 11 bytes is left out.",
        "agent:main:cli:lost: cannot be read to its end, and is left out: agent-main-cli-lost.jsonl.gz is "
        "damaged: its end is missing.",
    ]
    out = tmp_path / "out"
    assert ran(capsys, "sessions", "export", "--to", str(out)).out == "2 sessions exported.\n"
    assert path(out).read_bytes() == content
    assert path(out, "agent:main:cli:old").read_bytes() == kept


def test_files_go_to_files_and_the_next_start_looks_at_them(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(tmp_path / "old", asked("Hello", "m1"))
    (data_dir / "sessions").mkdir(parents=True)
    (data_dir / "open.log").write_bytes(b"lunar open 2\n")
    assert ran(capsys, "sessions", "import", str(tmp_path / "old")).code == 0
    assert path(data_dir).read_bytes() == path(tmp_path / "old").read_bytes()
    assert f"+{ids.file_name(LOCAL)} ".encode() in (data_dir / "open.log").read_bytes()
    assert ran(capsys, "sessions", "import", str(tmp_path / "old")).out == (
        "0 sessions imported, 1 were there already.\n"
    )


def test_whoever_may_write_meanwhile_keeps_it_from_being_moved(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrote(tmp_path / "old", asked("Hello", "m1"))
    (data_dir / "sessions").mkdir(parents=True)
    for held, arguments in (
        (tmp_path / "old", ("import", str(tmp_path / "old"))),
        (data_dir, ("import", str(tmp_path / "old"))),
        (tmp_path / "old", ("export", "--to", str(tmp_path / "old"))),
    ):
        lock = DirectoryLock(held)
        lock.acquire()
        try:
            done = ran(capsys, "sessions", *arguments)
        finally:
            lock.release()
        assert done.code == os.EX_TEMPFAIL
        assert "Stop it first." in done.err
    assert not path(data_dir).exists()


def test_what_cannot_be_asked_for(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(data_dir, asked("Hello", "m1"))
    for arguments, words in (
        (("import", str(tmp_path / "nothing")), "no folder `sessions`"),
        (("import", str(data_dir)), "this store's own directory"),
        (("export", "--to", str(data_dir)), "this store's own directory"),
        (("export",), "Say which session"),
        (("export", "a", "b"), "Say which session"),
        (("export", "--to", "x", "--format", "md"), "takes no --format"),
        (("import", str(tmp_path / "d"), "nobody"), "own directory"),
    ):
        done = ran(capsys, "sessions", *arguments)
        assert done.code in (os.EX_USAGE, os.EX_NOINPUT, os.EX_DATAERR, os.EX_IOERR), done
        assert words in done.err


def test_a_database_that_is_not_there_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUNAR_STORE_URL", "postgresql://lunar:s3cr3t@127.0.0.1:1/lunar")
    done = ran(capsys, "sessions", "list")
    assert done.code
    assert "127.0.0.1:1" in done.err
    assert "s3cr3t" not in done.err
    gc.collect()  # what was left open would be a warning
