"""What the built-in model says to a conversation. Pure, stateless, and a table: pattern -> answer."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from channels.letters import shortened
from gateway.agent.demo_facts import asked_for, facts_in, is_question, sentences, stated_in
from gateway.agent.demo_texts import CAPABILITIES, DEMO_NOTICE, LONG_TEXT, MARKDOWN_SAMPLE
from gateway.agent.demo_zones import zone_in

CLOCK = "get_current_datetime"
_COUNT_LIMIT = 1000
_READ = 4000  # characters of a message that are looked at: this runs on the event loop


class Said(msgspec.Struct, frozen=True):
    text: str


class Wanted(msgspec.Struct, frozen=True):
    """The tool that is needed before an answer."""

    tool: str
    arguments: dict[str, str]


class _Line(msgspec.Struct, frozen=True):
    """One sentence to be answered, and what is known when it was said."""

    text: str
    match: re.Match[str]
    facts: dict[str, str]


def respond(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Said | Wanted:
    """The answer to a Chat Completions conversation."""
    if messages and messages[-1].get("role") == "tool":
        return Said(_from_tool(messages))
    spoken = [_text_of(message)[:_READ] for message in messages if message.get("role") == "user"]
    asked = spoken[-1] if spoken else ""
    lines = sentences(asked)
    if any(_asks_time(line) for line in lines):
        clock = _offered(CLOCK, tools)
        if clock is not None:
            return Wanted(CLOCK, _clock_arguments(asked, clock))
    facts = facts_in(spoken)
    for table in (_TASKS, _SMALL_TALK):
        answers = [answer for line in lines if (answer := _answer(table, line, facts))]
        if answers:
            return Said("\n\n".join(dict.fromkeys(answers)))
    return Said(_fallback(asked))


def _answer(table: "_Table", text: str, facts: dict[str, str]) -> str | None:
    for pattern, handler in table:
        match = pattern.search(text)
        if match is not None:
            answer = handler(_Line(text, match, facts))
            if answer is not None:
                return answer
    return None


def _remembered(line: _Line) -> str | None:
    if stated_in(line.text):
        return None
    key = asked_for(line.text, line.facts)
    if key in line.facts:
        return f"{_fact(key, line.facts[key])}!"
    return f"You haven't told me your {key} yet." if key and is_question(line.text) else None


def _noted(line: _Line) -> str | None:
    stated = stated_in(line.text, next(reversed(line.facts), ""))
    return f"Got it: {_lower_first(_fact(*stated))}." if stated else None


def _about_you(line: _Line) -> str:
    if not line.facts:
        return 'Nothing yet. Tell me something, such as "my favorite color is blue".'
    return "\n".join(["What you told me here:", "", *(f"- {_fact(*fact)}" for fact in line.facts.items())])


def _counted(line: _Line) -> str:
    end = int(line.match[1])
    numbers = ", ".join(str(number) for number in range(1, min(end, _COUNT_LIMIT) + 1))
    return f"{numbers}. And so on: I stop at {_COUNT_LIMIT}." if end > _COUNT_LIMIT else f"{numbers}."


def _no_clock(line: _Line) -> str:
    return f"I can't tell: the tool `{CLOCK}` is not offered to me here."


def _fact(key: str, value: str) -> str:
    return f"You live in {value}" if key == "home" else f"Your {key} is {value}"


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def _fixed(text: str) -> Callable[[_Line], str]:
    return lambda line: text


_Handler = Callable[[_Line], str | None]
_Table = tuple[tuple[re.Pattern[str], _Handler], ...]


def _table(*rows: tuple[str, _Handler]) -> _Table:
    return tuple((re.compile(pattern, re.IGNORECASE), handler) for pattern, handler in rows)


_TIME = re.compile(
    r"\btime is it\b|^time (?:in|at)\b|\bwhat(?:'s| is)? (?:the )?(?:current |local )?(?:time|date|day)\b"
    r"|\b(?:current|today's) (?:time|date)\b|\b(?:time|date) (?:now|today|right now)\b",
    re.IGNORECASE,
)

_TASKS = _table(
    (
        r"\b(?:who|what) are you\b|\bare you (?:an? |real|human|chatgpt)|\bwhat model\b",
        _fixed(DEMO_NOTICE),
    ),
    (r"\bmarkdown\b", _fixed(MARKDOWN_SAMPLE)),
    (r"\bcount (?:up )?(?:from 1 )?to (\d{1,9})\b", _counted),
    (r"\blong (?:text|answer|reply|message|story)\b|\blorem\b", _fixed(LONG_TEXT)),
    (r"^(?:echo|repeat(?: after me)?)\b[:,]?\s+(.+)", lambda line: line.match[1]),
    (
        r"\b(?:know|remember|told you) about me\b|\bwhat do you (?:know|remember)\b",
        _about_you,
    ),
    (r"\bmy\b|\bwho am i\b|\bwhat am i called\b|\bwhere do i live\b", _remembered),
    (_TIME.pattern, _no_clock),
    (r".", _noted),
    (r"^/?(?:help|\?+|commands?)\W*$|\bwhat can (?:you|i) do\b|\bhelp me\b", _fixed(CAPABILITIES)),
)
_SMALL_TALK = _table(
    (
        r"^(?:hi|hello|hey|hallo|good (?:morning|afternoon|evening))\b",
        _fixed(f"Hello! {DEMO_NOTICE}"),
    ),
    (r"\bhow are you\b|\bhow's it going\b", _fixed("All my wires are connected, thank you. How can I help?")),
    (r"\b(?:thanks|thank you|thx|cheers)\b", _fixed("You're welcome!")),
    (r"^(?:bye|goodbye|good night|see you)\b", _fixed("Goodbye!")),
    (r"^ping\W*$", _fixed("pong")),
    (r"^(?:test|testing)\W*$", _fixed("It works: your message came in, and this answer came back.")),
)


def _fallback(asked: str) -> str:
    quoted = shortened(" ".join(asked.split()), 80)
    heard = f"You said: “{quoted}”" if quoted else "You sent no text"
    return f"{heard}. I can't think about that. {DEMO_NOTICE} Send `help` to see what I can do."


def _asks_time(line: str) -> bool:
    return _TIME.search(line) is not None and re.search(r"\bmy\b", line, re.IGNORECASE) is None


def _offered(name: str, tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    for tool in tools:
        function = tool.get("function", {})
        if function.get("name") == name:
            return dict(function)
    return None


def _clock_arguments(asked: str, clock: dict[str, Any]) -> dict[str, str]:
    if "timezone" not in clock.get("parameters", {}).get("properties", {}):
        return {}
    found = zone_in(asked)
    return {"timezone": found.zone} if found else {}


def _from_tool(messages: list[dict[str, Any]]) -> str:
    result = _text_of(messages[-1]).strip()
    call_id = messages[-1].get("tool_call_id")
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    name = next((call["function"]["name"] for call in reversed(calls) if call.get("id") == call_id), "tool")
    if name != CLOCK:
        return f"The tool `{name}` says: {result}"
    asked = next((_text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
    found = zone_in(asked)
    where = f" in {found.place}" if found and "timezone" in str(calls[-1:]) else ""
    return f"It's {result.rstrip('.')}{where}."


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
