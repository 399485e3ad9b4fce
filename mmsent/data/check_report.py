"""The report of `mmsent check`: findings, class balance and text lengths, as JSON or as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mmsent.system.tables import columns
from mmsent.system.words import singular

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 5  # of a finding, at most


@dataclass(frozen=True, slots=True)
class Finding:
    """All problems of one kind. examples: ids, or positions in a file where the loader found the problem."""

    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...]
    message: str


def finding_of(severity: Severity, kind: str, ids: Sequence[str], message: str) -> list[Finding]:
    """The finding on some posts, as a list; none where there are none."""
    return [Finding(severity, kind, len(ids), tuple(ids[:EXAMPLES]), message)] if ids else []


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of the texts, in tokens or in characters. cut: how many texts exceed `limit` tokens."""

    unit: Literal["tokens", "characters"]
    median: float
    p95: float
    longest: int
    limit: int | None = None
    cut: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_dataset` found. balance: split → label → rows. told: how the data set was read."""

    name: str
    layout: str
    balance: dict[str, dict[str, int]]
    encoding: str
    encoding_why: str
    with_bom: int
    lengths: Lengths | None
    findings: tuple[Finding, ...]
    told: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for json.dumps."""
        return asdict(self)

    def exit_status(self, strict: bool = False) -> int:
        """1 if there is an error, or under `strict` a warning; else 0."""
        failing = {"error", "warning"} if strict else {"error"}
        return int(any(finding.severity in failing for finding in self.findings))

    def table(self, width: int | None = None) -> str:
        """The report as plain text. width: of the terminal; messages are wrapped to it."""
        blocks = [columns(self._facts(), width=width)]
        if self.balance:
            names = list(dict.fromkeys(name for labels in self.balance.values() for name in labels))
            rows = [[split, *(str(labels.get(name, 0)) for name in names)] for split, labels in self.balance.items()]
            blocks.append(columns([["split", *names], *rows], right=range(1, len(names) + 1)))
        if self.told:
            blocks.append(columns([[singular(one)] for one in self.told], width=width))
        if self.findings:
            rows = [[f.severity, str(f.count), f.kind, singular(_with_examples(f))] for f in self.findings]
            blocks.append(columns([["severity", "count", "finding", ""], *rows], right=(1,), width=width))
        counts = Counter(finding.severity for finding in self.findings)
        blocks.append(", ".join(singular(f"{counts[s]} {s}s") for s in SEVERITIES))
        return "\n\n".join(blocks)

    def _facts(self) -> list[list[str]]:
        sizes = ", ".join(f"{sum(labels.values())} {split}" for split, labels in self.balance.items())
        bom = f"; {self.with_bom} with a byte order mark" if self.with_bom else ""
        facts = [
            [self.name, f"{self.layout} layout; posts: {sizes or 'none'}"],
            ["encoding", f"{self.encoding}: {self.encoding_why}{bom}"],
        ]
        if self.lengths:
            n = self.lengths
            cut = "" if n.limit is None else f"; {n.cut} cut at {n.limit}"
            facts.append(["text length", f"{n.unit}: median {n.median:g}, 95% {n.p95:g}, longest {n.longest}{cut}"])
        return facts


def _with_examples(finding: Finding) -> str:
    return finding.message + (f" (e.g. {', '.join(finding.examples)})" if finding.examples else "")
