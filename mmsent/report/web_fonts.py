"""Fonts for a page: the characters that a page uses and systems may lack, cut out of the package's own fonts."""

from __future__ import annotations

import io

from mmsent.report.figures.style import font_files
from mmsent.system.markup import data_url

COMMON = 0x2000  # below lie Latin, Greek, Cyrillic, Hebrew and Arabic, which every system draws
FACES = {"NotoEmoji": "mmsent emoji", "NotoSansCJK": "mmsent wide"}


def font_faces(text: str) -> str:
    """CSS @font-face rules with the wide characters and emoji of a text as embedded WOFF; empty where there are none.

    They stand last in the page's list of fonts: what the reader's system has is taken from there.
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont

    wanted = {ord(c) for c in text if ord(c) >= COMMON}
    rules = []
    for path in font_files():
        face = next((name for prefix, name in FACES.items() if path.name.startswith(prefix)), None)
        if face is None:
            continue
        font = TTFont(path)
        held = wanted & font.getBestCmap().keys()
        if not held:
            continue
        options = subset.Options(layout_features=[], notdef_outline=True, hinting=False, name_IDs=[0, 1, 2, 13])
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=held)
        cutter.subset(font)
        font.flavor = "woff"
        out = io.BytesIO()
        font.save(out)
        source = data_url(out.getvalue(), "font/woff")
        rules.append(f'@font-face {{ font-family: "{face}"; src: url({source}) format("woff"); }}')
    return "\n".join(rules)
