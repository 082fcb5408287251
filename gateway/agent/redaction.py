"""Text from elsewhere, without our secrets in it."""

import re
from urllib.parse import quote

# Keys that are not ours to know (a proxy's, a neighbour's), and what stands before the @ of a URL.
_FORMS = (
    (re.compile(r"\bsk-[A-Za-z0-9_*-]{4,}"), "[key]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}"), r"\1 [key]"),
    (re.compile(r"(?i)([?&](?:api[_-]?)?key=)[^&\s'\"]+"), r"\1[key]"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/@\s'\"]*@"), r"\1"),
)


class Redactor:
    """Knows the secrets of one endpoint."""

    def __init__(self, *secrets: str | None) -> None:
        # Shorter ones would blot out ordinary words, and are no secrets.
        known = {secret for secret in secrets if secret and len(secret) >= 4}
        self._known = sorted(known | {quote(secret, safe="") for secret in known}, key=len, reverse=True)

    def redacted(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, "[key]")
        for pattern, instead in _FORMS:
            text = pattern.sub(instead, text)
        return text
