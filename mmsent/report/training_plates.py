"""Figures of training with their captions: architecture, first layer, losses, metrics, weights, attention, and the
learning curve. A caption says what its figure shows, and claims only what its interval allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmsent.config import Fusion
from mmsent.evaluation.repeats import resampled
from mmsent.metrics import LEVEL
from mmsent.report.certainty import beyond_chance, mean_interval, shown
from mmsent.report.figures import training
from mmsent.report.figures.architecture import architecture_figure
from mmsent.report.language import say
from mmsent.report.naming import names, title_of, unlike
from mmsent.report.source import Made, Source, need
from mmsent.report.study import Study, Unavailable, growth


def architecture(source: Source) -> Made:
    """Figure 1."""
    study, run = source.study, source.study.main
    head = run.head()
    settings = study.cache.settings
    total, rows = sum(p.numel() for p in head.parameters()), int(run.info["rows"]["train"])
    words = say(
        "Both encoders stay as they are; only the coloured boxes learn, {total:,} parameters from {rows:,} posts. With "
        "{each:,.0f} parameters per post the head could learn its posts by heart: hence dropout and early stopping.",
        total=total, rows=rows, each=total / max(1, rows),
    )  # fmt: skip
    if run.tune:
        tuned = sum(values.numel() for values in run.blocks().values())
        words += say(" ") + say(
            "The last blocks of an encoder ({blocks}) train with it: {n:,} parameters more.",
            blocks=run.tune,
            n=tuned,
        )
    return architecture_figure(head, settings.image, settings.text, study.labels, title_of(run)), words


def first_layer(source: Source) -> Made:
    """Figure 2."""
    run = source.study.main
    history = source.study.history(run)
    if "first_layer" not in history[0]:
        raise Unavailable(
            say("run {name} was trained before these distributions were recorded; fit it again", name=run.name)
        )
    layer = "fc1" if run.fusion is not Fusion.attention_alt else "out"
    before, after = history[0]["first_layer_before"], history[-1]["first_layer"]
    grown = after["weights"]["std"] / max(before["weights"]["std"], 1e-12) - 1
    parts = [say("Training changes the standard deviation of the first layer's weights by {grown:+.0%}.", grown=grown)]
    skew, tails = _moments(after["outputs"])
    shape = {"skew": skew, "tails": tails, "std": after["outputs"]["std"]}
    if abs(skew) < 0.5 and abs(tails) < 1:
        parts.append(
            say("Its outputs are close to normal (skewness {skew:+.2f}, excess kurtosis {tails:+.2f}), with standard "
                "deviation {std:.2f}: the scales of features and weights fit.", **shape)
        )  # fmt: skip
    else:
        parts.append(
            say("Its outputs are not normal (skewness {skew:+.2f}, excess kurtosis {tails:+.2f}): look at the "
                "scales of "
                "the features, and at standardize.", **shape)
        )  # fmt: skip
    parts.append(say("Each curve is scaled to its own peak."))
    return training.first_layer_figure(history, title_of(run), layer), say(" ").join(parts)


def _moments(f: dict[str, Any]) -> tuple[float, float]:
    """Skewness and excess kurtosis of a recorded histogram."""
    counts = np.asarray(f["counts"], np.float64)
    edges = np.linspace(f["low"], f["high"], len(counts) + 1)
    x = (edges[:-1] + edges[1:]) / 2
    share = counts / max(counts.sum(), 1)
    away = x - (share * x).sum()
    std = max(float(np.sqrt((share * away**2).sum())), 1e-12)
    return float((share * away**3).sum() / std**3), float((share * away**4).sum() / std**4 - 3)


def loss(source: Source) -> Made:
    """Figure 4."""
    run = source.study.main
    history, kept = source.study.history(run), int(run.info["best_epoch"])
    lowest = min(history, key=lambda r: r["val_loss"])
    last = history[-1]
    about = {"epoch": lowest["epoch"], "kept": kept, "last": last["epoch"], "low": lowest["val_loss"]}
    gaps = {"rise": last["val_loss"] - lowest["val_loss"], "fall": lowest["train_loss"] - last["train_loss"]}
    if lowest is last:
        words = say("Validation loss falls to the last epoch: more epochs or a higher learning rate may help.")
    elif gaps["fall"] > 0:
        words = say(
            "Validation loss is lowest at epoch {epoch} ({low:.3f}). By epoch {last} training loss falls by another "
            "{fall:.3f}, validation loss does not ({rise:+.3f}): what the head still learns does not carry over "
            "to other posts.",
            **about, **gaps,
        )  # fmt: skip
    else:
        words = say("Validation loss is lowest at epoch {epoch} ({low:.3f}), and training loss ends no lower.", **about)
    if kept != lowest["epoch"]:
        words += say(" ") + say(
            "Epoch {kept} was kept all the same, for it has the best weighted F1: loss also counts how sure the "
            "head is of "
            "posts whose label does not change.", **about,
        )  # fmt: skip
    words += say(" ") + say("Training loss is measured with dropout, so it starts above validation loss.")
    return training.loss_figure(history, title_of(run), kept), words


def metrics(source: Source) -> Made:
    """Figure 5."""
    study = source.study
    known, places = names(study), list(Fusion)
    ordered = sorted(study.runs, key=lambda run: places.index(run.fusion))
    histories = {known[run.name]: study.history(run) for run in ordered}
    best = {known[run.name]: int(run.info["best_epoch"]) for run in ordered}
    fusions = {known[run.name]: run.fusion.value for run in ordered}
    first, last = min(best, key=lambda k: best[k]), max(best, key=lambda k: best[k])
    words = say("Weighted recall equals accuracy.")
    if best[first] < best[last]:
        words = say(
            "{first} peaks first, at epoch {a}; {last} needs {b}. One seed says this, so take it as a hint.",
            first=first, a=best[first], last=last, b=best[last],
        ) + say(" ") + words  # fmt: skip
    gap = [max(r["val_f1_weighted"] for r in h) - max(r["val_f1_macro"] for r in h) for h in histories.values()]
    if min(gap) > 0:
        words += say(" ") + say(
            "Macro F1, which counts every class alike, stays at least {gap:.2f} below weighted F1 for every "
            "head: some classes are learned worse.", gap=min(gap),
        )  # fmt: skip
    words += say(" ") + say("Which head is ahead beyond chance stands at the top of this report.")
    if len(study.splits) > 1:
        words += say(" ") + unlike(study)
    return training.metrics_figure(histories, best, fusions), words


def weights(source: Source) -> Made:
    """Figure 7."""
    run = need(source.study, Fusion.weighted)
    history = source.study.history(run)
    kept = history[run.info["best_epoch"] - 1]
    moved = kept["image_share"] - 0.5
    words = say(
        "From equal weights the image moves by {moved:+.1%} to {image:.1%} at the kept epoch.",
        moved=moved, image=kept["image_share"],
    ) + say(" ")  # fmt: skip
    words += (
        say("So small a change hardly weighs one half over the other.")
        if abs(moved) < 0.05
        else say("The head weighs the {half} more.", half=say("image") if moved > 0 else say("text"))
    )
    return training.shares_figure(history, title_of(run), run.info["best_epoch"]), words + _alone(source.study)


def _alone(study: Study) -> str:
    """How far the head on images alone is from the one on texts alone, as a sentence; empty where one is missing."""
    image, text = study.of(Fusion.image), study.of(Fusion.text)
    if image is None or text is None:
        return ""
    pair = [study.evaluation(run) for run in (image, text)]
    if not np.array_equal(pair[0].positions, pair[1].positions):
        return ""
    a, b = resampled([study.seeds(e) for e in pair])
    gap = a.gap(b)
    better = (say("image"), say("text")) if gap[0] >= 0 else (say("text"), say("image"))
    values = {
        "better": better[0],
        "worse": better[1],
        "gap": shown(gap if gap[0] >= 0 else (-gap[0], -gap[2], -gap[1])),
    }
    return say(" ") + (
        say("Alone, the {better} head is beyond chance ahead of the {worse} head: weighted F1 {gap}.", **values)
        if beyond_chance(gap)
        else say(
            "Alone, the {better} head is ahead of the {worse} head, but within chance: weighted F1 {gap}.", **values
        )
    )


def attention(source: Source) -> Made:
    """Figure 8."""
    run = source.study.of(Fusion.attention) or need(source.study, Fusion.attention_alt)
    found = source.study.trace(run).attention
    if found is None:
        raise Unavailable(say("the head has no attention"))
    per_row = found[..., 0].mean(axis=(1, 2))  # (N,): the share that the image receives
    share = mean_interval(per_row)
    low, high = np.quantile(per_row, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    values = {"share": shown(share, ".1%"), "low": low, "high": high, "level": LEVEL}
    words = say(
        "The image receives {share} of the attention on average, and {low:.0%} to {high:.0%} on {level:.0%} of "
        "the posts.",
        **values,
    )
    lean = beyond_chance((share[0] - 0.5, share[1] - 0.5, share[2] - 0.5))
    half = say("image") if share[0] > 0.5 else say("text")
    if not lean:
        words += say(" ") + say("Neither half is preferred beyond chance.")
    elif abs(share[0] - 0.5) < 0.1:
        words += say(" ") + say(
            "The preference for the {half} is beyond chance, but slight: both halves count.", half=half
        )
    else:
        words += say(" ") + say("This head prefers the {half} beyond chance.", half=half)
    best = int(run.info["best_epoch"])
    return training.attention_figure(found, source.study.history(run), title_of(run), best), words


def learning_curve(source: Source) -> Made:
    """The learning curve over the number of training posts."""
    study, run = source.study, source.study.main
    sizes, scores = study.curve
    parts, repeats = [], scores.shape[1]
    if (grown := growth(sizes, scores)) is not None:
        a, b, gain = grown
        values = {"a": a, "b": b, "gain": shown(gain) if repeats > 1 else f"{gain[0]:+.3f}"}
        parts.append(
            say("From {a:,} to {b:,} rows F1 changes by {gain}: more labelled posts promise more.", **values)
            if gain[1] > 0
            else say("From {a:,} to {b:,} rows F1 changes by {gain}, which is within chance.", **values)
            if repeats > 1
            else say("From {a:,} to {b:,} rows F1 changes by {gain}; one head per size tells no chance.", **values)
        )
    if repeats > 1:
        parts.append(
            say("{n} heads were trained for this figure; the interval is over {repeats} repeats with other rows "
                "and seeds.",
                n=scores.size, repeats=repeats)
        )  # fmt: skip
    else:
        parts.append(say("{n} heads were trained for this figure.", n=scores.size))
    final = study.evaluation(run).scores["f1_weighted"]
    return training.learning_curve_figure(sizes, scores, title_of(run), final), say(" ").join(parts)
