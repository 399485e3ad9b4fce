"""Which figures a report holds, and making them: the report's sixteen by their numbers, then those beyond it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsent.config import Fusion
from mmsent.errors import MmsentError
from mmsent.metrics import LEVEL, reliability
from mmsent.report import sweeps as swept
from mmsent.report.content import names, unlike
from mmsent.report.explanations import Explained
from mmsent.report.figures import posts, projections, results, training
from mmsent.report.figures.architecture import architecture_figure
from mmsent.report.figures.style import save
from mmsent.report.study import Study, Unavailable, batch_of, errors, known_rows, learning_curve, varied_errors
from mmsent.training.calibration import softmax
from mmsent.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # posts in a panel
EXAMPLE = ("a happy day", "positive")  # the report's example of token importance


@dataclass(frozen=True)
class Plate:
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
    explained: Explained


Made = tuple["Figure", str]


def title_of(run: Run) -> str:
    """A run's name in a figure: its fusion, and its seed."""
    return f"{run.fusion}, seed {run.fit.seed}"


def _need(study: Study, fusion: Fusion) -> Run:
    run = study.of(fusion)
    if run is None:
        raise Unavailable(f"no {fusion} run among these; `mmsent fit --fusion {fusion}` makes one")
    return run


def _architecture(source: Source) -> Made:
    study, run = source.study, source.study.main
    head = run.head()
    settings = study.cache.settings
    total = sum(p.numel() for p in head.parameters())
    words = f"The {run.fusion} head as trained: {total:,} parameters on top of two frozen encoders."
    return architecture_figure(head, settings.image, settings.text, study.labels, title_of(run)), words


def _first_layer(source: Source) -> Made:
    run = source.study.main
    history = source.study.history(run)
    if "first_layer" not in history[0]:
        raise Unavailable(f"run {run.name} was fitted before distributions were recorded; fit it again")
    layer = "fc1" if run.fusion is not Fusion.attention_alt else "out"
    words = (
        "Weights and outputs of the first linear layer, epoch over epoch, each scaled to its own peak. Initial weights "
        "are uniform; bell-shaped outputs around zero mean that the scale of the features and of the weights fit."
    )
    return training.first_layer_figure(history, title_of(run), layer), words


def _labels(source: Source) -> Made:
    study = source.study
    balance = known_rows(study.cache)
    counts = balance.get("train", {})
    total = sum(counts.values())
    least = min(counts, key=lambda k: counts[k]) if counts else ""
    words = f"{least} is the rarest label: {counts[least] / total:.1%} of {total:,} training rows." if counts else ""
    return results.labels_figure(balance, study.labels), words


def _loss(source: Source) -> Made:
    run = source.study.main
    words = (
        "Training loss is measured with dropout and augmented views, so it can lie above the validation loss. Stopping "
        "watches the weighted F1, not this loss."
    )
    return training.loss_figure(source.study.history(run), title_of(run), run.info["best_epoch"]), words


def _metrics(source: Source) -> Made:
    study = source.study
    known, places = names(study), list(Fusion)
    ordered = sorted(study.runs, key=lambda run: places.index(run.fusion))
    histories = {known[run.name]: study.history(run) for run in ordered}
    best = {known[run.name]: int(run.info["best_epoch"]) for run in ordered}
    fusions = {known[run.name]: run.fusion.value for run in ordered}
    words = "One line a run; dots mark the epoch whose weights were kept. Weighted recall equals accuracy."
    if len(study.splits) > 1:
        words += f" {unlike(study)}"
    return training.metrics_figure(histories, best, fusions), words


def _errors(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = varied_errors(found, PANELS)
    if not chosen:
        raise Unavailable(f"run {run.name} makes no error on its validation rows")
    wrong = int((found.predicted != found.truth).sum())
    words = (
        f"{len(chosen)} of {wrong} wrong predictions on {len(found.truth)} validation rows, every kind of confusion in "
        "turn, from the middle of its confidences. The frame has the colour of the true label."
    )
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, f"Error cases, {title_of(run)}"), words


def _weights(source: Source) -> Made:
    run = _need(source.study, Fusion.weighted)
    history = source.study.history(run)
    kept = history[run.info["best_epoch"] - 1]
    words = (
        f"At the kept epoch the picture has {kept['image_share']:.1%} of the weight, the text {kept['text_share']:.1%}."
    )
    return training.shares_figure(history, title_of(run), run.info["best_epoch"]), words


def _attention(source: Source) -> Made:
    run = source.study.of(Fusion.attention) or _need(source.study, Fusion.attention_alt)
    attention = source.study.trace(run).attention
    if attention is None:
        raise Unavailable("the head has no attention")
    share = float(attention[..., 0].mean())
    words = f"On average the picture receives {share:.1%} of the attention; 50% would be no preference."
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
    words = "Each column is a post. A clear head shows a bright staircase; a column without a bright cell is undecided."
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
        words = f"{features.shape[1]} dimensions to two; " + _separation(features, truth)
        return projections.projection_figure(projections.project(features), truth, study.labels, what), words

    return make


def _separation(features: np.ndarray, truth: np.ndarray) -> str:
    """How far classes lie apart in the full width, in one number."""
    from sklearn.metrics import silhouette_score

    if len(np.unique(truth)) < 2 or len(np.unique(truth)) >= len(truth):
        return "one class only."
    value = float(silhouette_score(features, truth, metric="cosine"))
    return f"mean silhouette of the true classes by cosine {value:+.3f} (0: mixed, 1: apart)."


def _grad_cam(source: Source) -> Made:
    return source.explained.pictures()


def _words(source: Source) -> Made:
    return source.explained.words(*EXAMPLE)


def _reliability(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    if not run.calibrated:
        raise Unavailable(f"run {run.name} was fitted before temperatures were stored; fit it again")
    raw = softmax(study.trace(run).logits)
    figure = results.reliability_figure(
        reliability(found.truth, raw), reliability(found.truth, found.probabilities), title_of(run), run.temperature
    )
    words = (
        "Bars on the dashed line are calibrated. On the right each row's temperature comes from the other rows, as in "
        "the table of results; the stored temperature, fitted on all of these rows, is what new posts get."
    )
    return figure, words


def _learning_curve(source: Source) -> Made:
    study, run = source.study, source.study.main
    sizes, scores = learning_curve(study, run)
    words = f"{scores.size} heads trained for this figure."
    if len(sizes) > 1:
        gain = float(scores[-1].mean() - scores[-2].mean())
        spread = float(np.ptp(scores[-2:], axis=1).max())
        words += (
            f" From {sizes[-2]:,} to {sizes[-1]:,} rows the mean moves by {gain:+.3f}; draws and seeds of one size lie "
            f"up to {spread:.3f} apart."
        )
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
        f"Rows in five groups of like size. The band is the {LEVEL:.0%} Wilson interval of {main}'s accuracy; for "
        "differences between heads see the paired tests."
    )
    return results.length_figure(lengths.tolist(), right, fusions, "tokens of the text encoder", main), words


def _agreement(source: Source) -> Made:
    study = source.study
    vote = study.vote()
    if vote is None:
        raise Unavailable("needs at least two runs on one validation split")
    voters = study.voters()
    choices = np.stack([study.evaluation(run).predicted for run in voters])
    agreeing = (choices == vote.predicted).sum(axis=0)
    right = vote.predicted == vote.truth
    whole = agreeing == len(voters)
    words = f"All {len(voters)} agree on {whole.mean():.1%} of the rows"
    words += f" and are right on {right[whole].mean():.1%} of those." if whole.any() else "."
    known = names(study)
    return results.agreement_figure(agreeing, right, [known[run.name] for run in voters]), words


def _confident(source: Source) -> Made:
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = errors(found)[:PANELS].tolist()
    if not chosen:
        raise Unavailable(f"run {run.name} makes no error on its validation rows")
    words = "The most confident wrong predictions, where a wrong label is likeliest: look at them before the head."
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, f"Most confident errors, {title_of(run)}"), words


PLATES: tuple[tuple[str, str, Callable[[Source], Made]], ...] = (
    ("architecture", "Architecture", _architecture),
    ("first-layer", "First layer through training", _first_layer),
    ("labels", "Label distribution", _labels),
    ("loss", "Loss", _loss),
    ("metrics", "Validation metrics of all variants", _metrics),
    ("errors", "Error cases", _errors),
    ("fusion-weights", "Fusion weights through training", _weights),
    ("attention", "Attention between picture and text", _attention),
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
SWEEP_PLATES: tuple[tuple[str, str, Callable[[Source], Made]], ...] = (
    ("sweep-trials", "Trials of the sweep", lambda source: swept.trials(source.study)),
    ("sweep-importance", "Importance of settings in the sweep", lambda source: swept.importance(source.study)),
)


def plates_of(study: Study) -> tuple[tuple[str, str, Callable[[Source], Made]], ...]:
    """The figures that a report on these runs has, made or not."""
    return PLATES + (SWEEP_PLATES if swept.sweeps_beside(study) else ())


def make_plates(
    study: Study,
    explained: Explained,
    folder: Path,
    on_step: Callable[[str], None] | None = None,
    skip: Collection[str] = (),
) -> list[Plate]:
    """Draw every figure that this study allows into a folder, as `<number>-<name>.png` and `.svg`; skip: names of those
    to leave out.

    A figure that needs a run, a file, a post or a library that is not at hand is listed with the reason.
    """
    source = Source(study, explained)
    out = []
    for number, (name, title, make) in enumerate(plates_of(study), 1):
        if on_step:
            on_step(title)
        stem = f"{number:02d}-{name}"
        try:
            if name in skip:
                raise Unavailable("left out by --skip")
            figure, caption = make(source)
        except MmsentError as reason:
            for old in (folder / f"{stem}.png", folder / f"{stem}.svg"):
                old.unlink(missing_ok=True)  # of an earlier report, and no longer true
            out.append(Plate(number, name, title, "", None, None, str(reason)))
            continue
        png, svg = save(figure, folder, stem)
        out.append(Plate(number, name, title, caption, png, svg))
    return out
