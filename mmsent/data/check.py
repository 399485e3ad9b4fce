"""Checking a data set before extraction: what it holds, what extraction would refuse, what would mislead training."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mmsent.config import Clean, ExtractSettings, default
from mmsent.data.check_duplicates import duplicate_findings
from mmsent.data.check_images import LIMIT, ImageFacts, image_facts
from mmsent.data.check_report import SEVERITIES, CheckReport, Finding, Lengths, Severity, finding_of
from mmsent.data.dataset import Dataset, Post
from mmsent.data.encodings import Decoding
from mmsent.data.images import MENDED
from mmsent.data.readers.files import missing_images
from mmsent.data.reading import HARDLY_READ, OTHER_LANGUAGE, hardly_read
from mmsent.data.text import clean_text
from mmsent.errors import DataError
from mmsent.system.process import cores

MIN_SIDE = 32  # pixels; a shorter side is smaller than one patch of most encoders
MAX_RATIO = 4.0  # side ratio; a square crop shows less than a quarter of a narrower image
RARE_CLASS = 0.05  # share of the labelled rows below which a class is too rare to trust its scores
NO_LABEL = "no label"
FOREIGN_TEXTS = 0.05  # share of the texts from which on another encoder is recommended for foreign ones
FOREIGN_WAY = "for texts in other languages than English use `mmsent extract --encoder multilingual`"
HALF = "heads train on their other half (--fusion image and text on these alone)"


def check_dataset(
    dataset: Dataset,
    *,
    tokenizer: Callable[[Sequence[str]], Sequence[int]] | None = None,
    max_tokens: int | None = None,
    reader: Callable[[Sequence[str]], Sequence[int]] | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Read every text and decode every image of a data set that was loaded with strict=False.

    tokenizer: texts → the number of tokens of each before truncation; without it, lengths are in characters.
    max_tokens: where the encoder truncates. reader: what counts the tokens by which foreign texts are told, where it is
    not the tokenizer. progress: called with the number of posts done since the last call.
    """
    posts = dataset.posts
    texts, unusable = _texts(dataset)
    images: list[ImageFacts] = []
    told = {problem.post for problem in dataset.problems if problem.kind == "remote picture"}
    with ThreadPoolExecutor(workers or min(8, cores())) as pool:
        for post, image in zip(posts, pool.map(image_facts, posts), strict=True):
            images.append(image)
            if image.problem and post.id not in told:
                unusable.append((image.problem, post.id, image.reason))
            if progress:
                progress(1)
    balance = _balance(dataset)
    findings = [
        *finding_of("error", "no posts", [] if posts else [dataset.root.name], "there is nothing to encode"),
        *_loader_findings(dataset),
        *_decoding_findings(dataset.decoding),
        *_unusable_findings(unusable, len(posts), missing_images(posts, dataset.root), dataset.half_reasons),
        *_text_findings(posts, texts),
        *_reading_findings(posts, texts, reader or tokenizer),
        *_image_findings(posts, images),
        *duplicate_findings(posts, images, texts),
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
        dataset.told,
    )


def _texts(dataset: Dataset) -> tuple[list[str | None], list[tuple[str, str, str]]]:
    """The text of each post, None if it is unusable, and (kind, id, reason) for each unusable one."""
    texts: list[str | None] = []
    unusable: list[tuple[str, str, str]] = []
    for post in dataset.posts:
        try:
            texts.append(dataset.text_of(post))
        except DataError as error:
            texts.append(None)
            missing = post.text is None or isinstance(error.__cause__, OSError)
            kind = "missing text" if missing else "undecodable text"
            unusable.append(("text too large" if LIMIT in str(error) else kind, post.id, str(error)))
    return texts, unusable


def _decoding_findings(decoding: Decoding) -> list[Finding]:
    return [Finding("warning", "text encoding", 1, (), decoding.doubt)] if decoding.doubt else []


def _loader_findings(dataset: Dataset) -> list[Finding]:
    kinds: dict[tuple[Severity, str], list[tuple[str, str]]] = defaultdict(list)
    for problem in dataset.problems:
        kinds[problem.severity, problem.kind].append((problem.where, problem.message))
    return [
        finding
        for (severity, kind), found in kinds.items()
        for finding in finding_of(severity, kind, [where for where, _ in found], found[0][1])
    ]


def _unusable_findings(
    unusable: Sequence[tuple[str, str, str]], n: int, images: str, spared: set[str]
) -> list[Finding]:
    """Rows that extraction would quarantine. Each kind is an error if all together exceed extraction's limit, which
    does not count those that have one half and name no other (spared: the reasons that say so). images: where they
    are, if most are missing."""
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    times = Counter(post_id for _, post_id, _ in unusable)
    halves: dict[str, list[str]] = defaultdict(list)
    for kind, post_id, reason in unusable:
        if reason in spared and times[post_id] == 1:
            halves[reason].append(post_id)
        else:
            kinds[kind].append((post_id, reason))
    rows = len({post_id for found in kinds.values() for post_id, _ in found})
    limit = default(ExtractSettings, "max_bad")
    severity: Severity = "error" if rows > limit * n else "warning"
    limits = f"{rows / n:.1%} of the rows cannot be used; the limit is {limit:.0%} (extract --max-bad)" if n else ""
    return [
        finding
        for reason, ids in halves.items()
        for finding in finding_of(
            "note",
            f"posts with {reason}",
            ids,
            "; ".join(
                filter(None, [f"{len(ids) / n:.1%} of the rows name none", HALF, images if "picture" in reason else ""])
            ),
        )
    ] + [
        finding
        for kind, found in kinds.items()
        for finding in finding_of(
            severity,
            kind,
            [post_id for post_id, _ in found],
            "; ".join(filter(None, [found[0][1], limits, images if kind == "missing picture" else ""])),
        )
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
    message = "the text holds only links, mentions and punctuation"
    return finding_of("note", "empty text", empty, "the text is empty") + finding_of("note", "bare text", bare, message)


def _reading_findings(
    posts: Sequence[Post],
    texts: Sequence[str | None],
    tokenizer: Callable[[Sequence[str]], Sequence[int]] | None,
) -> list[Finding]:
    if tokenizer is None:
        return []
    odd = hardly_read([text or "" for text in texts], tokenizer)
    many = sum(map(bool, odd)) >= FOREIGN_TEXTS * len(texts)
    severity: Severity = "warning" if many else "note"
    return [
        finding
        for kind, message in (("foreign text", HARDLY_READ), ("foreign language", OTHER_LANGUAGE))
        for finding in finding_of(
            severity,
            kind,
            [post.id for post, why in zip(posts, odd, strict=True) if why == message],
            f"{message}; {FOREIGN_WAY}" if many else message,
        )
    ]


def _image_findings(posts: Sequence[Post], images: Sequence[ImageFacts]) -> list[Finding]:
    decoded = [(post.id, image) for post, image in zip(posts, images, strict=True) if not image.problem]
    tiny = [i for i, image in decoded if min(image.width, image.height) < MIN_SIDE]
    blank = [i for i, image in decoded if image.blank]
    mended = [i for i, image in decoded if image.mended]
    narrow = [i for i, image in decoded if max(image.width, image.height) > MAX_RATIO * min(image.width, image.height)]
    crop = f"one side is more than {MAX_RATIO:g} times the other; a centre crop shows less than 1/{MAX_RATIO:g} of it"
    return [
        *finding_of("warning", "tiny picture", tiny, f"the shorter side has fewer than {MIN_SIDE} pixels"),
        *finding_of("note", "mended picture", mended, MENDED),
        *finding_of("note", "blank picture", blank, "the whole picture has one colour"),
        *finding_of("note", "narrow picture", narrow, crop),
    ]


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
    none = [label for label in few if not counts[label]]
    alone = [label for label in few if counts[label]]
    found = finding_of(
        "error", "class without rows", none, "no row to train on; add some, or leave it out of --labels"
    ) + (finding_of("warning", "class of one row", alone, "it trains, and no row validates it; add some"))
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
