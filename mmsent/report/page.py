"""Renders pages in the style of the report: templates with everything escaped, one script and one style sheet, and a
policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from mmsent.report.figures.style import label_colours
from mmsent.report.language import catalogue, language, say
from mmsent.report.web_fonts import font_faces

THUMBNAIL = 220
SCRIPTS = ("page.js", "contents.js")
WHITE_LETTERS = 0.18  # luminance below which white letters have a contrast of 4.5


def render(name: str, written: str, *, labels: list[str], **values: Any) -> str:
    """Render a template of this folder. written: the texts that the page shows, whose wide characters and emoji travel
    with it; labels: those whose colours it needs; values: what else the template takes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("mmsent", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    folder = Path(__file__).parent
    script = "\n".join((folder / part).read_text(encoding="utf-8") for part in SCRIPTS)
    said = "".join(catalogue(language()).values())
    plain = (folder / "page.css").read_text(encoding="utf-8")
    style = "\n".join([plain, label_rules(labels), font_faces(written + said)])
    page = environment.get_template(name).render(
        **values,
        labels=labels,
        say=say,
        language={"zh": "zh-CN"}.get(language(), language()),
        # Our own files, written into the page as they are; their hashes are all that the page's policy lets run.
        style=Markup(style),
        script=Markup(script),
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def policy_hash(text: str) -> str:
    """The hash of a script or style sheet for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def label_rules(labels: list[str]) -> str:
    """The labels' colours for white letters on them: the figures' own, as much darker as the letters need."""
    rules = []
    for i, colour in enumerate(label_colours(labels).values()):
        rgb = [int(colour[k : k + 2], 16) * 0.8 for k in (1, 3, 5)]
        while _luminance(rgb) > WHITE_LETTERS:
            rgb = [0.95 * value for value in rgb]
        r, g, b = map(round, rgb)
        rules.append(f".chip.label-{i} {{ background: rgb({r}, {g}, {b}); }}")
    return "\n".join(rules)


def _luminance(rgb: list[float]) -> float:
    """Relative luminance, 0 to 1, as WCAG 2 defines it."""
    parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
