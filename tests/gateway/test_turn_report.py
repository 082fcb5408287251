"""The one line that the log has for every turn, and whose turn everything in between belongs to."""

from __future__ import annotations

from tests.conftest import Daemons
from tests.fakes.openai_server import OpenAIServer, Say, Status

SESSION = "agent:main:cli:work"


async def test_one_line_a_turn_with_its_timings(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await daemon.client("work")
        openai.script(Say("Well, well."))
        answer = await client.ask("a kookaburra")
        entry = await daemon.logged("turn")
        assert entry["level"] == "info"
        assert (entry["session"], entry["peer"], entry["turn"]) == (SESSION, "cli:work", answer["turn"])
        assert (entry["outcome"], entry["model"]) == ("completed", "fake-1")
        assert 0 <= entry["waited"] <= entry["first_token"] <= entry["seconds"] < 20
        assert (entry["input"], entry["output"]) == (answer["usage"]["input"], answer["usage"]["output"])
        assert "kookaburra" not in str(daemon.log)
        assert "Well" not in str(daemon.log)
        assert len([entry for entry in daemon.log if entry["event"] == "turn"]) == 1


async def test_what_a_turn_calls_logs_whose_turn_it_is(daemons: Daemons, openai: OpenAIServer) -> None:
    async with daemons(server=openai) as daemon:
        client = await daemon.client("work")
        openai.script(Status(401))
        failed = await client.ask("Hello")
        turn = await daemon.logged("turn")
        assert turn["outcome"] == "failed"
        assert "first_token" not in turn
        entry = await daemon.logged("no answer")  # of the model, which knows no sessions
        assert (entry["session"], entry["peer"], entry["turn"]) == (SESSION, "cli:work", failed["turn"])
