"""Which figures a report holds, and making them: the report's sixteen by their numbers, then those beyond it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsent.config import Fusion
from mmsent.errors import MmsentError
from mmsent.report import feature_plates, result_plates, sweeps, training_plates
from mmsent.report.explanations import Explainer
from mmsent.report.figures.style import in_place_of, numbering, save
from mmsent.report.language import say
from mmsent.report.source import Made, Source
from mmsent.report.study import Study, Unavailable
from mmsent.system.memory import out_of_memory


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


FIGURES: tuple[tuple[str, str, Callable[[Source], Made]], ...] = (
    ("architecture", "Architecture", training_plates.architecture),
    ("first-layer", "First layer through training", training_plates.first_layer),
    ("labels", "Label distribution", result_plates.labels),
    ("loss", "Loss", training_plates.loss),
    ("metrics", "Validation metrics of all variants", training_plates.metrics),
    ("errors", "Error cases", result_plates.error_cases),
    ("fusion-weights", "Fusion weights through training", training_plates.weights),
    ("attention", "Attention between image and text", training_plates.attention),
    ("confusion", "Confusion matrix", result_plates.confusion),
    ("confidence", "Confidence", result_plates.confidence),
    ("pattern", "Prediction pattern", result_plates.pattern),
    ("fused-concat", "Fused features, concat", feature_plates.projection(Fusion.concat, hidden=False)),
    ("hidden-concat", "Hidden features, concat", feature_plates.projection(Fusion.concat, hidden=True)),
    (
        "fused-attention-alt",
        "Fused features, attention_alt",
        feature_plates.projection(Fusion.attention_alt, hidden=False),
    ),
    ("grad-cam", "Grad-CAM", result_plates.grad_cam),
    ("words", "Importance of words", result_plates.words),
    ("reliability", "Reliability", result_plates.calibration),
    ("learning-curve", "Learning curve", training_plates.learning_curve),
    ("text-length", "Accuracy by text length", result_plates.text_length),
    ("agreement", "Agreement of the heads", result_plates.agreement),
    ("confident-errors", "Most confident errors", result_plates.confident_errors),
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
    found = say(", ").join(
        say("{number} is {name}", number=number, name=name) for name, number in in_place_of(labels).items()
    )
    return say("No font here can draw some labels, so the figures number them: {found}.", found=found) if found else ""


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
    for number, (name, english, make) in enumerate(figures_of(study), 1):
        title = say(english)
        if on_step:
            on_step(title)
        stem = f"{number:02d}-{name}"
        try:
            if name in skip:
                raise Unavailable(say("left out with --skip"))
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
