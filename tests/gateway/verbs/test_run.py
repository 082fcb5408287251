from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.conftest import Daemons
from tests.gateway.verbs.lunar import lunar


async def test_ctrl_c_ends_it_well(daemons: Daemons) -> None:
    async with daemons() as daemon:
        assert daemon.socket.exists()
        daemon.signal(signal.SIGINT)
        assert await daemon.exit() == 0
    assert not daemon.socket.exists()
    assert daemon.noise == []
    assert [entry["event"] for entry in daemon.log[-2:]] == ["stopping", "stopped"]


async def test_a_second_one_names_the_first(daemons: Daemons) -> None:
    async with daemons() as daemon:
        second = await lunar(
            "run", cwd=daemon.folder, LUNAR_DATA_DIR=str(daemon.data_dir), LUNAR_HTTP__PORT="0"
        )
        assert second.code == os.EX_TEMPFAIL
        assert daemon.process is not None
        holder = f"{daemon.data_dir} is in use by process {daemon.process.pid}"
        assert f"lunar: Another gateway is running: {holder}." in second.err
        await daemon.client()  # the first one's socket is where it was


async def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = await lunar("run", cwd=folder, LUNAR_HTTP__PORT=str(port))
    assert ran.code == os.EX_TEMPFAIL
    assert f"lunar: Port {port} is taken by another program." in ran.err


async def test_a_data_directory_that_cannot_be_made(folder: Path) -> None:
    (folder / "file").touch()
    ran = await lunar("run", cwd=folder, LUNAR_DATA_DIR=str(folder / "file" / "data"), LUNAR_HTTP__PORT="0")
    assert ran.code == os.EX_CANTCREAT
    assert f"{folder}/file/data: Not a directory. Choose another data_dir." in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http:\n  prot: 1", "config.yaml:2: http.prot: unknown key; did you mean `port`?"),
        (
            "agents: {main: {tools: [nope]}}",
            "config.yaml:1: agents.main.tools: there is no tool 'nope'; there are: get_current_datetime, "
            "search_transcript, read_attachment",
        ),
        (
            "channels: {cli: {group: nobodies}}",
            "config.yaml:1: channels.cli.group: this machine has no group 'nobodies'",
        ),
    ],
)
async def test_a_wrong_configuration(text: str, problem: str, folder: Path) -> None:
    (folder / "config.yaml").write_text(text)
    ran = await lunar("run", cwd=folder, LUNAR_HTTP__PORT="0")
    assert ran.code == os.EX_CONFIG
    assert f"lunar: {problem}\n" in ran.err
    assert "Traceback" not in ran.err
