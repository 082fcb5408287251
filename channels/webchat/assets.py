"""The chat page's files: a handful, read once, served from memory."""

from __future__ import annotations

import gzip
import hashlib
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent / "page"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

# Nothing foreign is loaded, nothing inline is run, nobody may frame the page.
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; manifest-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
        "Cache-Control": "no-cache",
    }
)


class Asset:
    """One file: its bytes, plain and compressed, its type and its ETag."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.body = path.read_bytes()
        self.type = _TYPES[path.suffix]
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'

    @cached_property
    def compressed(self) -> bytes:
        """The body for clients that accept gzip."""
        return gzip.compress(self.body, 9, mtime=0)


def load() -> dict[str, Asset]:
    """All files of the page by name; nothing else can be asked for."""
    return {path.name: Asset(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}
