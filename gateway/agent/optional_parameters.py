"""Request parameters that some servers refuse, and that a reply can do without."""

import re
from collections.abc import Mapping

from gateway.agent.model_errors import BadRequest, ModelError, ModelServerFault

_REFUSED_WITH = {
    "stream_options": re.compile(r"stream_options|include_usage"),
    # Ollama (models without tools), vLLM and llama.cpp (started without them).
    "tools": re.compile(
        r"(does not|doesn't) support (tool|function)|tools? (is|are) not supported"
        r"|tool[ _]choice requires|tools param requires",
        re.IGNORECASE,
    ),
}


def refused_parameter(failure: ModelError, request: Mapping[str, object]) -> str | None:
    """The optional parameter of `request` that a failure complains about, if any."""
    if not isinstance(failure, BadRequest | ModelServerFault):
        return None
    for name, pattern in _REFUSED_WITH.items():
        if name in request and pattern.search(str(failure)):
            return name
    return None
