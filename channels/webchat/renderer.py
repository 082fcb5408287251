"""How replies become HTML for whoever asks for `render: "html"`: `channels.view.Renderer`."""

from __future__ import annotations

from channels.webchat import html
from channels.webchat.blocks import Blocks


class HtmlRenderer:
    """Keeps nothing; one serves every connection."""

    def render(self, text: str) -> str:
        return html.render(text)

    def blocks(self) -> Blocks:
        return Blocks()
