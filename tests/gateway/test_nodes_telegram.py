"""One bot and two nodes: one of them polls, both know who may talk, and each takes over from the other."""

import asyncio
import json
import re
import signal

import pytest
from aiohttp import ClientSession

from channels.telegram.settings import Settings
from tests.conftest import Daemons
from tests.fakes.daemon import Daemon
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.postgres_server import shared
from tests.fakes.telegram_server import TelegramServer
from tests.gateway.test_daemon_telegram import TOKEN
from tests.gateway.verbs.lunar import lunar

PATIENCE = 30.0


@pytest.fixture
async def url() -> str:
    server = await asyncio.to_thread(shared)
    return await asyncio.to_thread(server.database)


def node(daemons: Daemons, url: str, telegram: TelegramServer, openai: OpenAIServer, **env: str) -> Daemon:
    return daemons(
        server=openai,
        TELEGRAM_BOT_TOKEN=TOKEN,
        LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url,
        LUNAR_STORE__URL=url,
        **env,
    )


async def noted(daemon: Daemon, note: str) -> None:
    """Wait until /readyz is green and says so."""
    async with asyncio.timeout(PATIENCE):
        wanted = {"channel telegram": note}
        while (await daemon.get("/readyz"))[1].get("notes") != wanted:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.1)
    assert (await daemon.get("/readyz"))[0] == 200


async def pairing(daemon: Daemon, *arguments: str) -> str:
    ran = await lunar("pairing", *arguments, cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir))
    assert ran.code == 0, ran
    return ran.out


async def test_a_stranger_who_is_let_in_on_one_node_is_known_on_the_other_that_takes_over(
    daemons: Daemons, openai: OpenAIServer, url: str
) -> None:
    async with TelegramServer(TOKEN) as telegram:
        a, b = (node(daemons, url, telegram, openai, LUNAR_STORE__NODE=name) for name in "ab")
        await a.start()
        await a.logged("channel ready", channel="telegram")
        hao = telegram.user(7, "Hao")
        hao.says("Hello?")
        await telegram.until(lambda: bool(hao.chat.texts()), timeout=PATIENCE)
        (code,) = re.findall(r"/approve (\S+)", hao.chat.texts()[0])
        await b.start()
        await noted(b, "polling is done by node a")
        assert await pairing(b, "approve", code) == "user:7 may talk from now on.\n"
        await telegram.until(lambda: "You may talk to me now." in hao.chat.texts()[-1], timeout=PATIENCE)
        hao.says("And now?")
        await telegram.until(lambda: hao.chat.texts()[-1] == "echo: And now?", timeout=PATIENCE)
        status = await lunar("status", cwd=b.folder, LUNAR_DATA_DIR=str(b.data_dir))
        assert "telegram: ready, polling is done by node a" in status.out
        a.signal(signal.SIGKILL)
        hao.says("Still there?")
        await telegram.until(lambda: hao.chat.texts()[-1] == "echo: Still there?", timeout=PATIENCE)
        await a.exit()
        await a.start()
        await noted(a, "polling is done by node b")
        assert await pairing(a, "revoke", "user:7") == "user:7 may talk no more.\n"
        hao.says("Me?")
        await telegram.until(lambda: "/approve" in hao.chat.texts()[-1], timeout=PATIENCE)


async def test_the_webhook_is_set_by_one_and_taken_by_both(
    daemons: Daemons, openai: OpenAIServer, url: str
) -> None:
    settings = Settings(bot_token=TOKEN, mode="webhook")
    async with TelegramServer(TOKEN) as telegram:
        a, b = (
            node(
                daemons, url, telegram, openai,
                LUNAR_STORE__NODE=name,
                LUNAR_CHANNELS__TELEGRAM__MODE="webhook",
                LUNAR_CHANNELS__TELEGRAM__WEBHOOK_URL=f"https://{name}.example.org",
                LUNAR_CHANNELS__TELEGRAM__ALLOW="[7]",
            )
            for name in "ab"
        )  # fmt: skip
        await a.start()
        await a.logged("channel ready", channel="telegram")
        await b.start()
        await noted(b, "the webhook is seen to by node a")
        hao = telegram.user(7, "Hao")
        for number, daemon in enumerate((a, b, a, b)):
            update = {
                "update_id": number + 1,
                "message": {
                    "message_id": number + 1000,
                    "date": 1_800_000_000,
                    "chat": {"id": 7, "type": "private", "first_name": "Hao"},
                    "from": {"id": 7, "is_bot": False, "first_name": "Hao"},
                    "text": f"message {number}",
                },
            }
            headers = {"X-Telegram-Bot-Api-Secret-Token": settings.webhook_secret}
            address = f"http://127.0.0.1:{daemon.port}{settings.webhook_path}"
            async with ClientSession() as http, http.post(address, json=update, headers=headers) as answer:
                assert answer.status == 200
            wanted = f"echo: message {number}"
            await telegram.until(lambda wanted=wanted: hao.chat.texts()[-1:] == [wanted], timeout=PATIENCE)
        assert TOKEN.partition(":")[2] not in json.dumps(a.log + b.log)


async def test_a_photo_that_the_other_node_took_in_is_told_of(
    daemons: Daemons, openai: OpenAIServer, url: str
) -> None:
    """Its file is on the node that polls; the reply is written by whichever node has the session."""
    async with TelegramServer(TOKEN) as telegram:
        allow = {"LUNAR_CHANNELS__TELEGRAM__ALLOW": "[7]"}
        a, b = (node(daemons, url, telegram, openai, LUNAR_STORE__NODE=name, **allow) for name in "ab")
        await a.start()
        await a.logged("channel ready", channel="telegram")
        hao = telegram.user(7, "Hao")
        hao.sends_photo(b"\xff\xd8\xff photo", caption="What is this?")
        await telegram.until(lambda: bool(hao.chat.texts()), timeout=PATIENCE)
        await b.start()
        await a.stop()
        hao.says("And?")
        await telegram.until(lambda: hao.chat.texts()[-1] == "echo: And?", timeout=PATIENCE)
        assert not list((b.data_dir / "media").rglob("*"))
        assert "kept as media/telegram/" in json.dumps(openai.requests[-1].body["messages"])
