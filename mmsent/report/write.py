"""The report: one self-contained HTML page (or Markdown) about a set of runs, with every figure beside it.

<out>/report.html   everything in one file: no network, no other file needed
<out>/report.md     with --format md
<out>/figures/      the figures as PNG (200 dpi) and SVG
"""

from __future__ import annotations

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
from mmsent.data.images import image_url, thumbnail_url
from mmsent.data.lists import write_text
from mmsent.errors import DataError, MmsentError
from mmsent.report import content, sweeps, validation
from mmsent.report.explanations import Explainer
from mmsent.report.figure_set import ReportFigure, draw_figures
from mmsent.report.figures.style import DPI
from mmsent.report.findings import find
from mmsent.report.gallery import THUMBNAIL, gallery_json
from mmsent.report.language import say
from mmsent.report.map_section import map_section
from mmsent.report.naming import short_name, title_of
from mmsent.report.overview import overview
from mmsent.report.page import render
from mmsent.report.reproduce import commands
from mmsent.report.study import Study
from mmsent.system.markup import markdown
from mmsent.version import __version__

FOLDER = "figures"  # of the figures, beside the page
BUILDING = ".building"  # the report in the making, until all of it is there
SHOWN_WIDTH = 1700  # pixels of a figure in the page; the files beside it hold all 200 dpi
PER_INCH = 116  # pixels of the page for an inch of a figure, so that letters are alike in all
PHOTOS = {"errors", "confident-errors", "grad-cam"}
MAP = "map"  # what --skip calls it
CARDS = 30  # errors in the page; the server's review shows all
Format = Literal["html", "md"]


@dataclass(frozen=True)
class Written:
    """What was written: the page, the figures, and how large the page is in bytes."""

    page: Path
    figures: list[ReportFigure]
    size: int


def write_report(
    study: Study,
    out: Path,
    *,
    form: Format = "html",
    preflight: CheckReport | None = None,
    explained: Explainer | None = None,
    on_step: Callable[[str], None] | None = None,
    skip: Collection[str] = (),
) -> Written:
    """Draw every figure and write the page. preflight: what `mmsent check` finds; explained: where Figures 15 and 16
    come from; both None where the posts are not available. skip: figures to leave out, by their names in FIGURES.

    An earlier report stays until the new one is finished. Raises DataError where it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file; name a folder")
    page, building = out / f"report.{form}", out / BUILDING
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
        (building / FOLDER).mkdir(parents=True)
        figures = draw_figures(study, explained or Explainer(study, None), building / FOLDER, on_step, skip)
        if on_step:
            on_step("page")
        values = _values(study, preflight)
        if form == "html":
            text = _html(study, values, figures, *_map(study, skip, on_step))
        else:
            text = _markdown(study, values, figures)
        write_text(building / page.name, text)
        figures = _put_in_place(figures, building, page)
    except OSError as error:
        raise DataError(
            f"cannot write the report in {out}: {error.strerror or error}; files that were there before are unchanged"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Written(page, figures, page.stat().st_size)


def _put_in_place(figures: list[ReportFigure], building: Path, page: Path) -> list[ReportFigure]:
    """Move a finished report to where it belongs, the page last; figures that it lacks go. Returns the moved ones."""
    folder = page.parent / FOLDER
    folder.mkdir(exist_ok=True)
    (page.parent / "report.md").unlink(missing_ok=True)  # it shows the figures beside it, which change now
    moved = []
    for figure in figures:
        places: dict[str, Path | None] = {}
        for kind, drawn in (("png", figure.png), ("svg", figure.svg)):
            target = folder / f"{figure.number:02d}-{figure.name}.{kind}"
            if drawn is None:
                target.unlink(missing_ok=True)  # of an earlier report, and no longer true
            else:
                os.replace(drawn, target)
            places[kind] = target if drawn is not None else None
        moved.append(replace(figure, png=places["png"], svg=places["svg"]))
    os.replace(building / page.name, page)
    return moved


def _values(study: Study, preflight: CheckReport | None) -> dict[str, Any]:
    found = find(study)
    table, note = content.results(study, found.best.key)
    best, others, how = content.pairs(study)
    balance, findings, about = content.data(study, preflight)
    cache, runs = content.settings(study)
    alike, said = content.agreement(study)
    voted, outcome = content.vote(study)
    lines, origin = commands(study)
    return {
        "title": say("{data} with {encoder} - mmsent report", data=study.cache.data_name, encoder=study.cache.encoder),
        "data_name": study.cache.data_name,
        "encoder": study.cache.encoder,
        "version": __version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "shown": title_of(study.main),
        "overview": overview(found),
        "results": {"table": table, "note": note},
        "pairs": {"table": best, "rest": others, "note": how},
        "data": {"balance": balance, "findings": findings, "note": about},
        "selection": validation.selection(study),
        "sweep": sweeps.section(study),
        "settings": {"cache": cache, "runs": runs},
        "agreement": {"table": alike, "note": said},
        "vote": {"table": voted, "note": outcome},
        "reproduce": {"lines": lines, "note": origin},
        "folder": f"{FOLDER}/",
    }


# --- HTML


def _map(study: Study, skip: Collection[str], on_step: Callable[[str], None] | None) -> tuple[str, str]:
    """The map's points and a note; no points where it is left out or cannot be made, and the note says why."""
    if MAP in skip:
        return "", say("The map is left out: {reason}.", reason=say("left out with --skip"))
    if on_step:
        on_step("map")
    try:
        return map_section(study)
    except MmsentError as error:
        return "", say("The map is left out: {reason}.", reason=error)


def _html(study: Study, values: dict[str, Any], figures: list[ReportFigure], points: str, about_map: str) -> str:
    rows, note = content.gallery(study, CARDS)
    gallery = gallery_json(
        rows, study.labels, study.dataset, study.text, lambda name: _thumbnail(study, name), order="listed"
    )
    shown = [_shown(figure) for figure in figures]
    written = " ".join([gallery, points, str(values), *(one["caption"] for one in shown)])
    errors = {"note": note, "head": short_name(study.main)}
    more: dict[str, Any] = {"figures": shown, "errors": errors, "about_map": about_map}
    return render("page.html", written, gallery=gallery, points=points, **values, **more)


def _shown(figure: ReportFigure) -> dict[str, Any]:
    """A figure for the page: its image as WebP in a data URI, lossless for charts."""
    fields = {"number": figure.number, "title": figure.title, "caption": figure.caption, "missing": figure.missing}
    if figure.png is None:
        return {**fields, "data": "", "width": 0, "height": 0}
    with Image.open(figure.png) as opened:
        image = opened.convert("RGB")
    width, height = (round(side / DPI * PER_INCH) for side in image.size)
    if image.width > SHOWN_WIDTH:
        size = (SHOWN_WIDTH, round(image.height * SHOWN_WIDTH / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    options = {"quality": 82} if figure.name in PHOTOS else {"lossless": True, "quality": 60}
    return {**fields, "data": image_url(image, "WEBP", **options), "width": width, "height": height}


def _thumbnail(study: Study, row_id: str) -> str | None:
    pixels = study.picture(row_id, THUMBNAIL)
    return None if pixels is None else thumbnail_url(Image.fromarray(pixels), THUMBNAIL)


# --- Markdown


def _markdown(study: Study, values: dict[str, Any], figures: list[ReportFigure]) -> str:
    cards, note = content.gallery(study, CARDS)
    head = say("{data} with {encoder}", data=values["data_name"], encoder=values["encoder"])
    parts = [f"# {markdown(head)}"]
    first = values["overview"]
    parts += [f"**{markdown(first['question'])}** {markdown(first['about'])}"]
    parts += ["\n".join(f"- {markdown(sentence)}" for sentence in first["sentences"])]
    rows = [[*map(say, ("head", "weighted F1", "interval", "behind the best by"))]]
    rows += [[line.name, line.value, line.interval, line.behind] for line in first["lines"]]
    parts += [_table(content.Table(rows, "lrrl", 1)), markdown(first["note"])]
    parts += [_title("Results"), markdown(values["results"]["note"]), _table(values["results"]["table"])]
    if values["pairs"]["table"]:
        parts += [_title("Paired tests", 3), markdown(values["pairs"]["note"]), _table(values["pairs"]["table"])]
        parts += [_table(values["pairs"]["rest"])] if values["pairs"]["rest"] else []
    parts.append(_title("Figures"))
    for figure in figures:
        if figure.png is not None:
            parts.append(f"![{markdown(figure.title)}]({FOLDER}/{figure.png.name})")
        words = figure.caption if figure.png else say("Not made: {reason}.", reason=figure.missing)
        title = say("Figure {n}. {title}.", n=figure.number, title=figure.title)
        parts.append(f"**{markdown(title)}** {markdown(words)}")
    parts += [f"## {markdown(say('Errors of {head}', head=short_name(study.main)))}", markdown(note)]
    rows = [["id", *map(say, ("text", "true", "predicted", "confidence"))]]
    rows += [[c.id, study.text(c.id) or "", c.label or "", c.predicted or "", f"{c.confidence:.0%}"] for c in cards]
    parts += [_table(content.Table(rows, "llllr"))] if cards else []
    parts += [_title("Agreement and vote"), markdown(values["agreement"]["note"])]
    parts += [_table(values["agreement"]["table"])] if values["agreement"]["table"] else []
    parts.append(markdown(values["vote"]["note"]))
    parts += [_table(values["vote"]["table"])] if values["vote"]["table"] else []
    parts += [
        _title("Data, and problems found in it"),
        _table(values["data"]["balance"]),
        markdown(values["data"]["note"]),
    ]
    parts += [_table(values["data"]["findings"])] if values["data"]["findings"] else []
    chosen = values["selection"]
    parts += [
        _title("Selection"),
        _title("Duplicates", 3),
        markdown(chosen["duplicates"]["note"]),
        _table(chosen["duplicates"]["table"]),
    ]
    for name, title in (("folds", "Cross-validation"), ("openings", "Test labels")):
        parts += [_title(title, 3), markdown(chosen[name]["note"])]
        parts += [_table(chosen[name]["table"])] if chosen[name]["table"] else []
    if (sweep := values["sweep"]) is not None:
        parts += [_title("Sweep"), markdown(sweep["note"]), _table(sweep["winners"]), _table(sweep["table"])]
    parts += [
        _title("Settings and fingerprints"),
        _table(values["settings"]["cache"]),
        _table(values["settings"]["runs"]),
    ]
    lines = "\n".join("    " + re.sub(r"\s", " ", line) for line in values["reproduce"]["lines"])
    parts += [_title("Commands that reproduce this"), markdown(values["reproduce"]["note"]), lines]
    parts.append(say("Written by mmsent {version} on {date}.", version=values["version"], date=values["date"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(english: str, level: int = 2) -> str:
    return f"{'#' * level} {say(english)}"


def _table(table: content.Table) -> str:
    bold = ["**" if i and i == table.marked else "" for i in range(len(table.rows))]
    rows = zip(table.rows, bold, strict=True)
    lines = [f"| {' | '.join(f'{b}{markdown(cell)}{b}' if cell else '' for cell in row)} |" for row, b in rows]
    marks = ["---:" if a == "r" else "---" for a in table.align]
    return "\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]])
