"""Figures of a run that tunes blocks are made of what its own blocks give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.features.cache.states import load_states
from mmsent.inference.tuned import blocks_from, run_blocks
from mmsent.report import study as studies
from mmsent.report.figure_set import FIGURES
from mmsent.report.figures import projections
from mmsent.report.source import Source
from mmsent.report.study import Study, learning_curve, open_study
from mmsent.training.fit import Training, fit
from mmsent.training.train import train_head
from mmsent.training.tuning import TunedRows, padded
from tests.helpers.tuned import TUNED, tuned_world


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    world = tuned_world()
    wanted = [FitSettings(**TUNED, fusion=Fusion.attention_alt)]
    more = fit(
        world.cache, tmp_path_factory.mktemp("runs"), wanted, SplitSettings(), Training(blocks=blocks_from(world.cache))
    )
    return open_study([*world.runs, *more], world.cache, None)


def made(study: Study, name: str) -> tuple[Any, str]:
    (make,) = (make for one, _, make in FIGURES if one == name)
    return make(Source(study, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "fusion", "hidden"),
    [
        ("fused-concat", Fusion.concat, False),
        ("hidden-concat", Fusion.concat, True),
        ("fused-attention-alt", Fusion.attention_alt, False),
    ],
)
def test_projections_are_of_tuned_features(
    name: str, fusion: Fusion, hidden: bool, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, given = tuned_world(), []
    run = next(run for run in study.runs if run.fusion == fusion)
    monkeypatch.setattr(projections, "project", lambda features: given.append(features) or {})
    monkeypatch.setattr(projections, "projection_figure", lambda *_: None)
    _, caption = made(study, name)
    rows = study.evaluation(run).positions
    states, mask = padded(load_states(world.cache, "train", "text:1"), rows, "cpu")
    image, frozen = (torch.from_numpy(half) for half in (study.features.image[rows, 0], study.features.text[rows]))
    with torch.no_grad():
        own = run_blocks(run, world.encoders)(states, mask, frozen)
        wanted, other = (run.head().trace(image, text) for text in (own, frozen))
    wanted, other = (trace.hidden if hidden else trace.fused for trace in (wanted, other))
    np.testing.assert_allclose(given[0], wanted.numpy(), atol=1e-5)
    assert np.abs(given[0] - other.numpy()).max() > 0.01
    assert "The features come from the encoders with this run's own last blocks (text:1)." in caption


def test_traces_of_a_head_that_tunes_images() -> None:
    world, run = tuned_world(), tuned_world().image
    study = open_study([run], world.cache, None)
    rows = study.evaluation(run).positions
    states, mask = padded(load_states(world.cache, "train", "image:1"), rows, "cpu")
    image, text = (torch.from_numpy(half) for half in (study.features.image[rows, 0], study.features.text[rows]))
    with torch.no_grad():
        wanted = run.head().trace(run_blocks(run, world.encoders)(states, mask, image), text)
        frozen = run.head().trace(image, text)
    np.testing.assert_allclose(study.trace(run).fused, wanted.fused.numpy(), atol=1e-5)
    assert float((frozen.fused - wanted.fused).abs().max()) > 0.01


def test_captions_name_what_trains(study: Study) -> None:
    blocks = sum(values.numel() for values in study.runs[0].blocks().values())
    _, caption = made(study, "architecture")
    assert f"The last blocks of an encoder (text:1) train with it: {blocks:,} parameters more." in caption


def test_the_learning_curve_trains_blocks(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """One head per size, each with fresh blocks and the states of its own rows."""
    world, run, given = tuned_world(), study.runs[0], []

    def watched(train: TunedRows, val: TunedRows, *more: Any) -> Any:
        trained = train_head(train, val, *more)
        given.append((train, val, trained))
        return trained

    monkeypatch.setattr("mmsent.training.train.train_head", watched)
    sizes, scores = learning_curve(study, run, fractions=(0.5, 1.0))
    assert scores.shape == (2, 1)
    assert [len(train) for train, _, _ in given] == sizes
    held = study.evaluation(run).positions
    for train, val, trained in given:
        assert list(val.places) == list(held)
        assert not set(train.places) & set(held)
        assert train.labels.tolist() == study.features.index.labels[train.places].tolist()
        fresh = world.encoders
        assert any(
            not torch.equal(values, run_blocks(run, fresh).weights()[name]) for name, values in trained.blocks.items()
        )
    assert given[0][0].blocks is not given[1][0].blocks
    monkeypatch.setattr(studies, "learning_curve", lambda *_: (sizes, scores))
    figure, caption = made(study, "learning-curve")
    assert "one head per size tells no chance. 2 heads were trained for this figure." in caption
    assert "repeats" not in caption
    assert "one head per size" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
