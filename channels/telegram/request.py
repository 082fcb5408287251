"""The library's HTTP client by aiohttp: a call that is broken off costs at most its connection.

The library's own forgets connections whose call is cancelled at an unlucky moment
(https://github.com/encode/httpcore/issues/1093): they stay open and taken, and when all of them are, nothing
is sent any more. It also waits for each piece of an answer; we wait for the whole of it, and read no more
than an answer can have.
"""

from __future__ import annotations

import functools
import ssl
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData
from yarl import URL

from channels.connections import NewestFirst

_LONGEST = 90.0  # seconds; more than all that a request waits for by itself, be it for each once
_LARGEST = 32 << 20  # bytes; a file has 20 MiB at most
_CONNECTING = 10.0  # seconds until there is a connection: a free one, or a new one with all that it takes
_READING = 20.0  # seconds from one piece of an answer to the next
_KEPT = 15.0  # seconds that a connection stays open for the next call


class Request(BaseRequest):
    """So many connections at a time; nothing is opened before the first call."""

    def __init__(self, connections: int = 2) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def read_timeout(self) -> float:
        """Seconds that are waited for a piece of an answer, where a call says nothing else."""
        return _READING

    async def initialize(self) -> None:
        """Open it again after `shutdown`."""
        if self._session is not None and self._session.closed:
            self._session = None

    async def shutdown(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = BaseRequest.DEFAULT_NONE,
        write_timeout: Any = BaseRequest.DEFAULT_NONE,
        connect_timeout: Any = BaseRequest.DEFAULT_NONE,
        pool_timeout: Any = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        """The answer's status and body; raises `TimedOut` and `NetworkError`, which tell aiohttp's error.

        Of the limits `read_timeout` counts, and `pool_timeout`: seconds until there is a connection.
        """
        if self._session is None:
            self._session = self._opened()
        address = URL(url, encoded=True)
        proxy, proxy_headers = _proxy(address)
        timeout = aiohttp.ClientTimeout(
            _LONGEST,
            connect=_CONNECTING if pool_timeout is BaseRequest.DEFAULT_NONE else pool_timeout,
            sock_read=_READING if read_timeout is BaseRequest.DEFAULT_NONE else read_timeout,
        )
        try:
            async with self._session.request(
                method,
                address,
                data=_form(request_data),
                timeout=timeout,
                allow_redirects=False,  # its address holds the token
                ssl=_trusted() if address.scheme == "https" else True,
                proxy=proxy,
                proxy_headers=proxy_headers,
            ) as answer:
                return answer.status, await _body(answer)
        except TimeoutError as error:
            raise TimedOut(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NetworkError(_told(error)) from None

    def _opened(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=NewestFirst(self._connections, _KEPT),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self.USER_AGENT, "Accept-Encoding": "identity"},
            auto_decompress=False,  # nobody asked for it, and a little of it may be much
        )


def _proxy(address: URL) -> tuple[URL | None, dict[str, str]]:
    """By the environment, of which aiohttp itself would make two visits to a thread in each call."""
    proxies = getproxies()
    named = proxies.get(address.scheme) or proxies.get("all")
    if not named or proxy_bypass(address.host or ""):
        return None, {}
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.user is None:
        return proxy, {}
    known = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
    return proxy.with_user(None), {"Proxy-Authorization": known}


def _form(asked: RequestData | None) -> aiohttp.FormData | None:
    if asked is None:
        return None
    form = aiohttp.FormData(asked.json_parameters)
    for name, (file, content, kind) in (asked.multipart_data or {}).items():
        form.add_field(name, content, filename=file, content_type=kind)
    return form


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for block in answer.content.iter_any():
        body += block
        if len(body) > _LARGEST:
            raise NetworkError(f"an answer of more than {_LARGEST} bytes")
    return bytes(body)


def _told(error: Exception) -> str:
    """Without the address, which holds the token."""
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return f"{type(error).__name__}: {text}"


@functools.cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()
