"""The floor of streaming: aiohttp on both sides, and each chunk decoded in between.

`python -m benchmarks.relay URL` prints the port of a WebSocket on which every message but the first is asked
of the model, and the reply sent back as the gateway's frames have it.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import msgspec
import uvloop
from aiohttp import web


class _Delta(msgspec.Struct):
    content: str = ""


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode
_DONE = '{"type":"done"}'


async def _relay(socket: web.WebSocketResponse, http: aiohttp.ClientSession, url: str) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "go"}], "stream": True}
    async with http.post(f"{url}/chat/completions", json=body) as answer:
        async for line in answer.content:
            if line.startswith(b"data: {"):
                text = _decode(line[6:]).choices[0].delta.content
                frame = msgspec.json.encode({"type": "delta", "text": text})
                await socket.send_str(frame.decode())
    await socket.send_str(_DONE)


async def _serve(url: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def serve(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse(compress=False)
            await socket.prepare(request)
            await socket.send_str((await socket.receive()).data)
            async for _ in socket:
                await _relay(socket, http, url)
            return socket

        app = web.Application()
        app.router.add_get("/ws", serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
