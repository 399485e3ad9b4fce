"""What the commands do: find what they need, call one function, print. No argument parsing here (see mmsent.cli).

Results go to standard output, notes to standard error. Every function takes plain values; None means "not given".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmsent.config import (
    RECIPES,
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    Fusion,
    SplitSettings,
    ViewSettings,
    fit_settings,
)
from mmsent.errors import CacheError, DataError, Interrupted, RunError, UsageError
from mmsent.tables import columns


def say(text: str) -> None:
    """A line of the result, on standard output."""
    print(text)


def note(text: str) -> None:
    """A remark, on standard error."""
    print(text, file=sys.stderr)


def say_json(value: Any) -> None:
    """The result for a program."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


@contextmanager
def resumable(what: str) -> Iterator[None]:
    """Turn Ctrl-C into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {what} is kept, run the same command again to go on") from None


def prepare(data: Path, settings: DataSettings, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write a UTF-8 copy of a data set."""
    from mmsent.dataset import load_dataset
    from mmsent.prepare import prepare as run
    from mmsent.progress import bar

    dataset = load_dataset(data, settings)
    with bar(len(dataset.posts), "posts", "post") as progress:
        done = run(dataset, out, overwrite=overwrite, progress=progress.update)
    if as_json:
        say_json(
            {
                "path": str(done.path),
                "encoding": done.decoding.encoding,
                "why": done.decoding.why,
                "texts": done.texts,
                "pictures": done.pictures,
                "skipped": [asdict(s) for s in done.skipped],
            }
        )
        return
    say(f"{done.path}: {done.texts} texts from {done.decoding.encoding} to UTF-8, {done.pictures} pictures copied")
    for s in done.skipped[:10]:
        note(f"left out: {s}")


def check(
    data: Path, settings: DataSettings, encoder: EncoderSettings, tokens: bool, strict: bool, as_json: bool
) -> int:
    """Check a data set and print what was found. Returns the exit status."""
    from mmsent.check import check_dataset
    from mmsent.dataset import load_dataset
    from mmsent.encoders import open_encoders
    from mmsent.errors import EncoderError
    from mmsent.progress import bar

    dataset = load_dataset(data, settings, strict=False)
    tokenizer, limit = None, None
    if tokens:
        try:
            text = open_encoders(encoder).text
            tokenizer, limit = (lambda texts: text.lengths(list(texts))), text.card.max_tokens
        except EncoderError as error:
            note(f"text lengths are counted in characters: {error}")
    with bar(len(dataset.posts), "posts", "post") as progress:
        report = check_dataset(dataset, tokenizer=tokenizer, max_tokens=limit, progress=progress.update)
    say_json(report.to_json()) if as_json else say(report.table())
    return report.exit_status(strict)


def extract(
    data: Path,
    settings: DataSettings,
    split: str,
    cache: Path,
    encoder: EncoderSettings,
    views: ViewSettings,
    options: ExtractSettings,
    as_json: bool,
) -> None:
    """Encode what is missing and bring the cache up to date."""
    from mmsent.dataset import SPLITS, load_dataset
    from mmsent.extract import extract as run

    if split not in (*SPLITS, "all"):
        raise UsageError(f"--split {split!r}: choose train, test or all")
    if cache.is_file():
        raise UsageError(f"--cache {cache} is a file; extract takes the folder and names the file itself")
    dataset = load_dataset(data, settings)
    wanted = dataset.splits if split == "all" else [s for s in SPLITS if s == split]
    if not wanted:
        raise DataError(f"{data} holds no posts")
    with resumable("what was encoded"):
        result = run(dataset, wanted, cache, encoder=encoder, views=views, options=options)
    if as_json:
        say_json(
            {
                "cache": str(result.cache.path),
                "fingerprint": result.cache.fingerprint,
                "encoded": result.encoded,
                "rows": result.rows,
                "quarantined": [dict(zip(("split", "id", "reason"), q, strict=True)) for q in result.quarantined],
                "texts_cut": result.cut,
                "text_encoding": {"encoding": dataset.decoding.encoding, "why": dataset.decoding.why},
                "seconds": round(result.seconds, 3),
                "notes": result.notes,
            }
        )
        return
    for line in result.notes:
        note(line)
    for name, n in result.rows.items():
        say(f"{name}: {n} rows, {result.encoded[name]} encoded, {n - result.encoded[name]} already there")
    say(f"text encoding: {dataset.decoding.encoding} ({dataset.decoding.why})")
    if result.cut:
        say(f"{result.cut} texts are longer than {result.cache.settings.text.max_tokens} tokens and were cut")
    if result.quarantined:
        say(f"{len(result.quarantined)} rows are quarantined:")
        for split_name, row_id, reason in result.quarantined[:10]:
            say(f"  {split_name} {row_id}: {reason}")
    say(f"cache: {result.cache.path} ({result.seconds:.1f} s)")


def find(data: Path | None, cache: Path, encoder: str | None) -> Any:
    """The cache that a command works on: by the data set's name and the encoder. data None: whatever is there."""
    from mmsent.cache import find_cache
    from mmsent.dataset import name_of

    name = None
    if not cache.is_file():
        if data is not None:
            name = name_of(data)
        elif Path("data").exists():
            name = name_of(Path("data"))
    return find_cache(cache, data_name=name, encoder=encoder)


def source_of(cache: Any, data: Path | None) -> Path:
    """The data set that a cache was made from: the given path, or the one the cache remembers."""
    return data if data is not None else Path(cache.provenance["data"])


def require_current(cache: Any, data: Path | None, split: str) -> None:
    """Raise CacheError where the list of the data set (if it is at hand) is no longer what the cache holds."""
    from mmsent.cache import NO_LABEL
    from mmsent.dataset import load_dataset

    path = source_of(cache, data)
    if not path.exists() or split not in cache.rows:
        return
    settings = DataSettings.model_validate(cache.provenance["data_settings"])
    posts = [p for p in load_dataset(path, settings).posts if p.split == split]
    numbers = {label: i for i, label in enumerate(settings.labels)}
    now = {p.id: numbers[p.label] if p.label is not None else NO_LABEL for p in posts}
    index = cache.index(split)
    then = dict(zip(index.ids, index.labels.tolist(), strict=True))
    if now != then:
        moved = sum(now.get(k) != then.get(k) for k in now.keys() | then.keys())
        raise CacheError(
            f"the {split} list of {path} differs from {cache.path} in {moved} rows; "
            f"run `mmsent extract --split {split} --data {path} --encoder {cache.encoder}` (only new posts are encoded)"
        )


def complete(cache: Any, data: Path | None, split: str, device: str | None) -> Any:
    """The cache with a split in it: as it is, or after extracting that split with the cache's own settings."""
    from mmsent.dataset import SPLITS, load_dataset
    from mmsent.extract import extract as run

    if split in cache.rows:
        require_current(cache, data, split)
        return cache
    path = source_of(cache, data)
    settings = DataSettings.model_validate(cache.provenance["data_settings"])
    dataset = load_dataset(path, settings)
    wanted = [s for s in SPLITS if s == split]
    n = len(dataset.of(wanted[0]))
    note(f"{cache.path.name} holds no {split} rows yet: encoding {n} posts")
    stored = cache.provenance["encoder_settings"]
    encoder = EncoderSettings.model_validate(stored | ({"device": device} if device else {}))
    options = ExtractSettings(storage=cache.settings.storage)
    folder = cache.path.parent
    views = cache.settings.views
    with resumable("what was encoded"):
        return run(dataset, wanted, folder, encoder=encoder, views=views, options=options, only=cache).cache


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


def fit(
    names: Sequence[str] | None,
    recipe: str,
    overrides: dict[str, Any],
    split: SplitSettings,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str,
    tensorboard: Path | None,
    as_json: bool,
) -> None:
    """Train one head a fusion and print the comparison."""
    wanted = fusions(names)
    if recipe != "auto" and recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from auto, {', '.join(RECIPES)}")
    from mmsent.encoders import recipe_for

    cache = find(data, cache_at, encoder)
    chosen = recipe_for(cache.encoder) if recipe == "auto" else recipe
    settings: list[FitSettings] = [fit_settings(chosen, fusion=fusion, **overrides) for fusion in wanted]
    require_current(cache, data, "train")
    from mmsent.encoders.common import pick_device
    from mmsent.evaluate import comparison, evaluate_validation
    from mmsent.fit import fit as run
    from mmsent.fit import write_tensorboard

    features = cache.load("train")
    where = pick_device(device)
    done = run(cache, runs, settings, split, recipe=chosen, device=where, features=features)
    if tensorboard:
        for one in done:
            write_tensorboard(one, tensorboard)
    found = evaluate_validation(done, cache, features)
    if as_json:
        say_json({"runs": [str(r.path) for r in done], "recipe": chosen, "validation": [asdict(e) for e in found]})
        return
    for one in done:
        say(f"{one.path}: best epoch {one.info['best_epoch']}, {one.info['seconds']:.1f} s")
    rows = done[0].info["rows"]
    say(f"\nrecipe {chosen}; trained on {rows['train']} rows, validated on {rows['val']}")
    say(columns(comparison(found, cache.labels), right=range(2, 20)))


def chosen_runs(names: Sequence[str], runs: Path, cache: Any) -> list[Any]:
    """Runs by path or by name in the runs folder; without names, the newest of each fusion of this cache."""
    from mmsent.runs import list_runs, open_run

    if names:
        return [open_run(Path(name) if (Path(name) / "run.json").is_file() else runs / name) for name in names]
    newest: dict[Fusion, Any] = {}
    for run in list_runs(runs, fingerprint=cache.fingerprint, data_name=cache.data_name):
        newest.setdefault(run.fusion, run)
    if not newest:
        raise RunError(f"no runs of {cache.path.name} in {runs}; fit some with `mmsent fit --fusion all`")
    return [newest[fusion] for fusion in Fusion if fusion in newest]


def evaluate(
    names: Sequence[str], split: str, data: Path | None, cache_at: Path, encoder: str | None, runs: Path, as_json: bool
) -> None:
    """Score runs on their validation rows, or on test labels where the data set has them."""
    import numpy as np

    from mmsent.cache import NO_LABEL
    from mmsent.dataset import load_dataset
    from mmsent.evaluate import comparison, evaluate_labelled, evaluate_validation

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
        found = evaluate_labelled(chosen, cache, features, truth)
    if as_json:
        say_json({"cache": str(cache.path), "split": split, "evaluations": [asdict(e) for e in found]})
        return
    say(columns(comparison(found, cache.labels), right=range(2, 20)))


def vote(
    names: Sequence[str],
    split: str,
    out: Path,
    tie: str | None,
    soft: bool,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    device: str | None,
    as_json: bool,
) -> None:
    """Label every post of a split with several heads and write the list."""
    from mmsent.dataset import SPLITS, load_dataset
    from mmsent.lists import ListForm
    from mmsent.vote import tie_label, vote_split, voting_runs, write_vote

    if split not in SPLITS:
        raise UsageError(f"--split {split!r}: choose test or train")
    cache = find(data, cache_at, encoder)
    tie_label(tie, cache.labels)
    chosen = chosen_runs(names, runs, cache) if names else voting_runs(runs, cache)
    for run in chosen:
        run.require(cache.settings.contract, str(cache.path), cache.encoder)
    cache = complete(cache, data, split, device)
    result = vote_split(chosen, cache, split, tie=tie, soft=soft)
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
                "fallback": [result.ids[i] for i in result.fallback],
                "predicted": counts,
            }
        )
        return
    say(f"{'soft ' if soft else ''}vote of {len(chosen)} heads: " + ", ".join(f"{r.fusion} ({r.name})" for r in chosen))
    if not names and len(chosen) < 3:
        have = {r.fusion for r in chosen}
        absent = " ".join(f"--fusion {f}" for f in ("concat", "weighted", "attention") if f not in have)
        note(f"the vote is meant for concat, weighted and attention; add the rest with `mmsent fit {absent}`")
    n = len(result.ids)
    say("; ".join(f"{k} of {len(chosen)} heads agree on {c} posts ({c / n:.1%})" for k, c in agreement.items()))
    if not soft and result.tied.any():
        say(f"{int(result.tied.sum())} posts had no majority")
    if result.fallback:
        note(f"{len(result.fallback)} posts lack what the heads need and got {result.fallback_label!r}")
    for label in result.labels:
        say(f"  {label}: {result.predicted.count(label)}")
    say(f"wrote {written} ({n} posts) and {table} (with probabilities)")


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
    from mmsent.dataset import load_dataset
    from mmsent.lists import write_text
    from mmsent.predict import NewPost, predict, predictions_table
    from mmsent.runs import open_run
    from mmsent.vote import voting_runs

    if (manifest is None) == (text is None and image is None):
        raise UsageError("give a post with --text and --image, or several with --manifest FILE")
    if image is not None and not image.is_file():
        raise DataError(f"no picture at {image}")
    if manifest is not None:
        dataset = load_dataset(manifest, settings, strict=False)
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
    if names:
        chosen = [open_run(Path(n) if (Path(n) / "run.json").is_file() else runs / n) for n in names]
    else:
        chosen = voting_runs(runs, find(data, cache_at, encoder))
    found = predict(posts, chosen, weights=weights, device=device, tie=tie, soft=soft)
    if out is not None:
        write_text(out, predictions_table(found, chosen[0].labels))
    unlabelled = [p for p in found if p.label is None]
    if as_json:
        say_json([asdict(p) for p in found])
    elif manifest is None:
        if found[0].label is None:
            raise DataError(found[0].problem)
        say(found[0].label)
        say(columns([[name, f"{p:.4f}"] for name, p in found[0].probabilities.items()]))
        say(f"{found[0].agreeing} of {len(found[0].heads)} heads agree")
    elif out is None:
        print(predictions_table(found, chosen[0].labels), end="")
    else:
        say(f"wrote {out} ({len(found) - len(unlabelled)} posts)")
    for missed in unlabelled[:10] if manifest is not None else []:
        note(f"{missed.id}: no label: {missed.problem}")


def cache_ls(folder: Path, as_json: bool) -> None:
    """List the caches of a folder."""
    from mmsent.cache import list_caches

    found = list_caches(folder)
    if as_json:
        say_json(
            [
                {
                    "path": str(c.path),
                    "data": c.data_name,
                    "encoder": c.encoder,
                    "rows": c.rows,
                    "views": c.settings.views.count,
                    "fingerprint": c.fingerprint,
                    "bytes": c.path.stat().st_size,
                }
                for c in found
            ]
        )
        return
    if not found:
        say(f"no caches in {folder}; make one with `mmsent extract`")
        return
    rows = [["file", "data", "encoder", "train", "test", "views", "MB"]]
    for c in found:
        size = f"{c.path.stat().st_size / 1e6:.1f}"
        counts = [str(c.rows.get("train", "")), str(c.rows.get("test", "")), str(c.settings.views.count)]
        rows.append([c.path.name, c.data_name, c.encoder, *counts, size])
    say(columns(rows, right=range(3, 7)))
    for path in sorted(folder.glob("*.h5.journal")):
        note(f"{path.name}: unfinished; run the same `mmsent extract` again to complete it")


def cache_info(data: Path | None, cache_at: Path, encoder: str | None, as_json: bool) -> None:
    """Everything a cache says of itself."""
    cache = find(data, cache_at, encoder)
    outcome = {}
    for split in cache.rows:
        index = cache.index(split)
        bad = [{"id": index.ids[i], "reason": index.reason(i)} for i in range(len(index)) if not index.good[i]]
        outcome[split] = {
            "rows": len(index),
            "labels": {name: int((index.labels == k).sum()) for k, name in enumerate(cache.labels)},
            "texts_cut": int((index.tokens > cache.settings.text.max_tokens).sum()),
            "quarantined": bad,
        }
    facts = {
        "path": str(cache.path),
        "fingerprint": cache.fingerprint,
        "contract": cache.settings.contract,
        "data_name": cache.data_name,
        "encoder": cache.encoder,
        "splits": outcome,
        "settings": cache.settings.canonical(),
        "provenance": cache.provenance,
    }
    if as_json:
        say_json(facts)
        return
    say(_outline(facts))


def _outline(value: Any, indent: int = 0) -> str:
    """Nested values as indented `key: value` lines."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{'  ' * indent}{key}:")
            lines.append(_outline(item, indent + 1))
        else:
            shown = json.dumps(item, ensure_ascii=False) if isinstance(item, (list, dict)) else item
            lines.append(f"{'  ' * indent}{key}: {shown}")
    return "\n".join(lines)


def cache_verify(data: Path | None, cache_at: Path, encoder: str | None, sample: int, as_json: bool) -> int:
    """Check a cache's integrity and encode a sample of rows again. Returns the exit status."""
    from mmsent.cache_tools import verify
    from mmsent.dataset import load_dataset
    from mmsent.encoders import open_encoders

    cache = find(data, cache_at, encoder)
    dataset, encoders = None, None
    path = source_of(cache, data)
    if sample and path.exists():
        dataset = load_dataset(path, DataSettings.model_validate(cache.provenance["data_settings"]))
        encoders = open_encoders(EncoderSettings.model_validate(cache.provenance["encoder_settings"]))
        for half, card in (("image", encoders.image.card), ("text", encoders.text.card)):
            stored = getattr(cache.settings, half)
            if card.weights_sha256 != stored.weights_sha256:
                raise CacheError(
                    f"{cache.path}: {half} rows were encoded with weights {stored.weights_sha256[:12]}, "
                    f"here are {card.weights_sha256[:12]}"
                )
    elif sample:
        note(f"{path} is not here, so no row can be encoded again; only the file is checked")
    done = verify(cache, dataset, encoders, sample)
    if as_json:
        say_json(done.to_json())
    else:
        say(f"{cache.path}: {done.rows} rows read, all checksums hold")
        if done.sampled:
            say(
                f"{done.sampled} rows encoded again: {done.identical} identical to the bit, "
                f"lowest cosine {done.lowest:.6f}, {len(done.changed)} changed since, {len(done.wrong)} wrong"
            )
        for row_id in done.wrong[:10]:
            say(f"  wrong: {row_id}")
        if done.changed:
            note("run `mmsent extract` to encode the changed rows")
    return 0 if done.ok else 1


def cache_explain(
    data: Path,
    settings: DataSettings,
    cache_at: Path,
    encoder: EncoderSettings,
    views: ViewSettings,
    storage: str,
    as_json: bool,
) -> None:
    """Say why each cache of a data set serves the given settings or does not."""
    from mmsent.cache_tools import explain
    from mmsent.dataset import load_dataset
    from mmsent.encoders import open_encoders
    from mmsent.extract import feature_settings

    dataset = load_dataset(data, settings)
    wanted = feature_settings(dataset, open_encoders(encoder), encoder, views, storage)
    found = explain(cache_at if cache_at.is_dir() else cache_at.parent, dataset.name, wanted)
    if as_json:
        say_json([{"path": str(c.path), "serves": not d, "differences": d} for c, d in found])
        return
    if not found:
        say(f"no cache of {dataset.name} in {cache_at}")
    for cache, differing in found:
        say(f"{cache.path.name}: " + ("serves these settings" if not differing else "does not serve, for"))
        for line in differing:
            say(f"  {line}")


def cache_export(data: Path | None, cache_at: Path, encoder: str | None, split: str, out: Path) -> None:
    """Write a split for other programs."""
    from mmsent.cache_tools import export

    cache = find(data, cache_at, encoder)
    say(f"wrote {export(cache, split, out)}")


def quickstart(folder: Path, posts: int, seed: int, as_json: bool) -> None:
    """Run the quickstart and tell what it did."""
    from mmsent.evaluate import comparison
    from mmsent.quickstart import quickstart as run

    if not as_json:
        note(f"drawing {posts} posts, encoding them, fitting six heads and voting; about a minute on two cores")
    done = run(folder, n_train=posts, n_test=max(30, posts // 4), seed=seed)
    if as_json:
        say_json(
            {
                "folder": str(folder),
                "best_accuracy": done.drawn.best_accuracy,
                "validation": [asdict(e) for e in done.validation],
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
                ["labels", str(done.out), "one line a test post; probabilities in predictions.csv"],
            ]
        )
    )
    times = ", ".join(f"{name} {value} s" for name, value in done.seconds.items())
    say(f"\n{times}. Try it on a post of your own:")
    say(
        f'  mmsent predict --cache {done.cache} --runs {folder / "runs"} --text "What a day!" '
        f"--image {folder / 'data' / 'data' / (done.vote.ids[0] + '.jpg')}"
    )
