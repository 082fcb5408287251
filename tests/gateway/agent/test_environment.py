"""What programs of tools see of the gateway's environment."""

import pytest

from gateway.agent.environment import scrubbed

KEPT = {
    "PATH": "/usr/bin",
    "HOME": "/nobody",
    "LANG": "C.UTF-8",
    "KEYBOARD": "de",
    "MONKEYS": "3",
    "HTTPS_PROXY": "http://127.0.0.1:3128",
    "PYTHONPATH": ".",
}


@pytest.mark.parametrize(
    "name",
    [
        "LUNAR_HTTP_TOKEN", "LUNAR_DATA_DIR", "OPENAI_API_KEY", "OPENAI_BASE_URL", "TELEGRAM_BOT_TOKEN",
        "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
        "ANTHROPIC_API_KEY",
        "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "KEY", "MY_KEY_2", "token",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ],
)  # fmt: skip
def test_what_is_ours_or_named_like_a_secret_goes(name: str) -> None:
    assert scrubbed({**KEPT, name: "canary"}) == KEPT


def test_what_holds_a_known_secret_goes() -> None:
    given = {**KEPT, "DSN": "postgres://me:hunter22@db/x", "PLAIN": "hunter22"}
    assert scrubbed(given, ["hunter22", "", "abc"]) == KEPT
