"""The web channel of a real daemon, seen from outside by raw HTTP and by the `websockets` library."""

import asyncio
import base64
import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector
from websockets.exceptions import ConnectionClosed

from gateway.router import NOT_DELETED
from tests.fakes.kept import both_stores, files_only
from tests.fakes.openai_behaviours import Say
from tests.fakes.processes import until
from tests.fakes.proxy import Proxy
from tests.fakes.webclient import WebClient
from tests.faults.crowd import Crowd, hello

TOKEN = "correct-horse-battery-staple"


async def status_of(port: int, method: str, path: str, *headers: str, body: bytes = b"") -> int:
    """The status that a request gets, with exactly these headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"{method} {path} HTTP/1.1",
        *headers,
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode() + body)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
    "Sec-WebSocket-Version: 13",
)


ROUTES = ("/", "/chat.js", "/ws", "DELETE /api/session", "/healthz", "/readyz")
HOSTS = {
    "127.0.0.1:{port}": True,
    "localhost:{port}": True,
    "[::1]:{port}": True,
    "localhost": True,
    "chat.example.org": True,
    "evil.example": False,
    "evil.example:{port}": False,
    "127.0.0.1.evil.example": False,
    "192.168.1.5:{port}": False,
    "localhost.evil.example:{port}": False,
}
ORIGINS = {
    None: True,
    "http://{host}": True,  # the page's own
    "https://chat.example.org": True,
    "http://evil.example": False,
    "null": False,
    "https://{host}": None,  # the page's own name, another scheme: only where it is allowed by name
}


class TestWhoMayAsk:
    def expected(self, route: str, host: str, origin: str | None) -> set[int]:
        if route in ("/healthz", "/readyz"):
            return {200}
        allowed = HOSTS[host] and (
            ORIGINS[origin] or (ORIGINS[origin] is None and host == "chat.example.org")
        )
        if not allowed:
            return {403}
        return {"/": {200}, "/chat.js": {200}, "/ws": {101}}.get(route, {400})

    async def test_route_by_origin_by_host(self, daemons):
        daemon = daemons(LUNAR_HTTP__ALLOWED_ORIGINS="[https://chat.example.org]")
        await daemon.start()
        wrong = []
        table = list(itertools.product(ROUTES, HOSTS, ORIGINS))
        assert len(table) > 300
        for route, host, origin in table:
            method, _, path = route.rpartition(" ")
            named = host.format(port=daemon.port)
            headers = [f"Host: {named}"]
            if origin is not None:
                headers.append(f"Origin: {origin.format(host=named)}")
            if path == "/ws":
                headers += UPGRADE
            status = await status_of(daemon.port, method or "GET", path, *headers)
            if status not in self.expected(route, host, origin):
                wrong.append((route, headers[:2], status))
        assert not wrong

    async def test_headers_of_the_page(self, daemons):
        daemon = await daemons().start()
        async with ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{daemon.port}/") as page:
                text = await page.text()
                policy = page.headers["Content-Security-Policy"]
                etag = page.headers["ETag"]
            assert "unsafe" not in policy
            assert policy.startswith("default-src 'none'")
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            assert "style=" not in text
            assert not re.search(r"<script(?![^>]*\ssrc=)", text)
            assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
            url = f"http://127.0.0.1:{daemon.port}/"
            async with http.get(url, headers={"If-None-Match": etag}) as again:
                assert again.status == 304
            for missing in (
                "/nothing",
                "/..%2f..%2fconfig.py",
                "/%2e%2e/server.py",
                "/__init__.py",
                "/page/chat.js",
            ):
                async with http.get(url + missing.lstrip("/")) as answer:
                    assert answer.status == 404
            for body, status in (("{}", 400), ('{"session": "mine"}', 401)):
                async with http.delete(f"{url}api/session", data=body) as answer:
                    assert answer.status == status
                    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert answer.headers["Server"] == "lunar"

    async def test_everything_the_page_loads_is_small(self, daemons):
        daemon = await daemons().start()
        url = f"http://127.0.0.1:{daemon.port}"
        async with ClientSession(auto_decompress=False) as http:
            async with http.get(url, headers={"Accept-Encoding": "identity"}) as page:
                text = await page.text()
            loaded = {"/", *re.findall(r'(?:src|href)="(/?[a-z]+\.(?:css|js|svg|webmanifest))"', text)}
            sizes = {}
            queue = list(loaded)
            while queue:
                name = queue.pop()
                async with http.get(f"{url}/{name.lstrip('/')}") as answer:
                    assert answer.status == 200, name
                    sizes[name.lstrip("/")] = len(await answer.read())
                async with http.get(
                    f"{url}/{name.lstrip('/')}", headers={"Accept-Encoding": "identity"}
                ) as plain:
                    body = await plain.text()
                for module in re.findall(r'from "\./([a-z]+\.js)"', body) if name.endswith(".js") else ():
                    if module not in sizes and module not in queue:
                        queue.append(module)
        assert len(sizes) <= 9
        assert sum(sizes.values()) < 60 * 1024


class TestTheToken:
    @pytest.mark.parametrize(
        "given",
        [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), " " + TOKEN, TOKEN * 1000, "\ud800", "ü"],
    )
    async def test_only_the_whole_token_opens(self, daemons, given):
        daemon = await daemons(LUNAR_HTTP_TOKEN=TOKEN).start()
        hello = {} if given is None else {"token": given}
        client = await WebClient.open(daemon.port, **hello)
        error = await client.receive()
        assert (error["type"], error["code"]) == ("error", "unauthorized")
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert closed.value.rcvd.code == 1008
        client = await WebClient.open(daemon.port, token=TOKEN)
        assert (await client.receive())["type"] == "welcome"
        await client.close()

    @pytest.mark.parametrize("given", [0, True, ["x"], {"a": 1}, 1e9])
    async def test_what_is_no_text_is_no_token(self, daemons, given):
        daemon = await daemons(LUNAR_HTTP_TOKEN=TOKEN).start()
        client = await WebClient.open(daemon.port, token=given)
        error = await client.receive()
        assert (error["type"], error["code"]) == ("error", "bad_frame")

    async def test_a_token_in_the_query_opens_nothing(self, daemons):
        daemon = await daemons(LUNAR_HTTP_TOKEN=TOKEN).start()
        host = f"Host: 127.0.0.1:{daemon.port}"
        # The upgrade is no proof: what counts is the hello, which has no token here.
        assert await status_of(daemon.port, "GET", f"/ws?token={TOKEN}", host, *UPGRADE) == 101
        client = await WebClient.open(daemon.port)
        assert (await client.receive())["code"] == "unauthorized"

    async def test_ten_thousand_guesses_are_slowed_and_never_succeed(self, daemons):
        daemon = await daemons(LUNAR_HTTP_TOKEN=TOKEN).start()
        url = f"http://127.0.0.1:{daemon.port}/api/session"
        body = json.dumps({"session": "A" * 43}).encode()
        seen: dict[int, int] = {}

        async def guess(http: ClientSession, number: int) -> None:
            async with http.delete(url, data=body, headers={"X-Lunar-Token": f"guess-{number}"}) as answer:
                seen[answer.status] = seen.get(answer.status, 0) + 1

        async with ClientSession(connector=TCPConnector(limit=8)) as http:
            for start in range(0, 10_000, 500):
                await asyncio.gather(*(guess(http, start + number) for number in range(500)))
        assert set(seen) == {401, 429}
        assert seen[401] < 100  # the rest was not even looked at
        client = await WebClient.open(daemon.port, token="one-more")
        error = await client.receive()
        assert error["code"] == "rate_limited"
        assert 0 < error["retry_after"] <= 5
        assert await status_of(daemon.port, "GET", "/readyz", "Host: localhost") == 200

    async def test_no_secret_is_in_any_log(self, daemons):
        daemon = await daemons(LUNAR_HTTP_TOKEN=TOKEN).start()
        client = await WebClient.open(daemon.port, token=TOKEN)
        secret = (await client.receive())["session"]
        await client.send(type="message", id="m1", text="hello")
        await client.until("ack")
        client.cut()
        wrong = await WebClient.open(daemon.port, token="wrong-token-wrong", session=secret)
        await wrong.receive()
        await daemon.stop()
        everything = json.dumps(daemon.log) + "".join(daemon.noise)
        assert TOKEN not in everything
        assert "wrong-token-wrong" not in everything
        assert secret not in everything
        for path in daemon.data_dir.rglob("*"):
            assert secret not in path.name
            if path.is_file():
                assert secret.encode() not in path.read_bytes()


class TestSecrets:
    async def test_a_new_conversation_gets_a_secret_that_opens_it_again(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        welcome = await client.receive()
        secret = welcome["session"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
        digest = hashlib.sha256(secret.encode()).hexdigest()[:16]
        assert welcome["session_id"] == f"agent:main:webchat:session:{digest}"
        await client.send(type="message", id="m1", text="My name is Hao")
        await client.until("done")
        await client.close()
        again = await WebClient.open(daemon.port, session=secret)
        welcome = await again.receive()
        assert welcome["session_id"].endswith(digest)
        assert welcome["turns"] == 2
        await again.close()

    @pytest.mark.parametrize(
        "trick",
        [
            "{id}",
            "agent:main:webchat:session:{id}",
            "session:{id}",
            "local",
            "../{id}",
            "{secret} ",
            "{secret}\n",
            " {secret}",
            "{secret}A",
            "{flipped_last}=",
            "",
            "%2e%2e",
            "A" * 42,
            "A" * 44,
            "é" * 43,
            "A" * 42 + "\x00",
            "A" * 42 + "=",
            "A" * 42 + "\ud800",
        ],
    )
    async def test_no_id_trick_opens_somebody_elses(self, daemons, trick):
        daemon = await daemons().start()
        mine = await WebClient.open(daemon.port)
        secret = (await mine.receive())["session"]
        await mine.send(type="message", id="m1", text="canary-7f3a")
        await mine.until("done")
        id = hashlib.sha256(secret.encode()).hexdigest()[:16]
        attempt = trick.format(id=id, secret=secret, flipped_last=secret[:-1])
        other = await WebClient.open(daemon.port, session=attempt)
        error = await other.receive()
        assert (error["type"], error["code"]) == ("error", "unauthorized")
        with pytest.raises(ConnectionClosed):
            await other.connection.recv()
        assert "canary" not in json.dumps(other.frames)
        await mine.close()

    async def test_a_well_formed_secret_of_nobody_opens_an_empty_session(self, daemons):
        daemon = await daemons().start()
        mine = await WebClient.open(daemon.port)
        secret = (await mine.receive())["session"]
        await mine.send(type="message", id="m1", text="canary-7f3a")
        await mine.until("done")
        for guess in (secret.swapcase(), secret[::-1], "A" * 43):
            other = await WebClient.open(daemon.port, session=guess)
            welcome = await other.receive()
            assert welcome["turns"] == 0
            assert welcome["running"] is None
            await other.send(type="history", limit=200)
            assert (await other.receive()) == {"type": "history", "events": [], "more": False}
            await other.close()
        await mine.close()

    async def test_agents_and_control_are_not_the_clients_to_choose(self, daemons):
        daemon = await daemons(LUNAR_AGENTS__SECRET__HISTORY_TURNS="5").start()
        client = await WebClient.open(daemon.port, agent="secret")
        assert (await client.receive())["code"] == "not_allowed"
        client = await WebClient.open(daemon.port)
        await client.receive()
        await client.send(type="control", id="c1", verb="status", args={})
        error = await client.receive()
        assert (error["code"], error["id"]) == ("not_allowed", "c1")
        await client.close()


class TestDeleting:
    @both_stores
    async def test_the_secret_deletes_for_good(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        secret = (await client.receive())["session"]
        await client.send(type="message", id="m1", text="My name is Hao")
        await client.until("done")
        assert len(daemon.kept.sessions()) == 1
        url = f"http://127.0.0.1:{daemon.port}/api/session"
        async with ClientSession() as http:
            for expected in (204, 404):
                async with http.delete(url, json={"session": secret}) as answer:
                    assert answer.status == expected
        assert not daemon.kept.sessions()
        await client.send(type="message", id="m2", text="still there?")
        await client.until("done")
        again = await WebClient.open(daemon.port, session=secret)
        assert (await again.receive())["turns"] == 2
        await client.close()
        await again.close()

    @files_only
    async def test_what_the_disk_does_not_delete_is_told_and_goes_on(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        secret = (await client.receive())["session"]
        await client.send(type="message", id="m1", text="My name is Hao")
        await client.until("done")
        (path,) = (daemon.data_dir / "sessions").iterdir()
        aside = path.rename(path.with_suffix(".aside"))
        path.mkdir()  # a directory is not removed as a file is
        url = f"http://127.0.0.1:{daemon.port}/api/session"
        async with ClientSession() as http:
            async with http.delete(url, json={"session": secret}) as answer:
                assert (answer.status, await answer.text()) == (503, NOT_DELETED + "\n")
            path.rmdir()
            aside.rename(path)
            await client.send(type="message", id="m2", text="What's my name?")
            await client.until("done")
            async with http.delete(url, json={"session": secret}) as answer:
                assert answer.status == 204
        await client.close()

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"[]", b"null", b'{"session": 5}', b'{"session": "x"}', b"\xff", b"[" * 200_000],
        ids=lambda body: repr(body[:16]),
    )
    async def test_what_names_no_session_deletes_nothing(self, daemons, body):
        daemon = await daemons().start()
        host = f"Host: 127.0.0.1:{daemon.port}"
        assert await status_of(daemon.port, "DELETE", "/api/session", host, body=body) in (400, 401)


class TestLimits:
    async def test_thirty_a_minute_with_bursts_of_ten(self, daemons, openai):
        daemon = await daemons(server=openai).start()
        client = await WebClient.open(daemon.port)
        await client.receive()
        for number in range(12):
            await client.send(type="message", id=f"m{number}", text="quick")
        answers = {}
        while len(answers) < 12:
            frame = await client.receive()
            if frame["type"] in ("ack", "error"):
                answers[frame["id"]] = frame
        assert [answers[f"m{number}"]["type"] for number in range(10)] == ["ack"] * 10
        refused = answers["m11"]
        assert refused["code"] == "rate_limited"
        assert 0 < refused["retry_after"] <= 4
        await client.close()

    async def test_frames_that_are_too_large_close_with_1009(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        await client.receive()
        await client.connection.send("x" * (600 * 1024))
        assert (await client.receive())["code"] == "frame_too_large"
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert closed.value.rcvd.code == 1009
        client = await WebClient.open(daemon.port)
        await client.receive()
        with pytest.raises(ConnectionClosed):
            await _send_and_listen(client, "x" * (8 << 20))

    async def test_binary_frames_and_bad_utf8_close(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        await client.receive()
        await client.connection.send(b'{"type":"stop"}')
        await client.until("error")
        with pytest.raises(ConnectionClosed):
            await client.connection.recv()
        client = await WebClient.open(daemon.port)
        await client.receive()
        with pytest.raises(ConnectionClosed) as closed:
            await _send_and_listen(client, b"\xff\xfe")
        assert closed.value.rcvd.code == 1007


class TestReconnecting:
    @pytest.mark.parametrize("by", ["client", "proxy"])
    @pytest.mark.parametrize("render", ["text", "html"])
    async def test_cut_at_every_frame_of_a_streamed_turn(self, daemons, openai, render, by):
        """Every event once, in order, the reply whole, the turn run once."""
        reply = "One two three.\n\nFour **five** six.\n"
        openai.reply = lambda body: Say(reply, size=3)
        daemon = await daemons(server=openai).start()
        async with Proxy(daemon.port) as proxy:
            await self.cut_everywhere(proxy, render, by, reply)
        assert len(openai.requests) == self.cuts

    async def cut_everywhere(self, proxy: Proxy, render: str, by: str, reply: str) -> None:
        for cut in range(1, 40):
            self.cuts = cut
            client = await WebClient.open(proxy.port, render=render)
            secret = (await client.receive())["session"]
            await client.send(type="message", id="m1", text="go")
            for _ in range(cut):
                frame = await client.receive()
                if frame["type"] == "done":
                    break
            whole = client.frames[-1]["type"] == "done"
            if by == "proxy":
                proxy.cut()
            else:
                client.cut()
            cursors = [frame["cursor"] for frame in client.frames if frame["type"] == "event"]
            hello = {"after": cursors[-1]} if cursors else {}
            again = await WebClient.open(proxy.port, session=secret, render=render, **hello)
            await again.receive()
            await again.send(type="message", id="m1", text="go")
            await again.until("ack", id="m1")
            closed = [frame for frame in client.frames + again.frames if _closes(frame)]
            while not closed:
                frame = await again.receive()
                closed = [frame] if _closes(frame) else []
            events = [frame for frame in client.frames + again.frames if frame["type"] == "event"]
            assert len({frame["cursor"] for frame in events}) == len(events)
            roles = [(frame["event"]["role"], frame["event"].get("name")) for frame in events]
            assert [role for role in roles if role != ("system", "session")] == [
                ("user", None),
                ("system", "started"),
                ("assistant", None),
            ]
            assert closed[0]["event"]["content"] == reply
            if render == "html":
                assert "<strong>five</strong>" in closed[0]["html"]
            await again.close()
            if whole:
                break
        else:
            pytest.fail("the turn had more frames than expected")

    async def test_killed_in_the_middle_the_turn_is_answered_whole_and_once(self, daemons, openai):
        daemon = await daemons(server=openai).start()
        openai.reply = lambda body: Say("word " * 40, size=5, delay=0.02)
        client = await WebClient.open(daemon.port)
        secret = (await client.receive())["session"]
        await client.send(type="message", id="m1", text="go")
        await client.until("delta")
        cursor = [frame["cursor"] for frame in client.frames if frame["type"] == "event"][-1]
        await daemon.kill()
        openai.reply = lambda body: Say("All of it.")
        await daemon.start()
        again = await WebClient.open(daemon.port, session=secret, after=cursor)
        await again.receive()
        closed = await again.until("event")
        while not _closes(closed):
            closed = await again.until("event")
        assert closed["event"]["content"] == "All of it."
        events = daemon.events((again.frames[0])["session_id"])
        assert sum(event["role"] == "user" for event in events) == 1
        assert sum("answers" in event for event in events) == 1
        await again.close()

    @both_stores
    async def test_a_cursor_of_another_session_resets(self, daemons):
        daemon = await daemons().start()
        one, two = [await WebClient.open(daemon.port) for _ in range(2)]
        for client in (one, two):
            await client.receive()
            await client.send(type="message", id="m1", text="hello")
            await client.until("done")
        cursor = one.frames[-1]["cursor"]
        again = await WebClient.open(daemon.port, session=two.frames[0]["session"], after=cursor)
        assert (await again.receive())["reset"] is True
        assert (await again.receive())["type"] == "event"
        for client in (one, two, again):
            await client.close()

    async def test_a_stop_of_the_gateway_says_so(self, daemons):
        daemon = await daemons().start()
        client = await WebClient.open(daemon.port)
        await client.receive()
        assert await daemon.stop() == 0
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert closed.value.rcvd.code == 1001


async def test_a_client_that_leaves_before_the_upgrade_is_no_error(daemons):
    daemon = await daemons().start()
    host = f"Host: 127.0.0.1:{daemon.port}"
    request = "\r\n".join(["GET /ws HTTP/1.1", host, *UPGRADE, "", ""]).encode()
    for _ in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(request)
        writer.transport.abort()
    client = await WebClient.open(daemon.port)
    await client.until("welcome")
    await client.close()
    await daemon.stop()  # the fixture fails the test if anything was logged as an error


async def test_a_key_that_no_client_makes_is_no_error(daemons):
    daemon = await daemons().start()
    host = f"Host: 127.0.0.1:{daemon.port}"
    for key, status in (("é" * 12, 400), ("no base64", 426), ("", 426)):
        headers = [line for line in UPGRADE if not line.startswith("Sec-WebSocket-Key")]
        got = await status_of(daemon.port, "GET", "/ws", host, *headers, f"Sec-WebSocket-Key: {key}")
        assert got == status, key
    await daemon.stop()


async def _send_and_listen(client: WebClient, data: str | bytes) -> None:
    await client.connection.send(data, text=True)
    while True:
        await client.connection.recv()


def _closes(frame: dict) -> bool:
    return frame["type"] == "event" and "answers" in frame["event"]


async def test_a_client_that_never_reads_is_let_go_of_with_its_descriptor(daemons, openai):
    """It counted as gone, and kept its connection open for as long as it liked."""
    openai.reply = lambda body: Say("x" * 300_000, size=30_000)
    daemon = await daemons(server=openai).start()
    talker = await WebClient.open(daemon.port)
    secret = (await talker.until("welcome"))["session"]
    async with Crowd(daemon.port) as crowd:
        await crowd.come(1, hello(session=secret), reading=False)
        for number in range(6):
            await talker.send(type="message", id=f"m{number}", text="go")
            await talker.until("done")
        await until(lambda: _established(daemon.port) == 1)
    await talker.close()


def _established(port: int) -> int:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
