"""The harness can fail: one bug of each kind is planted, and each is caught by what is there to catch it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session import hints, transcript
from session.hints import OpenLog
from session.store import Store
from session.transcript import Transcript
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.faults import invariants
from tests.faults.crashing import STATUS
from tests.faults.people import WORD
from tests.faults.planted import BUGS
from tests.faults.power import Disk
from tests.faults.test_power_loss import die
from tests.faults.world import TOKEN, World

CRASHES = ("the_offset_moves_early", "repeats_are_not_recognised")
CAUGHT = {
    "the_offset_moves_early": "tele0: lost",
    "repeats_are_not_recognised": "term0: stored twice",
    "tools_run_twice": "stamped twice",
    "answers_are_sent_twice": "tele0: shown twice",
    "answers_go_astray": "words of somebody else's",
    "secrets_are_logged": "a secret in the log",
    "messages_are_swallowed": "term0: asked .*, closed",
    "turns_fail": "term0: failed for another reason",
}


@pytest.mark.parametrize("bug", ["", *BUGS])
async def test_a_bug_in_the_gateway(folder: Path, bug: str) -> None:
    async with OpenAIServer() as openai, TelegramServer(TOKEN) as telegram:
        world = World(
            folder / "w", openai, telegram, random.Random(1), open_to_all=True, module="tests.faults.planted"
        )
        term, tele = world.terminal("term0"), world.chatter("tele0")
        try:
            await world.daemon.start(PLANTED=bug, CRASH="1" if bug in CRASHES else "")
            async with world.living():
                if bug != "repeats_are_not_recognised":
                    tele.say("please stamp tele0w0")
                if bug != "the_offset_moves_early":
                    term.say("please stamp term0w0")
                if bug in CRASHES:
                    assert await world.daemon.exit() == STATUS
                    await world.daemon.start(PLANTED=bug)
                tele.say("hello tele0w1")
                term.say("hello term0w1")
                await world.until(lambda: _shown(bug, term, tele), "what is still answered")
            await world.daemon.stop()
            if not bug:
                invariants.check(world)
                return
            with pytest.raises(AssertionError, match=CAUGHT[bug]):
                invariants.check(world)
        finally:
            await world.daemon.close()


def _shown(bug: str, term: Any, tele: Any) -> bool:
    """Whether all that a daemon with this bug can do is done."""
    if bug == "messages_are_swallowed":
        return len(term.acknowledged) == len(term.said)
    words = {word for said in tele.said for word in WORD.findall(said.text)}
    if bug == "the_offset_moves_early":
        words -= {"tele0w0"}
    return not term.owed() and words <= set(tele.shown())


# -- in the store --------------------------------------------------------------------------------


def no_fdatasync(patch: pytest.MonkeyPatch) -> None:
    real = Transcript.append
    patch.setattr(Transcript, "append", lambda self, batch, sync=True: real(self, batch, sync=False))


def no_sync_of_folders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transcript, "sync_directory", lambda path: None)


def no_sync_of_hints(patch: pytest.MonkeyPatch) -> None:
    def add(self: OpenLog, *names: str) -> None:
        self._append(b"".join(hints._line(b"+", name) for name in names))
        self.names.update(names)

    patch.setattr(OpenLog, "add", add)


def glued_to_a_torn_tail(patch: pytest.MonkeyPatch) -> None:
    def repair(self: Transcript, size: int) -> None:
        self.end = size

    patch.setattr(Transcript, "_repair", repair)


def a_failed_fdatasync_tried_again(patch: pytest.MonkeyPatch) -> None:
    watching = Disk._fsync

    def twice(self: Disk, real: Any) -> Any:
        once = watching(self, real)

        def call(fd: int) -> None:
            try:
                once(fd)
            except OSError:
                once(fd)

        return call

    patch.setattr(Disk, "_fdatasync", twice)


def stored_twice(patch: pytest.MonkeyPatch) -> None:
    real = Store.append

    def append(self: Store, session: Any, batch: list[Any], *, sync: bool = True) -> Any:
        real(self, session, batch, sync=sync)
        return real(self, session, batch, sync=sync)

    patch.setattr(Store, "append", append)


def out_of_order(patch: pytest.MonkeyPatch) -> None:
    real = Transcript.append
    patch.setattr(Transcript, "append", lambda self, batch, sync=True: real(self, batch[::-1], sync=sync))


@pytest.mark.parametrize(
    ("bug", "caught"),
    [
        (no_fdatasync, "lost"),
        (no_sync_of_folders, "lost|forgotten"),
        (no_sync_of_hints, "forgotten"),
        (glued_to_a_torn_tail, "lost|second start"),
        (a_failed_fdatasync_tried_again, "lost|forgotten"),
        (stored_twice, "twice"),
        (out_of_order, "out of order"),
    ],
)
def test_a_bug_in_the_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[pytest.MonkeyPatch], None],
    caught: str,
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match=caught):
        _die_often(tmp_path)


def _die_often(folder: Path) -> None:
    for number in range(100):  # the first few are enough
        (folder / str(number)).mkdir()
        die(folder / str(number), f"planted/{number}", 30)
