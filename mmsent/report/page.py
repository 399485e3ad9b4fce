"""Renders pages in the style of the report: templates with everything escaped, one script and one style sheet, and a
policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from mmsent.report.language import catalogue, language, say
from mmsent.report.web_fonts import font_faces

HERE = Path(__file__).parent
WEB = HERE / "web"  # of these pages and the server's
# Each after those it imports.
MODULES = ("english", "chinese", "common", "decisions", "cards", "choices", "filters", "gallery", "scatter", "mapview")


def render(name: str, written: str, *, gallery: str, points: str = "", **values: Any) -> str:
    """Render a template of this folder. written: the texts that the page shows, whose wide characters and emoji travel
    with it; gallery: see `gallery_json`; points: see `map_section`; values: what else the template takes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("mmsent", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    script = page_script()
    said = "".join([*catalogue(language()).values(), script if language() == "zh" else ""])
    plain = [path.read_text(encoding="utf-8") for path in (WEB / "base.css", HERE / "page.css")]
    style = "\n".join([*plain, font_faces(written + said)])
    page = environment.get_template(name).render(
        **values,
        say=say,
        language={"zh": "zh-CN"}.get(language(), language()),
        gallery=Markup(gallery),  # JSON without "<", and so are the points
        points=Markup(points),
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


def page_script() -> str:
    """The modules of the server's pages in one, for a page that opens from disk can import none."""
    files = [*(WEB / f"{name}.js" for name in MODULES), HERE / "page.js", HERE / "contents.js"]
    joined = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r"^(import [^;]*;\n|export )", "", joined, flags=re.MULTILINE)
