"""The built-in model's longer texts."""

DEMO_NOTICE = (
    "I'm the built-in demo model, not a real AI: set OPENAI_API_KEY, or `model.base_url` in config.yaml, "
    "to connect a real one."
)

CAPABILITIES = f"""{DEMO_NOTICE} Until then you can try the interface with me:

- `My favorite color is blue`, later `What's my favorite color?`
- `What do you know about me?`
- `What time is it in Tokyo?` (this runs a tool)
- `Show me markdown`
- `Count to 100` (good for trying to stop me)
- `Send a long text`
- `Echo` and any words"""

MARKDOWN_SAMPLE = """# A heading

Some **bold**, some *italic*, some `code`, and a [link](https://example.com/).

## A list

1. First
2. Second
   - with a part of its own

## A table

| Channel | For |
|---|---|
| Telegram | the phone |
| Webchat | the browser |
| CLI | the terminal |

## Code

```python
def greet(name: str) -> str:
    return f"Hello, {name}!"
```

> And a quotation to end with."""

LONG_TEXT = "\n\n".join(
    f"**Part {number} of 30.** This is a long answer, so that you can see how it is shown while it grows, "
    "how it is split where a channel limits the length of a message, and that scrolling up while it comes is "
    "not undone."
    for number in range(1, 31)
)
