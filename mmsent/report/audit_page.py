"""The audit's page: the posts whose labels are most likely wrong, worst first, in one file that loads nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mmsent.data.dataset import Dataset, Post
from mmsent.data.images import open_rgb, read_image, thumbnail_url
from mmsent.data.lists import write_text
from mmsent.errors import DataError
from mmsent.evaluation.audit import LEAST, SHARE, Audit
from mmsent.features.cache import Cache
from mmsent.report.gallery import THUMBNAIL, Row, gallery_json
from mmsent.report.language import LANGUAGES, say, speaking
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
    gallery = gallery_json(
        rows,
        audit.labels,
        dataset,
        lambda name: _text(dataset, posts.get(name)),
        lambda name: _picture(posts.get(name)),
        order="listed",
        alone=True,
    )
    words = {}
    for spoken in LANGUAGES:  # the page has both, and a switch
        with speaking(spoken):
            words[spoken] = _words(audit, cache.encoder, len(rows))
    page = render(
        "audit.html",
        gallery,
        title=f"{cache.data_name} - mmsent audit",
        data_name=cache.data_name,
        version=__version__,
        gallery=gallery,
        words=words,
    )
    return write_text(out / "audit.html", page)


def _words(audit: Audit, encoder: str, shown: int) -> dict[str, str]:
    """What stands around the posts, in the language that is spoken."""
    how = say("estimated by changing {share} of all labels at random", share=f"{SHARE:.0%}")
    marked = audit.likely_wrong
    found = say(
        "No label is marked: fewer than {least} are wrong at every rank, {how}; the list is a ranking.",
        least=f"{LEAST:.0%}",
        how=how,
    )
    if marked:
        found = say(
            "{marked} of {n} labels are marked: {share} of them or more are wrong, {how}.",
            marked=marked,
            n=len(audit.suspects),
            share=f"{audit.suspects[marked - 1].precision:.0%}",
            how=how,
        )
    ranked = say(
        "Ranked by the out-of-fold probabilities of {runs}, the most suspicious first.",
        runs=say(", ").join(audit.sources),
    )
    rest = say(
        "This page shows the first {n}. To a head, a hard post looks like a wrong label: read the post before you "
        "change its label.",
        n=shown,
    )
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return {
        "encoder": say("with {encoder}", encoder=encoder),
        "title": say("Labels to look at first"),
        "note": " ".join([ranked, found, rest]),
        "written": say(
            "Written by mmsent {version} on {date}. This page loads nothing from a network.",
            version=__version__,
            date=date,
        ),
    }


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
