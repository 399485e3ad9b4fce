"""What a report says of honest selection: duplicates, cross-validations, and each opening of the test labels."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from mmsent.config import near_cosine
from mmsent.errors import DataError
from mmsent.evaluation.cross_validation import list_folds
from mmsent.evaluation.openings import LOG, read_openings
from mmsent.features.cache.groups import find_duplicates
from mmsent.report.content import Table
from mmsent.report.language import listed, say
from mmsent.report.study import Study

ROWS = 50_000  # beyond it comparing all rows takes minutes; `mmsent cache duplicates` does it all the same

_KEPT = {"near": "near-duplicates in {n} of {all} runs", "exact": "exact duplicates in {n} of {all} runs",
         "none": "nothing in {n} of {all} runs"}  # fmt: skip


def selection(study: Study) -> dict[str, dict[str, Any]]:
    """The three parts, each a note and a table (None where there is nothing to list)."""
    return {"duplicates": duplicates(study), "folds": folds(study), "openings": openings(study)}


def duplicates(study: Study) -> dict[str, Any]:
    """Groups of duplicates in the cache, exact and near."""
    cache = study.cache
    n = sum(cache.rows.values())
    if n > ROWS:
        note = say(
            "{n:,} rows are too many to compare with each other in a report; mmsent cache duplicates compares them.",
            n=n,
        )
        return {"note": note, "table": Table([[*map(say, ("same", "how", "groups"))]], "llr")}
    try:
        found = find_duplicates(cache)
    except DataError as error:  # the bound does not fit these features
        note = say("Not compared: {reason}.", reason=error)
        return {"note": note, "table": Table([[*map(say, ("same", "how", "groups"))]], "llr")}
    ways = {words: sum(run.split.group == group for run in study.runs) for group, words in _KEPT.items()}
    note = say(
        "Images count as near-duplicates from a cosine of {image:g} between their embeddings, texts from {text:g}. The "
        "validation splits keep together: {kept}.",
        image=near_cosine(cache.encoder, "near_image"), text=near_cosine(cache.encoder, "near_text"),
        kept=say(", ").join(say(words, n=count, all=len(study.runs)) for words, count in ways.items() if count),
    )  # fmt: skip
    header, *rows = found.table()
    return {
        "note": note,
        "table": Table([[*map(say, header)], *([say(row[0]), _how(row[1]), *row[2:]] for row in rows)], "llrrrrr"),
    }


def _how(words: str) -> str:
    """How duplicates are alike; the cosine stands in brackets."""
    how, _, number = words.removesuffix(")").partition(" (cosine ")
    return say(how) + (say(" (cosine {number})", number=number) if number else "")


def folds(study: Study) -> dict[str, Any]:
    """The cross-validations beside these runs."""
    folders = dict.fromkeys(run.home for run in study.runs)
    found = [one for folder in folders for one in list_folds(folder, study.cache)]
    if not found:
        return {
            "note": say("There is no cross-validation beside these runs; mmsent fit --folds 10 makes one."),
            "table": None,
        }
    header = ["head", "run", "folds", "kept together", "seed", "rows", "accuracy", "weighted F1", "macro F1"]
    rows = [[*map(say, header)]]
    for one in found:
        cells = [f"{v['mean']:.3f} ± {v['sd']:.3f}" for v in one.summary.values()]
        published = one.info.get("published")
        kept = say("as {file} has them", file=PurePath(published["path"]).name) if published else one.split.group.value
        about = [str(one.info["folds"]), kept, str(one.split.seed), str(one.info["rows"])]
        rows.append([one.fusion.value, one.name, *about, *cells])
    note = say(
        "Every post was labelled by a head that saw it neither in training nor in early stopping, so these scores do "
        "not have the optimism of a validation split. The heads themselves were not kept."
    )
    if stopped := [one.name for one in found if (one.info.get("published") or {}).get("scored") == "val"]:
        note += say(" ") + say(
            "Only {names} scored the posts on which the heads stopped, as the file has no others.",
            names=listed(stopped),
        )
    return {"note": note, "table": Table(rows, "llrlrrrrr")}


def openings(study: Study) -> dict[str, Any]:
    """Each opening of the data set's test labels that the logs beside these runs know."""
    found = read_openings([run.home for run in study.runs], study.cache)
    if not found:
        return {
            "note": say("The test labels were never opened: there is no entry in {log} beside these runs.", log=LOG),
            "table": None,
        }
    rows = [[*map(say, ("opened", "runs", "rows", "weighted F1", "command"))]]
    for one in found:
        scores = one.scores or {}
        said = "; ".join(f"{name}: {value['f1_weighted']:.3f}" for name, value in scores.items())
        names = ", ".join(run["name"] for run in one.runs)
        rows.append([one.time, names, str(one.rows), said or say("not finished"), " ".join(one.command)])
    note = say(
        "The test labels were opened {n} time(s), last at {time}. Choices made after the first opening are no longer "
        "independent of the test scores.", n=len(found), time=found[-1].time,
    )  # fmt: skip
    return {"note": note, "table": Table(rows, "llrll")}
