"""Figures of results with their captions: labels, errors, confusion, confidence, features, reliability, agreement. A
caption says what its figure shows, and claims only what its interval allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsent.metrics import LEVEL, Labels, reliability
from mmsent.report.certainty import beyond_chance, gap_of_shares, mean_interval, median_interval, share, shown
from mmsent.report.figures import posts, results
from mmsent.report.language import listed, say
from mmsent.report.naming import names, title_of
from mmsent.report.picks import batch_of, errors, varied_errors
from mmsent.report.source import Made, Source
from mmsent.report.study import Unavailable, label_counts
from mmsent.training.calibration import softmax

PANELS = 12  # posts in a panel
EXAMPLE = ("a happy day", "positive")  # the coursework report's example of token importance
MANY = 5  # labels from which a caption names the extremes alone
UNSURE = 0.5


def labels(source: Source) -> Made:
    """Figure 3."""
    study = source.study
    balance = label_counts(study.cache)
    counts = balance.get("train", {})
    known = {name: counts[name] for name in study.labels if counts.get(name)}
    parts = []
    if len(known) > 1:
        most, least = max(known, key=lambda k: known[k]), min(known, key=lambda k: known[k])
        values = {"most": most, "least": least, "times": known[most] / known[least]}
        parts.append(say("{most} is {times:.1f} times as frequent as {least}.", **values))
        lead = known[most] / sum(known.values())
        parts.append(
            say("A head that always says {most} has an accuracy of {lead:.1%}, so accuracy alone flatters every "
                "head here; "
                "weighted and macro F1 do so less.", most=most, lead=lead)
            if lead >= UNSURE
            else say("A head that always says {most} has an accuracy of {lead:.1%}.", most=most, lead=lead)
        )  # fmt: skip
    bare = [say("{split} ({n:,} rows)", split=split, n=sum(found.values())) for split, found in balance.items()
            if not any(found.get(name) for name in study.labels)]  # fmt: skip
    if bare:
        parts.append(say("Without labels, and not drawn: {splits}.", splits=listed(bare)))
    return results.labels_figure(balance, study.labels), say(" ").join(parts)


def error_cases(source: Source) -> Made:
    """Figure 6."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = varied_errors(found, PANELS)
    if not chosen:
        raise Unavailable(say("run {name} labels all of its validation rows correctly", name=run.name))
    said = _confidence(found.probabilities, found.predicted)
    wrong = found.predicted != found.truth
    values = {
        "wrong": share(int(wrong.sum()), len(wrong)),
        "unsure": share(int((said[wrong] < UNSURE).sum()), int(wrong.sum())),
    }
    words = say(
        "{wrong} of the validation rows are labelled wrongly, {unsure} of these with a confidence below one half.",
        **values,
    )
    if (~wrong).any():
        both = {
            "wrong": shown(median_interval(said[wrong]), ".0%"),
            "right": shown(median_interval(said[~wrong]), ".0%"),
        }
        words += say(" ") + say("The median confidence of errors is {wrong}, of correct labels {right}.", **both)
    words += say(" ") + say(
        "Drawn are {n}, in turn from every pair of true and predicted label, at typical confidence; the frame has the "
        "colour of the true label. Read them: would you "
        "label them alike from the image, or from the text?", n=len(chosen),
    )  # fmt: skip
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, say("Error cases, {name}", name=title_of(run))), words


def _confidence(probabilities: NDArray[np.float64], predicted: Labels) -> NDArray[np.float64]:
    """The probability of each predicted label, (N,)."""
    return np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]


def confusion(source: Source) -> Made:
    """Figure 9."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    matrix = np.asarray(found.scores["confusion"])
    support = found.scores["support"]
    recall = {
        k: share(int(matrix[c, c]), n) if (n := int(support[c])) else say("no rows") for c, k in enumerate(study.labels)
    }
    if len(recall) >= MANY:
        recall = _extremes(recall, {k: matrix[c, c] / max(1, support[c]) for c, k in enumerate(study.labels)})
    words = say("Recall: {recall}.", recall=say(", ").join(f"{k} {v}" for k, v in recall.items()))
    off = matrix - np.diag(np.diag(matrix))
    if off.any():
        true, said = np.unravel_index(int(off.argmax()), off.shape)
        values = {"n": int(off.max()), "all": int(off.sum()), "true": study.labels[true], "said": study.labels[said]}
        words += say(" ") + say(
            "Most frequent confusion: {n} of {all} errors are {true} posts called {said}.", **values
        )
    return results.confusion_figure(found.truth, found.predicted, study.labels, title_of(run)), words


def _extremes(told: dict[str, str], values: dict[str, float]) -> dict[str, str]:
    """Of many labels the two with the lowest values and the one with the highest."""
    order = sorted(told, key=lambda k: values[k])
    return {k: told[k] for k in (*order[:2], order[-1])}


def confidence(source: Source) -> Made:
    """Figure 10."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    said = _confidence(found.probabilities, found.predicted)
    medians = {
        k: median_interval(said[found.predicted == c])
        for c, k in enumerate(study.labels)
        if (found.predicted == c).any()
    }
    told = {k: shown(v, ".0%") for k, v in medians.items()}
    if len(told) >= MANY:
        told = _extremes(told, {k: v[0] for k, v in medians.items()})
    words = say("Median confidence: {medians}.", medians=say(", ").join(f"{k} {v}" for k, v in told.items()))
    least = min(medians, key=lambda k: medians[k][0])
    if len(medians) > 1:
        apart = all(medians[least][2] < v[1] for k, v in medians.items() if k != least)
        words += say(" ") + (
            say("The head is least sure of {label}, beyond chance.", label=least)
            if apart
            else say("No label's confidence is below all others beyond chance.")
        )
    right = found.predicted == found.truth
    if right.any() and not right.all():
        from sklearn.metrics import roc_auc_score

        auc = float(roc_auc_score(right, said))
        words += say(" ") + say("A correct label is surer than a wrong one in {auc:.0%} of pairs.", auc=auc)
    figure = results.confidence_figure(
        found.probabilities, found.predicted, found.truth, study.labels, title_of(run), calibrated=run.calibrated
    )
    return figure, words


def pattern(source: Source) -> Made:
    """Figure 11."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    rows = batch_of(found)
    unsure = found.probabilities.max(axis=1) < UNSURE
    counts = {
        k: (int(unsure[found.truth == c].sum()), int((found.truth == c).sum())) for c, k in enumerate(study.labels)
    }
    told = {k: share(*n) for k, n in counts.items() if n[1]}
    if len(told) >= MANY:
        told = _extremes(told, {k: n[0] / max(1, n[1]) for k, n in counts.items()})
    words = say(
        "Each column is a post; one without a bright cell is a post on which the head is undecided. On all "
        "validation rows "
        "no label reaches one half for these shares: {told}.", told=say(", ").join(f"{k} {v}" for k, v in told.items()),
    )  # fmt: skip
    return results.pattern_figure(found.probabilities[rows], found.truth[rows], study.labels, title_of(run)), words


def grad_cam(source: Source) -> Made:
    """Figure 15."""
    return source.explained.pictures()


def words(source: Source) -> Made:
    """Figure 16."""
    text, target = EXAMPLE
    return source.explained.words(text, target) if target in source.study.labels else source.explained.own_words()


def calibration(source: Source) -> Made:
    """Reliability before and after calibration."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    if not run.calibrated:
        raise Unavailable(say("run {name} was trained before temperatures were recorded; fit it again", name=run.name))
    raw = softmax(study.trace(run).logits)
    figure = results.reliability_figure(
        reliability(found.truth, raw), reliability(found.truth, found.probabilities), title_of(run), run.temperature
    )
    at = np.arange(len(found.truth))
    loss = [-np.log(np.maximum(p[at, found.truth], 1e-12)) for p in (raw, found.probabilities)]
    less = mean_interval(loss[0] - loss[1])
    over = mean_interval(raw.max(axis=1) - (found.predicted == found.truth))
    parts = [
        say("As trained the head is surer than it is right, by {gap} on average.", gap=shown(over, ".1%"))
        if over[1] > 0
        else say(
            "As trained the head is less sure than it is right, by {gap} on average.",
            gap=shown((-over[0], -over[2], -over[1]), ".1%"),
        )
        if over[2] < 0
        else say(
            "As trained the head is neither too sure nor too unsure beyond chance: {gap}.", gap=shown(over, "+.1%")
        ),
        say("Calibration lowers the NLL by {less} nats, beyond chance.", less=shown(less))
        if less[1] > 0
        else say("Calibration does not lower the NLL beyond chance: {less} nats.", less=shown(less)),
        say("Each row's temperature is fitted on the other rows; new posts get the stored one, fitted on all of them."),
    ]
    return figure, say(" ").join(parts)


def text_length(source: Source) -> Made:
    """Accuracy by text length."""
    study = source.study
    known = names(study)
    main = known[study.main.name]
    alike = next(runs for runs in study.splits if study.main in runs)
    right = {known[run.name]: study.evaluation(run).predicted == study.evaluation(run).truth for run in alike}
    fusions = {known[run.name]: run.fusion.value for run in alike}
    lengths = study.lengths(study.evaluation(study.main).positions)
    short, long = lengths <= np.quantile(lengths, 0.2), lengths > np.quantile(lengths, 0.8)
    said = say("The band is the {level:.0%} Wilson interval of {main}'s accuracy.", level=LEVEL, main=main)
    if short.any() and long.any():
        hits = right[main]
        gap = gap_of_shares(int(hits[long].sum()), int(long.sum()), int(hits[short].sum()), int(short.sum()))
        values = {"main": main, "gap": shown(gap, "+.1%")}
        said = (
            say("On the longest fifth of the texts {main} is beyond chance less accurate than on the shortest: "
                "{gap}.", **values)
            if gap[2] < 0
            else say("On the longest fifth of the texts {main} is beyond chance more accurate than on the "
                     "shortest: {gap}.", **values)
            if gap[1] > 0
            else say("Long texts are neither harder nor easier for {main} beyond chance: longest fifth less "
                     "shortest {gap}.", **values)
        ) + say(" ") + said  # fmt: skip
    return results.length_figure(lengths.tolist(), right, fusions, say("tokens of the text encoder"), main), said


def agreement(source: Source) -> Made:
    """Accuracy by agreement of the heads."""
    study = source.study
    vote = study.vote()
    if vote is None:
        raise Unavailable(say("this figure needs two or more runs on the same validation rows"))
    voters = study.voters()
    choices = np.stack([study.evaluation(run).predicted for run in voters])
    agreeing = (choices == vote.predicted).sum(axis=0)
    right = vote.predicted == vote.truth
    whole = agreeing == len(voters)
    said = say("All {n} heads agree on {share:.1%} of the rows", n=len(voters), share=whole.mean())
    if whole.any():
        said += say(" and are right on {right} of these rows", right=share(int(right[whole].sum()), int(whole.sum())))
    said += say(".")
    if whole.any() and not whole.all():
        rest = (int(right[~whole].sum()), int((~whole).sum()))
        gap = gap_of_shares(int(right[whole].sum()), int(whole.sum()), *rest)
        values = {"rest": share(*rest), "gap": shown(gap, "+.0%")}
        said += say(" ") + (
            say(
                "Where they differ the vote is right on {rest}, beyond chance less, {gap}: a person should "
                "look there first.",
                **values,
            )
            if beyond_chance(gap) and gap[0] > 0
            else say("Where they differ the vote is right on {rest}, no less beyond chance: {gap}.", **values)
        )
    known = names(study)
    return results.agreement_figure(agreeing, right, [known[run.name] for run in voters]), said


def confident_errors(source: Source) -> Made:
    """The most confident errors."""
    study, run = source.study, source.study.main
    found = study.evaluation(run)
    chosen = errors(found)[:PANELS].tolist()
    if not chosen:
        raise Unavailable(say("run {name} labels all of its validation rows correctly", name=run.name))
    least = float(_confidence(found.probabilities, found.predicted)[chosen[-1]])
    said = say(
        "The wrong predictions with the highest confidence, {least:.0%} and more. Check their labels first: a "
        "wrong label is "
        "likeliest among these.", least=least,
    )  # fmt: skip
    cases = [study.case(found, i) for i in chosen]
    return posts.posts_figure(cases, study.labels, say("Most confident errors, {name}", name=title_of(run))), said
