"""Secrets of the installed service, while all goes wrong at DEBUG: the real journal has none of them."""

from __future__ import annotations

import json

import pytest

from tests.fakes.openai_server import ErrorInStream, OpenAIServer, Raw, Reset, Say, Status
from tests.gateway.canaries import repeating
from tests.systemd.gateway import LUNAR, SERVICE, Gateway
from tests.systemd.test_lunar_service import SECRETS

pytestmark = pytest.mark.xdist_group("systemd")
KEY, BOT, TOKEN = SECRETS.values()
NEW = "fresh-canary-of-a-broken-file"  # nobody was ever told of it
_TELLING = 12  # characters: so much of one, and it has come out
_LATER = {"Retry-After": "3600"}  # too long to be waited for
FAULTS = (
    Status(401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY}}),
    Status(429, {"error": {"message": f"Too many requests with {KEY}"}}, _LATER),
    Status(500, f"<html>{KEY}</html>", _LATER),
    Status(503, f"{KEY}~" * 100, _LATER),
    ErrorInStream(1, Say("beginning"), error={"message": KEY}),
    Raw([f"data: {KEY}\n\n".encode()]),
    Reset(),
)
PATHS = ("no answer", "no contact to Telegram", "so nothing changes", "Fatal Python error", "[secret]")
REFUSED = {
    f"http:\n  token: {NEW}\n\tport: 8420\n": "a tab is used for indentation",
    f"model: {{api_key: {{env: {NEW}}}}}\n": "a name is wanted, and not the secret itself",
}


def found_in(text: str) -> list[str]:
    parts = {one[at : at + _TELLING] for one in (*SECRETS.values(), NEW) for at in range(len(one) - 11)}
    return [text[max(0, text.index(part) - 200) :][:400] for part in parts if part in text]


async def test_no_secret_comes_to_the_journal_whatever_fails(gateway: Gateway, model: OpenAIServer) -> None:
    for name, secret in SECRETS.items():
        gateway.write(f"/etc/credstore/lunar.{name}", f"{secret}\n", 0o600)
    gateway.drop_in("ExecStart=", f"ExecStart={LUNAR} run --verbose")
    told: list[str] = []

    async def look() -> None:
        told.append(str([await gateway.get(path) for path in ("/healthz", "/readyz", "/metrics")]))
        told.append(gateway.show("StatusText") + await gateway.run(LUNAR, "status", check=False))

    async with repeating(gateway.machine.listener()) as server:
        gateway.configure(channels={"telegram": {"api_url": server}})
        await gateway.systemctl("restart", SERVICE)
        await gateway.written("no contact to Telegram")
        client = await gateway.client()
        model.script(*FAULTS)
        for _ in FAULTS[:-1]:
            await client.ask("kookaburra")
            await look()
        told += map(str, client.frames)

        for path in ("/api/session", f"/ws?token={TOKEN}", f"/telegram/{BOT}"):
            headers = (f"X-Lunar-Token: {TOKEN}x", f"Cookie: {TOKEN}")
            told.append(str(await gateway.get(path, *headers, body=BOT)))

        for text, problem in REFUSED.items():
            gateway.write("/etc/lunar/config.yaml", text)
            await gateway.systemctl("reload", SERVICE)
            await gateway.written(problem)
            told.append(await gateway.run(LUNAR, "reload", check=False))
            await look()
        gateway.configure(channels={"telegram": {"api_url": server}})
        gateway.kill("ABRT")  # as the watchdog ends it: with the place of every thread in the journal
        await gateway.until(NRestarts="1", ActiveState="active")
        await look()

    command = ("journalctl", "--no-pager", "--all", "--output=json", f"--after-cursor={gateway.since}")
    everything = await gateway.run(*command)
    journal = "\n".join(str(json.loads(line).get("MESSAGE")) for line in everything.splitlines())
    assert not [words for words in PATHS if words not in journal]
    assert "--verbose" in gateway.show("ExecStart")
    assert found_in(journal) == []
    assert found_in(everything) == []
    assert found_in("\n".join(told)) == []
    transcripts = await gateway.run("grep", "-r", "", "/var/lib/private/lunar")
    assert "kookaburra" in transcripts
    assert found_in(transcripts) == []
