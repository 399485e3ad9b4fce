"""The preflight: what is in a data set, what extraction would refuse, and what would mislead training."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mmsent.config import Clean, ExtractSettings, default
from mmsent.data.dataset import Dataset, Post
from mmsent.data.duplicates import HASH_BITS, Pairs, joined, like_hashes, most_rows, perceptual_hash
from mmsent.data.images import is_blank, open_rgb, read_picture
from mmsent.data.text import clean_text
from mmsent.errors import DataError
from mmsent.system.tables import columns

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MIN_SIDE = 32  # px; a shorter side holds less than one patch of most encoders
MAX_RATIO = 4.0  # side ratio; a square crop sees less than a quarter of such a picture
RARE_CLASS = 0.05  # share of the labelled rows below which a class is too rare to trust its scores
EXAMPLES = 5
COMPARED = 100_000  # pictures whose looks are compared with each other; the time grows with the square
NO_LABEL = "no label"
LIMIT = "; the limit is"  # how the reason of what is too large reads


@dataclass(frozen=True, slots=True)
class Finding:
    """All problems of one kind. `examples` are ids, or places in a file for what the loader found."""

    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts are, in tokens or in characters. `cut`: texts longer than `limit` tokens."""

    unit: Literal["tokens", "characters"]
    median: float
    p95: float
    longest: int
    limit: int | None = None
    cut: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the preflight found. `balance`: split → label → rows."""

    name: str
    layout: str
    balance: dict[str, dict[str, int]]
    encoding: str
    encoding_why: str
    with_bom: int
    lengths: Lengths | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for json.dumps."""
        return asdict(self)

    def exit_status(self, strict: bool = False) -> int:
        """1 if there is an error, or under `strict` a warning; else 0."""
        failing = {"error", "warning"} if strict else {"error"}
        return int(any(finding.severity in failing for finding in self.findings))

    def table(self, width: int | None = None) -> str:
        """The report as plain text. width: of the terminal; its messages are wrapped to it."""
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
        blocks = [columns(facts, width=width)]
        if self.balance:
            names = list(dict.fromkeys(name for labels in self.balance.values() for name in labels))
            rows = [[split, *(str(labels.get(name, 0)) for name in names)] for split, labels in self.balance.items()]
            blocks.append(columns([["split", *names], *rows], right=range(1, len(names) + 1)))
        if self.findings:
            rows = [
                [
                    f.severity,
                    str(f.count),
                    f.kind,
                    f.message + (f" (e.g. {', '.join(f.examples)})" if f.examples else ""),
                ]
                for f in self.findings
            ]
            blocks.append(columns([["severity", "count", "finding", ""], *rows], right=(1,), width=width))
        tally = Counter(finding.severity for finding in self.findings)
        blocks.append(", ".join(f"{tally[s]} {s}{'s' * (tally[s] != 1)}" for s in SEVERITIES))
        return "\n\n".join(blocks)


@dataclass(frozen=True, slots=True)
class _Picture:
    """What decoding one picture told: its hash (empty where unread), what bars its use, and its looks."""

    hash: bytes = b""
    bar: str | None = None
    reason: str = ""
    width: int = 0
    height: int = 0
    blank: bool = False
    looks: bytes = b""  # the perceptual hash; empty for a blank picture, which looks like any other


def check_dataset(
    dataset: Dataset,
    *,
    tokenizer: Callable[[Sequence[str]], Sequence[int]] | None = None,
    max_tokens: int | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Read every text and decode every picture of a data set that was loaded with strict=False.

    tokenizer: texts → number of tokens of each, uncut; max_tokens: where the encoder cuts. Without a tokenizer
    lengths are in characters. progress: called with the number of posts done since the last call.
    """
    posts = dataset.posts
    texts, barred = _texts(dataset)
    pictures: list[_Picture] = []
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for post, picture in zip(posts, pool.map(_look, posts), strict=True):
            pictures.append(picture)
            if picture.bar:
                barred.append((picture.bar, post.id, picture.reason))
            if progress:
                progress(1)
    text_hashes = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest() if t else b"" for t in texts]
    balance = _balance(dataset)
    findings = [
        *_finding("error", "no posts", [] if posts else [dataset.root.name], "there is nothing to encode"),
        *_loader_findings(dataset),
        *_unusable(barred, len(posts)),
        *_text_findings(posts, texts),
        *_picture_findings(posts, pictures),
        *_duplicates("picture", posts, [p.hash for p in pictures]),
        *_look_alike(posts, pictures),
        *_duplicates("text", posts, text_hashes),
        *_similar("text", "have the same words", posts, text_hashes, _alike_texts(texts)),
        *_class_findings(balance.get("train", {}), dataset.settings.labels),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    decoding = dataset.decoding
    return CheckReport(
        dataset.name,
        dataset.layout,
        balance,
        decoding.encoding,
        decoding.why,
        decoding.with_bom,
        _lengths([t for t in texts if t is not None], tokenizer, max_tokens),
        tuple(findings),
    )


def _finding(severity: Severity, kind: str, ids: Sequence[str], message: str) -> list[Finding]:
    return [Finding(severity, kind, len(ids), tuple(ids[:EXAMPLES]), message)] if ids else []


def _texts(dataset: Dataset) -> tuple[list[str | None], list[tuple[str, str, str]]]:
    """The text of each post, None where it has none that can be used, and (kind, id, reason) for those."""
    texts: list[str | None] = []
    barred: list[tuple[str, str, str]] = []
    for post in dataset.posts:
        try:
            texts.append(dataset.text_of(post))
        except DataError as error:
            texts.append(None)
            missing = post.text is None or isinstance(error.__cause__, OSError)
            kind = "missing text" if missing else "undecodable text"
            barred.append(("text too large" if LIMIT in str(error) else kind, post.id, str(error)))
    return texts, barred


def _look(post: Post) -> _Picture:
    try:
        raw = read_picture(post.image)
    except DataError as error:
        bar = "picture too large" if LIMIT in str(error) else "missing picture"
        return _Picture(bar=bar, reason=str(error))
    digest = hashlib.sha256(raw).digest()
    try:
        image = open_rgb(raw)
    except DataError as error:
        bar = "picture too large" if LIMIT in str(error) else "broken picture"
        return _Picture(digest if raw else b"", bar, str(error))
    blank = is_blank(image)
    looks = b"" if blank else perceptual_hash(image).tobytes()
    return _Picture(digest, width=image.width, height=image.height, blank=blank, looks=looks)


def _loader_findings(dataset: Dataset) -> list[Finding]:
    kinds: dict[tuple[Severity, str], list[tuple[str, str]]] = defaultdict(list)
    for problem in dataset.problems:
        kinds[problem.severity, problem.kind].append((problem.where, problem.message))
    return [
        finding
        for (severity, kind), found in kinds.items()
        for finding in _finding(severity, kind, [where for where, _ in found], found[0][1])
    ]


def _unusable(barred: Iterable[tuple[str, str, str]], n: int) -> list[Finding]:
    """Rows that extraction sets aside. It refuses when they pass its limit together, so then each kind is an error."""
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind, post_id, reason in barred:
        kinds[kind].append((post_id, reason))
    rows = len({post_id for found in kinds.values() for post_id, _ in found})
    limit = default(ExtractSettings, "max_bad")
    severity: Severity = "error" if rows > limit * n else "warning"
    limits = f"{rows / n:.1%} of the rows cannot be used; the limit is {limit:.0%}" if n else ""
    return [
        finding
        for kind, found in kinds.items()
        for finding in _finding(severity, kind, [post_id for post_id, _ in found], f"{found[0][1]}; {limits}")
    ]


def _text_findings(posts: Sequence[Post], texts: Sequence[str | None]) -> list[Finding]:
    empty: list[str] = []
    bare: list[str] = []
    for post, text in zip(posts, texts, strict=True):
        if text is None:
            continue
        stripped = clean_text(text, (Clean.links, Clean.mentions, Clean.retweet))
        if not text:
            empty.append(post.id)
        elif not any(c.isalnum() for c in stripped):
            bare.append(post.id)
    message = "nothing is left once links, mentions and punctuation are stripped"
    return _finding("note", "empty text", empty, "the text is empty") + _finding("note", "bare text", bare, message)


def _picture_findings(posts: Sequence[Post], pictures: Sequence[_Picture]) -> list[Finding]:
    seen = [(post.id, p) for post, p in zip(posts, pictures, strict=True) if not p.bar]
    tiny = [i for i, p in seen if min(p.width, p.height) < MIN_SIDE]
    blank = [i for i, p in seen if p.blank]
    narrow = [i for i, p in seen if max(p.width, p.height) > MAX_RATIO * min(p.width, p.height)]
    crop = f"one side is more than {MAX_RATIO:g} times the other; a centre crop sees less than 1/{MAX_RATIO:g} of it"
    return [
        *_finding("warning", "tiny picture", tiny, f"the short side is below {MIN_SIDE} pixels"),
        *_finding("note", "blank picture", blank, "the picture is one flat colour"),
        *_finding("note", "narrow picture", narrow, crop),
    ]


def _duplicates(what: str, posts: Sequence[Post], hashes: Sequence[bytes], alike: str = "") -> list[Finding]:
    """Groups of exact duplicates: all, those in both splits, and those whose training rows disagree on the label.
    alike: for near-duplicates, in which way the members of a group are."""
    groups_by: dict[bytes, list[Post]] = defaultdict(list)
    for post, value in zip(posts, hashes, strict=True):
        if value:
            groups_by[value].append(post)
    groups = [group for group in groups_by.values() if len({post.id for post in group}) > 1]
    spanning = [group for group in groups if len({post.split for post in group}) > 1]
    unsure = [group for group in groups if len({post.label for post in group if post.split == "train"} - {None}) > 1]
    rows = sum(map(len, groups))

    def names(found: list[list[Post]]) -> list[str]:
        return ["=".join(post.id for post in group[:3]) + "=…" * (len(group) > 3) for group in found]

    kind, groups_of = (f"{what}s", f"groups of {what}s") if alike else (f"identical {what}s", f"groups of one {what}")
    sharing = f"groups of different {what.split()[-1]}s that {alike}" if alike else f"groups that share one {what}"
    return [
        *_finding("note", kind, names(groups), f"{sharing}; {rows} rows in all"),
        *_finding("warning", f"{what} in both splits", names(spanning), f"{groups_of} span train and test"),
        *_finding("note", f"{what} with two labels", names(unsure), f"{groups_of} disagree on the label"),
    ]


def _look_alike(posts: Sequence[Post], pictures: Sequence[_Picture]) -> list[Finding]:
    if len(pictures) > COMPARED:
        message = f"{len(pictures):,} pictures are too many to compare how they look; only equal files were found"
        return _finding("note", "similar pictures", [""], message)
    try:
        groups = _alike_pictures(posts, pictures)
    except DataError:  # too many pairs
        return _finding("note", "similar pictures", [""], "so many pictures look alike that pairs say nothing here")
    return _similar("picture", "look alike", posts, [p.hash for p in pictures], groups)


def _alike_pictures(posts: Sequence[Post], pictures: Sequence[_Picture]) -> list[int]:
    """The group of each picture, by perceptual hash, or by its bytes where it has none; -1: no picture."""
    keys = [p.looks or p.hash for p in pictures]
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        if key:
            first.setdefault(key, i)
    hashed = [i for i in first.values() if pictures[i].looks]
    pairs = like_hashes(np.array([list(pictures[i].looks) for i in hashed], np.uint8).reshape(-1, HASH_BITS // 8))
    where = np.array(hashed, np.int64)
    linked = Pairs(where[pairs.a], where[pairs.b], pairs.similarity)
    own = np.array([first.get(key, len(keys)) for key in keys], np.int64)
    groups, _ = joined(own, linked, [post.id for post in posts], most_rows(len(posts)))
    return [int(group) if key else -1 for group, key in zip(groups, keys, strict=True)]


def _alike_texts(texts: Sequence[str | None]) -> list[int]:
    """The group of each text, by its letters and digits without links, mentions and case; -1: there are none."""
    numbers: dict[str, int] = {}
    out = []
    for text in texts:
        plain = clean_text(text or "", (Clean.links, Clean.mentions, Clean.retweet)).casefold()
        words = "".join(c for c in plain if c.isalnum())
        out.append(numbers.setdefault(words, len(numbers)) if words else -1)
    return out


def _similar(
    what: str, how: str, posts: Sequence[Post], hashes: Sequence[bytes], groups: Sequence[int]
) -> list[Finding]:
    """Groups of near-duplicates that hold at least two contents, and those in both splits or with two labels."""
    contents: dict[int, set[bytes]] = defaultdict(set)
    for value, group in zip(hashes, groups, strict=True):
        contents[group].add(value)
    keys = [b"%d" % g if g >= 0 and len(contents[g]) > 1 else b"" for g in groups]
    return _duplicates(f"similar {what}", posts, keys, how)


def _balance(dataset: Dataset) -> dict[str, dict[str, int]]:
    balance: dict[str, dict[str, int]] = {}
    for split in dataset.splits:
        found = Counter(post.label or NO_LABEL for post in dataset.posts if post.split == split)
        if split == "train":
            found.update(dict.fromkeys(dataset.settings.labels, 0))
        order = [*dataset.settings.labels, *sorted(set(found) - {*dataset.settings.labels, NO_LABEL}), NO_LABEL]
        balance[split] = {label: found[label] for label in order if label in found}
    return balance


def _class_findings(train: Mapping[str, int], labels: Sequence[str]) -> list[Finding]:
    if not train:
        return []
    counts = {label: train[label] for label in labels}
    few = [label for label, count in counts.items() if count < 2]
    message = "classes with fewer than 2 rows; training and validation need one each"
    found = _finding("error", "class without rows", few, message)
    total = sum(counts.values())
    smallest = min(counts, key=lambda label: counts[label])
    if few or not total:
        return found
    share = counts[smallest] / total
    message = f"{smallest!r} has {counts[smallest]} of {total} rows ({share:.1%}); watch macro F1 beside accuracy"
    if share < RARE_CLASS:
        found.append(Finding("warning", "rare class", 1, (), message))
    elif share * len(labels) < 0.5:  # less than half of an even share
        found.append(Finding("note", "uneven classes", 1, (), message))
    return found


def _lengths(
    texts: Sequence[str], tokenizer: Callable[[Sequence[str]], Sequence[int]] | None, limit: int | None
) -> Lengths | None:
    if not texts:
        return None
    sizes = sorted(map(len, texts) if tokenizer is None else tokenizer(texts))
    p95 = sizes[-(-95 * len(sizes) // 100) - 1]  # nearest rank
    if tokenizer is None:
        return Lengths("characters", statistics.median(sizes), p95, sizes[-1])
    cut = 0 if limit is None else sum(size > limit for size in sizes)
    return Lengths("tokens", statistics.median(sizes), p95, sizes[-1], limit, cut)
