"""A small study for the tests of figures and pages: hostile posts, six runs, and their report. Made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure

from mmsent.cli.main import main
from mmsent.features.cache import Cache
from mmsent.report import figure_set, landscape
from mmsent.report.figures import projections
from tests.helpers.made import LABELS, make_picture, make_rows

NASTY = '<script>document.title="owned"</script> "quotes" & \'more\' </p><img src=x onerror=alert(1)> 情感 😀🎉'
SVG_NAME = "svg onload=alert(1) \"q\" 'p'.png"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def encoder_options(folder: Path) -> list[str]:
    """The options that name the encoders of the study in this folder."""
    weights = str(folder / "test_efficientnet.pt")  # a tower whose maps take a moment
    return ["--encoder", "offline", "--image-encoder", "timm:test_efficientnet", "--weights", weights, "--views", "0"]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set in a manifest, its cache and six runs. Some posts are hostile."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    (folder / "posts").mkdir()
    rows = []
    for i, (label, text) in enumerate([*make_rows(90, rng), *make_rows(12, rng)]):
        image = SVG_NAME if i == 0 else f"{i}.png"
        make_picture(label, 64, rng).save(folder / "posts" / image)
        if i % 9 == 0:  # so that hostile texts are among the errors
            text, label = f"{NASTY} {i}", LABELS[(LABELS.index(label) + 1) % 3]
        post_id = f'<b onclick="alert({i})">{i}' if i % 9 == 0 else f"post {i}"
        rows.append({"id": post_id, "image": image, "text": text, "label": label if i < 90 else None})
    manifest = folder / "posts" / "posts.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    where = ["--data", str(manifest), "--cache", str(folder / "cache")]
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), folder / "test_efficientnet.pt")
    assert run("extract", *where, *encoder_options(folder)) == 0
    fit = ["--runs", str(folder / "runs"), "--epochs", "3", "--val-size", "0.34", "--no-group"]
    assert run("fit", *where, *fit, "--fusion", "all") == 0
    with pytest.MonkeyPatch.context() as patch:  # UMAP compiles for many seconds, and has a test of its own
        patch.setattr(landscape, "umap_points", lambda *_: None)
        landscape.landscape(Cache.open(next((folder / "cache").glob("*.h5"))), [])
    return folder


@pytest.fixture(scope="session")
def figures() -> list[tuple[str, Figure]]:
    """Every figure that the session's report drew, by name."""
    return []


@pytest.fixture(scope="session")
def page(small: Path, figures: list[tuple[str, Figure]]) -> Iterator[Path]:
    """The report of the small runs; figures are collected on the way."""
    patch = pytest.MonkeyPatch()
    save = figure_set.save

    def collect(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
        figures.append((name, figure))
        return save(figure, folder, name)

    patch.setattr(figure_set, "save", collect)
    patch.setattr(projections, "umap_points", lambda values, seed: values[:, :2])
    arguments = ["--data", str(small / "posts" / "posts.jsonl"), "--cache", str(small / "cache")]
    assert run("report", *arguments, "--runs", str(small / "runs"), "--out", str(small / "report")) == 0
    patch.undo()
    return small / "report" / "report.html"
