"""Text and bytes of others inside Markdown and HTML."""

from __future__ import annotations

import base64
import html
import re


def markdown(text: str) -> str:
    """Text as Markdown that shows exactly it: one line, with no markup of either kind."""
    line = html.escape(" ".join(text.split()), quote=False)
    # Character references, for not every renderer knows a backslash before each of these.
    return re.sub(r"([\\`*_{}\[\]|~#!$@:])", lambda found: f"&#{ord(found[1])};", line)


def markdown_code(text: str) -> str:
    """Text as a code span in Markdown, one line."""
    return f"<code>{markdown(text)}</code>" if re.search(r"[`<>&|\s]", text) else f"`{text}`"


def data_url(raw: bytes, media_type: str) -> str:
    """Bytes as a URL that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(raw).decode()}"
