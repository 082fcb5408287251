"""The user's variant of the units, under a manager of that user's own."""

import pytest

from tests.systemd.gateway import LUNAR
from tests.systemd.machine import Machine

pytestmark = pytest.mark.xdist_group("systemd")
HOME = "/tmp/person"
# What logind would start: there is none here, for want of D-Bus.
MANAGER = f"""
[Service]
User=person
Type=notify
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/user/4242 HOME={HOME}
ExecStartPre=+/bin/install -d -o person -m 700 /run/user /run/user/4242 {HOME}
ExecStart=/lib/systemd/systemd --user --unit=basic.target
"""


def test_one_person_runs_it_without_root(machine: Machine) -> None:
    machine.run("useradd", "--uid=4242", "--no-create-home", "person")
    unit = machine.path("/run/systemd/system/person.service")
    unit.write_text(MANAGER)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "person.service")
    person = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    person += ["env", "--chdir=/", "XDG_RUNTIME_DIR=/run/user/4242", f"HOME={HOME}"]

    def run(*command: str) -> str:
        done = machine.run(*person, *command)
        return done.stdout + done.stderr

    secrets = f"{HOME}/.config/lunar/credentials"
    run("mkdir", "-p", secrets)
    run("sh", "-c", f"echo canary-token >{secrets}/lunar_http_token")
    assert f"write {HOME}/.config/systemd/user/lunar.service (new)" in run(
        LUNAR, "service", "install", "--user"
    )
    assert "Nothing to do." in run(LUNAR, "service", "install", "--user")
    assert "cli: ready; http: ready" in run(LUNAR, "service", "status", "--user")
    assert not run("systemd-analyze", "--user", "verify", f"{HOME}/.config/systemd/user/lunar.service")
    assert "demo" in run(LUNAR, "chat", "hello")
    assert "agent:main:cli:local" in run(LUNAR, "sessions", "list")
    secret = '{"session": "' + "x" * 43 + '"}'
    asked = (
        f"DELETE /api/session HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {len(secret)}\r\n\r\n{secret}"
    )
    answer = machine.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8420; cat >&3; head -1 <&3", input=asked)
    assert " 401 " in answer.stdout  # it knows the token of the credentials' folder
    run("systemctl", "--user", "reload", "lunar.service")
    run(LUNAR, "service", "uninstall", "--user")
    machine.run("systemctl", "stop", "person.service")
