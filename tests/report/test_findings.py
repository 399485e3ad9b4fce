"""What a report claims on its first screen is computed, and nothing within chance is claimed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmsent.config import Fusion
from mmsent.evaluation.evaluate import MAJORITY, Evaluation
from mmsent.metrics import bootstrap_intervals, scores
from mmsent.report.findings import Findings, find, sentences
from mmsent.report.overview import overview, ticks
from mmsent.report.study import Study

LABELS = ("negative", "neutral", "positive")
N = 600
RNG = np.random.default_rng(3)
TRUTH = RNG.choice(3, N, p=[0.3, 0.1, 0.6])


def guess(seed: int, accuracy: float, neutral: float | None = None) -> np.ndarray:
    """Labels that are right at a rate, neutral ones at their own; wrong ones are positive or negative."""
    rng = np.random.default_rng(seed)
    rate = np.where(TRUTH == 1, accuracy if neutral is None else neutral, accuracy)
    return np.where(rng.random(N) < rate, TRUTH, np.where(TRUTH == 2, 0, 2))


def evaluation(name: str, fusion: str, said: np.ndarray) -> Evaluation:
    return Evaluation(
        name,
        fusion,
        scores(TRUTH, said, 3),
        bootstrap_intervals(TRUTH, said, 3),
        np.eye(3)[said],
        said,
        TRUTH,
        np.arange(N),
    )


def study(heads: dict[str, list[np.ndarray]]) -> Study:
    """A study of heads by fusion, each with the labels of its seeds, and the majority class."""
    runs: list[Any] = [
        SimpleNamespace(
            name=name, fusion=Fusion(name), fit=SimpleNamespace(seed=0), since="", info={"rows": {"train": 3000}}
        )
        for name in heads
    ]
    found = [evaluation(name, name, seeds[0]) for name, seeds in heads.items()]
    found.append(evaluation("majority class", MAJORITY, np.full(N, 2)))
    repeats = {name: [evaluation(name, name, said) for said in seeds[1:]] for name, seeds in heads.items()}
    index = SimpleNamespace(labels=np.repeat([0, 1, 2], [900, 300, 1800]))
    cache: Any = SimpleNamespace(
        labels=LABELS, rows={"train": 3000}, index=lambda _: index, data_name="posts", encoder="offline"
    )
    return Study(cache, SimpleNamespace(), runs, found, None, repeats)  # type: ignore[arg-type]


def told(found: Findings) -> tuple[str, str, str]:
    first, second, third = sentences(found)
    return first, second, third


def test_a_clear_winner_is_said_to_be_one() -> None:
    found = find(study({"concat": [guess(1, 0.85), guess(2, 0.85)], "text": [guess(3, 0.6), guess(4, 0.6)]}))
    first, _, third = told(found)
    assert first.startswith("The best is concat: weighted F1 0.8")
    assert "the mean of 2 seeds" in first
    assert "Beyond chance it beats text and majority class" in first
    assert "not ahead" not in first
    assert "one seed" not in third


def test_equals_are_not_ranked() -> None:
    found = find(study({"concat": [guess(1, 0.8)], "weighted": [guess(2, 0.8)], "text": [guess(3, 0.6)]}))
    first, _, third = told(found)
    best, other = ("concat", "weighted") if found.best.name == "concat" else ("weighted", "concat")
    assert first.startswith(f"The best is {best}: ")
    assert f"It is not ahead of {other} beyond chance" in first
    assert "Beyond chance it beats text and majority class" in first
    assert "one seed is no measure of a head" in third


def test_the_class_that_fails_and_where_its_posts_go() -> None:
    heads = {"concat": [guess(1, 0.85, 0.2)], "weighted": [guess(2, 0.85, 0.2)]}
    _, second, third = told(find(study(heads)))
    assert second.startswith("The label neutral fails most, beyond chance: F1 0.")
    assert "calls 100% of the missed ones positive" in second
    assert "It is the rarest label, 10% of the training posts." in second
    assert "All 2 heads are wrong on" in second
    assert "another head of this kind will not mend them" in second
    assert "wrong labels among the neutral posts (mmsent audit)" in third


def test_no_class_is_accused_within_chance() -> None:
    truth_like = {"concat": [np.where(RNG.random(N) < 0.8, TRUTH, (TRUTH + RNG.integers(1, 3, N)) % 3)]}
    found = find(study(truth_like))
    low, clear = found.weakest
    _, second, _ = told(found)
    assert clear == second.startswith(f"The label {LABELS[low]} fails most")


def test_heads_that_do_not_beat_the_majority_are_sent_to_the_labels() -> None:
    found = find(study({"concat": [np.full(N, 2)]}))
    _, _, third = told(found)
    assert third.startswith("Next: no head is beyond chance ahead of the baselines, so check the labels first")


@pytest.mark.parametrize(("rise", "said"), [(0.05, "label more posts, "), (0.0, "whether more posts help is open: ")])
def test_more_posts_are_advised_where_the_curve_rises(rise: float, said: str) -> None:
    one = study({"concat": [guess(1, 0.85, 0.4), guess(2, 0.85, 0.4)]})
    curve = np.array([[0.6, 0.61, 0.59], [0.6 + rise, 0.61 + rise, 0.6 + rise]])
    vars(one)["curve"] = ([1000, 3000], curve)
    _, _, third = told(find(one))
    assert said in third
    assert "from 1,000 to 3,000 rows" in third


def test_the_first_screen_has_a_dot_for_every_seed_and_marks_the_best() -> None:
    found = find(study({"concat": [guess(1, 0.85), guess(2, 0.85), guess(5, 0.85)], "text": [guess(3, 0.6)]}))
    shown = overview(found)
    lines = {line.name: line for line in shown["lines"]}
    assert [line.name for line in shown["lines"]] == ["concat", "text", "majority class"]
    assert [len(lines[name].dots) for name in lines] == [3, 1, 1]
    assert [line.best for line in shown["lines"]] == [True, False, False]
    assert lines["text"].behind.endswith("beyond chance")
    assert all(0 <= place <= 100 for line in shown["lines"] for place in (*line.dots, line.low, line.mean, line.high))
    assert len(shown["sentences"]) == 3
    assert "Each dot is a seed (1 to 3 per head)" in shown["note"]


def test_a_baseline_is_scored_on_the_rows_of_the_heads() -> None:
    """Where it was scored on more rows, its score and its interval are those of the heads' rows."""
    one = study({"concat": [guess(1, 0.85)]})
    fewer = np.arange(100, N)
    cut = replace(one.evaluations[0], truth=TRUTH[fewer], positions=fewer, predicted=guess(1, 0.85)[fewer])
    one.evaluations[0] = replace(cut, probabilities=cut.probabilities[fewer])
    (baseline,) = find(one).baselines
    (seed,) = baseline.scored.seeds
    assert seed.scores["n"] == len(fewer)
    assert baseline.scored.f1 == pytest.approx(seed.scores["f1_weighted"])
    assert baseline.scored.interval == bootstrap_intervals(TRUTH[fewer], seed.predicted, 3)["f1_weighted"]


def test_numbers_of_the_axis_stand_apart() -> None:
    assert ticks(0.65, 1.0) == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert ticks(0.1, 1.0) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
