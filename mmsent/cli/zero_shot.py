"""`mmsent zero-shot`: label posts by prompts for each label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import READ, RUN, Json, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.targets import refuse_overwriting
from mmsent.cli.workspace import Workspace, encoders_of
from mmsent.errors import UsageError

if TYPE_CHECKING:
    from mmsent.data.lists import ListForm
    from mmsent.features.cache import Cache, Features
    from mmsent.inference.zero_shot import Halves, ZeroShot


@resumable("no labels were written")
def zero_shot(
    where: Workspace,
    use: Annotated[
        str, typer.Option("--use", help="Compare both halves with the prompts, or image or text.", rich_help_panel=READ)
    ] = "both",
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="TOML file of the prompts.",
            show_default="one in --runs, written at the first call",
            rich_help_panel=READ,
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="test or train.", rich_help_panel=READ)] = "test",
    out: Annotated[Path, typer.Option("--out", help="File to write the labels to.", rich_help_panel=RUN)] = Path(
        "zero-shot.txt"
    ),
    weights: Weights = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            envvar="MMSENT_DEVICE",
            help="Where to encode prompts and a missing split.",
            show_default="the cache's",
            rich_help_panel=RUN,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Label posts by prompts for each label, without training.

    For caches of CLIP, SigLIP and other models whose image and text tower share one space. Reads the cached features,
    compares them with prompts such as "a photo with a sad mood" and gives each post the label whose prompts are
    nearest. Writes the labels to --out, a table with probabilities beside it, and the encoded prompts into --runs: from
    then on `mmsent evaluate` and `mmsent report` show zero-shot as a row to compare heads with.
    """
    from mmsent.data.dataset import SPLITS
    from mmsent.encoders.aligned import require_aligned
    from mmsent.inference.vote import table_path
    from mmsent.inference.zero_shot import Halves, place
    from mmsent.system.files import write_bytes

    if out.is_dir() or not out.name:
        raise UsageError(f"--out {out} is a folder; name a file")
    if split not in SPLITS:
        raise UsageError(f"--split {split!r}: choose test or train")
    if use not in set(Halves):
        raise UsageError(f"--use {use!r}: choose {', '.join(Halves)}")
    cache = where.cache
    require_aligned(cache.settings.image, cache.settings.text)
    data, _ = where.dataset_if_there()
    refuse_overwriting("--out", out, [out, table_path(out)], *([data] if data else []))
    found = _encoded(where, prompts, Halves(use), device, weights)
    cache = where.complete(split, device)
    kept = write_bytes(place(where.runs_at, cache), found.model_dump_json(indent=1).encode())
    forms = {str(name): form for name, form in data.forms.items()} if data else {}
    facts = _labelled(cache, found, split, out, forms.get(split))
    scored = _scored(cache, found)
    if json:
        about = {"halves": found.halves.value, "prompts": found.file, "encoded": str(kept), "scale": found.scale}
        echo_json({**facts, **about, "train": scored})
        return
    _tell(found, facts, scored)


def _encoded(where: Workspace, file: Path | None, halves: Halves, device: str | None, weights: str | None) -> ZeroShot:
    """The prompts of a file through the text tower of the cache's encoders. Built-in ones are written where no file is
    named and none was written before."""
    from mmsent.encoders.aligned import aligned
    from mmsent.inference.zero_shot import Prompts, encode_prompts, place
    from mmsent.system.files import write_bytes
    from mmsent.system.progress import bar

    cache = where.cache
    own = place(where.runs_at, cache).with_suffix(".toml")
    if file is not None and not file.is_file():
        raise UsageError(f"--prompts {file}: no such file; leave it out, then built-in prompts go into {own} to edit")
    if file is None and not own.is_file():
        write_bytes(own, Prompts.of(cache.labels).toml().encode())
    file = file or own
    prompts = Prompts.read(file, cache.labels)
    pair = aligned(encoders_of(cache, device, weights))
    count = sum(len(prompts.of_label((*prompts.image, *prompts.text), name)) for name in cache.labels)
    with bar(count, "prompts", "prompt") as progress:
        return encode_prompts(prompts, pair, cache, halves=halves, file=file, progress=progress.update)


def _labelled(cache: Cache, found: ZeroShot, split: str, out: Path, form: ListForm | None) -> dict[str, Any]:
    """Label a split and write the list and the table beside it."""
    from mmsent.data.lists import ListForm, encoded, list_text
    from mmsent.inference.vote import commonest_label, table_path
    from mmsent.system.files import write_together
    from mmsent.training.prediction_table import predictions_csv

    features = cache.load(split)
    done, ids, common = found.label(features), features.index.ids, commonest_label(cache)
    fallback = [i for i, label in enumerate(done.labels.tolist()) if label < 0]
    predicted = [cache.labels[label if label >= 0 else common] for label in done.labels.tolist()]
    bad = set(fallback)
    why = [f"nothing to compare: {name}, the commonest label" if i in bad else "" for i, name in enumerate(predicted)]
    rows = predictions_csv(ids, cache.labels, done.probabilities, predicted=predicted, extra={"decision": why})
    listed = list_text(list(zip(ids, predicted, strict=True)), form or ListForm())
    write_together({out: encoded(listed), table_path(out): encoded(rows)})
    return {
        "out": str(out),
        "table": str(table_path(out)),
        "split": split,
        "rows": len(ids),
        "fallback": [ids[i] for i in fallback],
        "predicted": {name: predicted.count(name) for name in cache.labels},
    }


def _scored(cache: Cache, found: ZeroShot) -> dict[str, Any] | None:
    """Scores on all labelled training rows, of which none was trained on, beside those of the commonest label."""
    import numpy as np

    from mmsent.features.cache import NO_LABEL
    from mmsent.metrics import scores

    if "train" not in cache.rows:
        return None
    features: Features = cache.load("train")
    predicted, truth = found.label(features).labels, features.index.labels
    known = (predicted >= 0) & (truth != NO_LABEL)
    if not known.any():
        return None
    truth, classes = truth[known], len(cache.labels)
    common = np.full(len(truth), np.bincount(truth).argmax())
    both = {"zero_shot": scores(truth, predicted[known], classes), "majority": scores(truth, common, classes)}
    wanted = ("accuracy", "f1_weighted", "f1_macro")
    return {"n": len(truth), **{name: {k: one[k] for k in wanted} for name, one in both.items()}}


def _tell(found: ZeroShot, facts: dict[str, Any], scored: dict[str, Any] | None) -> None:
    what = {"both": "image and text", "image": "the image", "text": "the text"}[found.halves.value]
    echo(f"labels by {what} against the prompts in {found.file}; edit them and run this again")
    if scored:
        own, common = scored["zero_shot"], scored["majority"]
        echo(
            f"on {scored['n']} labelled training posts, none of them trained on: accuracy {own['accuracy']:.3f}, "
            f"weighted F1 {own['f1_weighted']:.3f}, macro F1 {own['f1_macro']:.3f} (the commonest label for all: "
            f"{common['accuracy']:.3f}, {common['f1_weighted']:.3f}, {common['f1_macro']:.3f})"
        )
    if facts["fallback"]:
        note(f"{len(facts['fallback'])} posts have nothing to compare and got the commonest label")
    for name, count in facts["predicted"].items():
        echo(f"  {name}: {count}")
    echo(f"wrote {facts['out']} ({facts['rows']} posts) and {facts['table']} (with probabilities)")
    echo("`mmsent evaluate` and `mmsent report` now show it beside the heads")
