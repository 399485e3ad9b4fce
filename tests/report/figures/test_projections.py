from __future__ import annotations

import importlib.machinery
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.report.figures.projections import project
from mmsent.system import files

FEATURES = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)


class Mapper:
    """In place of UMAP: its points tell where numba may cache."""

    def __init__(self, **options: Any) -> None:
        self.seen = os.environ.get("NUMBA_CACHE_DIR", "")

    def fit_transform(self, values: Any) -> Any:
        return np.full((len(values), 2), bool(self.seen) and Path(self.seen).is_dir(), float)


@pytest.fixture
def umap(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("umap")
    module.UMAP = Mapper  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("umap", None, origin="/opt/packages/umap/__init__.py")
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # so that it comes back after the test
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return module


@pytest.mark.slow
def test_umap_keeps_neighbours_and_repeats_its_points() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(10 * group, 1, (20, 8)) for group in range(2)]).astype(np.float32)
    found, again = (project(features)["UMAP"] for _ in range(2))
    assert found is not None
    assert again is not None
    assert found.shape == (40, 2)
    assert found.tobytes() == again.tobytes()
    middles = found.reshape(2, 20, 2).mean(axis=1)
    nearest = np.linalg.norm(found[:, None] - middles, axis=2).argmin(axis=1)
    assert nearest.tolist() == 20 * [0] + 20 * [1]


@pytest.mark.parametrize("writable", [True, False])
def test_numba_has_somewhere_to_cache(
    umap: types.ModuleType, writable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In packages that are read-only for a user without a home it would refuse; else it finds a place by itself."""
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = project(FEATURES)["UMAP"]
    assert found is not None
    assert found.any() == (not writable)
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["mmsent-numba-"] * (not writable)
    files._until_the_end.close()  # as the process ends
    assert not list(tmp_path.iterdir())
