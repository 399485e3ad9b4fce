"""The grammar of counts."""

from __future__ import annotations

import pytest

from mmsent.system.words import singular


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 posts are left out", "1 post is left out"),
        ("only a is right on 1 posts, only b on 21 posts", "only a is right on 1 post, only b on 21 posts"),
        ("1 training rows have no label", "1 training row has no label"),
        ("0 of 1 runs repeat", "0 of 1 runs repeat"),
        ("0.1 rows, 1,1 rows, fold-1 rows, 2.1 posts are", "0.1 rows, 1,1 rows, fold-1 rows, 2.1 posts are"),
        ("states of text:1 texts", "states of text:1 texts"),
        ("1 pathways", "1 pathways"),
        ("no file Week 1 posts.csv", "no file Week 1 posts.csv"),
        (
            "run `mmsent extract --data 'Week 1 posts'` on 1 posts",
            "run `mmsent extract --data 'Week 1 posts'` on 1 post",
        ),
        ("Week 1 posts/a.jpg is one of 1 images.", "Week 1 posts/a.jpg is one of 1 images."),
        ("it holds 1 images.", "it holds 1 image."),
    ],
)
def test_one_is_singular(text: str, said: str) -> None:
    assert singular(text) == said
