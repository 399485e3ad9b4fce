"""What a report says of a sweep that lies beside its runs: a section, and two figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmsent.report.content import Table
from mmsent.report.figures.sweeps import LEAST, importance_figure, parallel_figure
from mmsent.report.language import say
from mmsent.report.study import Study, Unavailable
from mmsent.sweep.results import Sweep, list_sweeps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 50  # trials below which their importances are rough


def sweeps_beside(study: Study) -> list[Sweep]:
    """The finished sweeps of this cache beside the runs, the newest first."""
    folders = dict.fromkeys(run.home for run in study.runs)
    return [one for folder in folders for one in list_sweeps(folder, study.cache)]


def section(study: Study) -> dict[str, Any] | None:
    """The newest sweep in words, its best trials and its winners as tables; None where there is none."""
    found = sweeps_beside(study)
    if not found:
        return None
    done = found[0]
    stopped = len(done.trials) - len(done.finished)
    older = say(", ").join(one.name for one in found[1:])
    others = say(" ") + say("Older sweeps of this cache: {names}.", names=older) if older else ""
    counts = {"name": done.name, "n": len(done.trials), "finished": len(done.finished), "sampler": done.info["sampler"]}
    ended = say("{name}: {n} trials with the sampler {sampler}, {finished} finished.", **counts)
    note = f"{ended}{say(' ')}{say(' ').join(_says(done))}{others}"
    table, winners = done.table(), done.winners_table()
    names = len(table[0]) - 5
    return {
        "note": note,
        "table": Table([[*map(say, table[0])], *table[1:]], f"rr{'l' * names}rrr"),
        "winners": Table([[*map(say, winners[0])], *winners[1:]], "lrrrrrrl"),
        "stopped": stopped,
    }


def _says(done: Sweep) -> list[str]:
    """How reliable the result is, in sentences."""
    best, check, gain = done.best, done.best["check"], done.info["gain"]
    about = {"fusion": best["fit"]["fusion"], "number": best["number"], "score": best["score"], "se": best["se"]}
    lines = [say("Best: {fusion}, trial {number}, weighted F1 {score:.4f} with a standard error of {se:.4f}.", **about)]
    if done.within > 1:
        lines.append(
            say("{n} of {all} finished trials are within one standard error of it, so this sweep cannot rank them.",
                n=done.within, all=len(done.finished))
        )  # fmt: skip
    if check is not None:
        lines.append(
            say("Trained again on other splits, the same settings reach {mean:.4f} ± {se:.4f}; the best of many "
                "trials is partly luck, so expect this number.", mean=check["mean"], se=check["se"])
        )  # fmt: skip
    if done.is_recipe:
        lines.append(
            say("It is the recipe {recipe} itself: the search found nothing better.", recipe=done.info["recipe"])
        )
    elif gain is not None:
        verdict = {"more": say("clearly more"), "less": say("clearly less: keep the recipe")}.get(done.verdict)
        values = {"recipe": done.info["recipe"], "mean": gain["mean"], "se": gain["se"]}
        lines.append(
            say("Against the recipe {recipe} with the same fusion on the same splits: {mean:+.4f} ± {se:.4f}, "
                "{verdict}.",
                verdict=verdict or say("within chance"), **values)
        )  # fmt: skip
    return lines


def trials(study: Study) -> tuple[Figure, str]:
    """Every trial of the newest sweep as a line. Raises Unavailable where too few are finished."""
    done = _newest(study)
    best = done.best
    words = say(
        "Each line is one of {n} trials; follow the bright ones to see which settings score high. {within} of "
        "{finished} "
        "finished trials lie within one standard error ({se:.3f}) of the best, so differences among them mean little.",
        n=len(done.trials), within=done.within, finished=len(done.finished), se=best["se"],
    )  # fmt: skip
    return parallel_figure(done.info["trials"], done.info["varied"], done.info["ranges"]), words


def importance(study: Study) -> tuple[Figure, str]:
    """How much each setting of the newest sweep matters. Raises Unavailable where there are too few trials."""
    done = _newest(study)
    if not done.info["importances"]:
        raise Unavailable(say("the sweep {name} has too few trials to tell which settings matter", name=done.name))
    shares = done.info["importances"]
    most = max(shares, key=lambda name: shares[name])
    words = say(
        "{most} explains most of the spread of scores, {share:.0%} of what the settings explain. A setting that "
        "was searched over a narrow range explains little here, even if it matters outside that range.",
        most=most, share=shares[most],
    )  # fmt: skip
    if len(done.trials) < FEW:
        words += say(" ") + say("From {n} trials these shares are rough.", n=len(done.trials))
    return importance_figure(done.info["importances"]), words


def _newest(study: Study) -> Sweep:
    done = next(iter(sweeps_beside(study)), None)
    if done is None or len(done.finished) < LEAST:
        raise Unavailable(say("no sweep beside these runs has enough finished trials; mmsent sweep makes one"))
    return done
