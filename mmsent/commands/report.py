"""The report command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, source_of
from mmsent.commands.heads import chosen_runs
from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import DataSettings
from mmsent.errors import DataError, MmsentError, UsageError


@resumable("no report was written, an earlier one stays")
def report(
    names: Sequence[str],
    out: Path,
    form: str,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    weights: str | None,
    device: str | None,
    skip: Sequence[str],
    as_json: bool,
) -> None:
    """Draw every figure of a set of runs and write the page."""
    if form not in ("html", "md"):
        raise UsageError(f"--format {form!r}: choose html or md")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    from mmsent.report.explanations import Explained
    from mmsent.report.figure_set import PLATES, SWEEP_PLATES, plates_of
    from mmsent.report.study import open_study
    from mmsent.report.write import write_report
    from mmsent.system.progress import bar

    known = [name for name, _, _ in PLATES + SWEEP_PLATES]
    if unknown := [name for name in skip if name not in known]:
        raise UsageError(f"--skip {unknown[0]!r}: choose from {', '.join(known)}")
    cache = find(data, cache_at, encoder)
    # a run that is named twice counts once
    chosen = list({run.path.resolve(): run for run in chosen_runs(names, runs, cache)}.values())
    dataset, why = _dataset(cache, data)
    preflight = None
    if dataset is not None:
        from mmsent.data.check import check_dataset

        with bar(len(dataset.posts), "reading posts", "post") as shown:
            preflight = check_dataset(dataset, progress=shown.update)
    study = open_study(chosen, cache, dataset)
    encoders = None
    try:
        from mmsent.encoders.factory import open_encoders
        from mmsent.inference.predict import encoder_settings

        encoders = open_encoders(encoder_settings(chosen, weights=weights, device=device))
    except MmsentError as error:
        why = f"{why}; {error}" if why else str(error)
    with bar(len(plates_of(study)) + 1, "drawing", "figure") as shown:
        started = False

        def step(title: str) -> None:
            nonlocal started
            shown.update(int(started))
            shown.set_postfix_str(title)
            started = True

        written = write_report(
            study,
            out,
            form="md" if form == "md" else "html",
            preflight=preflight,
            explained=Explained(study, encoders, why),
            on_step=step,
            skip=skip,
        )
    missing = [(p.number, p.title, p.missing) for p in written.plates if p.png is None]
    if as_json:
        made = {p.name: str(p.png) for p in written.plates if p.png is not None}
        left_out = {p.name: p.missing for p in written.plates if p.png is None}
        runs_of = [str(run.path) for run in chosen]
        say_json(
            {"page": str(written.page), "bytes": written.size, "runs": runs_of, "figures": made, "left_out": left_out}
        )
        return
    for number, title, reason in missing:
        note(f"Figure {number}, {title}: not made: {reason}")
    if why and dataset is None:
        note(why)
    drawn = len(written.plates) - len(missing)
    say(f"{written.page} ({written.size / 1e6:.1f} MB), {drawn} figures in {out / 'figures'} as PNG and SVG")


def _dataset(cache: Any, data: Path | None) -> tuple[Any, str]:
    """The data set of a cache, or None and the reason why it is not at hand. A given path must be right."""
    from mmsent.data.dataset import load_dataset

    path = source_of(cache, data)
    settings = DataSettings.model_validate(cache.provenance["data_settings"])
    try:
        return load_dataset(path, settings, strict=False), ""
    except DataError as error:
        if data is not None:
            raise
        return None, f"the posts are not at hand ({error})"
