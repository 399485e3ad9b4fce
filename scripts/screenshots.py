"""Screenshots of every state of every page, to look at: two widths, light and dark, English and Chinese.

    PYTHONPATH=. python scripts/screenshots.py --out shots

The pages show the quickstart's posts; --work names the folder of a quickstart, which is made if it is absent. Writes
OUT/PAGE-STATE.png, all of a state's screenshots side by side, and each alone into OUT/each. Needs chromium.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from mmsent.cli.quickstart import run_quickstart
from tests.helpers.browser import colours, opened, programs, resize
from tests.helpers.page_states import STATES, State, reach, served
from tests.helpers.small import run

WIDTHS, SCHEMES, LANGUAGES = (1400, 390), ("light", "dark"), ("en", "zh")
TALLEST = 2400  # pixels; the rest of a long page is left out


def shot(browser: Any, *, whole: bool) -> Image.Image:
    """What the window shows; whole: the page from its top, unless a dialog is open over it."""
    size = "innerWidth, innerHeight, scrollY, document.documentElement.scrollHeight, !document.querySelector(':modal')"
    width, height, top, long, free = browser.execute_script(f"return [{size}]")
    if whole and free:
        top, height = 0, min(long, TALLEST)
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": whole and free})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


def sheet(shots: list[Image.Image]) -> Image.Image:
    """Screenshots side by side: wide ones at half their size, two in a row, and the narrow ones below them."""
    wide = [one.reduce(2) for one in shots if one.width > 600]
    rows = [row for row in (wide[:2], wide[2:], [one for one in shots if one.width <= 600]) if row]
    width = max(sum(one.width + 8 for one in row) for row in rows)
    made = Image.new("RGB", (width, sum(max(one.height for one in row) + 8 for row in rows)), "#888")
    top = 0
    for row in rows:
        left = 0
        for one in row:
            made.paste(one, (left, top))
            left += one.width + 8
        top += max(one.height for one in row) + 8
    return made


def taken(browser: Any, state: State, addresses: dict[str, str], out: Path) -> list[Image.Image]:
    shots = []
    for width in WIDTHS:
        for language in LANGUAGES:
            resize(browser, width)
            for scheme in SCHEMES:
                colours(browser, scheme)
                if scheme == SCHEMES[0]:
                    address = addresses.get(f"{state.page}-{language}") or addresses[state.page]
                    reach(browser, state, address, language)
                shots.append(shot(browser, whole=state.page != "report"))
                shots[-1].save(out / f"{width}-{scheme}-{language}.png")
    return shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--work", type=Path, default=Path("quickstart"), help="folder of a quickstart")
    parser.add_argument("--only", default="", help="part of the name of the states to show")
    given = parser.parse_args()
    program, driver = programs()
    if not (program and driver):
        parser.error("there is no chromium with chromedriver on this machine")
    if not (given.work / "runs").exists():
        run_quickstart(given.work)
    data, cache, runs = given.work / "data", next((given.work / "cache").glob("*.h5")), given.work / "runs"
    reports = {f"report-{language}": given.work / f"report-{language}" / "report.html" for language in LANGUAGES}
    for name, path in reports.items():
        if not path.exists():
            where = ["--data", str(data), "--cache", str(cache), "--runs", str(runs), "--out", str(path.parent)]
            assert run("report", *where, "--lang", name[-2:]) == 0
    with served(data, cache, runs, given.work) as addresses, opened(program, driver) as browser:
        addresses |= {name: path.resolve().as_uri() for name, path in reports.items()}
        for state in STATES:
            name = f"{state.page.split('#')[0] or 'try'}-{state.name.replace(' ', '-')}"
            if given.only in name:
                each = given.out / "each" / name
                each.mkdir(parents=True, exist_ok=True)
                sheet(taken(browser, state, addresses, each)).save(given.out / f"{name}.png")
                print(given.out / f"{name}.png")


if __name__ == "__main__":
    main()
