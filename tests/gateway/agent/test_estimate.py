"""How many tokens a request takes, roughly."""

from gateway.agent import estimate


def test_four_bytes_are_a_token() -> None:
    assert estimate.of_text("abcdefgh") == 2
    assert estimate.of_text("abc") == 1
    assert estimate.of_text("") == 0
    assert estimate.of_text("日本語") == 3
    assert estimate.of_text("\ud800") == 1


def test_everything_that_is_sent_counts() -> None:
    message = {"role": "user", "content": "x" * 400}
    assert estimate.tokens([message]) == 104
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "x" * 400}}]}
    assert estimate.tokens([call]) == 108
    assert estimate.tokens([message], [{"type": "function", "function": {"name": "x" * 400}}]) > 204


def test_an_image_counts_as_one_whatever_its_bytes_are() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "A" * 40_000}}
    parts = [{"type": "text", "text": "abcd"}, image, file]
    assert estimate.tokens([{"role": "user", "content": parts}]) == 4 + 1 + estimate.IMAGE + 1000
