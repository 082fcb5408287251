"""The long form's own book-keeping: what goes on where, what counts as failed, what the table says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults import pieces, results
from tests.faults.pieces import RUNS, SECONDS, SEED, Piece, fuzzed, of, onward
from tests.faults.report import report
from tests.faults.results import KINDS, failed, kinds, note, passed
from tests.faults.torture import PARTS

FAILS = "def test_it():\n    assert not 'term0: lost: Said', 'term0: lost: Said'\n"
HOLDS = """
import os
from tests.faults.figures import figure

def test_it():
    first = int(os.environ.get("LUNAR_TEST_FIRST", "0"))
    figure("power loss", first=first, next=first + 60, of=100, states=60)
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "torture.jsonl"
    monkeypatch.setattr(results, "RESULTS", path)
    return path


async def stretch(piece: Piece, minutes: float = 1.0) -> None:
    await pieces.run("power", [piece], time.monotonic() + minutes * 60)


async def test_a_piece_fails_is_repeated_and_goes_on_until_it_is_done(tmp_path: Path) -> None:
    test = tmp_path / "test_piece.py"
    piece = Piece("a piece", str(test), onward)
    test.write_text(FAILS)
    await stretch(piece)
    [line] = failed("power")
    assert "term0: lost" in line["failure"]
    assert line["repeat"].endswith(f".venv/bin/pytest -s {test}")
    assert f"LUNAR_TEST_SEED={SEED} LUNAR_TEST_TORTURE=1" in line["repeat"]
    test.write_text(HOLDS)
    for _ in range(3):  # the third has nothing to do
        await stretch(piece)
    assert not failed("power")
    assert [line["first"] for line in passed("power")] == [0, 60]
    assert not pieces.left("power", [piece])
    row = next(line for line in report({"power": (True, ("lost",))}) if line.startswith("power"))
    assert row.split()[:9] == ["power", "yes", "2", str(SEED), "0", "·", "·", "·", "·"]
    assert row.endswith("power loss: states 120")


async def test_nothing_is_begun_after_the_deadline_and_what_never_ends_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = tmp_path / "test_piece.py"
    test.write_text("import time\n\ndef test_it():\n    time.sleep(600)\n")
    piece = Piece("a piece", str(test), onward)
    await stretch(piece, minutes=0)
    assert not failed("power")
    monkeypatch.setattr(pieces, "GRACE", 0.5)
    await stretch(piece, minutes=0.01)
    assert [line["failure"] for line in failed("power")] == ["not over after 1 s"]


def test_a_target_is_fuzzed_until_it_had_its_time_or_its_runs() -> None:
    def tried(runs: int, seconds: float) -> results.Line:
        return {"figures": [{"measurement": "fuzz", "runs": runs, "seconds": seconds}]}

    assert fuzzed([]) == {"LUNAR_TEST_SEED": str(SEED), "LUNAR_TEST_SECONDS": f"{SECONDS:.0f}"}
    assert fuzzed([tried(10, 200), tried(10, 300)]) == {
        "LUNAR_TEST_SEED": str(SEED + 2),
        "LUNAR_TEST_SECONDS": "100",
    }
    assert fuzzed([tried(10, SECONDS)]) is None
    assert fuzzed([tried(RUNS, 5)]) is None


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ("LUNAR_TEST_SEED=3: term0: lost: Said(id='term0-1')", "lost"),
        ("never came: everybody's answers ['web0-3']", "lost"),
        ("tele0: shown twice: ['tele0w1']", "twice"),
        ("agent:main:cli:term0: a damaged line: b'{'", "corrupt"),
        ("web0 got words of somebody else's: ['term0w1']", "crossed"),
        ("a secret in the log, or shown", "leaked"),
        ("it took 9.1 s to be back", "other"),
    ],
)
def test_what_a_failure_broke(failure: str, kind: str) -> None:
    assert kinds([{"failure": failure}]) == {kind: 1}


def test_a_trial_that_holds_when_it_is_repeated_is_mended() -> None:
    note("kills", seed=1, kills=20, failure="term0: lost")
    note("kills", seed=2, kills=20)
    assert [line["seed"] for line in failed("kills")] == [1]
    note("kills", seed=1, kills=20, failure=None)
    assert not failed("kills")
    assert len(passed("kills")) == 2


def test_every_long_form_belongs_to_a_part() -> None:
    here = Path(__file__).parent
    parts = {piece.test.partition("::")[0] for part in PARTS for piece in _pieces(part)}
    own = {"test_failpoints.py", "test_kills.py", "test_soak.py", "test_torture.py", "test_world.py"}
    assert {f"tests/faults/{path.name}" for path in here.glob("test_*.py") if path.name not in own} <= parts


def _pieces(part: str) -> list[Piece]:
    run = PARTS[part].run
    return run.args[1] if hasattr(run, "args") else []


def test_the_tests_of_a_file_are_its_pieces() -> None:
    names = [piece.name for piece in of("tests/faults/test_disk.py", "tests/session/test_store_machine.py")]
    assert names == [
        "test_what_cannot_be_stored_is_refused_until_it_can",
        "test_a_data_directory_that_is_deleted_is_made_anew_by_a_restart",
        "test_store_machine",
    ]


def test_a_part_that_was_not_begun_claims_nothing() -> None:
    row = next(line for line in report({"disk": (False, KINDS)}) if line.startswith("disk"))
    assert row.split() == ["disk", "not", "yet", "0", "-", "·", "·", "·", "·", "·", "0", "0"]
