"""What a report says in words and tables, as plain values: no markup, nothing escaped. Both formats render these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsent.data.check_report import CheckReport
from mmsent.errors import MmsentError
from mmsent.evaluation.evaluate import BASELINES, baselines_first, paired, paired_table
from mmsent.inference.vote import Vote, vote_split
from mmsent.metrics import LEVEL
from mmsent.report.gallery import Row
from mmsent.report.language import listed, retold, say
from mmsent.report.naming import calibrated, defined, name_of, names, splits, unlike
from mmsent.report.picks import errors
from mmsent.report.study import Study, label_counts
from mmsent.system.provenance import origin
from mmsent.training.runs import Run

Rows = list[list[str]]

_RESIZED = {"shortest": "shortest side to {n}", "longest": "longest side to {n}", "squash": "both sides to {n}"}


@dataclass(frozen=True)
class Table:
    """Rows of cells, header first; align: `l` or `r` per column; marked: the row of `rows` to mark, 0 for none."""

    rows: Rows
    align: str
    marked: int = 0


def results(study: Study, best: str = "") -> tuple[Table, str]:
    """Scores of all runs and votes with intervals, and how to read them. best: the evaluation to mark, by name."""
    known = names(study)
    where = splits(study)
    header = ["head", *(["split"] if len(study.splits) > 1 else []), "rows", "accuracy", "weighted F1"]
    header = [*map(say, header), say("{level:.0%} interval", level=LEVEL), say("macro F1")]
    rows = [[*header, *(f"F1 {label}" for label in study.labels), "NLL", "Brier", "ECE", say("temperature")]]
    for e in baselines_first(study.evaluations):
        low, high = e.intervals["f1_weighted"]
        s = e.scores
        heat = f"{s['temperature']:.2f}" if s["temperature"] is not None else "–"
        cells = [name_of(e, known), str(s["n"]), f"{s['accuracy']:.3f}", f"{s['f1_weighted']:.3f}"]
        numbers = [s["f1_macro"], *s["f1_per_class"]]
        if len(study.splits) > 1:
            cells.insert(1, where.get(e.name, ""))
        rows.append(
            [*cells, f"{low:.3f}–{high:.3f}", *(f"{v:.3f}" for v in [*numbers, s["nll"], s["brier"], s["ece"]]), heat]
        )
    parts = [
        say("Intervals are bootstrap percentiles over the validation rows: they show how much a score would "
            "change with "
            "other rows, not with another training seed. Each head was kept at its best validation epoch, so "
            "these scores are a little optimistic. NLL (nats), Brier (0 to 2) and ECE are cross-fitted."),
        calibrated(study.runs),
    ]  # fmt: skip
    if len(study.splits) > 1:
        parts.insert(0, unlike(study))
    if any(e.fusion in BASELINES for e in study.evaluations):
        parts.append(
            say("Rows above the heads are not trained: the majority class gives every post the commonest label of the "
                "other training posts; zero-shot, where mmsent zero-shot was called, compares posts with prompts.")
        )  # fmt: skip
    note = say(" ").join(parts)
    order = [e.name for e in baselines_first(study.evaluations)]
    return Table(rows, "l" + "r" * (len(rows[0]) - 1), 1 + order.index(best) if best in order else 0), note


def pairs(study: Study) -> tuple[Table | None, Table | None, str]:
    """Paired tests against the best head, those of the other pairs, and how to read them."""
    known = names(study)
    found = sorted(paired(study.evaluations), key=lambda p: p.p_value)
    if not found:
        return None, None, ""
    called = {e.name: name_of(e, known) for e in study.evaluations}
    best = study.runs[study.best].name
    with_best = [p for p in found if best in (p.a, p.b)]
    others = [p for p in found if best not in (p.a, p.b)]
    chance = len(found) * (1 - LEVEL)
    note = say(
        "Each row compares two heads on the same validation rows; only rows that exactly one of them gets right "
        "count. With p below {p:.2f} they differ beyond chance; of {n} pairs about {chance:.1f} would fall below it by "
        "chance. The first table holds the pairs with the best head, {best}.",
        p=1 - LEVEL, n=len(found), chance=chance, best=known[best],
    )  # fmt: skip

    def table(pairs_: Sequence[Any]) -> Table | None:
        rows = paired_table(pairs_)
        rows = [[*map(say, rows[0])], *([called[r[0]], called[r[1]], *r[2:]] for r in rows[1:])]
        return Table(rows, "llrrrr") if len(rows) > 1 else None

    return table(with_best), table(others), note


def data(study: Study, report: CheckReport | None) -> tuple[Table, Table | None, str]:
    """Rows per split and label, the preflight's findings, and what was decided about encodings."""
    balance = label_counts(study.cache)
    columns = list(dict.fromkeys(name for counts in balance.values() for name in counts))
    rows = [[say("split"), say("rows"), *(say(name) if name == "no label" else name for name in columns)]]
    for split, counts in balance.items():
        rows.append([split, str(sum(counts.values())), *(str(counts.get(name, 0)) for name in columns)])
    table = Table(rows, "l" + "r" * (len(rows[0]) - 1))
    bad = {split: int((~study.cache.index(split).good).sum()) for split in study.cache.rows}
    quarantined = sum(bad.values())
    words = [
        say("{n} rows are quarantined in the cache because their image or text could not be read.", n=quarantined)
        if quarantined
        else say("No row is quarantined in the cache.")
    ]
    if report is None:
        words.append(say("The posts were not available, so they were not checked; name the data set with --data."))
        return table, None, say(" ").join(words)
    why = retold(report.encoding_why)
    words.append(say("Texts were read as {encoding} ({why}).", encoding=report.encoding, why=why))
    if n := report.lengths:
        limit = study.cache.settings.text.max_tokens
        cut = int((study.cache.index("train").tokens > limit).sum())
        lengths = {"unit": say(n.unit), "median": n.median, "p95": n.p95, "longest": n.longest}
        words.append(
            say("Text length in {unit}: median {median:g}, 95% {p95:g}, longest {longest}; {cut} training texts "
                "are longer than the encoder's {limit} tokens.", cut=cut, limit=limit, **lengths)
        )  # fmt: skip
    if not report.findings:
        return table, None, say(" ").join([*words, say("The check of the posts found no problems.")])
    found = [[*map(say, ("severity", "count", "finding", "description", "examples"))]]
    found += [
        [retold(f.severity), str(f.count), retold(f.kind), retold(f.message), ", ".join(f.examples)]
        for f in report.findings
    ]
    return table, Table(found, "lrlll"), say(" ").join(words)


def settings(study: Study) -> tuple[Table, Table]:
    """What made the cache, and what made each run."""
    cache = study.cache
    s = cache.settings
    rows = [[say("setting"), say("value")], [say("data set"), defined(cache)], [say("file"), cache.path.name]]
    rows.append([say("fingerprint"), cache.fingerprint])
    for half, card in (("image", s.image), ("text", s.text)):
        name = f"{card.library}:{card.name}" + (f":{card.tag}" if card.tag else "")
        rows.append([say("{what} encoder", what=say(half)), f"{name}, {card.width}-d, {card.precision}"])
        rows.append([say("{what} weights, SHA-256", what=say(half)), card.weights_sha256])
    pre = s.image.preprocess
    resized = say(_RESIZED.get(pre.resize, pre.resize), n=pre.resize_to)
    rows += [
        [say("images"), say(", ").join([f"{pre.size} × {pre.size}", resized, pre.interpolation])],
        [
            say("views"),
            say("{n} augmented views besides the clean one", n=s.views.count)
            + (say(", seed {seed}", seed=s.views.seed) if s.views.count else ""),
        ],
        [say("embeddings"), say("scaled to length 1") if s.normalize else say("raw")],
        [say("text cleaning"), ", ".join(s.clean) or say("none")],
        [say("text encoding"), s.text_encoding],
    ]
    fields = ["lr", "weight_decay", "warmup", "epochs", "patience", "batch_size", "hidden", "depth", "dropout"]
    fields += ["label_smoothing", "balance", "class_weight_power", "rms", "standardize", "modality_dropout", "views"]
    header = [say("setting"), *(names(study)[run.name] for run in study.runs)]
    about: Rows = [header, [say("run"), *(run.name for run in study.runs)]]
    about.append([say("recipe"), *(str(run.info["recipe"]) for run in study.runs)])
    about.append([say("seed"), *(str(run.fit.seed) for run in study.runs)])
    about += [[f.replace("_", " "), *(_plain(getattr(run.fit, f)) for run in study.runs)] for f in fields]
    about.append([say("best epoch"), *(str(run.info["best_epoch"]) for run in study.runs)])
    about.append([say("seconds"), *(f"{run.info['seconds']:.1f}" for run in study.runs)])
    about.append([say("split"), *(_split(run) for run in study.runs)])
    about.append([say("head, SHA-256"), *(run.info["head_sha256"][:16] + "…" for run in study.runs)])
    versions = [", ".join(f"{k} {v}" for k, v in run.info["versions"].items()) for run in study.runs]
    about.append([say("versions"), *versions])
    origins = [origin(run.info) for run in study.runs]
    about += [[say(name), *(retold(one[name]) for one in origins)] for name in origins[0]]
    return Table(rows, "ll"), Table(about, "l" * len(header))


def _plain(value: object) -> str:
    return (say("yes") if value else say("no")) if isinstance(value, bool) else f"{value}"


def _split(run: Run) -> str:
    split = run.split
    return say("{size:g}, {group} grouping, seed {seed}", size=split.val_size, group=split.group, seed=split.seed)


def agreement(study: Study) -> tuple[Table | None, str]:
    """How often two heads give the same label: share of rows and Cohen's kappa (1960)."""
    from sklearn.metrics import cohen_kappa_score

    if study.vote() is None:
        return None, say("Agreement can be shown only for two or more runs on the same validation rows.")
    known = names(study)
    found = {known[run.name]: study.evaluation(run).predicted for run in study.runs}
    rows = [[say("head"), *found]]
    for a, x in found.items():
        cells = []
        for b, y in found.items():
            kappa = 1.0 if np.array_equal(x, y) else float(cohen_kappa_score(x, y))
            cells.append("" if a == b else f"{(x == y).mean():.1%} ({kappa:.2f})")
        rows.append([a, *cells])
    voters = [known[run.name] for run in study.voters()]
    note = say("The vote counts {heads}. A vote helps only where heads disagree.", heads=listed(voters))
    return Table(rows, "l" + "r" * len(found)), note


def vote(study: Study) -> tuple[Table | None, str]:
    """The vote on the cached test split: how many posts get which label, and how many heads agree."""
    cache = study.cache
    if "test" not in cache.rows:
        return None, say("The cache holds no test posts; mmsent vote encodes and labels them.")
    try:
        found = vote_split(study.voters(), cache, "test")
    except MmsentError as error:
        return None, say("No vote on the test posts: {reason}.", reason=error)
    n = len(found.ids)
    known = names(study)
    opening = say("On the {n} test posts (this report never reads their labels)", n=n)
    if len(found.runs) == 1:
        only = found.runs[0]
        rows = [[say("label"), known[only.name]]]
        rows += [[k, f"{found.predicted.count(k)} ({found.predicted.count(k) / n:.1%})"] for k in found.labels]
        said = say("the labels of {head}; a vote needs at least two runs.", head=known[only.name])
        return Table(rows, "lr"), say("{opening}: {said}", opening=opening, said=said)
    rows = [[say("label"), say("vote"), *(known[run.name] for run in found.runs)]]
    for label in found.labels:
        counts = [found.predicted.count(label), *(choices.count(label) for choices in found.choices)]
        rows.append([label, *(f"{c} ({c / n:.1%})" for c in counts)])
    parts = [say("{opening}: {said}.", opening=opening, said=_agreeing(found))]
    if found.not_likeliest:
        parts.append(
            say("{n} got a label whose mean probability is not the highest, by a majority of less sure heads or by the "
                "rule; the table that mmsent vote writes says why.", n=found.not_likeliest)
        )  # fmt: skip
    note = say(" ").join([*parts, say("mmsent vote writes the labels.")])
    return Table(rows, "l" + "r" * (len(rows[0]) - 1)), note


def _agreeing(found: Vote) -> str:
    """How often the heads agree, in words."""
    n, heads = len(found.ids), len(found.runs)
    whole, tied = int((found.agreeing == heads).sum()), int(found.tied.sum())
    said = say("all {heads} heads agree on {n} posts ({share:.1%})", heads=heads, n=whole, share=whole / n)
    return said + (say("; {n} posts ({share:.1%}) have no majority", n=tied, share=tied / n) if tied else "")


def gallery(study: Study, limit: int) -> tuple[list[Row], str]:
    """Wrong predictions of the main head, the most confident first."""
    run = study.main
    found = study.evaluation(run)
    wrong = errors(found)
    beside = [r for r in study.runs if np.array_equal(study.evaluation(r).positions, found.positions)]
    known = names(study)
    rows = []
    for i in wrong[:limit].tolist():
        said = {known[r.name]: study.labels[int(study.evaluation(r).predicted[i])] for r in beside}
        shares = dict(zip(study.labels, map(float, found.probabilities[i]), strict=True))
        predicted = study.labels[int(found.predicted[i])]
        case_id = study.features.index.ids[int(found.positions[i])]
        rows.append(Row(case_id, study.labels[int(found.truth[i])], predicted, shares[predicted], shares, said))
    if not len(wrong):
        return [], say("All {n} validation rows are labelled correctly.", n=len(found.truth))
    counts = {"wrong": len(wrong), "n": len(found.truth), "limit": limit}
    parts = [
        say(
            "{wrong} of {n} validation rows are labelled wrongly; this list shows the {limit} most confident of them.",
            **counts,
        )
        if len(wrong) > limit
        else say("{wrong} of {n} validation rows are labelled wrongly; this list shows all of them.", **counts),
        calibrated([run]),
    ]
    if len(wrong) > limit:
        parts.append(
            say("The page /review of mmsent serve {run} shows the rest, to filter and to correct.", run=run.name)
        )
    return rows, say(" ").join(parts)
