"""Predicting new posts: their texts and images go through the encoders that the runs were trained on, then through the
heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import EncoderSettings, Fusion, settings
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.runtimes import usable
from mmsent.errors import RunError
from mmsent.features.new_posts import BATCH, NewPost, prepare_post
from mmsent.inference.abstain import Abstention
from mmsent.inference.logits import head_probabilities, served
from mmsent.inference.tally import Way, decision, tally
from mmsent.inference.tuned import Floats, Texts, contract_of, encode_batch, joined_texts
from mmsent.inference.vote import averages, require_distinct
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import Run


@dataclass(frozen=True)
class Prediction:
    """The heads' answer for one post; probabilities are the mean of the heads' calibrated ones. Where no head could
    label the post, `label` is None and `problem` says why. `decision`: why the label is not the one with the highest
    probability; empty where it is. `voted`: the heads' label, where `label` is what `abstaining` tells in its place."""

    id: str
    label: str | None
    probabilities: dict[str, float]
    heads: dict[str, str]
    agreeing: int
    problem: str = ""
    voted: str | None = None
    decision: str = field(init=False, default="")

    def __post_init__(self) -> None:
        won, heads = self.voted or self.label, list(self.heads.values())
        words = decision(won, heads, self.probabilities) if won and self.probabilities else ""
        object.__setattr__(self, "decision", words)  # always: an answer is made of vars


def encoder_settings(runs: Sequence[Run], *, weights: str | None, device: str | None) -> EncoderSettings:
    """The encoders that all runs share. Raises RunError where they were trained on different features."""
    require_distinct(runs)
    for run in runs[1:]:
        runs[0].require(run.contract, f"run {run.name}", run.info["cache"]["encoder"])
        if run.labels != runs[0].labels:
            raise RunError(f"runs {runs[0].name} and {run.name} have different labels")
    stored = runs[0].encoder_settings.model_dump()
    stored["runtime"] = usable(stored["runtime"], stored["precision"], device)
    return settings(EncoderSettings, **{**stored, "weights": weights or stored["weights"], "device": device or "auto"})


def encoders_of(chosen: EncoderSettings) -> Encoders:
    """The encoders of runs, by the settings that `encoder_settings` gives. Raises RunError where their weights are
    missing."""
    if chosen.weights and not Path(chosen.weights).is_file():
        raise RunError(
            f"the encoder weights of these runs are no longer at {chosen.weights}; name them with --weights FILE"
        )
    return open_encoders(chosen)


def require_encoders(encoders: Encoders, run: Run, normalize: bool) -> None:
    """Raise RunError where the encoders are not those that the run's head was trained on."""
    run.require(contract_of(encoders, run, normalize), "this machine's encoder", encoders.image.card.name)


def encode_posts(
    posts: Sequence[NewPost], encoders: Encoders, runs: Sequence[Run], normalize: bool
) -> tuple[NDArray[np.float32], Floats | Texts, NDArray[np.bool_], list[str]]:
    """image (N, D_image), text (N, D_text), missing (N, 2) and the N reasons for what is missing. text: for runs that
    tune blocks what they need (see mmsent.inference.tuned).

    Raises RunError where the encoders are not those that the runs' heads were trained on.
    """
    require_encoders(encoders, runs[0], normalize)
    how, clean = encoders.image.card.preprocess, runs[0].data_settings.clean
    parts = []
    for start in range(0, max(1, len(posts)), BATCH):
        prepared = [prepare_post(post, how, clean) for post in posts[start : start + BATCH]]
        parts.append(encode_batch(prepared, encoders, runs, normalize))
    image, text, missing, problems = zip(*parts, strict=True)
    return (
        np.concatenate(image),
        joined_texts(text),
        np.concatenate(missing),
        [p for part in problems for p in part],
    )


@dataclass(frozen=True)
class Voted:
    """The answers of R runs for N posts: the predictions; probabilities (R, N, C) of each head at its temperature;
    voting (R, N): which heads could label which posts."""

    predictions: list[Prediction]
    probabilities: NDArray[np.float64]
    voting: NDArray[np.bool_]


def vote_features(
    ids: Sequence[str],
    runs: Sequence[Run],
    image: NDArray[np.float32],
    text: Floats | Texts,
    missing: NDArray[np.bool_],
    problems: Sequence[str],
    *,
    tie: str | None = None,
    soft: bool = False,
) -> Voted:
    """The vote of runs on the features of N new posts, as `encode_posts` gives them; a committee is averaged."""
    labels = runs[0].labels
    probabilities = np.stack([head_probabilities(run, image, text, missing) for run in runs])
    voting = np.stack([served(run, missing) for run in runs])
    counted = tally(probabilities, Way.of(labels, tie, averages(runs, soft)), voting)
    found = []
    for i, name in enumerate(ids):
        if not counted.labelled[i]:
            found.append(Prediction(name, None, {}, {}, 0, f"{problems[i]}; {_what_is_needed(runs)}"))
            continue
        heads = {run.name: labels[k] for run, k in zip(runs, counted.choices[:, i], strict=True) if k >= 0}
        shares = dict(zip(labels, counted.probabilities[i].tolist(), strict=True))
        found.append(Prediction(name, labels[counted.labels[i]], shares, heads, int(counted.agreeing[i]), problems[i]))
    return Voted(found, probabilities, voting)


def _what_is_needed(runs: Sequence[Run]) -> str:
    fusions = {run.fusion for run in runs}
    if fusions == {Fusion.image}:
        return "these heads read only the image"
    if fusions == {Fusion.text}:
        return "these heads read only the text"
    return (
        "these heads need both image and text; heads that were fitted with --modality-dropout can label posts that "
        "lack one"
    )


def predict(
    posts: Sequence[NewPost],
    runs: Sequence[Run],
    *,
    weights: str | None = None,
    device: str | None = None,
    tie: str | None = None,
    soft: bool = False,
    encoders: Encoders | None = None,
) -> list[Prediction]:
    """Label posts with the vote of runs. A post that no head can label has label None and a problem.

    Raises RunError where the runs do not share their features, EncoderError where the encoders cannot be had.
    """
    chosen = encoder_settings(runs, weights=weights, device=device)
    if encoders is None:
        encoders = encoders_of(chosen)
    features = encode_posts(posts, encoders, runs, chosen.normalize)
    return vote_features([post.id for post in posts], runs, *features, tie=tie, soft=soft).predictions


def abstaining(found: Sequence[Prediction], when: Abstention | None) -> list[Prediction]:
    """The predictions with what an abstention tells in place of their labels; without one as they are. A post that no
    head could label keeps the label None."""
    if when is None:
        return list(found)
    shares = [[p.probabilities.get(name, 0.0) for name in when.labels] for p in found]
    answers = [when.answer(p.label, row) for p, row in zip(found, shares, strict=True)]
    return [
        p if p.label is None else replace(p, label=answer, voted=p.label)
        for p, answer in zip(found, answers, strict=True)
    ]


def predictions_table(
    found: Sequence[Prediction],
    labels: Sequence[str],
    given: Sequence[str | None] | None = None,
    source: Mapping[str, str] | None = None,
) -> str:
    """Predictions as CSV text; a post that no head could label has an empty label and says why under `problem`. given:
    labels that were known before, for a column `label`; source: where the posts are listed, as seen from the table, and
    how that was read, so that a review finds them (see mmsent.serve.review.source_of)."""
    probabilities = np.array([[p.probabilities.get(name, np.nan) for name in labels] for p in found])
    abstained = any(p.voted is not None for p in found)
    extra: dict[str, Sequence[Any]] = {
        "decision": [p.decision for p in found],
        "agreeing": [p.agreeing for p in found],
        "problem": [p.problem for p in found],
        **{name: [value] * len(found) for name, value in (source or {}).items()},
        **{name: [p.heads.get(name, "") for p in found] for name in dict.fromkeys(n for p in found for n in p.heads)},
    }
    return predictions_csv(
        [p.id for p in found],
        labels,
        probabilities.reshape(len(found), len(labels)),
        given,
        predicted=[(p.voted if abstained else p.label) or "" for p in found],
        extra=extra,
        answers=[p.label or "" for p in found] if abstained else None,
    )
