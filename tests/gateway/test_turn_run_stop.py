"""`/stop` in every phase of a turn, on a real daemon with real tools: it ends, and leaves nothing behind.

How long that takes is measured by `benchmarks/stop.py`.
"""

from pathlib import Path

from tests.fakes.stopping import Stopping


async def test_a_turn_is_stopped_in_every_phase(folder: Path) -> None:
    async with Stopping(folder / "a") as stopping:
        rounds = 3
        for _ in range(rounds):
            for phase in stopping.phases:
                await stopping.stop(phase)
                assert not stopping.left_over()
        closed = [
            event["finish"]
            for event in stopping.daemon.events("agent:main:cli:local")
            if event["role"] == "assistant" and event.get("answers")
        ]
        assert closed.count("stopped") == rounds * (len(stopping.phases) - 1)
        assert not [entry for entry in stopping.daemon.log if entry["level"] in ("error", "critical")]
        await stopping.client.ask("Still there?")
