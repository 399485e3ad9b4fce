"""Checking a data set before extraction: what it holds, what extraction would refuse, what would mislead training."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Clean, ExtractSettings, default
from mmsent.data.check_report import SEVERITIES, CheckReport, Finding, Lengths, Severity
from mmsent.data.dataset import Dataset, Post
from mmsent.data.duplicates import HASH_BITS, Pairs, joined, like_hashes, linked_groups, most_rows, perceptual_hash
from mmsent.data.encodings import Decoding
from mmsent.data.images import MENDED, image_hash, is_blank, is_mended, opened_rgb, read_image
from mmsent.data.readers.files import missing_images
from mmsent.data.reading import HARDLY_READ, OTHER_LANGUAGE, hardly_read
from mmsent.data.text import clean_text, says_nothing, text_hash
from mmsent.errors import DataError
from mmsent.system.process import cores

MIN_SIDE = 32  # pixels; a shorter side is smaller than one patch of most encoders
MAX_RATIO = 4.0  # side ratio; a square crop shows less than a quarter of a narrower image
RARE_CLASS = 0.05  # share of the labelled rows below which a class is too rare to trust its scores
EXAMPLES = 5
COMPARED = 100_000  # the most images that are compared with each other; the time grows with the square of their number
NO_LABEL = "no label"
FOREIGN_TEXTS = 0.05  # share of the texts from which on another encoder is recommended for foreign ones
FOREIGN_WAY = "for texts in other languages than English use `mmsent extract --encoder multilingual`"
HALF = "heads train on their other half (--fusion image and text on these alone)"
LIMIT = "; the limit is"  # part of the message about a file that is too large


@dataclass(frozen=True, slots=True)
class _Image:
    """What is known of one image after decoding. hash: empty if it could not be read; problem: the kind of problem that
    makes it unusable; perceptual_hash: empty for a blank image, which is a duplicate of none; mended: as
    `is_mended`."""

    hash: bytes = b""
    problem: str | None = None
    reason: str = ""
    width: int = 0
    height: int = 0
    blank: bool = False
    perceptual_hash: bytes = b""
    mended: bool = False


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
    images: list[_Image] = []
    told = {problem.post for problem in dataset.problems if problem.kind == "remote picture"}
    with ThreadPoolExecutor(workers or min(8, cores())) as pool:
        for post, image in zip(posts, pool.map(_decoded, posts), strict=True):
            images.append(image)
            if image.problem and post.id not in told:
                unusable.append((image.problem, post.id, image.reason))
            if progress:
                progress(1)
    text_hashes = [b"" if t is None or says_nothing(t) else text_hash(t) for t in texts]
    image_hashes = [b"" if image.blank else image.hash for image in images]
    balance = _balance(dataset)
    findings = [
        *_finding("error", "no posts", [] if posts else [dataset.root.name], "there is nothing to encode"),
        *_loader_findings(dataset),
        *_decoding_findings(dataset.decoding),
        *_unusable_findings(unusable, len(posts), missing_images(posts, dataset.root), dataset.half_reasons),
        *_text_findings(posts, texts),
        *_reading_findings(posts, texts, reader or tokenizer),
        *_image_findings(posts, images),
        *_duplicates("picture", posts, image_hashes),
        *_similar_images(posts, images),
        *_duplicates("text", posts, text_hashes),
        *_similar("text", "have the same words", posts, text_hashes, _text_groups(texts)),
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


def _finding(severity: Severity, kind: str, ids: Sequence[str], message: str) -> list[Finding]:
    return [Finding(severity, kind, len(ids), tuple(ids[:EXAMPLES]), message)] if ids else []


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


def _decoded(post: Post) -> _Image:
    try:
        raw = read_image(post.image)
    except DataError as error:
        problem = "picture too large" if LIMIT in str(error) else "missing picture"
        return _Image(problem=problem, reason=str(error))
    digest = image_hash(raw)
    try:
        with opened_rgb(raw) as image:
            width, height, blank, mended = image.width, image.height, is_blank(image), is_mended(image)
            known = b"" if blank else perceptual_hash(image).tobytes()
    except DataError as error:
        problem = "picture too large" if LIMIT in str(error) else "broken picture"
        return _Image(digest if raw else b"", problem, str(error))
    return _Image(digest, "", "", width, height, blank, known, mended)


def _decoding_findings(decoding: Decoding) -> list[Finding]:
    return [Finding("warning", "text encoding", 1, (), decoding.doubt)] if decoding.doubt else []


def _loader_findings(dataset: Dataset) -> list[Finding]:
    kinds: dict[tuple[Severity, str], list[tuple[str, str]]] = defaultdict(list)
    for problem in dataset.problems:
        kinds[problem.severity, problem.kind].append((problem.where, problem.message))
    return [
        finding
        for (severity, kind), found in kinds.items()
        for finding in _finding(severity, kind, [where for where, _ in found], found[0][1])
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
        for finding in _finding(
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
        for finding in _finding(
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
    return _finding("note", "empty text", empty, "the text is empty") + _finding("note", "bare text", bare, message)


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
        for finding in _finding(
            severity,
            kind,
            [post.id for post, why in zip(posts, odd, strict=True) if why == message],
            f"{message}; {FOREIGN_WAY}" if many else message,
        )
    ]


def _image_findings(posts: Sequence[Post], images: Sequence[_Image]) -> list[Finding]:
    decoded = [(post.id, image) for post, image in zip(posts, images, strict=True) if not image.problem]
    tiny = [i for i, image in decoded if min(image.width, image.height) < MIN_SIDE]
    blank = [i for i, image in decoded if image.blank]
    mended = [i for i, image in decoded if image.mended]
    narrow = [i for i, image in decoded if max(image.width, image.height) > MAX_RATIO * min(image.width, image.height)]
    crop = f"one side is more than {MAX_RATIO:g} times the other; a centre crop shows less than 1/{MAX_RATIO:g} of it"
    return [
        *_finding("warning", "tiny picture", tiny, f"the shorter side has fewer than {MIN_SIDE} pixels"),
        *_finding("note", "mended picture", mended, MENDED),
        *_finding("note", "blank picture", blank, "the whole picture has one colour"),
        *_finding("note", "narrow picture", narrow, crop),
    ]


def _duplicates(what: str, posts: Sequence[Post], hashes: Sequence[bytes], alike: str = "") -> list[Finding]:
    """Groups of exact duplicates: all, those in both splits, and those whose training rows have different labels.
    alike: for near-duplicates, what the members of a group have in common."""
    groups_by: dict[bytes, list[Post]] = defaultdict(list)
    for post, value in zip(posts, hashes, strict=True):
        if value:
            groups_by[value].append(post)
    groups = [group for group in groups_by.values() if len({post.id for post in group}) > 1]
    spanning = [group for group in groups if len({post.split for post in group}) > 1]
    disagreeing = [
        group for group in groups if len({post.label for post in group if post.split == "train"} - {None}) > 1
    ]
    rows = sum(map(len, groups))

    def names(found: list[list[Post]]) -> list[str]:
        return ["=".join(post.id for post in group[:3]) + "=…" * (len(group) > 3) for group in found]

    kind, groups_of = (f"{what}s", f"groups of {what}s") if alike else (f"identical {what}s", f"groups of one {what}")
    sharing = f"groups of different {what.split()[-1]}s that {alike}" if alike else f"groups that share one {what}"
    return [
        *_finding("note", kind, names(groups), f"{sharing}; {rows} rows in all"),
        *_finding(
            "warning", f"{what} in both splits", names(spanning), f"{groups_of} have rows in both train and test"
        ),
        *_finding("note", f"{what} with two labels", names(disagreeing), f"{groups_of} have different labels"),
    ]


def _similar_images(posts: Sequence[Post], images: Sequence[_Image]) -> list[Finding]:
    if len(images) > COMPARED:
        message = f"{len(images):,} pictures are too many to compare; only identical files were looked for"
        return _finding("note", "similar pictures", [""], message)
    try:
        groups = _image_groups(posts, images)
    except DataError:  # too many pairs
        return _finding("note", "similar pictures", [""], "too many pictures look alike to list them")
    return _similar("picture", "look alike", posts, [image.hash for image in images], groups)


def _image_groups(posts: Sequence[Post], images: Sequence[_Image]) -> list[int]:
    """The group of each image, by its perceptual hash, or by its bytes if it has none; -1: no image."""
    keys = [b"" if image.blank else image.perceptual_hash or image.hash for image in images]
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        if key:
            first.setdefault(key, i)
    hashed = [i for i in first.values() if images[i].perceptual_hash]
    pairs = like_hashes(
        np.array([list(images[i].perceptual_hash) for i in hashed], np.uint8).reshape(-1, HASH_BITS // 8)
    )
    where = np.array(hashed, np.int64)
    linked = Pairs(where[pairs.a], where[pairs.b], pairs.similarity)
    own = np.array([first.get(key, len(keys)) for key in keys], np.int64)
    groups, _ = joined(own, linked, [post.id for post in posts], most_rows(len(posts)))
    return [int(group) if key else -1 for group, key in zip(groups, keys, strict=True)]


def near_groups(dataset: Dataset, posts: Sequence[Post]) -> NDArray[np.int64]:
    """(N,) the group of each post: those whose images look alike or whose texts have the same words, also indirectly.
    A half that is missing or says nothing groups nothing."""
    images = [_decoded(post) for post in posts]
    pictures = np.array(_image_groups(posts, images), np.int64) + 1
    pictures[[image.blank or not image.hash for image in images]] = 0
    texts: list[str | None] = []
    for post in posts:
        try:
            texts.append(dataset.text_of(post))
        except DataError:
            texts.append(None)
    words = np.array(_text_groups(texts), np.int64) + 1
    return linked_groups(pictures.astype(np.uint64), words.astype(np.uint64))


def _text_groups(texts: Sequence[str | None]) -> list[int]:
    """The group of each text, by its letters and digits, ignoring case, links and mentions; -1: it has none."""
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
    """Groups of near-duplicates with at least two different contents, and those in both splits or with two labels."""
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
    none = [label for label in few if not counts[label]]
    alone = [label for label in few if counts[label]]
    found = _finding(
        "error", "class without rows", none, "no row to train on; add some, or leave it out of --labels"
    ) + (_finding("warning", "class of one row", alone, "it trains, and no row validates it; add some"))
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
