"""The commands on heads: fit, evaluate, vote, predict, quickstart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmsent.commands.features import complete, find, require_current, source_of
from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import (
    COMMITTEES,
    RECIPES,
    VOTING_FUSIONS,
    Committee,
    DataSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    fit_settings,
)
from mmsent.errors import DataError, Interrupted, MmsentError, RunError, UsageError
from mmsent.system.tables import columns


def fusions(names: Sequence[str] | None) -> list[Fusion]:
    """Fusions from the command line: names, comma lists, or all. Raises UsageError on an unknown one."""
    found: list[Fusion] = []
    for name in [part.strip() for given in names or ["concat"] for part in given.split(",")]:
        if name == "all":
            found += list(Fusion)
        elif name in set(Fusion):
            found.append(Fusion(name))
        else:
            raise UsageError(f"unknown fusion {name!r}; choose from {', '.join(Fusion)}, all")
    return list(dict.fromkeys(found))


def committee_of(recipe: str, splits: int | None) -> Committee | None:
    """The committee to fit: the recipe's own, or every head on `splits` validation splits where that is given; None for
    heads on their own."""
    own = COMMITTEES.get(recipe)
    if splits is None:
        return own
    if splits < 1:
        raise UsageError(f"--splits {splits}: give 1 or more")
    return own.model_copy(update={"splits": splits}) if own else Committee(fusions=VOTING_FUSIONS, splits=splits)


def memory_limit(text: str | None) -> int | None:
    """Bytes of `2GB`, `500 MB`, `64k`; without a text half of this machine's memory, None where that is not known.

    Raises UsageError on anything else.
    """
    if text is None:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, ValueError, OSError):
            return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)i?b?\s*", text.lower())
    if not found or not float(found[1]):
        raise UsageError(f"--memory {text!r}: give a size such as 2GB or 500MB")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


@contextmanager
def _keeping(fitted: Sequence[Any], wanted: Sequence[Fusion]) -> Iterator[None]:
    """Where fitting stops early, say which runs there are and how to fit the rest."""
    try:
        yield
    except (KeyboardInterrupt, MmsentError) as stop:
        rest = " ".join(f"--fusion {fusion}" for fusion in wanted[len(fitted) :])
        kept = ", ".join(run.name for run in fitted)
        there = f"{kept} {'are' if len(fitted) > 1 else 'is'} kept" if fitted else "no run was finished"
        if isinstance(stop, KeyboardInterrupt):
            raise Interrupted(f"interrupted; {there}; go on with the same options and {rest}", stop) from None
        if fitted:
            note(f"{there}; once that is mended, go on with the same options and {rest}")
        raise


def fit(
    names: Sequence[str] | None,
    recipe: str,
    overrides: dict[str, Any],
    split: SplitSettings,
    splits: int | None,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    memory: str | None,
    tensorboard: Path | None,
    as_json: bool,
) -> None:
    """Train one head a fusion, or a committee of several each, and print the comparison."""
    if committee := committee_of(recipe, splits):
        from mmsent.commands.committee import fit_committee

        fit_committee(
            names, recipe, committee, overrides, split, data, cache_at, encoder, runs, device, memory, as_json
        )
        return
    wanted = fusions(names)
    if recipe != "auto" and recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from auto, {', '.join(RECIPES)}")
    from mmsent.config import recipe_for

    cache = find(data, cache_at, encoder)
    chosen = recipe_for(cache.encoder) if recipe == "auto" else recipe
    settings: list[FitSettings] = [fit_settings(chosen, fusion=fusion, **overrides) for fusion in wanted]
    require_current(cache, data, "train")
    limit = memory_limit(memory)
    import numpy as np

    from mmsent.evaluation.evaluate import comparison, evaluate_logits
    from mmsent.features.cache import NO_LABEL
    from mmsent.system.devices import pick_device
    from mmsent.training.fit import fit as run
    from mmsent.training.fit import write_tensorboard

    where = pick_device(device)
    logits: list[Any] = []
    rows: list[Any] = []

    fitted: list[Any] = []

    def keep(one: Any, trained: Any, given: Any) -> None:
        fitted.append(one)
        logits.append(trained.val_logits)
        rows.append(given)

    with _keeping(fitted, wanted):
        done = run(cache, runs, settings, split, recipe=chosen, device=where, memory=limit, on_run=keep)
    if tensorboard:
        for one in done:
            write_tensorboard(one, tensorboard)
    labels = np.full(cache.rows["train"], NO_LABEL, np.int64)
    labels[rows[0].rows.val] = rows[0].truth
    found = evaluate_logits(done, logits, [given.rows.val for given in rows], labels, cache.labels, crossed=True)
    if as_json:
        say_json({"runs": [str(r.path) for r in done], "recipe": chosen, "validation": [e.to_json() for e in found]})
        return
    for one in done:
        say(f"{one.path}: best epoch {one.info['best_epoch']}, {one.info['seconds']:.1f} s")
    n = done[0].info["rows"]
    say(f"\nrecipe {chosen}; trained on {n['train']} rows, validated on {n['val']}")
    if rows[0].stored:
        note("the embeddings take more memory than --memory allows, so they were read from disk block by block")
    say(columns(comparison(found, cache.labels), right=range(2, 20)))


def named_runs(names: Sequence[str], runs: Path) -> list[Any]:
    """Runs by path, or by name in the runs folder; a folder that `mmsent export --format hf` wrote gives all it has."""
    from mmsent.export.hub import CONFIG, open_runs

    def at(name: str) -> Path:
        known = any((Path(name) / file).is_file() for file in ("run.json", CONFIG))
        return Path(name) if known else runs / name

    return [run for name in names for run in open_runs(at(name))]


def chosen_runs(names: Sequence[str], runs: Path, cache: Any) -> list[Any]:
    """Runs by path or by name in the runs folder; without names, the newest of each fusion of this cache."""
    from mmsent.training.runs import list_runs

    if names:
        return named_runs(names, runs)
    newest: dict[Fusion, Any] = {}
    for run in list_runs(runs, fingerprint=cache.fingerprint, data_name=cache.data_name):
        newest.setdefault(run.fusion, run)
    if not newest:
        raise RunError(f"no runs of {cache.path.name} in {runs}; fit some with `mmsent fit --fusion all`")
    return [newest[fusion] for fusion in Fusion if fusion in newest]


@resumable("nothing was written")
def evaluate(
    names: Sequence[str], split: str, data: Path | None, cache_at: Path, encoder: str | None, runs: Path, as_json: bool
) -> None:
    """Score runs on their validation rows, or on test labels where the data set has them; test their differences."""
    import numpy as np

    from mmsent.data.dataset import load_dataset
    from mmsent.evaluation.evaluate import comparison, evaluate_labelled, evaluate_validation, paired, paired_table
    from mmsent.evaluation.openings import LOG, ordinal, read_openings, record_opening, record_scores
    from mmsent.features.cache import NO_LABEL
    from mmsent.metrics import ECE_BINS, LEVEL, RESAMPLES
    from mmsent.training.runs import calibration_note

    if split not in ("val", "test"):
        raise UsageError(f"--split {split!r}: choose val or test")
    cache = find(data, cache_at, encoder)
    chosen = chosen_runs(names, runs, cache)
    if split == "val":
        found = evaluate_validation(chosen, cache)
    else:
        path = source_of(cache, data)
        settings = DataSettings.model_validate(cache.provenance["data_settings"])
        labelled = {p.id: p.label for p in load_dataset(path, settings, with_test_labels=True).of("test")}
        if not any(labelled.values()):
            raise DataError(f"the test split of {path} has no labels; `mmsent vote` predicts them")
        cache = complete(cache, data, "test", None)
        features = cache.load("test")
        numbers: dict[str | None, int] = {label: i for i, label in enumerate(cache.labels)}
        truth = np.array([numbers.get(labelled.get(i), NO_LABEL) for i in features.index.ids], np.int64)
        key = record_opening(chosen, cache, path, int((features.index.good & (truth != NO_LABEL)).sum()))
        found = evaluate_labelled(chosen, cache, features, truth)
        record_scores(chosen, key, {e.name: {k: e.scores[k] for k in ("accuracy", "f1_weighted")} for e in found})
        folders = list(dict.fromkeys(run.path.parent for run in chosen))
        times = len(read_openings(folders, cache))
        note(f"test labels opened, for the {ordinal(times)} time; noted in {folders[0] / LOG}")
    pairs = paired(found)
    if as_json:
        say_json(
            {
                "cache": str(cache.path),
                "split": split,
                "calibrated": all(run.calibrated for run in chosen),
                "evaluations": [e.to_json() for e in found],
                "paired": [asdict(pair) for pair in pairs],
            }
        )
        return
    say(columns(comparison(found, cache.labels), right=range(2, 20)))
    say(f"\n[low, high]: {LEVEL:.0%} interval from {RESAMPLES} bootstrap resamples of the rows; ECE: {ECE_BINS} bins")
    crossed = split == "val" and any(run.calibrated for run in chosen)
    say(calibration_note(chosen) + (", here each row's on the other rows (cross-fitted)" if crossed else ""))
    if pairs:
        say("\nMcNemar's exact test on the rows that one of two has right and the other has not:")
        say(columns(paired_table(pairs), right=range(2, 6)))
        tested = f"{len(pairs)} pairs were" if len(pairs) > 1 else "1 pair was"
        say(
            f"p < 0.05: the two differ beyond chance on these rows; {tested} tested, so by chance alone about "
            f"{len(pairs) / 20:g} would."
        )


def _refuse_overwriting(out: Path, source: Path) -> None:
    """Raise UsageError where predictions, or the table beside them, would replace a file of the data set."""
    from mmsent.data.dataset import LISTS
    from mmsent.inference.vote import table_path

    if out.is_dir() or not out.name:
        raise UsageError(f"--out {out} is a folder; name a file")
    own = {(source / name).resolve() for name in LISTS.values()} if source.is_dir() else {source.resolve()}
    for path in (out, table_path(out)):
        if path.resolve() in own:
            raise UsageError(f"--out {out} would replace {path}, which belongs to the data set; name another file")


@resumable("no labels were written")
def vote(
    names: Sequence[str],
    split: str,
    out: Path,
    tie: str | None,
    soft: bool,
    twins: bool,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str | None,
    as_json: bool,
) -> None:
    """Label every post of a split with several heads and write the list."""
    from mmsent.data.dataset import SPLITS, load_dataset
    from mmsent.data.lists import ListForm
    from mmsent.inference.vote import averages, tie_label, vote_split, voting_runs, write_vote
    from mmsent.training.runs import calibration_note

    if split not in SPLITS:
        raise UsageError(f"--split {split!r}: choose test or train")
    cache = find(data, cache_at, encoder)
    tie_label(tie, cache.labels)
    _refuse_overwriting(out, source_of(cache, data))
    chosen = chosen_runs(names, runs, cache) if names else voting_runs(runs, cache)
    for run in chosen:
        run.require(cache.settings.contract, str(cache.path), cache.encoder)
    soft = twins or averages(chosen, soft)
    cache = complete(cache, data, split, device)
    result = vote_split(chosen, cache, split, tie=tie, soft=soft, twins=twins)
    path = source_of(cache, data)
    form = ListForm()
    if path.exists():
        forms = load_dataset(path, DataSettings.model_validate(cache.provenance["data_settings"])).forms
        form = next((forms[s] for s in SPLITS if s == split and s in forms), form)
    written, table = write_vote(result, out, form)
    agreement = {str(k): n for k, n in result.agreement().items()}
    if as_json:
        counts = {label: result.predicted.count(label) for label in result.labels}
        say_json(
            {
                "out": str(written),
                "table": str(table),
                "runs": [str(r.path) for r in chosen],
                "rows": len(result.ids),
                "agreement": agreement,
                "tied": int(result.tied.sum()),
                "twins": int(result.twins.sum()) if result.twins is not None else None,
                "calibrated": result.calibrated,
                "fallback": [result.ids[i] for i in result.fallback],
                "predicted": counts,
            }
        )
        return
    committee = chosen[0].committee if not names else None
    if committee:
        say(f"mean of the committee {committee[0]}: {len(chosen)} heads, {chosen[0].name} to {chosen[-1].name}")
        if len(chosen) < committee[1]:
            note(f"the committee was to have {committee[1]} heads; fit it again with the same options for all of them")
    else:
        heads = ", ".join(f"{r.fusion} ({r.name})" for r in chosen)
        say(f"{'soft ' if soft else ''}vote of {len(chosen)} heads: {heads}")
    if not names and not committee and len(chosen) < 3:
        have = {r.fusion for r in chosen}
        absent = " ".join(f"--fusion {f}" for f in ("concat", "weighted", "attention") if f not in have)
        note(f"the vote is meant for concat, weighted and attention; add the rest with `mmsent fit {absent}`")
    n = len(result.ids)
    say("; ".join(f"{k} of {len(chosen)} heads agree on {c} posts ({c / n:.1%})" for k, c in agreement.items()))
    if not soft and result.tied.any():
        say(f"{int(result.tied.sum())} posts had no majority")
    if result.twins is not None:
        say(f"{int(result.twins.sum())} posts have near-duplicates among the training posts and leaned on their labels")
    if result.fallback:
        note(f"{len(result.fallback)} posts lack what the heads need and got {result.fallback_label!r}")
    for label in result.labels:
        say(f"  {label}: {result.predicted.count(label)}")
    say(f"wrote {written} ({n} posts) and {table} (with probabilities)")
    say(calibration_note(chosen))


@resumable("no labels were written")
def predict(
    names: Sequence[str],
    text: str | None,
    image: Path | None,
    manifest: Path | None,
    settings: DataSettings,
    out: Path | None,
    tie: str | None,
    soft: bool,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    weights: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Label one post from the command line, or the posts of a manifest."""
    from mmsent.data.dataset import load_dataset
    from mmsent.data.lists import write_text
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.predict import predict, predictions_table
    from mmsent.inference.vote import averages, voting_runs
    from mmsent.training.runs import calibration_note

    if (manifest is None) == (text is None and image is None):
        raise UsageError("give a post with --text and --image, or several with --manifest FILE")
    if out is not None and manifest is not None and out.resolve() == manifest.resolve():
        raise UsageError(f"--out {out} would replace the manifest; name another file")
    if image is not None and not image.is_file():
        raise DataError(f"no picture at {image}")
    if manifest is not None:
        dataset = load_dataset(manifest, settings, strict=False)
        for problem in dataset.problems:  # labels do not matter here, a row that cannot be used does
            if problem.kind in {"unsafe id", "unknown split", "malformed line", "malformed row", "duplicate id"}:
                note(f"{problem.where}: {problem.message}")
        posts = []
        for p in dataset.posts:
            try:
                posts.append(NewPost(p.id, dataset.text_of(p), p.image))
            except DataError:
                posts.append(NewPost(p.id, None, p.image))
        if not posts:
            raise DataError(f"{manifest} holds no posts")
    else:
        posts = [NewPost("post", text, image)]
    chosen = named_runs(names, runs) if names else voting_runs(runs, find(data, cache_at, encoder))
    found = predict(posts, chosen, weights=weights, device=device, tie=tie, soft=averages(chosen, soft))
    if out is not None:
        write_text(out, predictions_table(found, chosen[0].labels))
    unlabelled = [p for p in found if p.label is None]
    if as_json:
        calibrated = all(run.calibrated for run in chosen)
        say_json([{**asdict(p), "calibrated": calibrated} for p in found])
    elif manifest is None:
        if found[0].label is None:
            raise DataError(found[0].problem)
        say(found[0].label)
        say(columns([[name, f"{p:.4f}"] for name, p in found[0].probabilities.items()]))
        say(f"{found[0].agreeing} of {len(found[0].heads)} heads agree")
        say(calibration_note(chosen))
    elif out is None:
        say(predictions_table(found, chosen[0].labels).removesuffix("\n"))
        note(calibration_note(chosen))  # standard output holds the table alone
    else:
        say(f"wrote {out} ({len(found) - len(unlabelled)} posts)")
        say(calibration_note(chosen))
    for missed in unlabelled[:10] if manifest is not None else []:
        note(f"{missed.id}: no label: {missed.problem}")


@resumable("what was encoded and fitted is kept")
def quickstart(folder: Path, posts: int, seed: int, as_json: bool) -> None:
    """Run the quickstart and tell what it did."""
    from mmsent.evaluation.evaluate import comparison
    from mmsent.quickstart import quickstart as run

    if not as_json:
        note(f"drawing {posts} posts, encoding them, fitting six heads and voting; about a minute on two cores")
    done = run(folder, n_train=posts, n_test=max(30, posts // 4), seed=seed)
    if as_json:
        say_json(
            {
                "folder": str(folder),
                "best_accuracy": done.drawn.best_accuracy,
                "validation": [e.to_json() for e in done.validation],
                "test": done.test,
                "seconds": done.seconds,
                "predictions": str(done.out),
            }
        )
        return
    drawn = done.drawn
    say(f"{posts} drawn posts to learn from, {len(drawn.truth)} to label. On average nobody can do better than")
    say(
        f"{drawn.best_accuracy:.1%} accuracy here; from the picture alone {drawn.best_accuracy_image:.1%}, "
        f"from the text alone {drawn.best_accuracy_text:.1%}.\n"
    )
    say("Validation, six heads and their vote:")
    say(columns(comparison(done.validation, done.vote.labels), right=range(2, 20)))
    say(f"\nThe vote of concat, weighted and attention on the test posts: accuracy {done.test['accuracy']:.1%}, ")
    say(f"weighted F1 {done.test['f1_weighted']:.3f}.\n")
    say(
        columns(
            [
                ["posts", str(folder / "data"), "look at data/*.jpg and *.txt"],
                ["features", str(done.cache), f"mmsent cache info --cache {done.cache}"],
                ["heads", str(folder / "runs"), f"mmsent evaluate --cache {done.cache} --runs {folder / 'runs'}"],
                ["labels", str(done.out), "one line a test post; calibrated probabilities in predictions.csv"],
                ["report", "report/", f"mmsent report --cache {done.cache} --runs {folder / 'runs'}"],
            ]
        )
    )
    times = ", ".join(f"{name} {value} s" for name, value in done.seconds.items())
    say(f"\n{times}. Try it on a post of your own:")
    say(
        f'  mmsent predict --cache {done.cache} --runs {folder / "runs"} --text "What a day!" '
        f"--image {folder / 'data' / 'data' / (done.vote.ids[0] + '.jpg')}"
    )
