"""`mmsent report`: every figure of a set of runs, and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import RUN, CamOf, Encoding, Json, RunNames, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.errors import MmsentError, UsageError

if TYPE_CHECKING:
    from mmsent.data.check_report import CheckReport
    from mmsent.report.study import Study
    from mmsent.report.write import Written
    from mmsent.training.runs import Run


@resumable("no report was written, an earlier one stays")
def report(
    where: Encoding,
    run: RunNames = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the page and its figures into.", rich_help_panel=RUN)
    ] = Path("report"),
    form: Annotated[
        str, typer.Option("--format", help="html (one self-contained file) or md.", rich_help_panel=RUN)
    ] = "html",
    weights: Weights = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            envvar="MMSENT_DEVICE",
            help="Where to compute explanations.",
            show_default="auto",
            rich_help_panel=RUN,
        ),
    ] = None,
    cam_of: CamOf = "logit",
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="<str>",
            help="Head that the figures of a single head show, by fusion or run.",
            show_default="the best",
            rich_help_panel=RUN,
        ),
    ] = None,
    lang: Annotated[
        str, typer.Option("--lang", help="Language of page and figures: en or zh.", rich_help_panel=RUN)
    ] = "en",
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip",
            metavar="<str>",
            help="Figure to leave out, such as grad-cam or learning-curve, or the map. Repeatable.",
            rich_help_panel=RUN,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what runs learned: every figure, and one page.

    Reads the newest run of each fusion (or the runs named), their cache and the posts; test labels stay closed. Writes
    --out/report.html, one file that opens from disk, the figures as PNG and SVG, and the map's places beside the cache.
    """
    _refuse(form, out, skip or (), lang)
    from mmsent.data.check import check_dataset
    from mmsent.report.explanations import Explainer
    from mmsent.report.language import speaking
    from mmsent.report.study import open_study
    from mmsent.system.progress import bar

    cache = where.cache
    # a run that is named twice counts once
    chosen = list({one.path.resolve(): one for one in where.runs(run)}.values())
    dataset, why = where.dataset_if_there()
    where.tell_changes(dataset)
    no_posts, preflight, encoders = why, None, None
    reader: dict[str, Any] = {}
    try:
        from mmsent.encoders.factory import open_encoders
        from mmsent.inference.predict import encoder_settings

        encoders = open_encoders(encoder_settings(chosen, weights=weights, device=device))
        if dataset is not None and encoders.text.lengths([""]):
            reader = {"tokenizer": encoders.text.lengths, "max_tokens": encoders.text.card.max_tokens}
    except MmsentError as error:
        why = f"{why}; {error}" if why else str(error)
    if dataset is not None:
        with bar(len(dataset.posts), "reading posts", "post") as shown:
            preflight = check_dataset(dataset, progress=shown.update, **reader)
    study = open_study(chosen, cache, dataset, head)
    with speaking(lang):
        written = _write(study, out, form, preflight, Explainer(study, encoders, why, cam_of), skip or ())
    echo_json(_facts(written, chosen)) if json else _tell(written, out, no_posts, study.labels)


def _refuse(form: str, out: Path, skip: Any, lang: str) -> None:
    """Raise UsageError on what no report can be made of."""
    if form not in ("html", "md"):
        raise UsageError(f"--format {form!r}: choose html or md")
    from mmsent.report.language import LANGUAGES

    if lang not in LANGUAGES:
        raise UsageError(f"--lang {lang!r}: choose {' or '.join(LANGUAGES)}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if not skip:
        return
    from mmsent.report.figure_set import FIGURES, SWEEP_FIGURES
    from mmsent.report.write import MAP

    known = [*(name for name, _, _ in FIGURES + SWEEP_FIGURES), MAP]
    if unknown := [name for name in skip if name not in known]:
        raise UsageError(f"--skip {unknown[0]!r}: choose from {', '.join(known)}")


def _write(study: Study, out: Path, form: str, preflight: CheckReport | None, explained: Any, skip: Any) -> Written:
    """Write the report, with a bar that names the figure at work."""
    from mmsent.report.figure_set import figures_of
    from mmsent.report.write import write_report
    from mmsent.system.progress import bar

    with bar(len(figures_of(study)) + 2, "drawing", "figure") as shown:
        started = False

        def step(title: str) -> None:
            nonlocal started
            shown.update(int(started))
            shown.set_postfix_str(title)
            started = True

        return write_report(
            study,
            out,
            form="md" if form == "md" else "html",
            preflight=preflight,
            explained=explained,
            on_step=step,
            skip=skip,
        )


def _facts(written: Written, chosen: list[Run]) -> dict[str, Any]:
    return {
        "page": str(written.page),
        "bytes": written.size,
        "runs": [str(one.path) for one in chosen],
        "figures": {p.name: str(p.png) for p in written.figures if p.png is not None},
        "left_out": {p.name: p.missing for p in written.figures if p.png is None},
    }


def _tell(written: Written, out: Path, no_posts: str, labels: Sequence[str]) -> None:
    from mmsent.report.figure_set import numbered_labels

    missing = [p for p in written.figures if p.png is None]
    for one in missing:
        note(f"Figure {one.number}, {one.title}: not made: {one.missing}")
    if no_posts:
        note(no_posts)
    if numbered := numbered_labels(labels):
        note(numbered)
    drawn = len(written.figures) - len(missing)
    echo(f"{written.page} ({written.size / 1e6:.1f} MB), {drawn} figures in {out / 'figures'} as PNG and SVG")
