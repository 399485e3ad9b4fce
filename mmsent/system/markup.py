"""Text and bytes of others inside Markdown and HTML."""

from __future__ import annotations

import base64
import html
import re

# What means something in Markdown where it stands; the last character of each is written as a reference, for not every
# renderer knows a backslash before each of these.
_MARKUP = re.compile(
    r"[\\`*\[\]|~$<]"  # code, emphasis, links, tables, mathematics, HTML
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis begins and ends at the edge of a word
    r"|&(?=#?\w+;)"  # a reference
    r"|^[>=]|^[+-](?=[ -]|$)|^\d{1,9}[.)]|^#|#(?=\d)"  # a quotation, a list, a title; the number of an issue
    r"|:(?=//|\w+:)|\b(?:mailto|xmpp):|\bwww\.|@(?=\w)",  # an address, a picture by its name, a mention
    re.ASCII | re.IGNORECASE,
)


def markdown(text: str) -> str:
    """Text as Markdown that shows exactly it: one line, with no markup of either kind."""

    def referred(found: re.Match[str]) -> str:
        before, last = found[0][:-1], found[0][-1]
        return before + (html.escape(last) if last in "&<>" else f"&#{ord(last)};")

    return _MARKUP.sub(referred, " ".join(text.split()))


def markdown_code(text: str) -> str:
    """Text as a code span in Markdown, one line."""
    return f"<code>{markdown(text)}</code>" if re.search(r"[`<>&|\s]", text) else f"`{text}`"


def data_url(raw: bytes, media_type: str) -> str:
    """Bytes as a URL that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(raw).decode()}"
