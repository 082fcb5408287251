"""What somebody said about themselves, read back from the conversation itself: "my X is Y"."""

import re
from collections.abc import Iterable

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+|,? (?:and|but) (?=my\b|i'm\b|call me\b)", re.IGNORECASE)
_ASKS = re.compile(
    r"(?:(?:so|and|but|hey|hi|hello|ok|okay|please|now|well)[, ]+)*"
    r"(?:what|who|which|where|when|why|how|do|does|did|can|could|would|will|is|are|am|tell|remind|guess)\b",
    re.IGNORECASE,
)
_TO_REMEMBER = re.compile(r"\b(?:remember|note|know) that\b", re.IGNORECASE)

# Each with the key of the fact, or a group that holds it.
_STATEMENTS = (
    (re.compile(r"\bmy (?P<key>\w[\w' -]{0,40}?)(?: is| are| was|:| =) (?P<value>.+)", re.IGNORECASE), ""),
    (re.compile(r"\bmy (?P<key>\w[\w -]{0,40}?)'s (?P<value>.+)", re.IGNORECASE), ""),
    (re.compile(r"\b(?:you can |please )?call me (?P<value>[\w' -]+)", re.IGNORECASE), "name"),
    (re.compile(r"\bi live in (?P<value>.+)", re.IGNORECASE), "home"),
    (re.compile(r"\bI(?:'m| am) (?P<value>[A-Z][\w'-]*(?: [A-Z][\w'-]*){0,2})$"), "name"),
    (re.compile(r"\bi(?:'m| am) (?P<value>[a-z'-]+)$", re.IGNORECASE), "name"),
)
_CORRECTION = re.compile(
    r"(?:no|actually|sorry|wait|i mean)\b[, ]*(?:it's|it is|make (?:it|that)) (?P<value>.+)", re.IGNORECASE
)
# What "I'm …" says that is no name.
_STATES = re.compile(
    r"(?:an?|about|afraid|all|alright|angry|at|awake|back|bored|busy|cold|confused|curious|done|fine|first|free"
    r"|from|glad|gone|good|great|happy|here|hot|hungry|ill|in|just|late|lost|not|off|ok|okay|on|one|out|ready|sad"
    r"|sick|so|sorry|still|sure|the|there|thirsty|tired|well|worried|yes|no|\w+ing|\w+ed)\b"
)
_FILLERS = ("please", "by the way", "btw", "now", "actually", "again", "though", "too", "ok", "okay")
_EDGE = ' \t\r\n.,!?;:"'


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, typographic apostrophes made plain."""
    parts = _SENTENCE_END.split(text.replace("\u2019", "'"))
    return [part.strip() for part in parts if part.strip()]


def is_question(sentence: str) -> bool:
    asks = sentence.rstrip().endswith("?") or _ASKS.match(sentence) is not None
    return asks and not _TO_REMEMBER.search(sentence)


def facts_in(texts: Iterable[str]) -> dict[str, str]:
    """Key -> value of all that was stated, in the order of the first statement; the latest value counts."""
    known: dict[str, str] = {}
    last = ""
    for text in texts:
        for sentence in sentences(text):
            stated = stated_in(sentence, last)
            if stated is not None:
                last, value = stated
                known[last] = value
    return known


def stated_in(sentence: str, last_key: str = "") -> tuple[str, str] | None:
    """The fact that a sentence states. `last_key` is what "no, it's green" corrects."""
    if is_question(sentence):
        return None
    plain = _bare(sentence)
    if last_key and (correction := _CORRECTION.match(plain)):
        return last_key, _bare(correction["value"])
    for pattern, key in _STATEMENTS:
        match = pattern.search(plain)
        if match is None:
            continue
        value = _bare(match["value"]).strip("'\u201c\u201d ")
        if value and not (key == "name" and _STATES.match(value)):
            return key or normal(match["key"]), value
    return None


def asked_for(question: str, known: dict[str, str]) -> str | None:
    """The key that a question asks for, whether or not it is known; None if it asks for none."""
    text = normal(_bare(question))
    if re.search(r"\bwho am i\b|\bwhat am i called\b", text):
        return "name"
    if re.search(r"\bwhere do i live\b", text):
        return "home"
    match = re.search(r"\bmy ([\w' -]+)", text)
    if match is None:
        return None
    asked = re.sub(r"(?:\s+(?:is|are|was|called|again))+$", "", match[1]).strip()
    for key in sorted(known, key=len, reverse=True):
        if asked == key or asked.startswith(key + " "):
            return key
    near = [key for key in known if key.endswith(" " + asked) or key.startswith(asked + " ")]
    return near[0] if len(near) == 1 else asked


def normal(key: str) -> str:
    key = " ".join(key.lower().split())
    return key.replace("favourite", "favorite").replace("colour", "color")


def _bare(text: str) -> str:
    """Without the punctuation and the filler at its end."""
    text = text.strip().rstrip(_EDGE)
    lowered = text.lower()
    for filler in _FILLERS:
        if lowered == filler or lowered.endswith(" " + filler):
            return text[: len(text) - len(filler)].rstrip(_EDGE)
    return text
