"""Makes the pictures of the README again: `make screenshots`. It needs Chromium and tmux.

The gateway, the page and the terminal are the real ones. What the model says is scripted, so that the
pictures are the same each time; Telegram is a server on this machine.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests import requirement  # noqa: E402 - the checkout is not installed as a package
from tests.channels.webchat.conftest import QUIET, Visit, say, until  # noqa: E402 - as above
from tests.fakes.daemon import Daemon  # noqa: E402 - as above
from tests.fakes.openai_server import CallTools, OpenAIServer, Say  # noqa: E402 - as above
from tests.fakes.telegram_server import TelegramServer  # noqa: E402 - as above

HERE = Path(__file__).parent
TOKEN = "123456:AAtest-token_of-the-right-form-000"
MODEL = "my-model"
SIZE = {"width": 1120, "height": 880}  # CSS pixels; twice as many are kept
COLUMNS, ROWS = 84, 34
CELL, LINE = 12.2, 24.4  # units of the SVG, as rich draws

CALL = "Tokyo is nine hours ahead of UTC, all year: their nine in the morning is **midnight** for you."
WORDS = """`Counter` does it, and a line at a time keeps the memory small:

```python
from collections import Counter

def word_counts(path: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    with open(path, encoding="utf-8") as file:
        for line in file:
            counts.update(line.lower().split())
    return counts
```"""
LOG = """Three ways, from harmless to thorough:

1. `journalctl --disk-usage` says what it takes
2. `journalctl --vacuum-time=30d` drops what is **older than a month**
3. `SystemMaxUse=1G` in *journald.conf* keeps it that way"""

# As the page's own dark colours.
NIGHT = TerminalTheme(
    (13, 18, 32),
    (233, 230, 223),
    [(26, 34, 56), (244, 160, 145), (169, 207, 143), (236, 202, 140), (143, 189, 240), (201, 166, 240),
     (150, 214, 214), (233, 230, 223)],
    [(115, 124, 150), (244, 160, 145), (169, 207, 143), (236, 202, 140), (143, 189, 240), (201, 166, 240),
     (150, 214, 214), (255, 255, 255)],
)  # fmt: skip
# rich's own has a web font in it; a picture loads nothing.
FRAME = """<svg viewBox="-16 -14 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
{styles}</style>
<defs>{lines}</defs>
<rect x="-16" y="-14" width="100%" height="100%" rx="12" fill="#0d1220"/>
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g>
</svg>
"""


async def keep(browser: Browser, page: Page, name: str) -> None:
    """As WebP, which is a quarter of a PNG; Chromium itself can make it."""
    png = base64.b64encode(await page.screenshot()).decode()
    blank = await browser.new_page()
    encoded = await blank.evaluate(
        """async png => {
            const image = new Image();
            image.src = `data:image/png;base64,${png}`;
            await image.decode();
            const canvas = new OffscreenCanvas(image.width, image.height);
            canvas.getContext("2d").drawImage(image, 0, 0);
            const blob = await canvas.convertToBlob({type: "image/webp", quality: 0.86});
            const bytes = new Uint8Array(await blob.arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }""",
        png,
    )
    await blank.close()
    (HERE / name).write_bytes(base64.b64decode(encoded))


async def page_pictures(port: int, model: OpenAIServer) -> None:
    chromium = requirement.program("chromium", "chromium-browser", "google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)
        for scheme in ("light", "dark"):
            look: dict[str, Any] = {"viewport": SIZE, "device_scale_factor": 2, "color_scheme": scheme}
            page = await Visit(browser, port).page(**look)
            for earlier in ("Names for a cat", "A week of lunches"):
                model.script(Say("Of course."))
                await say(page, earlier)
                await until(page, "document.querySelector('#events').innerText.includes('Of course.')")
                await page.click("#new")
                await until(page, "!document.querySelector('#events .message')")
            clock = ("get_current_datetime", {"timezone": "Asia/Tokyo"})
            model.script(CallTools((clock,)), Say(CALL), Say(WORDS))
            await say(page, "Calling Tokyo: when?")
            await until(page, "document.querySelector('#events').innerText.includes('midnight')")
            await say(page, "Count the words of a big file, in Python")
            await until(page, "document.querySelector('#events').innerText.includes('return counts')")
            await until(page, "!document.querySelector('#live').textContent")
            await keep(browser, page, f"page-{scheme}.webp")
        await browser.close()


class Terminal:
    """A tmux of its own, with one window."""

    def __init__(self, folder: Path, socket: Path) -> None:
        bin_ = Path(sys.executable).parent
        environment = {
            "LUNAR_CHANNELS__CLI__SOCKET": str(socket),
            "PATH": f"{bin_}:/usr/bin:/bin",
            "PS1": "$ ",
        }
        given = [f"{name}={value}" for name, value in environment.items()]
        self._tmux = [requirement.program("tmux"), "-L", f"lunar-{folder.name}", "-f", "/dev/null"]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self._run(
            "new-session", "-d", *size, "-c", str(folder), "env", *given, "bash", "--norc", "--noprofile"
        )

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)
        self._run("send-keys", "Enter")

    async def shows(self, text: str, *, but: str = "\0") -> None:
        """Wait until one text is to be seen, and another is not."""
        try:
            async with asyncio.timeout(30):
                while text not in (screen := self._screen()) or but in screen:  # noqa: ASYNC110 - not ours
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on, or {but!r} is:\n{screen}") from None

    def keep(self, name: str) -> None:
        screen = self._screen("-e").rstrip("\n")
        console = Console(
            record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
        )
        console.print(Text.from_ansi(screen))
        height = (screen.count("\n") + 1) * LINE + 28
        frame = FRAME.replace("{width}", f"{COLUMNS * CELL + 32:.0f}").replace("{height}", f"{height:.0f}")
        svg = console.export_svg(theme=NIGHT, code_format=frame, unique_id="terminal")
        (HERE / name).write_text(svg, encoding="utf-8")

    def close(self) -> None:
        self._run("kill-server")

    def _screen(self, *options: str) -> str:
        return self._run("capture-pane", "-p", *options)

    def _run(self, *command: str) -> str:
        return subprocess.run([*self._tmux, *command], check=True, capture_output=True, text=True).stdout


async def terminal_picture(daemon: Daemon, model: OpenAIServer) -> None:
    terminal = Terminal(daemon.folder, daemon.socket)
    try:
        terminal.type("lunar status")
        await terminal.shows("\n$\n")
        terminal.type("lunar chat")
        await terminal.shows("\n›")
        model.script(Say(LOG))
        terminal.type("My journal grows and grows. What helps?")
        await terminal.shows("that way", but="Ctrl-C stops")
        terminal.keep("terminal.svg")
    finally:
        terminal.close()


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lunar-") as folder:
        async with OpenAIServer(models=[MODEL]) as model, TelegramServer(TOKEN) as telegram:
            env = {
                "LUNAR_MODEL__BASE_URL": model.base_url,
                "LUNAR_MODEL__NAME": MODEL,
                "LUNAR_CHANNELS__TELEGRAM__API_URL": telegram.api_url,
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "LUNAR_HTTP__PORT": "8420",
            }
            async with Daemon(Path(folder, "gateway"), env=env) as daemon:
                await page_pictures(daemon.port, model)
                await telegram.until(lambda: telegram.calls_of("getUpdates"), timeout=30)
                await terminal_picture(daemon, model)


if __name__ == "__main__":
    asyncio.run(main())
