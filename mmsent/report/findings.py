"""What a report found: every head beside the baselines, and three sentences on what wins, what fails and what to do
next. A difference is claimed only where its interval, widened for the number of comparisons, leaves zero out.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.evaluation.evaluate import BASELINES, VOTE, Evaluation
from mmsent.evaluation.repeats import Repeated, ends, resampled
from mmsent.metrics import LEVEL, bootstrap_intervals, scores, wilson
from mmsent.report.certainty import share, shown
from mmsent.report.language import listed, say
from mmsent.report.naming import name_of, names
from mmsent.report.study import Study, growth, label_counts


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the comparison. name: as people read it; key: the evaluation's name; baseline: nothing was trained."""

    name: str
    key: str
    fusion: str
    scored: Repeated

    @property
    def baseline(self) -> bool:
        """Whether nothing was trained for it."""
        return self.fusion in BASELINES


@dataclass(frozen=True, eq=False)
class Findings:
    """entries: the best first, the baselines last; level: of the intervals of gaps, higher the more there are."""

    study: Study
    entries: Sequence[Entry]
    level: float

    @property
    def best(self) -> Entry:
        """The entry with the highest mean weighted F1 that was trained."""
        return self.entries[0]

    @functools.cached_property
    def behind(self) -> list[Entry]:
        """Those that the best is ahead of beyond chance."""
        return [e for e in self.entries[1:] if self.best.scored.gap(e.scored, self.level)[1] > 0]

    @property
    def rivals(self) -> list[Entry]:
        """Those that may be as good as the best."""
        return [e for e in self.entries[1:] if e not in self.behind]

    @property
    def baselines(self) -> list[Entry]:
        """What is not trained."""
        return [e for e in self.entries if e.baseline]

    @functools.cached_property
    def weakest(self) -> tuple[int, bool]:
        """The class with the lowest F1 of the best entry, and whether it is the lowest beyond chance."""
        mean, draws = self.best.scored.means["f1"], self.best.scored.draws["f1"]
        rows = np.asarray(self.best.scored.seeds[0].scores["support"])
        seen = [c for c in range(len(mean)) if rows[c]]
        low = min(seen, key=lambda c: mean[c])
        level = 1 - (1 - LEVEL) / max(1, len(seen) - 1)
        return low, all(ends(draws[:, c] - draws[:, low], level)[0] > 0 for c in seen if c != low)


def find(study: Study) -> Findings:
    """Bootstrap the heads on the split that most runs share, their vote and the baselines, over rows and seeds."""
    rows = study.evaluation(study.shared[0]).positions
    known = names(study)
    voted = [e for e in study.evaluations[len(study.runs) :] if e.fusion in (VOTE, *BASELINES)]
    chosen = [study.evaluation(run) for run in study.shared] + [cut for e in voted if (cut := _on(e, rows)) is not None]
    scored = resampled([study.seeds(e) for e in chosen])
    entries = [Entry(name_of(e, known), e.name, e.fusion, one) for e, one in zip(chosen, scored, strict=True)]
    entries.sort(key=lambda e: (e.baseline, -e.scored.f1))
    return Findings(study, entries, 1 - (1 - LEVEL) / max(1, len(entries) - 1))


def _on(found: Evaluation, rows: NDArray[np.int64]) -> Evaluation | None:
    """An evaluation on these rows alone; None where it lacks some."""
    at = np.flatnonzero(np.isin(found.positions, rows))
    if not np.array_equal(found.positions[at], rows):
        return None
    if len(at) == len(found.positions):
        return found
    truth, predicted, shares = found.truth[at], found.predicted[at], found.probabilities[at]
    given = (truth, predicted, shares.shape[1])
    scored: Any = {"scores": found.scores | scores(*given), "intervals": bootstrap_intervals(*given)}
    return replace(found, positions=rows, probabilities=shares, predicted=predicted, truth=truth, **scored)


def sentences(found: Findings) -> list[str]:
    """What wins and whether beyond chance; which class fails and why; what to do next."""
    return [winner(found), weakness(found), advice(found)]


def winner(found: Findings) -> str:
    """What scores highest, with its interval, and what it is beyond chance ahead of."""
    best, rivals, behind = found.best, found.rivals, found.behind
    low, high = best.scored.interval
    seeds = len(best.scored.seeds)
    mean = say(", the mean of {n} seeds", n=seeds) if seeds > 1 else ""
    opening = say(
        "The best is {name}: weighted F1 {f1:.3f}{mean} ({level:.0%} interval {low:.3f} to {high:.3f}).",
        name=best.name, f1=best.scored.f1, mean=mean, level=LEVEL, low=low, high=high,
    )  # fmt: skip
    parts = [opening]
    if rivals:
        gap, low, high = best.scored.gap(rivals[0].scored, found.level)
        shown = {"gap": gap, "low": low, "high": high, "next": rivals[0].name}
        ahead = say("It is not ahead of {names} beyond chance", names=listed([e.name for e in rivals]))
        parts.append(say("{ahead}: {next} is {gap:.3f} behind ({low:+.3f} to {high:+.3f}).", ahead=ahead, **shown))
    if behind:
        gap, low, high = best.scored.gap(behind[0].scored, found.level)
        shown = {"gap": gap, "low": low, "high": high, "next": behind[0].name}
        ahead = say("Beyond chance it beats {names}", names=listed([e.name for e in behind]))
        parts.append(say("{ahead}: {next} is {gap:.3f} behind ({low:+.3f} to {high:+.3f}).", ahead=ahead, **shown))
    return say(" ").join(parts)


def weakness(found: Findings) -> str:
    """The class with the lowest F1: by how much, where its posts go, and what speaks for a reason."""
    study, best = found.study, found.best.scored
    low, clear = found.weakest
    label, mean = study.labels[low], best.means
    least, most = best.interval_of(low)
    about = {"label": label, "f1": mean["f1"][low], "low": least, "high": most}
    opening = (
        say("The label {label} fails most, beyond chance: F1 {f1:.2f} ({low:.2f} to {high:.2f}).", **about)
        if clear
        else say("No class fails beyond chance; lowest is {label}, F1 {f1:.2f} ({low:.2f} to {high:.2f}).", **about)
    )
    matrix = np.sum([e.scores["confusion"] for e in best.seeds], axis=0)
    missed, false = matrix[low].copy(), matrix[:, low].copy()
    missed[low] = false[low] = 0
    parts = [opening]
    if missed.sum() >= false.sum() and missed.any():
        to = int(missed.argmax())
        shown = {"recall": mean["recall"][low], "label": label, "share": missed[to] / missed.sum()}
        parts.append(
            say("It finds {recall:.0%} of the {label} posts and calls {share:.0%} of the missed ones {to}.",
                to=study.labels[to], **shown)
        )  # fmt: skip
    elif false.any():
        source = int(false.argmax())
        shown = {"precision": mean["precision"][low], "label": label, "share": false[source] / false.sum()}
        parts.append(
            say("Of the posts it calls {label}, {precision:.0%} are; {share:.0%} of the others are {source}.",
                source=study.labels[source], **shown)
        )  # fmt: skip
    return say(" ").join([*parts, *_reasons(found, low)])


def _reasons(found: Findings, low: int) -> list[str]:
    """What the data say on why a class fails: how rare it is, and how many of its misses no head gets right."""
    study, out = found.study, []
    counts = [label_counts(study.cache)["train"].get(label, 0) for label in study.labels]
    label, part = study.labels[low], counts[low] / max(1, sum(counts))
    if counts[low] == min(counts) and counts.count(min(counts)) == 1:
        out.append(say("It is the rarest label, {share:.0%} of the training posts.", share=part))
    else:
        out.append(
            say("It is not for want of posts: {share:.0%} of the training posts are {label}.", share=part, label=label)
        )
    heads = [study.evaluation(run) for run in study.shared]
    truth = heads[0].truth
    missed = (found.best.scored.seeds[0].predicted != truth) & (truth == low)
    hits, n = int(np.all([e.predicted != truth for e in heads], axis=0)[missed].sum()), int(missed.sum())
    if len(heads) > 1 and n:
        values = {"share": share(hits, n), "heads": len(heads)}
        out.append(
            say("All {heads} heads are wrong on {share} of the posts it misses: another head of this kind will "
                "not mend them.", **values)
            if wilson(hits, n)[0] > 0.5
            else say("All {heads} heads are wrong on {share} of the posts it misses.", **values)
        )  # fmt: skip
    return out


def advice(found: Findings) -> str:
    """What to do next: check what no head learns, label posts, add seeds, look for wrong labels."""
    behind, best, parts = found.behind, found.best, []
    if any(e not in behind for e in found.baselines):
        return say(
            "Next: no head is beyond chance ahead of the baselines, so check the labels first (mmsent audit) and that "
            "images and texts belong together (mmsent check)."
        )
    label = found.study.labels[found.weakest[0]]
    parts.append(_more_posts(found.study, label))
    if len(best.scored.seeds) < 2:
        parts.append(say("one seed is no measure of a head: fit more (mmsent fit --fusion all --seed 1)"))
    elif rivals := [e for e in found.rivals if e.fusion != VOTE]:
        parts.append(
            say(
                "leave the choice between {names} alone, it is within chance",
                names=listed([e.name for e in [best, *rivals]]),
            )
        )
    parts.append(say("look for wrong labels among the {label} posts (mmsent audit)", label=label))
    return say("Next: {parts}.", parts=say("; ").join(part for part in parts if part))


def _more_posts(study: Study, label: str) -> str:
    """Whether more posts promise more: the gain over the last part of the learning curve, where it was drawn."""
    if "curve" not in vars(study) or (grown := growth(*study.curve)) is None or study.curve[1].shape[1] < 2:
        return ""
    a, b, gain = grown
    values = {"a": a, "b": b, "gain": shown(gain), "label": label}
    if gain[1] > 0:
        return say("label more posts, {label} ones first: from {a:,} to {b:,} rows F1 gains {gain}", **values)
    return say(
        "whether more posts help is open: from {a:,} to {b:,} rows F1 changes by {gain}, within chance",
        **values,
    )
