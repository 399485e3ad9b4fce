"""The audit's page: the posts whose labels are most likely wrong, worst first, in one file that loads nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import open_rgb, read_image, thumbnail_url
from mmsent.data.lists import write_text
from mmsent.errors import DataError
from mmsent.evaluation.audit import Audit
from mmsent.features.cache import Cache
from mmsent.report.gallery import THUMBNAIL, Row, gallery_json
from mmsent.report.page import render
from mmsent.version import __version__

CARDS, MORE = 400, 24


def write_gallery(audit: Audit, cache: Cache, dataset: Dataset | None, out: Path) -> Path:
    """Write `out`/audit.html: the marked rows and some of those that follow. dataset: None where the posts are not
    available; the page then has only ids and numbers."""
    shown = audit.suspects[: min(CARDS, 2 * audit.likely_wrong + MORE)]
    posts = {post.id: post for post in dataset.posts if post.split == "train"} if dataset else {}
    rows = [
        Row(
            one.id,
            one.given,
            one.suggested,
            one.p_suggested,
            {one.suggested: one.p_suggested, one.given: one.p_given},
            {},
            marked=one.likely_wrong,
        )
        for one in shown
    ]
    note = (
        f"Ranked by the out-of-fold probabilities of {', '.join(audit.sources)}, the most suspicious first. "
        f"{audit.in_words().capitalize()}. This page shows the first {len(rows)}. To a head, a hard post looks like a "
        "wrong label: read the post before you change its label."
    )
    gallery = gallery_json(
        rows,
        audit.labels,
        dataset,
        lambda name: _text(dataset, posts.get(name)),
        lambda name: _picture(posts.get(name)),
        order="listed",
        alone=True,
    )
    page = render(
        "audit.html",
        gallery,
        title=f"{cache.data_name} - mmsent audit",
        data_name=cache.data_name,
        encoder=cache.encoder,
        version=__version__,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        gallery=gallery,
        note=note,
    )
    return write_text(out / "audit.html", page)


def _text(dataset: Dataset | None, post: Post | None) -> str:
    try:
        return dataset.text_of(post) if dataset and post else ""
    except DataError:
        return ""


def _picture(post: Post | None) -> str | None:
    if post is None:
        return None
    try:
        return thumbnail_url(open_rgb(read_image(post.image)), THUMBNAIL)
    except DataError:
        return None
