"""Which model answers, found at its first use."""

import asyncio

import pytest

from gateway.agent import discover, models
from gateway.agent.endpoint import Endpoint
from gateway.agent.model import Model
from gateway.agent.model_errors import ModelMisconfigured, ModelUnreachable
from gateway.agent.models import Models
from gateway.agent.reply import Finish
from gateway.config import Model as Settings
from session.events import Usage
from tests.fakes.openai_server import Events, OpenAIServer, Say, Status, chunk

DEAD = "http://127.0.0.1:9/v1"


def configured(**members: object) -> Models:
    return Models({"default": Settings.model_validate(members)})


async def _nothing() -> Endpoint | None:
    return None


async def test_a_configured_model_is_used_and_never_replaced(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "discover", None)  # not even looked at
    source = configured(base_url=openai.base_url, name="mine")
    assert source.label("default") == "mine"
    model = await source.get("default")
    assert model.label == "mine"
    assert await source.get("default") is model
    assert not source.is_demo("default")
    await source.close()
    source = configured(base_url=DEAD, name="mine")
    assert (await source.get("default")).label == "mine"
    await source.close()


async def test_auto_at_a_server_is_the_model_that_it_serves(openai: OpenAIServer) -> None:
    source = configured(base_url=openai.base_url)
    assert source.label("default") == "auto"
    loaded = await asyncio.gather(*(source.get("default") for _ in range(5)))
    assert source.label("default") == "fake-1"
    assert all(model is loaded[0] for model in loaded)
    await source.close()


async def test_a_server_that_is_away_is_tried_again_in_the_background(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_AGAIN", 0.01)
    source = configured(base_url=openai.base_url)
    listed = openai.models
    openai.models = []
    with pytest.raises(ModelUnreachable):
        await source.get("default")
    assert "/v1/models" in source.faults["default"]
    warming = asyncio.create_task(source.warm())
    await asyncio.sleep(0.05)
    assert not warming.done()
    openai.models = listed
    async with asyncio.timeout(10):
        await warming
    assert source.faults == {}
    await source.close()


async def test_a_key_alone_means_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "discover", None)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    source = configured(api_key="sk-0123456789")
    assert (await source.get("default")).label == models._OPENAIS_OWN
    await source.close()


async def test_nothing_configured_and_nothing_found_is_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "discover", _nothing)
    source = configured()
    assert not source.is_demo("default")
    await source.warm()
    assert source.is_demo("default")
    assert source.label("default") == "demo"
    await source.close()


async def test_nothing_configured_and_a_local_server_found(
    openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found() -> Endpoint | None:
        return Endpoint(base_url=openai.base_url, name="fake-1")

    monkeypatch.setattr(discover, "discover", found)
    source = configured()
    assert (await source.get("default")).label == "fake-1"
    assert not source.is_demo("default")
    await source.close()


async def test_looking_around_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever() -> Endpoint | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(models, "_PATIENCE", 0.01)
    monkeypatch.setattr(discover, "discover", for_ever)
    source = configured()
    assert (await source.get("default")).label == "demo"
    await source.close()


async def test_a_key_that_is_none_is_the_operators_to_mend() -> None:
    source = configured(base_url=DEAD, name="x", api_key="kéy")
    with pytest.raises(ModelMisconfigured):
        await source.get("default")
    assert "api_key" in source.faults["default"]
    await source.close()


async def test_faults_follow_the_last_answer(openai: OpenAIServer) -> None:
    source = configured(base_url=openai.base_url, name="mine")
    model = await source.get("default")
    openai.script(Status(401))
    with pytest.raises(ModelMisconfigured):
        await _ask(model)
    assert "401" in source.faults["default"]
    await _ask(model)
    assert source.faults == {}
    await source.close()


async def test_a_fault_that_another_model_makes_up_for_is_a_remark(openai: OpenAIServer) -> None:
    settings = {
        name: Settings.model_validate({"base_url": openai.base_url, "name": name, "api_key": key})
        for name, key in (("good", None), ("bad", "kéy"), ("unused", "kéy"))
    }
    source = Models(settings)
    source.of_agent("main", ["bad", "good"])
    for name in ("bad", "unused"):
        with pytest.raises(ModelMisconfigured):
            await source.get(name)
    assert source.faults == {}
    assert set(source.remarks) == {"bad", "unused"}
    source.of_agent("other", ["bad"])
    assert set(source.faults) == {"bad"}
    assert set(source.remarks) == {"unused"}
    await source.close()


async def test_only_models_that_agents_ask_are_set_up_beforehand(openai: OpenAIServer) -> None:
    used = Settings.model_validate({"base_url": openai.base_url})
    source = Models({"default": Settings(), "used": used})
    source.of_agent("main", ["used"])
    await source.warm()
    assert (source.label("used"), source.label("default")) == ("fake-1", "auto")
    await source.close()


async def test_price_and_reasoning_are_the_models_own(openai: OpenAIServer) -> None:
    source = configured(
        base_url=openai.base_url, name="x", price={"input": 1.0, "output": 2.0}, reasoning="stored"
    )
    model = await source.get("default")
    openai.script(Events([chunk({"reasoning_content": "hm"}), *Say("Hi").events()]))
    *_, finish = [piece async for piece in model.ask([{"role": "user", "content": "Hello"}], [])]
    assert isinstance(finish, Finish)
    assert (finish.usage, finish.reasoning) == (Usage(9, 5, 0.000019), "hm")
    await source.close()


async def _ask(model: Model) -> None:
    async for _ in model.ask([{"role": "user", "content": "Hello"}], []):
        pass


async def test_closing_while_it_looks_around(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = asyncio.Event()

    async def for_ever() -> Endpoint | None:
        looking.set()
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(discover, "discover", for_ever)
    source = configured()
    getting = asyncio.create_task(source.get("default"))
    await looking.wait()
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        await getting
