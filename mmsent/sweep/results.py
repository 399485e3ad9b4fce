"""A finished sweep, as its folder stores it: its trials, the best ones, and their scores on other splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsent.features.cache import Cache
from mmsent.system.files import write_together
from mmsent.system.records import Record, RecordKind
from mmsent.system.safe_csv import csv_text
from mmsent.training.runs import KEPT, WINNERS

FORMAT_VERSION = 1
SUMMARY, TABLE = "sweep.json", "trials.csv"
TOP = 10  # trials in a table
_KIND = RecordKind(
    file=SUMMARY,
    version=FORMAT_VERSION,
    needed=frozenset(
        {"trials", "winners", "varied", "cache", "folds", "checks", "baseline", "gain", "finished", "importances"}
    ),
    name="a finished sweep",
    made_by="`mmsent sweep` makes one",
    again="run `mmsent sweep` again",
)


@dataclass(frozen=True)
class Sweep(Record):
    """A finished sweep. trials: one record per trial that counts, by slot; winners: the best of each fusion, the best
    first, each with its check and the saved run's name."""

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The trials that count."""
        return list(self.info["trials"])

    @property
    def finished(self) -> list[dict[str, Any]]:
        """The trials that were not stopped early, best first."""
        done = [one for one in self.trials if one["score"] is not None]
        return sorted(done, key=lambda one: (-one["score"], one["slot"]))

    @property
    def outcomes(self) -> str:
        """How many trials ended how, in words, with the reason of the first that failed."""
        failed = [one for one in self.trials if one.get("problem")]
        finished, stopped = len(self.finished), len(self.trials) - len(self.finished) - len(failed)
        reason = f", {len(failed)} failed ({failed[0]['problem']})" if failed else ""
        return f"{len(self.trials)} trials, {finished} finished, {stopped} stopped early{reason}"

    @property
    def winners(self) -> list[dict[str, Any]]:
        """The best of each fusion, the best first."""
        return list(self.info["winners"])

    @property
    def fusions(self) -> list[str]:
        """The winners' fusions."""
        return [one["fit"]["fusion"] for one in self.winners]

    @property
    def best(self) -> dict[str, Any]:
        """The best trial's record among the winners."""
        return self.winners[0]

    @property
    def verdict(self) -> str:
        """Whether the best is clearly `more` or `less` than the recipe without a search, or "" within the noise."""
        gain = self.info["gain"]
        bound = _t_bound(len(gain["values"])) * gain["se"] if gain is not None else 0.0
        return "" if gain is None or abs(gain["mean"]) <= bound else "more" if gain["mean"] > 0 else "less"

    @property
    def is_recipe(self) -> bool:
        """Whether the best trial is the recipe itself, which every sweep tries first."""
        return bool(self.best["fit"] == (self.info["baseline"] or {}).get("fit"))

    def run_path(self, name: str) -> Path:
        """Where a winner's run lies; versions before kept them beside the sweep."""
        own = self.path / WINNERS / name
        return own if own.is_dir() else self.path.parent / name

    @property
    def within(self) -> int:
        """How many finished trials, itself included, lie within one standard error of the best."""
        bound = self.best["score"] - self.best["se"]
        return sum(one["score"] >= bound for one in self.finished)

    @property
    def measure(self) -> str:
        """The score in words."""
        if self.info["folds"]:
            return f"mean weighted F1 over {self.info['folds']} folds"
        return f"weighted F1 on {self.info['scored']} validation rows"

    @property
    def other_splits(self) -> str:
        """The splits that the best were repeated on, in words."""
        number = self.info["checks"]
        what = f"cut into {self.info['folds']} other folds" if self.info["folds"] else "other split"
        return f"{number} {what}{'' if number == 1 or self.info['folds'] else 's'}"

    def table(self, count: int = TOP) -> list[list[str]]:
        """The best trials, header first."""
        names = list(self.info["varied"])
        rows = [["rank", "trial", *names, "score", "s.e.", "epochs"]]
        for rank, one in enumerate(self.finished[:count], 1):
            values = [shown(one["params"][name]) for name in names]
            rows.append(
                [str(rank), str(one["number"]), *values, f"{one['score']:.4f}", f"{one['se']:.4f}", str(one["epochs"])]
            )
        return rows

    def winners_table(self) -> list[list[str]]:
        """The best of each fusion with their scores on other splits, header first."""
        rows = [["best", "trial", "score", "s.e.", "on other splits", "s.e.", "falls by", "run"]]
        for one in self.winners:
            check = one["check"]
            cells = ["", "", ""]
            if check is not None:
                cells = [f"{check['mean']:.4f}", f"{check['se']:.4f}", f"{one['score'] - check['mean']:+.4f}"]
            name = one["fit"]["fusion"]
            rows.append([name, str(one["number"]), f"{one['score']:.4f}", f"{one['se']:.4f}", *cells, one["run"]])
        if (plain := self.info["baseline"]) is not None and plain["check"] is not None:
            check = plain["check"]
            label = f"recipe {self.info['recipe']}, {plain['fit']['fusion']}"
            rows.append([label, "", "", "", f"{check['mean']:.4f}", f"{check['se']:.4f}", "", ""])
        return rows

    def says(self) -> list[str]:
        """How reliable the result is, in sentences."""
        best, total = self.best, len(self.finished)
        lines = [
            f"Best: {best['fit']['fusion']}, trial {best['number']}, {self.measure} {best['score']:.4f} with a "
            f"standard error of {best['se']:.4f}."
        ]
        if self.info.get("kept"):
            lines.append(f"{KEPT[0].upper()}{KEPT[1:]}.")
        if self.within > 1:
            lines.append(
                f"{self.within} of {total} finished trials are within one standard error of it, so this sweep cannot "
                "rank them."
            )
        if (check := best["check"]) is not None:
            fell = best["score"] - check["mean"]
            lines.append(
                f"Trained again on {self.other_splits}, the same settings reach {check['mean']:.4f} ± "
                f"{check['se']:.4f}, "
                f"{abs(fell):.4f} {'less' if fell >= 0 else 'more'}. The best of many trials is partly luck; expect "
                "the second number."
            )
        if self.is_recipe:
            lines.append(f"It is the recipe {self.info['recipe']} itself: the search found nothing better.")
        elif (gain := self.info["gain"]) is not None:
            verdict = f"clearly {self.verdict}" if self.verdict else "within the noise"
            if self.verdict == "less":
                keep = f"mmsent fit --recipe {self.info['recipe']} --fusion {best['fit']['fusion']}"
                verdict += f": keep the recipe (`{keep}`)" + (
                    "" if self.info["folds"] else ", or search with --folds 5"
                )
            lines.append(
                f"Against the recipe {self.info['recipe']} with the same fusion on the same splits: "
                f"{gain['mean']:+.4f} ± "
                f"{gain['se']:.4f}, {verdict}."
            )
        return lines


def _t_bound(count: int) -> float:
    """How many standard errors the mean of `count` values must be away from zero to differ from it at 95%: Student's
    t."""
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1))


def shown(value: Any) -> str:
    """A setting's value for a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_sweep(path: Path, info: dict[str, Any]) -> Sweep:
    """Write sweep.json and trials.csv. Raises DataError where they cannot be written."""
    names = list(info["varied"])
    columns = ("slot", "number", "stopped", "score", "se", "accuracy", "f1_macro", "epochs", "seconds", "problem")
    rows: list[Sequence[Any]] = [[*columns, *names]]
    rows += [[one.get(c) for c in columns] + [one["params"][name] for name in names] for one in info["trials"]]
    cells = [["" if cell is None else cell for cell in row] for row in rows]
    text = json.dumps({"format_version": FORMAT_VERSION, **info}, indent=1, ensure_ascii=False)
    write_together(
        {
            path / TABLE: csv_text(cells).encode("utf-8"),
            path / SUMMARY: text.encode("utf-8", "backslashreplace"),
        }
    )
    return open_sweep(path)


def open_sweep(path: Path) -> Sweep:
    """Read a sweep's folder. Raises RunError where it is none."""
    return Sweep(path, _KIND.read(path))


def list_sweeps(folder: Path, cache: Cache) -> list[Sweep]:
    """The readable finished sweeps of a cache in a folder, newest first."""
    return _KIND.newest_first(folder, open_sweep, cache.fingerprint, cache.data_name)
