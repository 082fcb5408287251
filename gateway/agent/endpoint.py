"""Where a model is served, and how long we wait for it."""

import ipaddress

import msgspec

from session.events import Usage


class Limits(msgspec.Struct, frozen=True):
    """How patient one `Model.ask` is; all times in seconds."""

    tries: int = 4
    budget: float = 90.0  # from the first try on; no try begins after it or waits past it for its first chunk
    connect: float = 10.0
    first_chunk: float = 60.0  # from sending the request to the first chunk of the answer
    between_chunks: float = 60.0
    after_finish: float = 2.0  # for the usage chunk and [DONE] once `finish_reason` was seen
    retry_after: float = 60.0  # a server that asks for more is not waited for
    line: int = 1024 * 1024  # bytes in one line of the stream, or in a reply that is no stream


class Price(msgspec.Struct, frozen=True):
    """Money per million tokens."""

    input: float
    output: float

    def of(self, usage: Usage) -> Usage:
        """The usage with what it costs."""
        cost = (usage.input * self.input + usage.output * self.output) / 1_000_000
        return msgspec.structs.replace(usage, cost=round(cost, 9))


class Endpoint(msgspec.Struct, frozen=True):
    """One model at one server. `base_url` None: OPENAI_BASE_URL, else OpenAI itself.

    `keep_reasoning`: the end of a reply brings what the model thought.
    """

    base_url: str | None
    name: str
    api_key: str | None = None
    limits: Limits = Limits()
    price: Price | None = None
    keep_reasoning: bool = False

    def __repr__(self) -> str:
        # The default one prints the key, and a URL may carry a password.
        return f"Endpoint(name={self.name!r})"


def is_local(host: str) -> bool:
    """Whether a host is this machine, which is reached without the proxies of the environment."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
