"""What a report says in words and tables, as plain values: no markup, nothing escaped. Both formats render these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsent.data.check_report import CheckReport
from mmsent.errors import MmsentError
from mmsent.evaluation.evaluate import BASELINES, baselines_first, paired, paired_table
from mmsent.inference.vote import vote_split
from mmsent.metrics import LEVEL
from mmsent.report.study import Study, errors, label_counts
from mmsent.system.provenance import origin
from mmsent.training.runs import Run, calibration_note

Rows = list[list[str]]


@dataclass(frozen=True)
class Table:
    """Rows of cells, header first; align: `l` or `r` per column."""

    rows: Rows
    align: str


@dataclass(frozen=True)
class Card:
    """One wrong prediction in the gallery. heads: what the other heads say, in words."""

    id: str
    text: str
    truth: str
    predicted: str
    confidence: float
    heads: str
    picture: str | None


def short_name(run: Run) -> str:
    """A run by its fusion, and the seed where it is not 0."""
    return f"{run.fusion}" + (f" (seed {run.fit.seed})" if run.fit.seed else "")


def names(study: Study) -> dict[str, str]:
    """A short name for each run: its fusion where that is unique, else the folder's name."""
    short = [short_name(run) for run in study.runs]
    return {run.name: s if short.count(s) == 1 else run.name for run, s in zip(study.runs, short, strict=True)}


def splits(study: Study) -> dict[str, str]:
    """The letter of each run's validation split, by the run's name: A is the one that most runs share."""
    return {run.name: letter(i) for i, runs in enumerate(study.splits) for run in runs}


def letter(i: int) -> str:
    """A to Z, then numbers."""
    return chr(ord("A") + i) if i < 26 else str(i + 1)


def unlike(study: Study) -> str:
    """The warning for runs with different validation rows."""
    parts = ", ".join(f"{letter(i)}: {_count(len(runs), 'run')}" for i, runs in enumerate(study.splits))
    return (
        f"The runs have different validation rows (split {parts}), so scores of different splits cannot be compared; "
        "the best head is the best on split A."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def tiles(study: Study) -> list[dict[str, str]]:
    """The figures at the top of a page."""
    best = study.runs[study.best]
    found = study.evaluation(best)
    low, high = found.intervals["f1_weighted"]
    out = [
        {
            "name": "best head",
            "value": names(study)[best.name],
            "more": f"of {len(study.runs)} runs, by weighted F1 on validation rows"
            if len(study.splits) == 1
            else f"of the {_count(len(study.shared), 'run')} on split A, by weighted F1; {len(study.runs)} in all, on "
            f"{len(study.splits)} splits that cannot be compared",
        },
        {
            "name": "its weighted F1",
            "value": f"{found.scores['f1_weighted']:.3f}",
            "more": f"{LEVEL:.0%} interval {low:.3f} to {high:.3f}",
        },
    ]
    if voted := study.vote():
        low, high = voted.intervals["f1_weighted"]
        out.append(
            {
                "name": f"{voted.name}, weighted F1",
                "value": f"{voted.scores['f1_weighted']:.3f}",
                "more": f"{LEVEL:.0%} interval {low:.3f} to {high:.3f}",
            }
        )
    rows = best.info["rows"]
    return [
        *out,
        {"name": "rows", "value": f"{rows['train']:,} + {rows['val']:,}", "more": "training + validation"},
    ]


def results(study: Study) -> tuple[Table, str]:
    """Scores of all runs and votes with intervals, and how to read them."""
    known = names(study)
    where = splits(study)
    header = ["head", *(["split"] if len(study.splits) > 1 else []), "rows", "accuracy", "weighted F1"]
    header += [f"{LEVEL:.0%} interval", "macro F1"]
    rows = [[*header, *(f"F1 {label}" for label in study.labels), "NLL", "Brier", "ECE", "temperature"]]
    for e in baselines_first(study.evaluations):
        low, high = e.intervals["f1_weighted"]
        s = e.scores
        heat = f"{s['temperature']:.2f}" if s["temperature"] is not None else "–"
        cells = [known.get(e.name, e.name), str(s["n"]), f"{s['accuracy']:.3f}", f"{s['f1_weighted']:.3f}"]
        numbers = [s["f1_macro"], *s["f1_per_class"]]
        if len(study.splits) > 1:
            cells.insert(1, where.get(e.name, ""))
        rows.append(
            [*cells, f"{low:.3f}–{high:.3f}", *(f"{v:.3f}" for v in [*numbers, s["nll"], s["brier"], s["ece"]]), heat]
        )
    note = (
        "Intervals are bootstrap percentiles over the validation rows: they show how much a score would change with "
        "other rows, not with another training seed. Each head was kept at its best validation epoch, so these scores "
        f"are a little optimistic. NLL (nats), Brier (0 to 2) and ECE are cross-fitted; {calibration_note(study.runs)}."
    )
    if len(study.splits) > 1:
        note = f"{unlike(study)} {note}"
    if any(e.fusion in BASELINES for e in study.evaluations):
        note += (
            " Rows above the heads are not trained: the majority class gives every post the commonest label of the "
            "other training posts; zero-shot, where mmsent zero-shot was called, compares posts with prompts."
        )
    return Table(rows, "l" + "r" * (len(rows[0]) - 1)), note


def pairs(study: Study) -> tuple[Table | None, Table | None, str]:
    """Paired tests against the best head, those of the other pairs, and how to read them."""
    known = names(study)
    found = sorted(paired(study.evaluations), key=lambda p: p.p_value)
    if not found:
        return None, None, ""
    best = study.runs[study.best].name
    with_best = [p for p in found if best in (p.a, p.b)]
    others = [p for p in found if best not in (p.a, p.b)]
    chance = len(found) * (1 - LEVEL)
    note = (
        "Each row compares two heads on the same validation rows; only rows that exactly one of them gets right "
        f"count. With p below {1 - LEVEL:.2f} they differ beyond chance; of {len(found)} pairs about {chance:.1f} "
        "would fall below it by chance. "
    )
    note += f"The first table holds the pairs with the best head, {known[best]}."

    def table(pairs_: Sequence[Any]) -> Table | None:
        rows = paired_table(pairs_)
        rows = [rows[0], *([known.get(r[0], r[0]), known.get(r[1], r[1]), *r[2:]] for r in rows[1:])]
        return Table(rows, "llrrrr") if len(rows) > 1 else None

    return table(with_best), table(others), note


def data(study: Study, report: CheckReport | None) -> tuple[Table, Table | None, str]:
    """Rows per split and label, the preflight's findings, and what was decided about encodings."""
    balance = label_counts(study.cache)
    columns = list(dict.fromkeys(name for counts in balance.values() for name in counts))
    rows = [["split", "rows", *columns]]
    for split, counts in balance.items():
        rows.append([split, str(sum(counts.values())), *(str(counts.get(name, 0)) for name in columns)])
    table = Table(rows, "l" + "r" * (len(rows[0]) - 1))
    bad = {split: int((~study.cache.index(split).good).sum()) for split in study.cache.rows}
    quarantined = sum(bad.values())
    words = (
        f"{quarantined} rows are quarantined in the cache because their image or text could not be read. "
        if quarantined
        else "No row is quarantined in the cache. "
    )
    if report is None:
        return (
            table,
            None,
            words + "The posts were not available, so they were not checked; name the data set with --data.",
        )
    words += f"Texts were read as {report.encoding} ({report.encoding_why})."
    if n := report.lengths:
        limit = study.cache.settings.text.max_tokens
        cut = int((study.cache.index("train").tokens > limit).sum())
        words += (
            f" Text length in {n.unit}: median {n.median:g}, 95% {n.p95:g}, longest {n.longest}; "
            f"{cut} training texts are longer than the encoder's {limit} tokens."
        )
    if not report.findings:
        return table, None, words + " The check of the posts found no problems."
    found = [["severity", "count", "finding", "description", "examples"]]
    found += [[f.severity, str(f.count), f.kind, f.message, ", ".join(f.examples)] for f in report.findings]
    return table, Table(found, "lrlll"), words


def settings(study: Study) -> tuple[Table, Table]:
    """What made the cache, and what made each run."""
    cache = study.cache
    s = cache.settings
    rows = [["setting", "value"], ["data set", cache.definition], ["file", cache.path.name]]
    rows.append(["fingerprint", cache.fingerprint])
    for half, card in (("image", s.image), ("text", s.text)):
        name = f"{card.library}:{card.name}" + (f":{card.tag}" if card.tag else "")
        rows.append([f"{half} encoder", f"{name}, {card.width}-d, {card.precision}"])
        rows.append([f"{half} weights, SHA-256", card.weights_sha256])
    pre = s.image.preprocess
    rows += [
        ["images", f"{pre.size} × {pre.size}, {pre.resize} side to {pre.resize_to}, {pre.interpolation}"],
        [
            "views",
            f"{s.views.count} augmented views besides the clean one"
            + (f", seed {s.views.seed}" if s.views.count else ""),
        ],
        ["embeddings", "scaled to length 1" if s.normalize else "raw"],
        ["text cleaning", ", ".join(s.clean) or "none"],
        ["text encoding", s.text_encoding],
    ]
    fields = ["lr", "weight_decay", "warmup", "epochs", "patience", "batch_size", "hidden", "depth", "dropout"]
    fields += ["label_smoothing", "balance", "class_weight_power", "rms", "standardize", "modality_dropout", "views"]
    header = ["setting", *(names(study)[run.name] for run in study.runs)]
    about: Rows = [header, ["run", *(run.name for run in study.runs)]]
    about.append(["recipe", *(str(run.info["recipe"]) for run in study.runs)])
    about.append(["seed", *(str(run.fit.seed) for run in study.runs)])
    about += [[f.replace("_", " "), *(_plain(getattr(run.fit, f)) for run in study.runs)] for f in fields]
    about.append(["best epoch", *(str(run.info["best_epoch"]) for run in study.runs)])
    about.append(["seconds", *(f"{run.info['seconds']:.1f}" for run in study.runs)])
    about.append(["split", *(_split(run) for run in study.runs)])
    about.append(["head, SHA-256", *(run.info["head_sha256"][:16] + "…" for run in study.runs)])
    versions = [", ".join(f"{k} {v}" for k, v in run.info["versions"].items()) for run in study.runs]
    about.append(["versions", *versions])
    origins = [origin(run.info) for run in study.runs]
    about += [[name, *(one[name] for one in origins)] for name in origins[0]]
    return Table(rows, "ll"), Table(about, "l" * len(header))


def _plain(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value}"


def _split(run: Run) -> str:
    return f"{run.split.val_size:g}, {run.split.group} grouping, seed {run.split.seed}"


def agreement(study: Study) -> tuple[Table | None, str]:
    """How often two heads give the same label: share of rows and Cohen's kappa (1960)."""
    from sklearn.metrics import cohen_kappa_score

    if study.vote() is None:
        return None, "Agreement can be shown only for two or more runs on the same validation rows."
    known = names(study)
    found = {known[run.name]: study.evaluation(run).predicted for run in study.runs}
    rows = [["head", *found]]
    for a, x in found.items():
        cells = []
        for b, y in found.items():
            kappa = 1.0 if np.array_equal(x, y) else float(cohen_kappa_score(x, y))
            cells.append("" if a == b else f"{(x == y).mean():.1%} ({kappa:.2f})")
        rows.append([a, *cells])
    voters = [known[run.name] for run in study.voters()]
    note = f"The vote counts {', '.join(voters)}. A vote helps only where heads disagree."
    return Table(rows, "l" + "r" * len(found)), note


def vote(study: Study) -> tuple[Table | None, str]:
    """The vote on the cached test split: how many posts get which label, and how many heads agree."""
    cache = study.cache
    if "test" not in cache.rows:
        return None, "The cache holds no test posts; mmsent vote encodes and labels them."
    try:
        found = vote_split(study.voters(), cache, "test")
    except MmsentError as error:
        return None, f"No vote on the test posts: {error}."
    n = len(found.ids)
    known = names(study)
    opening = f"On the {n} test posts (this report never reads their labels)"
    if len(found.runs) == 1:
        only = found.runs[0]
        rows = [["label", known[only.name]]]
        rows += [[k, f"{found.predicted.count(k)} ({found.predicted.count(k) / n:.1%})"] for k in found.labels]
        return Table(rows, "lr"), f"{opening}: the labels of {known[only.name]}; a vote needs at least two runs."
    rows = [["label", "vote", *(known[run.name] for run in found.runs)]]
    for label in found.labels:
        counts = [found.predicted.count(label), *(choices.count(label) for choices in found.choices)]
        rows.append([label, *(f"{c} ({c / n:.1%})" for c in counts)])
    note = f"{opening}: {found.agreement_words()}. "
    if found.not_likeliest:
        note += (
            f"{_count(found.not_likeliest, 'post')} got a label whose mean probability is not the highest, by a "
            "majority of less sure heads or by the rule; the table that mmsent vote writes says why. "
        )
    note += "mmsent vote writes the labels."
    return Table(rows, "l" + "r" * (len(rows[0]) - 1)), note


def gallery(study: Study, picture: Any, limit: int) -> tuple[list[Card], str]:
    """Wrong predictions of the main head, the most confident first; picture: row id -> data URI or None."""
    run = study.main
    found = study.evaluation(run)
    wrong = errors(found)
    others = [r for r in study.runs if r is not run and np.array_equal(study.evaluation(r).positions, found.positions)]
    known = names(study)
    cards = []
    for i in wrong[:limit].tolist():
        case_id = study.features.index.ids[int(found.positions[i])]
        said = [f"{known[r.name]}: {study.labels[int(study.evaluation(r).predicted[i])]}" for r in others]
        cards.append(
            Card(
                case_id,
                study.text(case_id) or "",
                study.labels[int(found.truth[i])],
                study.labels[int(found.predicted[i])],
                float(found.probabilities[i, found.predicted[i]]),
                "; ".join(said),
                picture(case_id),
            )
        )
    if not len(wrong):
        return [], f"All {len(found.truth)} validation rows are labelled correctly."
    shown = f"the {limit} most confident of them" if len(wrong) > limit else "all of them"
    note = (
        f"{len(wrong)} of {len(found.truth)} validation rows are labelled wrongly; this list shows {shown}. "
        f"{calibration_note([run]).capitalize()}. The last line of each post gives the labels of the other heads."
    )
    return cards, note
