"""The examples of docs/proxy.md, run for real: only addresses, ports and the certificate are changed."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests import requirement
from tests.fakes.webclient import WebClient

DOCS = Path(__file__).parents[3] / "docs" / "proxy.md"
THERE = {"name": "chat.example.org", "origin": "https://chat.example.org"}


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(port: int, folder: Path, *command: str) -> AsyncIterator[None]:
    """A proxy as a process, until it listens and while the test runs."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        else:
            pytest.fail("the proxy does not listen")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def nginx(folder: Path, upstream: int) -> AsyncIterator[int]:
    program = requirement.program("nginx", "/usr/sbin/nginx")
    port = free_port()
    site = example("nginx").replace("127.0.0.1:8420", f"127.0.0.1:{upstream}")
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    site = re.sub(r"\n\s*ssl_certificate\w*\s[^\n]*", "", site)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{site}}}\n"
    )
    async with running(port, folder, program, "-e", "stderr", "-p", str(folder), "-c", str(configuration)):
        yield port


@asynccontextmanager
async def caddy(folder: Path, upstream: int) -> AsyncIterator[int]:
    program = requirement.program("caddy")
    port = free_port()
    site = example("caddy").replace("127.0.0.1:8420", f"127.0.0.1:{upstream}")
    site = site.replace("chat.example.org {", f"http://chat.example.org:{port} {{\n    bind 127.0.0.1")
    configuration = folder / "Caddyfile"
    configuration.write_text(f"{{\n    admin off\n    auto_https off\n}}\n{site}")
    async with running(
        port, folder, program, "run", "--config", str(configuration), "--adapter", "caddyfile"
    ):
        yield port


@pytest.mark.parametrize("proxy", [nginx, caddy])
async def test_the_documented_example_works(daemons, folder, proxy):
    daemon = daemons(
        LUNAR_HTTP__ALLOWED_ORIGINS="[https://chat.example.org]", LUNAR_HTTP__TRUSTED_PROXIES="[127.0.0.1]"
    )
    await daemon.start()
    async with proxy(folder, daemon.port) as port:
        client = await WebClient.open(port, **THERE)
        secret = (await client.receive())["session"]
        await client.send(type="message", id="m1", text="My name is Hao")
        await client.until("done")
        await client.close()
        again = await WebClient.open(port, **THERE, session=secret)
        assert (await again.receive())["turns"] == 2
        await again.close()
        with pytest.raises(InvalidStatus) as refused:
            await WebClient.open(port, **{**THERE, "origin": "https://evil.example"})
        assert refused.value.response.status_code == 403


async def test_limits_count_for_each_visitor_behind_the_proxy(daemons, folder):
    daemon = daemons(
        LUNAR_HTTP__ALLOWED_ORIGINS="[https://chat.example.org]",
        LUNAR_HTTP__TRUSTED_PROXIES="[127.0.0.1]",
        LUNAR_HTTP_TOKEN="a-good-long-token",
    )
    await daemon.start()
    for _ in range(10):
        client = await WebClient.open(
            daemon.port,
            name="chat.example.org",
            headers={"X-Forwarded-For": "192.0.2.7"},
            token="wrong-guess",
        )
        assert (await client.receive())["code"] == "unauthorized"
    for visitor, code in (("192.0.2.7", "rate_limited"), ("192.0.2.8", "unauthorized")):
        client = await WebClient.open(
            daemon.port, name="chat.example.org", headers={"X-Forwarded-For": visitor}, token="wrong-guess"
        )
        assert (await client.receive())["code"] == code
