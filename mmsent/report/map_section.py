"""The map of the posts as it stands in a report: frozen, with nothing to ask a service for."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmsent.report.gallery import as_script
from mmsent.report.landscape import landscape
from mmsent.report.language import listed, say
from mmsent.report.naming import names
from mmsent.report.study import Study

MOST = 20_000  # posts in a page; of more, a random part
TEXT = 140  # characters of a text that are shown
TEXTS = 1_000_000  # bytes of all texts in a page; where they are more, none is in it


def map_section(study: Study) -> tuple[str, str]:
    """The map of a study's cache as JSON that may stand in HTML, and how to read it. Predictions are the vote's."""
    voters = study.voters()
    found = landscape(study.cache, voters)
    rows = np.arange(len(found.ids))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    points: dict[str, Any] = found.to_json(rows.tolist())
    texts = [(study.text(one) or "")[:TEXT] for one in points["ids"]]
    if sum(len(text.encode("utf-8", "replace")) for text in texts) <= TEXTS:
        points["texts"] = texts
    known = names(study)
    words = [
        say("Predictions are those of {heads}; on training posts they are better than on new ones. The labels of test "
            "posts stay closed. A lasso shows which of the errors below lie in it.",
            heads=listed([known[run.name] for run in voters])),
    ]  # fmt: skip
    if len(rows) < len(found.ids):
        words.append(say("The map shows {n} of {all} posts, drawn at random.", n=len(rows), all=len(found.ids)))
    return as_script({"encoder": study.cache.encoder, "points": points}), say(" ").join(words)
