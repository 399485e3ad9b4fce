"""The model card of exported heads: what they are, the data, the scores with intervals, limits and intended use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.errors import RunError
from mmsent.features.cache.finding import slug
from mmsent.inference.held_out import held_out
from mmsent.inference.logits import served
from mmsent.inference.tally import Way, tally
from mmsent.metrics import LEVEL, RESAMPLES, bootstrap_intervals, scores
from mmsent.system.markup import markdown, markdown_code
from mmsent.training.runs import Run, calibration_note
from mmsent.version import __version__


@dataclass(frozen=True)
class Scored:
    """A row of the card's table: scores as mmsent.metrics.scores gives them, and their bootstrap intervals."""

    name: str
    kind: str
    scores: dict[str, Any]
    intervals: dict[str, Any]


def scored(runs: Sequence[Run], soft: bool = False, tie: str | None = None) -> list[Scored]:
    """The runs on their own validation rows, by their stored confusion matrices; and, where all have the same rows and
    kept their predictions, the vote. tie: see `mmsent.inference.tally.tie_label`."""
    found = []
    for run in runs:
        matrix = np.array(run.info["metrics"]["confusion"], np.int64)
        classes = len(matrix)
        truth, predicted = (part.repeat(matrix.ravel()) for part in np.divmod(np.arange(classes**2), classes))
        intervals = bootstrap_intervals(truth, predicted, classes)
        found.append(Scored(run.name, str(run.info["fit"]["fusion"]), run.info["metrics"], intervals))
    voted = _vote(runs, soft, tie) if len(runs) > 1 else None
    if voted is not None:
        truth, predicted = voted
        classes = len(runs[0].labels)
        intervals = bootstrap_intervals(truth, predicted, classes)
        kind = "soft vote" if soft else "vote"
        found.append(Scored(f"vote of {len(runs)}", kind, scores(truth, predicted, classes), intervals))
    return found


def _vote(runs: Sequence[Run], soft: bool, tie: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Truth and the vote's choice on the shared validation rows, (n,) label indices each; None without such."""
    try:
        rows = held_out(runs)
    except RunError:  # an exported folder keeps none
        return None
    if not rows.held.all():
        return None
    return rows.truth, tally(rows.probabilities, Way.of(runs[0].labels, tie, soft)).labels


def model_card(runs: Sequence[Run], name: str, form: str, *, soft: bool = False, tie: str | None = None) -> str:
    """README.md of an export called `name`. form: onnx or hf, which says how it is used; soft: heads are averaged; tie:
    what a vote without a majority gives. Raises UsageError on an unknown tie label."""
    table = scored(runs, soft, tie)
    first = runs[0].info
    weakest = _weakest(table[-1], runs[0].labels)
    data = first["cache"].get("definition", first["cache"]["data_name"])
    rows = first["rows"]
    sections = [
        _front(runs, name, table),
        f"# {markdown(name)}",
        "Labels the sentiment of a short post, an image and its text, as "
        f"{_listed(runs[0].labels)}: {_heads(runs, soft)} over the frozen encoders of "
        f"{markdown_code(first['cache']['encoder'])}. Made by mmsent {__version__}.",
        "## Use",
        _use(form),
        "## Data",
        f"{rows['train']} posts of {markdown_code(data)} for training and {rows['val']} for validation, split so "
        f"that {_grouping(first['split'])}. Validation rows by label: "
        + ", ".join(f"{markdown(k)} {n}" for k, n in zip(runs[0].labels, table[0].scores["support"], strict=True))
        + ". This folder does not contain the posts.",
        "## Scores on the validation rows",
        _table(table, runs[0].labels),
        f"In brackets: the {LEVEL:.0%} interval of {RESAMPLES} bootstrap resamples of these rows; another split or "
        "another training seed can change scores by more. The epoch and the temperature were chosen on these rows, so "
        "the scores are a little optimistic. No test labels were used.",
        "## Limits",
        _limits(runs, weakest),
        "## Intended use",
        "Summaries over many posts like those of the training data: shares of labels, trends, a first sorting that "
        "people check. Do not use it for decisions about a person, nor for moderation without human review. Before use "
        "on posts of other platforms, languages or times than the training data, check it on labelled examples.",
        "## Features",
        f"The heads accept only features of contract `{runs[0].contract}` (a digest of encoders, weights, "
        "preprocessing, cleaning and normalisation). Fingerprint of the cache they were trained on: "
        f"`{first['cache']['fingerprint']}`.",
        "Before you publish this, add a licence that the data and the encoders' weights allow.",
    ]
    return "\n\n".join(sections) + "\n"


def _front(runs: Sequence[Run], name: str, table: Sequence[Scored]) -> str:
    """The YAML header that model hubs read."""
    best = table[-1].scores
    data = str(runs[0].info["cache"]["data_name"])
    lines = ["---", "library_name: mmsent", "tags:", "- sentiment-analysis", "- multimodal", "- social-media"]
    lines += ["model-index:", f"- name: {_quoted(name)}", "  results:"]
    lines += ["  - task:", "      type: text-classification", "      name: sentiment of an image and a text"]
    lines += ["    dataset:", f"      type: {_quoted(slug(data))}", f"      name: {_quoted(data)}"]
    lines += ["      split: validation", "    metrics:"]
    for kind, value in (("accuracy", best["accuracy"]), ("f1", best["f1_weighted"])):
        shown = " (weighted)" if kind == "f1" else ""
        lines += [f"    - type: {kind}", f"      name: {kind}{shown}", f"      value: {value:.4f}"]
    return "\n".join([*lines, "---"])


def _heads(runs: Sequence[Run], soft: bool) -> str:
    names = [str(run.info["fit"]["fusion"]) for run in runs]
    how = "the mean" if soft else "the majority"
    listed = ", ".join(dict.fromkeys(names))
    return f"the {names[0]} head" if len(names) == 1 else f"{how} of {len(names)} heads ({listed})"


def _use(form: str) -> str:
    if form == "hf":
        return '```sh\nmmsent predict FOLDER --text "a happy day" --image post.jpg\n```\n\n' + _python(
            "import mmsent", 'mmsent.load("FOLDER").predict(["a happy day"], ["post.jpg"])'
        )
    return "`heads.onnx` takes `image`, `text` and `missing` (which of the two is missing) and gives the vote. " + (
        "If `image.onnx` and `text.onnx` are beside it, it labels posts without torch:\n\n"
        + _python(
            "from pathlib import Path",
            "from mmsent.export.onnx_runtime import OnnxModel",
            "from mmsent.features.new_posts import NewPost",
            'OnnxModel.open("FOLDER").predict([NewPost("1", "a happy day", Path("post.jpg"))])',
        )
    )


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _grouping(split: dict[str, Any]) -> str:
    group = split["group"]
    if group in ("none", False):
        return "labels have equal shares in both parts (duplicates were not kept together)"
    return f"{'near' if group == 'near' else 'exact'} duplicates of an image or a text are in the same part"


def _table(table: Sequence[Scored], labels: Sequence[str]) -> str:
    header = ["head", "run", "accuracy", "weighted F1", "macro F1", *(f"F1 {markdown(name)}" for name in labels)]
    lines = [header, ["---"] * len(header)]
    for row in table:
        low, high = row.intervals["f1_weighted"]
        low_accuracy, high_accuracy = row.intervals["accuracy"]
        lines.append(
            [
                markdown(row.kind),
                markdown(row.name),
                f"{row.scores['accuracy']:.3f} [{low_accuracy:.3f}, {high_accuracy:.3f}]",
                f"{row.scores['f1_weighted']:.3f} [{low:.3f}, {high:.3f}]",
                f"{row.scores['f1_macro']:.3f}",
                *(f"{value:.3f}" for value in row.scores["f1_per_class"]),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _weakest(row: Scored, labels: Sequence[str]) -> tuple[str, float, tuple[float, float]]:
    """The label with the lowest F1, that F1 and its interval."""
    worst = int(np.argmin(row.scores["f1_per_class"]))
    low, high = row.intervals["f1_per_class"][worst]
    return labels[worst], float(row.scores["f1_per_class"][worst]), (float(low), float(high))


def _limits(runs: Sequence[Run], weakest: tuple[str, float, tuple[float, float]]) -> str:
    label, value, (low, high) = weakest
    lines = [
        f"The weakest label is {markdown(label)}: F1 {value:.3f} [{low:.3f}, {high:.3f}].",
        _halves(runs),
        f"Confidences: {calibration_note(runs)}. This holds for posts like those of the training data.",
        "Texts that are too long for the encoder are cut.",
        "The encoders carry the biases of their training data; these were neither measured nor removed.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _halves(runs: Sequence[Run]) -> str:
    """Whether a post may lack its image or its text."""
    gone = np.array([[True, False], [False, True]])  # a post without a picture, and one without a text
    voting = np.stack([served(run, gone) for run in runs])  # (R, 2)
    without_picture, without_text = (int(n) for n in voting.sum(axis=0))  # heads that label such a post
    fewer = ", by fewer heads" if {without_picture, without_text} - {0, len(runs)} else ""
    if without_picture and without_text:
        return f"Posts without an image or without a text can be labelled{fewer}."
    if not without_picture and not without_text:
        return "A post needs both an image and a text."
    needed, other = ("a text", "an image") if without_picture else ("an image", "a text")
    return f"A post needs {needed}; one without {other} can be labelled{fewer}."


def _listed(names: Sequence[str]) -> str:
    shown = [markdown(name) for name in names]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _quoted(text: str) -> str:
    """A YAML string: JSON, but for JSON's escapes of emoji, which are two halves of a character to YAML."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
