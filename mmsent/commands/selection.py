"""The commands that keep selection honest: cross-validation, the audit of labels, duplicates in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, require_current, source_of
from mmsent.commands.heads import fusions, memory_limit
from mmsent.commands.say import note, say, say_json
from mmsent.config import RECIPES, VOTING_FUSIONS, DataSettings, FitSettings, Fusion, Group, SplitSettings, fit_settings
from mmsent.errors import DataError, UsageError
from mmsent.system.tables import columns

FOLDS = 10  # of a cross-validation that the audit runs by itself
_AUDITED = (Group.near, Group.exact)  # what its folds keep together: on plain ones a wrong label's twin vouches for it


def fit_folds(
    names: Sequence[str] | None,
    recipe: str,
    overrides: dict[str, Any],
    split: SplitSettings,
    folds: int,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    memory: str | None,
    as_json: bool,
) -> None:
    """Cross-validate one head a fusion and print the scores."""
    wanted = fusions(names)
    cache, settings, chosen = _wanted(wanted, recipe, overrides, data, cache_at, encoder)
    saved, done = _cross_validate(cache, settings, split, folds, runs, chosen, device, memory)
    import numpy as np

    from mmsent.evaluation.cross_validation import vote_spread

    voters = [one for one in done if one.settings.fusion in VOTING_FUSIONS]
    vote = vote_spread(voters) if len(voters) > 1 else None
    if as_json:
        say_json(
            {
                "folds": folds,
                "split": done[0].plan.split.model_dump(mode="json"),
                "recipe": chosen,
                "runs": [{"path": str(one.path), **{k: one.info[k] for k in _SHOWN}} for one in saved],
                "vote": vote,
            }
        )
        return
    for one in saved:
        say(f"{one.path}: {folds} heads, {one.info['seconds']:.1f} s")
    plan = done[0].plan
    say(f"\nrecipe {chosen}; {len(plan.rows)} rows in {folds} folds, {_kept(plan.split)}")
    if plan.groups is not None:
        sizes = np.bincount(plan.groups)
        tied = sizes[sizes > 1]
        say(f"{int(tied.sum())} rows have duplicates, in {len(tied)} groups, the largest of {int(sizes.max())}")
    header = ["head", "accuracy", "F1 weighted", "standard error", "F1 macro", "NLL", "ECE"]
    rows = [header]
    for one in done:
        fit = (f"{one.pooled[name]:.3f}" for name in ("nll", "ece"))
        rows += [[one.settings.fusion.value, *_cells(one.summary), *fit]]
    if vote:
        rows.append([f"vote of {len(voters)}", *_cells(vote), "", ""])
    say(columns(rows, right=range(1, len(header))))
    say("\nmean ± standard deviation over the folds; NLL and ECE over all rows, calibrated on rows outside the fold")
    say("cross-validation leaves no head to vote with; `mmsent fit` trains one on all but the validation rows")


_SHOWN = ("summary", "pooled", "rows", "groups", "seconds")


def _kept(split: SplitSettings) -> str:
    """What the folds keep together, in words."""
    if split.group is Group.none:
        return "every row on its own"
    if split.group is Group.exact:
        return "exact duplicates together"
    return f"near-duplicates together (cosine from {split.near_image:g} of pictures, {split.near_text:g} of texts)"


def _cells(found: dict[str, dict[str, float]]) -> list[str]:
    shown = {name: f"{v['mean']:.3f} ± {v['sd']:.3f}" for name, v in found.items()}
    return [shown["accuracy"], shown["f1_weighted"], f"{found['f1_weighted']['se']:.3f}", shown["f1_macro"]]


def _wanted(
    wanted: Sequence[Fusion],
    recipe: str,
    overrides: dict[str, Any],
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
) -> tuple[Any, list[FitSettings], str]:
    """The cache, the settings of each head, and the recipe's name."""
    from mmsent.config import recipe_for

    if recipe != "auto" and recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from auto, {', '.join(RECIPES)}")
    cache = find(data, cache_at, encoder)
    chosen = recipe_for(cache.encoder) if recipe == "auto" else recipe
    settings = [fit_settings(chosen, fusion=fusion, **overrides) for fusion in wanted]
    require_current(cache, data, "train")
    return cache, settings, chosen


def _cross_validate(
    cache: Any,
    settings: Sequence[FitSettings],
    split: SplitSettings,
    folds: int,
    runs: Path,
    recipe: str,
    device: str,
    memory: str | None,
) -> tuple[list[Any], list[Any]]:
    """Cross-validate on the same folds; the saved folders and the results."""
    from mmsent.evaluation.cross_validation import cross_validate, save_folds
    from mmsent.system.devices import pick_device
    from mmsent.system.files import ready_folder
    from mmsent.system.progress import bar
    from mmsent.training.folds import plan_folds

    where = pick_device(device)
    plan = plan_folds(cache, split, folds, memory=memory_limit(memory))
    ready_folder(runs)  # better now than after all folds
    saved, done = [], []
    with bar(folds * len(settings), "cross-validating", "head") as shown:
        for one in settings:
            done.append(cross_validate(plan, one, device=where, on_fold=lambda _: shown.update(1)))
            saved.append(save_folds(runs, done[-1], recipe=recipe, device=where))
    return saved, done


def audit(
    names: Sequence[str],
    out: Path,
    top: int,
    gallery: bool,
    group: str | None,
    memory: str | None,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    as_json: bool,
) -> None:
    """List the labels that are likely wrong, as a table and a gallery. group, memory: of the cross-validation."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if group not in (None, *_AUDITED):
        raise UsageError(f"--group {group!r}: an audit needs folds that keep duplicates together, near or exact")
    if names and (group is not None or memory is not None):
        raise UsageError("--group and --memory are for choosing or making a cross-validation; do not name one besides")
    memory_limit(memory)  # a bad size is told now
    from mmsent.evaluation.audit import audit_folds, usable_folds, write_audit
    from mmsent.evaluation.cross_validation import list_folds, open_folds
    from mmsent.training.folds import SUMMARY

    cache = find(data, cache_at, encoder)
    require_current(cache, data, "train")
    index = cache.index("train")
    if names:
        given = [Path(name) if (Path(name) / SUMMARY).is_file() else runs / name for name in names]
        chosen = [open_folds(path) for path in given]
    else:
        there = [one for one in list_folds(runs, cache) if group in (None, one.split.group.value)]
        chosen = usable_folds(there, index)
    if not chosen:
        note(f"no cross-validation of these labels in {runs}/: running one of {Fusion.concat}, {FOLDS} folds")
        cache, settings, recipe = _wanted([Fusion.concat], "auto", {}, data, cache_at, encoder)
        split = SplitSettings(group=Group(group or Group.near))
        chosen, _ = _cross_validate(cache, settings, split, FOLDS, runs, recipe, device, memory)
    found = audit_folds(chosen, index)
    table, values = write_audit(found, out)
    written = {"table": str(table), "json": str(values)}
    if gallery:
        written["gallery"] = str(_gallery(found, cache, data, out))
    if as_json:
        say_json({**written, "sources": found.sources, "rows": len(found.suspects), "likely_wrong": found.likely_wrong})
        return
    rows = [["rank", "id", "label", "suggested", "p label", "p suggested", "likely wrong"]]
    for one in found.suspects[:top]:
        numbers = [f"{value:.3f}" for value in (one.p_given, one.p_suggested)]
        rows.append([str(one.rank), one.id, one.given, one.suggested, *numbers, "yes" if one.likely_wrong else ""])
    say(columns(rows, right=(0, 4, 5)))
    n = len(found.suspects)
    say(f"\n{found.likely_wrong} of {n} labels are likely wrong, by {', '.join(found.sources)}")
    say(f"wrote {', '.join(written.values())}")
    say("look before you change a label: a hard post and a wrong label look alike to a head")


def _gallery(found: Any, cache: Any, data: Path | None, out: Path) -> Path:
    from mmsent.data.dataset import load_dataset
    from mmsent.report.audit_page import write_gallery

    path = source_of(cache, data)
    try:
        dataset = load_dataset(path, DataSettings.model_validate(cache.provenance["data_settings"]), strict=False)
    except DataError as error:
        if data is not None:
            raise
        dataset = None
        note(f"the gallery shows no posts, for they are not at hand ({error})")
    return write_gallery(found, cache, dataset, out)


def cache_duplicates(
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    near_image: float | None,
    near_text: float | None,
    as_json: bool,
) -> None:
    """Print the duplicates among the rows of a cache, exact and near."""
    from mmsent.features.cache.groups import comparisons, find_duplicates
    from mmsent.system.progress import bar

    for name, value in (("--near-image", near_image), ("--near-text", near_text)):
        if value is not None and not 0 < value <= 1:
            raise UsageError(f"{name} {value:g}: a cosine above 0 and up to 1 is needed")
    cache = find(data, cache_at, encoder)
    with bar(comparisons(cache), "comparing", "tile") as shown:
        found = find_duplicates(cache, near_image, near_text, shown.update)
    if as_json:
        say_json(found.to_json())
        return
    say(columns(found.table(), right=range(2, 7)))
    largest = max(found.found, key=lambda g: (g.near, g.what == "either")).members
    for group in largest[:5]:
        shown_ids = ", ".join(f"{split} {row_id}" for split, row_id in group[:8])
        say(f"  {len(group)} rows: {shown_ids}{', …' if len(group) > 8 else ''}")
    if parted := sum(g.parted for g in found.found if g.what == "either"):
        note(f"{parted} like pairs are in different groups, for together they would chain up too many rows")
    say("--json lists every group; `mmsent fit --group near` keeps them on one side of a split")
