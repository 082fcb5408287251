"""What a model thinks before it answers is not what it says."""

import pytest

from gateway.agent.thinking import Thinking

CASES = [
    ("<think>hm</think>Yes.", "Yes.", "hm"),
    ("  \n<think>\nhm </ think> < /think>\n</think>\n\n  Yes.", "Yes.", "\nhm </ think> < /think>\n"),
    ("<think></think>Yes.", "Yes.", ""),
    ("Yes. <think>no</think>", "Yes. <think>no</think>", ""),
    ("<thinking>Yes</thinking>", "<thinking>Yes</thinking>", ""),
    ("<th", "<th", ""),
    ("  ", "  ", ""),
    ("<think>hm</think>", "", "hm"),
    ("<think>hm</think>  ", "", "hm"),
    ("<think>hm</think>a <think>b</think>", "a <think>b</think>", "hm"),
]


def read(keep: bool, *pieces: str) -> tuple[str, str]:
    thinking = Thinking(keep)
    said = "".join([thinking.shown(piece) for piece in pieces]) + thinking.rest()
    return said, "".join(thinking.thoughts)


@pytest.mark.parametrize(("text", "said", "thought"), CASES)
def test_cut_anywhere_it_reads_the_same(text: str, said: str, thought: str) -> None:
    for at in range(len(text) + 1):
        assert read(True, text[:at], text[at:]) == (said, thought)
    assert read(True, *text) == (said, thought)
    assert read(False, *text) == (said, "")


def test_a_thought_without_end_is_not_said() -> None:
    said, thought = read(True, "<think>", "hm, let me see")
    assert said == ""
    assert "hm, let me see".startswith(thought)


def test_thoughts_are_counted_also_where_they_are_not_kept() -> None:
    thinking = Thinking()
    thinking.shown("<think>four</think>x")
    thinking.thought("six !!")
    assert (thinking.size, thinking.thoughts) == (10, [])


def test_a_long_thought_is_not_held_in_memory() -> None:
    thinking = Thinking()
    thinking.shown("<think>")
    for _ in range(1000):
        thinking.shown("word " * 20)
    assert len(thinking._held) < 20
