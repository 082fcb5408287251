"""The Telegram channel inside a real daemon: by webhook, and what operators see of it."""

import json
import re
import socket

from aiohttp import ClientSession

from channels.telegram.settings import Settings
from tests.conftest import Daemons
from tests.fakes.daemon import ROOT
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.telegram_server import TelegramServer
from tests.gateway.verbs.lunar import lunar

TOKEN = "123456:AAwebhookwebhookwebhookwebhookwebho"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_updates_brought_by_webhook_are_answered(daemons: Daemons, openai: OpenAIServer) -> None:
    port = free_port()
    path = Settings(bot_token=TOKEN, mode="webhook").webhook_path
    async with TelegramServer(TOKEN) as telegram:
        daemon = daemons(
            server=openai,
            TELEGRAM_BOT_TOKEN=TOKEN,
            LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url,
            LUNAR_CHANNELS__TELEGRAM__MODE="webhook",
            LUNAR_CHANNELS__TELEGRAM__WEBHOOK_URL=f"http://127.0.0.1:{port}",
            LUNAR_CHANNELS__TELEGRAM__ALLOW="[7]",
            LUNAR_HTTP__PORT=str(port),
        )
        hao = telegram.user(7, "Hao")
        hao.says("sent while the gateway was down")
        await daemon.start()
        await daemon.logged("channel ready", channel="telegram")
        wanted = "echo: sent while the gateway was down"
        await telegram.until(lambda: hao.chat.texts() == [wanted], timeout=15)
        async with ClientSession() as http:
            for secret, where, status in (("wrong", path, 401), (None, path, 401), ("x", "/telegram/x", 404)):
                headers = {"X-Telegram-Bot-Api-Secret-Token": secret} if secret else {}
                url = f"http://127.0.0.1:{port}{where}"
                async with http.post(url, json={"update_id": 1}, headers=headers) as answer:
                    assert answer.status == status
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert 'lunar_telegram_deliveries_total{state="delivered"} 1.0' in await answer.text()
        assert TOKEN.partition(":")[2] not in json.dumps(daemon.log)


async def test_a_stranger_is_let_in_and_out_by_the_command_line(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    async with TelegramServer(TOKEN) as telegram:
        daemon = daemons(
            server=openai, TELEGRAM_BOT_TOKEN=TOKEN, LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url
        )
        await daemon.start()

        async def pairing(*arguments: str) -> tuple[int, str]:
            ran = await lunar("pairing", *arguments, cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir))
            return ran.code, ran.out

        await daemon.logged("channel ready", channel="telegram")
        assert await pairing("list") == (
            0,
            "Nobody has asked yet. Whoever writes to the bot is told a code.\n",
        )
        hao = telegram.user(7, "Hao")
        hao.says("Hello?")
        await telegram.until(lambda: bool(hao.chat.texts()), timeout=15)
        _, listed = await pairing("list", "--json")
        (waiting,) = json.loads(listed)["waiting"]
        assert waiting["peer"] == "user:7"
        assert waiting["code"] in hao.chat.texts()[0]
        assert (await pairing("approve", "WRONG2"))[0] == 1
        assert await pairing("approve", waiting["code"]) == (0, "user:7 may talk from now on.\n")
        await telegram.until(lambda: "You may talk to me now." in hao.chat.texts()[-1], timeout=15)
        await daemon.kill()
        await daemon.start()
        hao.says("And now?")
        await telegram.until(lambda: hao.chat.texts()[-1] == "echo: And now?", timeout=15)
        assert await pairing("revoke", "user:7") == (0, "user:7 may talk no more.\n")
        assert (await pairing("revoke", "user:7"))[0] == 1
        said = len(openai.requests)
        hao.says("Still?")
        await telegram.until(lambda: "/approve" in hao.chat.texts()[-1], timeout=15)
        assert len(openai.requests) == said


HELD_IMPORT = """
import importlib, os, time

load = importlib.import_module


def held(name, package=None):
    while name == "channels.telegram.channel" and not os.path.exists(os.environ["TELEGRAM_MAY_LOAD"]):
        time.sleep(0.01)
    return load(name, package)


importlib.import_module = held
"""


async def test_an_approval_right_after_the_start_waits_for_the_channel(
    daemons: Daemons, openai: OpenAIServer
) -> None:
    async with TelegramServer(TOKEN) as telegram:
        daemon = daemons(
            server=openai,
            TELEGRAM_BOT_TOKEN=TOKEN,
            LUNAR_CHANNELS__TELEGRAM__API_URL=telegram.api_url,
        )
        await daemon.start()
        hao = telegram.user(7, "Hao")
        hao.says("Hello?")
        await telegram.until(lambda: bool(hao.chat.texts()), timeout=15)
        (code,) = re.findall(r"/approve (\S+)", hao.chat.texts()[0])
        await daemon.kill()
        held, may_load = daemon.folder / "held", daemon.folder / "may-load"
        held.mkdir()
        (held / "sitecustomize.py").write_text(HELD_IMPORT, encoding="utf-8")
        await daemon.start(PYTHONPATH=f"{held}:{ROOT}", TELEGRAM_MAY_LOAD=str(may_load))
        owner, other = await daemon.client("owner"), await daemon.client("other")
        await owner.send("message", id="c1", text=f"/approve {code}")
        await other.ask("The gateway serves the others meanwhile.")
        may_load.touch()
        assert (await owner.until("notice", id="c1"))["text"] == "user:7 may talk from now on."
        await telegram.until(lambda: "You may talk to me now." in hao.chat.texts()[-1], timeout=15)
