"""The server's envelope: tokens, forms, the lesser methods, and the server as a process of its own."""

import asyncio
import json
import os
import signal
import sys

import aiohttp
import pytest
from telegram import (
    Bot,
    BotCommand,
)
from telegram.error import (
    BadRequest,
    EndPointNotFound,
)

from tests.fakes.conftest import TOKEN
from tests.fakes.telegram_server import TelegramServer

GROUP = -100


async def test_tokens_methods_and_forms(server: TelegramServer) -> None:
    ann = server.user(7)
    async with aiohttp.ClientSession(server.api_url) as client:

        async def asked(path: str, **body: object) -> tuple[int, str]:
            async with client.post(path, **body) as answer:  # type: ignore[arg-type] # whatever `post` takes
                found = await answer.json()
                assert found["ok"] is (answer.status == 200)
                return answer.status, found.get("description", "")

        assert await asked("/bot123456:AAwrong/getMe") == (401, "Unauthorized")
        assert await asked("/botmalformed/getMe") == (404, "Not Found")
        assert await asked(f"/bot{TOKEN}/getNothing") == (404, "Not Found: method not found")
        send, message = f"/bot{TOKEN}/sendMessage", {"chat_id": "7", "text": "x", "entities": "[]"}
        for body in (
            {"json": message},
            {"data": message},
            {"params": message},
            {"data": aiohttp.FormData(message, default_to_multipart=True)},
        ):
            assert await asked(send, **body) == (200, "")
        assert await asked(f"/bot{TOKEN}/SENDMESSAGE", json=message) == (200, "")
        assert ann.chat.texts() == ["x"] * 5
        assert (await asked(send, data="text=%ff&chat_id=7"))[
            1
        ] == "Bad Request: text must be encoded in UTF-8"
        assert (await asked(send, json=message | {"entities": "[{"}))[0] == 400
        assert (await asked(send, json={"text": "x"}))[1] == "Bad Request: chat_id is empty"


async def test_commands_chats_members_and_leaving(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    group = server.group(GROUP, "Team", members=(ann,))
    assert await bot.set_my_commands([BotCommand("new", "Begin anew")])
    assert [command.command for command in await bot.get_my_commands()] == ["new"]
    with pytest.raises(BadRequest, match="Bot_command_invalid"):
        await bot.set_my_commands([BotCommand("Not-Allowed", "x")])
    assert (await bot.get_chat(GROUP)).title == "Team"
    assert (await bot.get_chat_member(GROUP, 7)).status == "member"
    group.chat.members[7] = "administrator"
    assert (await bot.get_chat_member(GROUP, 7)).status == "administrator"
    with pytest.raises(BadRequest, match="User not found"):
        await bot.get_chat_member(GROUP, 99)
    assert (await bot.get_me()).username == "lunar_bot"
    with pytest.raises(EndPointNotFound):
        await bot.do_api_request("getNothing")
    assert await bot.close()
    assert await bot.log_out()
    with pytest.raises(BadRequest, match="Logged out"):
        await bot.get_me()


async def test_as_a_process_of_its_own() -> None:
    command = (sys.executable, "-m", "tests.fakes.telegram_server", "--port", "0", "--token", TOKEN)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    try:
        async with aiohttp.ClientSession(url) as client:

            async def control(verb: str, **body: object) -> dict[str, object]:
                async with client.post(f"/control/{verb}", json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    found: dict[str, object] = await answer.json()
                    return found

            await control("says", user=7, text="from another process")
            await control("fault", method="sendMessage", fault="AnswerLost", chat=7)
            send = {"chat_id": 7, "text": "hello"}
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.post(f"/bot{TOKEN}/sendMessage", json=send)
            async with client.get("/control/ledger") as answer:
                ledger = json.loads(await answer.text())
            assert ledger["pending"] == 1
            assert ledger["chats"]["7"]["seen_texts"] == ["hello"]
            assert [(call["committed"], call["answered"]) for call in ledger["calls"]] == [(True, False)]
    finally:
        os.kill(process.pid, signal.SIGTERM)
        await process.wait()
