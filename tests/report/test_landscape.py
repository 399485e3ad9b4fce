"""The map of a cache: places that are kept, what is known of each post, and those most like it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.config import FitSettings, SplitSettings
from mmsent.features.cache import Cache
from mmsent.report import landscape as module
from mmsent.report.landscape import NONE, TEST, TRAIN, VALIDATION, landscape, place
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.inference.test_vote import QUICK, make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("map"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return fit(cache, tmp_path_factory.mktemp("runs"), [FitSettings(**QUICK)], SplitSettings(val_size=0.4))


@pytest.fixture(autouse=True)
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """numba compiles for seconds."""
    monkeypatch.setattr(module, "umap_points", lambda *_: None)


def test_every_post_has_a_place_and_what_is_known_of_it(cache: Cache, runs: list[Run]) -> None:
    found = landscape(cache, runs)
    train, test = cache.index("train"), cache.index("test")
    assert found.ids == [*train.ids, *test.ids]
    assert found.xy.shape == (50, 2)
    assert (found.xy.min(), found.xy.max(), found.method) == (0.0, 1.0, "PCA")
    held = set(runs[0].validation_ids())
    assert found.split.tolist() == [VALIDATION if i in held else TRAIN for i in train.ids] + [TEST] * 10
    assert found.label.tolist() == [*train.labels.tolist(), *[NONE] * 10]
    bad = [i for i, outcome in enumerate(test.outcome.tolist()) if outcome]
    assert [i for i, said in enumerate(found.predicted[40:].tolist()) if said == NONE] == bad
    assert set(found.predicted[found.predicted != NONE].tolist()) <= {0, 1, 2}
    told = json.loads(json.dumps(found.to_json()))
    assert np.frombuffer(base64.b64decode(told["x"]), np.float32).tolist() == found.xy[:, 0].tolist()
    assert list(base64.b64decode(told["split"])) == found.split.tolist()


def test_places_are_kept_beside_the_cache(cache: Cache, runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    first = landscape(cache, runs)

    def never(*_: Any) -> None:
        raise AssertionError("placed again")

    monkeypatch.setattr(module, "place", never)
    assert landscape(cache, []).xy.tolist() == first.xy.tolist()
    assert landscape(cache, []).predicted.tolist() == [NONE] * 50  # no runs, no predictions
    monkeypatch.undo()
    monkeypatch.setattr(module, "umap_points", lambda *_: None)
    kept = cache.path.with_suffix(".map.npz")
    for damage in (b"", b"no zip", kept.read_bytes()[:50]):
        kept.write_bytes(damage)
        assert landscape(cache, []).xy.tolist() == first.xy.tolist()


def test_the_most_similar_posts_by_hand(cache: Cache) -> None:
    found, features = landscape(cache, []), cache.load("train")
    unit = [
        half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12)
        for half in (features.image[:, 0], features.text)
    ]
    cosine = (unit[0] @ unit[0][3] + unit[1] @ unit[1][3]) / 2
    cosine[3] = -1
    near = found.near(3, 50)
    assert len(near) == 49
    assert 3 not in [row for row, _ in near]
    best = next((row, value) for row, value in near if row < 40)
    assert best == (int(cosine.argmax()), pytest.approx(float(cosine.max()), abs=1e-5))


def test_few_posts_have_places_too(tmp_path: Path) -> None:
    for n in (1, 2, 4):
        xy, method = place(np.eye(n, 6, dtype=np.float32))
        assert xy.shape == (n, 2)
        assert np.isfinite(xy).all()
        assert method == "PCA"
    xy, _ = place(np.ones((9, 4), np.float32))  # all alike
    assert np.isfinite(xy).all()
