"""Everything that takes in foreign bytes, with what is nearly valid.

The long form (`LUNAR_TEST_TORTURE=1`) runs each target for a million executions or ten minutes, guided by
coverage where atheris is installed; `LUNAR_TEST_TARGET` picks one, `LUNAR_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.figures import TORTURE, figure
from tests.faults.spoiling import spoiled
from tests.faults.targets import TARGETS, scratch
from tests.gateway.environment import clear, cleared

SEED = int(os.environ.get("LUNAR_TEST_SEED", random.SystemRandom().randrange(1 << 31)))
RUNS, SECONDS = 1_000_000, float(os.environ.get("LUNAR_TEST_SECONDS", "600"))
CHOSEN = [os.environ["LUNAR_TEST_TARGET"]] if "LUNAR_TEST_TARGET" in os.environ else sorted(TARGETS)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        clear(patch, tmp_path_factory.mktemp("home"))
        yield
        shutil.rmtree(scratch())
        scratch.cache_clear()


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_valid_passes(name: str) -> None:
    for data in TARGETS[name].valid:
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_nearly_valid(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(dice=st.randoms(use_true_random=False), valid=st.sampled_from(target.valid))
    def nearly(dice: random.Random, valid: bytes) -> None:
        target.run(spoiled(valid, dice))

    nearly()
    dice = random.Random(f"{SEED}/{name}")
    for _ in range(300):
        data = spoiled(dice.choice(target.valid), dice)
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"LUNAR_TEST_SEED={SEED}, {name}: {data!r}: {error!r}") from error


@pytest.mark.parametrize("name", CHOSEN)
@settings(max_examples=60, deadline=None, database=None)
@given(data=st.binary(max_size=400))
def test_what_is_nothing_at_all(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.skipif(not TORTURE, reason="the long form: make torture")
@pytest.mark.parametrize("name", CHOSEN)
def test_for_long(name: str) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzzing", name, str(SEED), str(RUNS), str(SECONDS)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=cleared(dict(os.environ)),
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    figures = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    figure("fuzz", **figures)
    print(done.stderr)  # that atheris is not installed
    failed = base64.b64decode(figures.get("failed") or b"")
    assert done.returncode == 0, f"LUNAR_TEST_SEED={SEED}, {name}: {failed!r}: {done.stderr[-3000:]}"
    assert figures["memory_mib"] < 1024, figures
