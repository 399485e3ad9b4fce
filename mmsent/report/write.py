"""The report: one self-contained HTML page (or Markdown) about a set of runs, with every figure beside it.

<out>/report.html   everything in one file: no network, no other file needed
<out>/report.md     with --format md
<out>/figures/      the figures as PNG (200 dpi) and SVG
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from mmsent.data.check_report import CheckReport
from mmsent.data.lists import write_text
from mmsent.errors import DataError
from mmsent.report import content
from mmsent.report import sweeps as swept
from mmsent.report import validation as selection
from mmsent.report.explanations import Explained
from mmsent.report.figure_set import Plate, make_plates
from mmsent.report.page import THUMBNAIL, render
from mmsent.report.reproduce import commands
from mmsent.report.study import Study
from mmsent.version import __version__

FIGURES = "figures"
BUILDING = ".building"  # the report in the making, until all of it is there
SHOWN_WIDTH = 1700  # pixels of a figure in the page; the files beside it hold all 200 dpi
PHOTOS = {"errors", "confident-errors", "grad-cam"}
CARDS = 400
Format = Literal["html", "md"]


@dataclass(frozen=True)
class Written:
    """What was written: the page, the figures, and how large the page is in bytes."""

    page: Path
    plates: list[Plate]
    size: int


def write_report(
    study: Study,
    out: Path,
    *,
    form: Format = "html",
    preflight: CheckReport | None = None,
    explained: Explained | None = None,
    on_step: Callable[[str], None] | None = None,
    skip: Collection[str] = (),
) -> Written:
    """Draw every figure and write the page. preflight: what `mmsent check` finds; explained: where Figures 15 and 16
    come from; both None where the posts are not at hand. skip: figures to leave out, by their names in PLATES.

    An earlier report stays until the new one is finished. Raises DataError where it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file; name a folder")
    page, building = out / f"report.{form}", out / BUILDING
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
        (building / FIGURES).mkdir(parents=True)
        plates = make_plates(study, explained or Explained(study, None), building / FIGURES, on_step, skip)
        if on_step:
            on_step("page")
        values = _values(study, preflight)
        text = _html(study, values, plates) if form == "html" else _markdown(study, values, plates)
        write_text(building / page.name, text)
        plates = _put_in_place(plates, building, page)
    except OSError as error:
        raise DataError(f"cannot write the report in {out}: {error.strerror or error}; what was there stays") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Written(page, plates, page.stat().st_size)


def _put_in_place(plates: list[Plate], building: Path, page: Path) -> list[Plate]:
    """Move a finished report to where it belongs, the page last; figures that it lacks go. Returns the moved plates."""
    figures = page.parent / FIGURES
    figures.mkdir(exist_ok=True)
    (page.parent / "report.md").unlink(missing_ok=True)  # it shows the figures beside it, which change now
    moved = []
    for plate in plates:
        places: dict[str, Path | None] = {}
        for kind, drawn in (("png", plate.png), ("svg", plate.svg)):
            target = figures / f"{plate.number:02d}-{plate.name}.{kind}"
            if drawn is None:
                target.unlink(missing_ok=True)  # of an earlier report, and no longer true
            else:
                os.replace(drawn, target)
            places[kind] = target if drawn is not None else None
        moved.append(replace(plate, png=places["png"], svg=places["svg"]))
    os.replace(building / page.name, page)
    return moved


def _values(study: Study, preflight: CheckReport | None) -> dict[str, Any]:
    table, note = content.results(study)
    best, others, how = content.pairs(study)
    balance, findings, about = content.data(study, preflight)
    cache, runs = content.settings(study)
    alike, said = content.agreement(study)
    voted, outcome = content.vote(study)
    lines, origin = commands(study)
    chosen = selection.selection(study)
    return {
        "title": f"{study.cache.data_name} with {study.cache.encoder} - mmsent report",
        "data_name": study.cache.data_name,
        "encoder": study.cache.encoder,
        "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "labels": study.labels,
        "tiles": content.tiles(study),
        "results": {"table": table, "note": note},
        "pairs": {"table": best, "rest": others, "note": how},
        "data": {"balance": balance, "findings": findings, "note": about},
        "selection": chosen,
        "sweep": swept.section(study),
        "settings": {"cache": cache, "runs": runs},
        "agreement": {"table": alike, "note": said},
        "vote": {"table": voted, "note": outcome},
        "commands": {"lines": lines, "note": origin},
        "folder": f"{FIGURES}/",
    }


# --- HTML


def _html(study: Study, values: dict[str, Any], plates: list[Plate]) -> str:
    cards, note = content.gallery(study, lambda row_id: _thumbnail(study, row_id), CARDS)
    shown = [_shown(plate) for plate in plates]
    written = " ".join([*(card.text for card in cards), str(values), *(p["caption"] for p in shown)])
    gallery = {"cards": cards, "note": note, "head": content.short_name(study.main)}
    return render("page.html", written, **values, plates=shown, gallery=gallery)


def _shown(plate: Plate) -> dict[str, Any]:
    """A plate for the page: its picture as WebP in a data URI, lossless for charts."""
    fields = {"number": plate.number, "title": plate.title, "caption": plate.caption, "missing": plate.missing}
    if plate.png is None:
        return {**fields, "data": "", "width": 0, "height": 0}
    with Image.open(plate.png) as opened:
        image = opened.convert("RGB")
    if image.width > SHOWN_WIDTH:
        size = (SHOWN_WIDTH, round(image.height * SHOWN_WIDTH / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", **({"quality": 82} if plate.name in PHOTOS else {"lossless": True, "quality": 60}))
    data = f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {**fields, "data": data, "width": image.width, "height": image.height}


def _thumbnail(study: Study, row_id: str) -> str | None:
    pixels = study.picture(row_id, THUMBNAIL)
    if pixels is None:
        return None
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


# --- Markdown


def _markdown(study: Study, values: dict[str, Any], plates: list[Plate]) -> str:
    cards, note = content.gallery(study, lambda _: None, 50)
    head = content.short_name(study.main)
    parts = [f"# {_plain(values['data_name'])} with {_plain(values['encoder'])}"]
    parts.append(
        "\n".join(f"- {_plain(t['name'])}: **{_plain(t['value'])}** ({_plain(t['more'])})" for t in values["tiles"])
    )
    parts += ["## Results", _plain(values["results"]["note"]), _table(values["results"]["table"])]
    if values["pairs"]["table"]:
        parts += ["### Paired tests", _plain(values["pairs"]["note"]), _table(values["pairs"]["table"])]
        parts += [_table(values["pairs"]["rest"])] if values["pairs"]["rest"] else []
    parts.append("## Figures")
    for plate in plates:
        if plate.png is not None:
            parts.append(f"![{_plain(plate.title)}]({FIGURES}/{plate.png.name})")
        words = plate.caption if plate.png else f"Not made: {plate.missing}."
        parts.append(f"**Figure {plate.number}. {_plain(plate.title)}.** {_plain(words)}")
    parts += [f"## Errors of {_plain(head)}", _plain(note)]
    rows = [["id", "text", "true", "predicted", "confidence"]]
    rows += [[c.id, c.text, c.truth, c.predicted, f"{c.confidence:.0%}"] for c in cards]
    parts += [_table(content.Table(rows, "llllr"))] if cards else []
    parts += ["## Agreement and vote", _plain(values["agreement"]["note"])]
    parts += [_table(values["agreement"]["table"])] if values["agreement"]["table"] else []
    parts.append(_plain(values["vote"]["note"]))
    parts += [_table(values["vote"]["table"])] if values["vote"]["table"] else []
    parts += ["## Data, and what was wrong with it", _table(values["data"]["balance"]), _plain(values["data"]["note"])]
    parts += [_table(values["data"]["findings"])] if values["data"]["findings"] else []
    chosen = values["selection"]
    parts += [
        "## Selection",
        "### Duplicates",
        _plain(chosen["duplicates"]["note"]),
        _table(chosen["duplicates"]["table"]),
    ]
    for name, title in (("folds", "### Cross-validation"), ("openings", "### Test labels")):
        parts += [title, _plain(chosen[name]["note"])]
        parts += [_table(chosen[name]["table"])] if chosen[name]["table"] else []
    if (sweep := values["sweep"]) is not None:
        parts += ["## Sweep", _plain(sweep["note"]), _table(sweep["winners"]), _table(sweep["table"])]
    parts += ["## Settings and fingerprints", _table(values["settings"]["cache"]), _table(values["settings"]["runs"])]
    lines = "\n".join("    " + re.sub(r"\s", " ", line) for line in values["commands"]["lines"])
    parts += ["## Commands that reproduce this", _plain(values["commands"]["note"]), lines]
    parts.append(f"Written by mmsent {values['version']} on {values['date']}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Text as Markdown that shows just it: one line, no markup of either kind."""
    line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~#!$@:])", lambda m: f"&#{ord(m[1])};", line)


def _table(table: content.Table) -> str:
    lines = [f"| {' | '.join(map(_plain, row))} |" for row in table.rows]
    marks = ["---:" if a == "r" else "---" for a in table.align]
    return "\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]])
