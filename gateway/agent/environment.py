"""What programs that we start for a model get to see of our environment: nothing that is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Ours, those that services hand their process, and what is named like a secret, whoever set it.
_OURS = re.compile(
    r"LUNAR_.*|OPENAI_.*|TELEGRAM_.*|CREDENTIALS_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|MAINPID"
    r"|INVOCATION_ID|JOURNAL_STREAM"
)
_SECRET = re.compile(r"(.*_)?(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_.*)?", re.IGNORECASE)
_SHORTEST = 4  # characters; anything shorter would be found everywhere


def scrubbed(environment: Mapping[str, str], secrets: Iterable[str] = ()) -> dict[str, str]:
    """The environment without what is ours, named like a secret, or holds one of `secrets`."""
    known = [secret for secret in secrets if len(secret) >= _SHORTEST]
    return {
        name: value
        for name, value in environment.items()
        if not _OURS.fullmatch(name) and not _SECRET.fullmatch(name)
        if not any(secret in value for secret in known)
    }
