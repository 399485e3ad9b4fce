"""Which figures a report holds, and making them: the report's sixteen by their numbers, then those beyond it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsent.config import Fusion
from mmsent.errors import MmsentError
from mmsent.metrics import LEVEL, reliability
from mmsent.report import sweeps
from mmsent.report.content import names, unlike
from mmsent.report.explanations import Explainer
from mmsent.report.figures import posts, projections, results, training
from mmsent.report.figures.architecture import architecture_figure
from mmsent.report.figures.style import in_place_of, numbering, save
from mmsent.report.study import Study, Unavailable, batch_of, errors, label_counts, learning_curve, varied_errors
from mmsent.system.memory import out_of_memory
from mmsent.training.calibration import softmax
from mmsent.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # posts in a panel
EXAMPLE = ("a happy day", "positive")  # the coursework report's example of token importance


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report. png and svg are None where it could not be made; then `missing` says why."""

    number: int
    name: str
    title: str
    caption: str
    png: Path | None
    svg: Path | None
    missing: str = ""


@dataclass(frozen=True)
class Source:
    """What figures are made of: the study, and the explanations, which need encoders and posts."""

    study: Study
    explained: Explainer


Made = tuple["Figure", str]


def title_of(run: Run) -> str:
    """A run's name in a figure: its fusion, and its seed."""
    return f"{run.fusion}, seed {run.fit.seed}"


def _need(study: Study, fusion: Fusion) -> Run:
    run = study.of(fusion)
    if run is None:
        raise Unavailable(f"there is no {fusion} run among these; `mmsent fit --fusion {fusion}` makes one")
    return run


def _architecture(source: Source) -> Made:
    study, run = source.study, source.study.main
    head = run.head()
    settings = study.cache.settings
    total = sum(p.numel() for p in head.parameters())
    words = f"The {run.fusion} head trains {total:,} parameters on top of two frozen encoders."
    if run.tune:
        tuned = sum(values.numel() for values in run.blocks().values())
        words += f" Of the text encoder the last blocks ({run.tune}) train with it: {tuned:,} parameters more."
    return architecture_figure(head, settings.image, settings.text, study.labels, title_of(run)), words


def _first_layer(source: Source) -> Made:
    run = source.study.main
    history = source.study.history(run)
    if "first_layer" not in history[0]:
        raise Unavailable(f"run {run.name} was trained before these distributions were recorded; fit it again")
    layer = "fc1" if run.fusion is not Fusion.attention_alt else "out"
    words = (
        "The weights of the first linear layer start uniform; the curves show how far training moves them. Bell-shaped "
        "outputs around zero mean that the scales of features and weights fit. Each curve is scaled to its own peak."
    )
    return training.first_layer_figure(history, title_of(run), layer), words


def _labels(source: Source) -> Made:
    study = source.study
    balance = label_counts(study.cache)
    counts = balance.get("train", {})
    total = sum(counts.values())
    least = min(counts, key=lambda k: counts[k]) if counts else ""
    words = f"{least} is the rarest label: {counts[least] / total:.1%} of {total:,} training rows." if counts else ""
    return results.labels_figure(balance, study.labels), words


def _loss(source: Source) -> Made:
    run = source.study.main
    words = (
        "Where validation loss rises while training loss falls, the head overfits. Training loss is measured with "
        "dropout and augmented views, so it can lie above validation loss. Training stops by weighted F1, not by "
        "this loss."
    )
    return training.loss_figure(source.study.history(run), title_of(run), run.info["best_epoch"]), words


def _metrics(source: Source) -> Made:
    study = source.study
    known, places = names(study), list(Fusion)
    ordered = sorted(study.runs, key=lambda run: places.index(run.fusion))
    histories = {known[run.name]: study.history(run) for run in ordered}
    best = {known[run.name]: int(run.info["best_epoch"]) for run in ordered}
    fusions = {known[run.name]: run.fusion.value for run in ordered}
    words = "Each line is a run; its dot marks the epoch whose weights were kept. Weighted recall equals accuracy."
    if len(study.splits) > 1:
        words += f" {unlike(study)}"
    return training.metrics_figure(histories, best, fusions), words


def _errors(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = varied_errors(found, PANELS)
    if not chosen:
        raise Unavailable(f"run {run.name} labels all of its validation rows correctly")
    wrong = int((found.predicted != found.truth).sum())
    words = (
        f"{len(chosen)} of {wrong} wrong predictions on {len(found.truth)} validation rows, taken in turn from every "
        "pair of true and predicted label, at typical confidence. The frame has the colour of the true label."
    )
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, f"Error cases, {title_of(run)}"), words


def _weights(source: Source) -> Made:
    run = _need(source.study, Fusion.weighted)
    history = source.study.history(run)
    kept = history[run.info["best_epoch"] - 1]
    words = (
        f"At the kept epoch the head gives {kept['image_share']:.1%} of the weight to the image and "
        f"{kept['text_share']:.1%} to the text."
    )
    return training.shares_figure(history, title_of(run), run.info["best_epoch"]), words


def _attention(source: Source) -> Made:
    run = source.study.of(Fusion.attention) or _need(source.study, Fusion.attention_alt)
    attention = source.study.trace(run).attention
    if attention is None:
        raise Unavailable("the head has no attention")
    share = float(attention[..., 0].mean())
    words = f"On average the image receives {share:.1%} of the attention; 50% would mean no preference."
    return training.attention_figure(attention, source.study.history(run), title_of(run)), words


def _confusion(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    per_class = zip(study.labels, found.scores["recall_per_class"], found.scores["support"], strict=True)
    recall = ", ".join(f"{label} {share:.1%}" if n else f"{label} no rows" for label, share, n in per_class)
    return results.confusion_figure(found.truth, found.predicted, study.labels, title_of(run)), f"Recall: {recall}."


def _confidence(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    said = np.take_along_axis(found.probabilities, found.predicted[:, None], axis=1)[:, 0]
    parts = [
        f"{k} {np.median(said[found.predicted == c]):.0%}"
        for c, k in enumerate(study.labels)
        if (found.predicted == c).any()
    ]
    figure = results.confidence_figure(
        found.probabilities, found.predicted, found.truth, study.labels, title_of(run), calibrated=run.calibrated
    )
    return figure, f"Median confidence: {', '.join(parts)}."


def _pattern(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    rows = batch_of(found)
    words = (
        "Each column is a post. A head that is sure and right shows a bright staircase; a column without a bright "
        "cell is a post on which it is undecided."
    )
    return results.pattern_figure(found.probabilities[rows], found.truth[rows], study.labels, title_of(run)), words


def _projection(fusion: Fusion, hidden: bool) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        study = source.study
        run = _need(study, fusion)
        traced = study.trace(run)
        features = traced.hidden if hidden else traced.fused
        if features is None:
            raise Unavailable(f"a {fusion} head has no hidden layer")
        truth = study.evaluation(run).truth
        what = f"{'Hidden' if hidden else 'Fused'} features, {title_of(run)}"
        words = f"{features.shape[1]} dimensions, projected to two; " + projections.separation(features, truth)
        if run.tune:
            words += f" The text features come from the text encoder with this run's own last blocks ({run.tune})."
        return projections.projection_figure(projections.project(features), truth, study.labels, what), words

    return make


def _grad_cam(source: Source) -> Made:
    return source.explained.pictures()


def _words(source: Source) -> Made:
    text, target = EXAMPLE
    return source.explained.words(text, target) if target in source.study.labels else source.explained.own_words()


def _reliability(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    if not run.calibrated:
        raise Unavailable(f"run {run.name} was trained before temperatures were recorded; fit it again")
    raw = softmax(study.trace(run).logits)
    figure = results.reliability_figure(
        reliability(found.truth, raw), reliability(found.truth, found.probabilities), title_of(run), run.temperature
    )
    words = (
        "Bars below the dashed line mean that the head is more confident than it is right. On the right each row's "
        "temperature is fitted on the other rows, as in the table of results; new posts get the stored temperature, "
        "fitted on all of these rows."
    )
    return figure, words


def _learning_curve(source: Source) -> Made:
    study, run = source.study, source.study.main
    sizes, scores = learning_curve(study, run)
    words = f"{scores.size} heads were trained for this figure."
    if len(sizes) > 1:
        gain = float(scores[-1].mean() - scores[-2].mean())
        spread = float(np.ptp(scores[-2:], axis=1).max())
        words += f" From {sizes[-2]:,} to {sizes[-1]:,} rows the mean F1 changes by {gain:+.3f}"
        words += f"; repeats of one size differ by up to {spread:.3f}." if scores.shape[1] > 1 else "."
    final = study.evaluation(run).scores["f1_weighted"]
    return training.learning_curve_figure(sizes, scores, title_of(run), final), words


def _length(source: Source) -> Made:
    study = source.study
    known = names(study)
    main = known[study.main.name]
    alike = next(runs for runs in study.splits if study.main in runs)
    right = {known[run.name]: study.evaluation(run).predicted == study.evaluation(run).truth for run in alike}
    fusions = {known[run.name]: run.fusion.value for run in alike}
    lengths = study.lengths(study.evaluation(study.main).positions)
    words = (
        f"A line that falls to the right means that long texts are harder for this head. The band is the {LEVEL:.0%} "
        f"Wilson interval of {main}'s accuracy; for differences between heads see the paired tests."
    )
    return results.length_figure(lengths.tolist(), right, fusions, "tokens of the text encoder", main), words


def _agreement(source: Source) -> Made:
    study = source.study
    vote = study.vote()
    if vote is None:
        raise Unavailable("this figure needs two or more runs on the same validation rows")
    voters = study.voters()
    choices = np.stack([study.evaluation(run).predicted for run in voters])
    agreeing = (choices == vote.predicted).sum(axis=0)
    right = vote.predicted == vote.truth
    whole = agreeing == len(voters)
    words = f"All {len(voters)} heads agree on {whole.mean():.1%} of the rows"
    words += f" and are right on {right[whole].mean():.1%} of these rows." if whole.any() else "."
    known = names(study)
    return results.agreement_figure(agreeing, right, [known[run.name] for run in voters]), words


def _confident(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = errors(found)[:PANELS].tolist()
    if not chosen:
        raise Unavailable(f"run {run.name} labels all of its validation rows correctly")
    words = (
        "The wrong predictions with the highest confidence. Check their labels first: among these, a wrong label is "
        "most likely."
    )
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, f"Most confident errors, {title_of(run)}"), words


FIGURES: tuple[tuple[str, str, Callable[[Source], Made]], ...] = (
    ("architecture", "Architecture", _architecture),
    ("first-layer", "First layer through training", _first_layer),
    ("labels", "Label distribution", _labels),
    ("loss", "Loss", _loss),
    ("metrics", "Validation metrics of all variants", _metrics),
    ("errors", "Error cases", _errors),
    ("fusion-weights", "Fusion weights through training", _weights),
    ("attention", "Attention between image and text", _attention),
    ("confusion", "Confusion matrix", _confusion),
    ("confidence", "Confidence", _confidence),
    ("pattern", "Prediction pattern", _pattern),
    ("fused-concat", "Fused features, concat", _projection(Fusion.concat, hidden=False)),
    ("hidden-concat", "Hidden features, concat", _projection(Fusion.concat, hidden=True)),
    ("fused-attention-alt", "Fused features, attention_alt", _projection(Fusion.attention_alt, hidden=False)),
    ("grad-cam", "Grad-CAM", _grad_cam),
    ("words", "Importance of words", _words),
    ("reliability", "Reliability", _reliability),
    ("learning-curve", "Learning curve", _learning_curve),
    ("text-length", "Accuracy by text length", _length),
    ("agreement", "Agreement of the heads", _agreement),
    ("confident-errors", "Most confident errors", _confident),
)


# Drawn where a sweep lies beside the runs.
SWEEP_FIGURES: tuple[tuple[str, str, Callable[[Source], Made]], ...] = (
    ("sweep-trials", "Trials of the sweep", lambda source: sweeps.trials(source.study)),
    ("sweep-importance", "Importance of settings in the sweep", lambda source: sweeps.importance(source.study)),
)


def figures_of(study: Study) -> tuple[tuple[str, str, Callable[[Source], Made]], ...]:
    """The figures that a report on these runs has, made or not."""
    return FIGURES + (SWEEP_FIGURES if sweeps.sweeps_beside(study) else ())


def numbered_labels(labels: Sequence[str]) -> str:
    """Which labels the figures call by number, in a sentence; empty where all can be drawn."""
    found = ", ".join(f"{number} is {name}" for name, number in in_place_of(labels).items())
    return f"No font here can draw some labels, so the figures number them: {found}." if found else ""


def draw_figures(
    study: Study,
    explained: Explainer,
    folder: Path,
    on_step: Callable[[str], None] | None = None,
    skip: Collection[str] = (),
) -> list[ReportFigure]:
    """Draw every figure that this study allows into a folder, as `<number>-<name>.png` and `.svg`; skip: names of those
    to leave out.

    A figure that needs a run, a file, a post or a library that is missing is listed with the reason.
    """
    source = Source(study, explained)
    out = []
    for number, (name, title, make) in enumerate(figures_of(study), 1):
        if on_step:
            on_step(title)
        stem = f"{number:02d}-{name}"
        try:
            if name in skip:
                raise Unavailable("left out with --skip")
            with numbering(study.labels):
                figure, caption = make(source)
        except (MmsentError, RuntimeError, MemoryError) as reason:
            if not isinstance(reason, MmsentError) and not out_of_memory(reason):
                raise
            for old in (folder / f"{stem}.png", folder / f"{stem}.svg"):
                old.unlink(missing_ok=True)  # of an earlier report, and no longer true
            out.append(ReportFigure(number, name, title, "", None, None, str(reason)))
            continue
        png, svg = save(figure, folder, stem)
        if name == "labels" and (numbered := numbered_labels(study.labels)):
            caption = f"{caption} {numbered}".strip()
        out.append(ReportFigure(number, name, title, caption, png, svg))
    return out
