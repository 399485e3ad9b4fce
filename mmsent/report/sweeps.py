"""What a report says of a sweep that lies beside its runs: a section, and two figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmsent.report.content import Table
from mmsent.report.figures.sweeps import LEAST, importance_figure, parallel_figure
from mmsent.report.study import Study, Unavailable
from mmsent.sweep.results import Sweep, list_sweeps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    others = f" Older sweeps of this cache: {', '.join(one.name for one in found[1:])}." if found[1:] else ""
    ended = f"{done.name}: {done.outcomes} with the sampler {done.info['sampler']}; the score is the {done.measure}."
    note = f"{ended} {' '.join(done.says())}{others}"
    table, winners = done.table(), done.winners_table()
    names = len(table[0]) - 5
    return {
        "note": note,
        "table": Table(table, f"rr{'l' * names}rrr"),
        "winners": Table(winners, "lrrrrrrl"),
        "stopped": stopped,
    }


def trials(study: Study) -> tuple[Figure, str]:
    """Every trial of the newest sweep as a line. Raises Unavailable where too few are finished."""
    done = _newest(study)
    words = (
        f"Each line is one of the {len(done.trials)} trials of {done.name}; follow the bright lines to see which "
        f"settings score high. The score is the {done.measure}."
    )
    return parallel_figure(done.info["trials"], done.info["varied"], done.info["ranges"]), words


def importance(study: Study) -> tuple[Figure, str]:
    """How much each setting of the newest sweep matters. Raises Unavailable where too few trials are finished."""
    done = _newest(study)
    if not done.info["importances"]:
        raise Unavailable(f"the sweep {done.name} has too few finished trials to tell which settings matter")
    words = (
        f"The longer a bar, the more of the spread of scores that setting explains in the sweep {done.name}. A "
        "setting that was searched over a narrow range explains little here, even if it matters outside that range."
    )
    return importance_figure(done.info["importances"], len(done.finished)), words


def _newest(study: Study) -> Sweep:
    done = next(iter(sweeps_beside(study)), None)
    if done is None or len(done.finished) < LEAST:
        raise Unavailable("no sweep beside these runs has enough finished trials; mmsent sweep makes one")
    return done
