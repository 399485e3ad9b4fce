"""What /metrics shows of new posts beside known ones, and that drift is seen there and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsent.config import FitSettings, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.features.cache import Cache
from mmsent.features.new_posts import NewPost
from mmsent.inference.abstain import Abstention
from mmsent.inference.distances import TrainingRows
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import LABELS, make_guid, make_picture, make_rows
from tests.helpers.tuned import tuned_world

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.monitoring import DISTANCES
from mmsent.serve.service import Service
from tests.serve.test_app import BASE, as_json

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"
N = 120


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("drift")
    cache = fake_cache(
        load_dataset(make_guid(folder / "posts", n_train=300, n_test=0, size=32)), folder / "cache", ["train"]
    )
    return fit(cache, folder / "runs", [FitSettings(epochs=5, lr=1e-2, hidden=16)], SplitSettings())


def service_of(runs: Sequence[Run], training: bool = True, **more: Any) -> Service:
    service = Service(runs, Limits(), opener=lambda _: fake_encoders(), **more)
    service.training = TrainingRows.of(Cache.open(Path(runs[0].info["cache"]["path"]))) if training else None
    return service


def posts_of(folder: Path, seed: int, *, invert: bool = False, words: str = "", label: str = "") -> list[NewPost]:
    """N new posts of the distribution that training posts were drawn from. invert: their images are negatives; words:
    stands in their texts' place; label: all are of this one."""
    rng = np.random.default_rng(seed)
    found = []
    for i, (own, text) in enumerate(make_rows(N if not label else 6 * N, rng)):
        if label in ("", own) and len(found) < N:
            image = make_picture(own, 32, rng)
            path = folder / f"{seed}-{i}.png"
            (Image.eval(image, lambda value: 255 - value) if invert else image).save(path)
            found.append(NewPost(str(i), words or text, path))
    return found


def metrics_of(service: Service, posts: Sequence[NewPost]) -> str:
    """What /metrics says once these posts were labelled."""
    with TestClient(create_app(service), base_url=BASE) as client:
        for start in range(0, len(posts), 50):
            part = [as_json(post) for post in posts[start : start + 50]]
            assert client.post("/predict", json={"posts": part}).status_code == 200
        return client.get("/metrics").text


def samples(text: str) -> dict[str, float]:
    return {key: float(value) for line in text.splitlines() if line[0] != "#" for key, value in [line.rsplit(" ", 1)]}


def watched(text: str, folder: Path) -> dict[str, str]:
    """What the how-to's script says of each thing."""
    script, shown = folder / "drift.py", folder / "metrics"
    script.write_text(
        DOCS.read_text(encoding="utf-8").split("```python\n# drift.py")[1].split("```")[0].partition("\n")[2]
    )
    shown.write_text(text)
    done = subprocess.run([sys.executable, script, shown.as_uri()], capture_output=True, text=True, check=True)
    return dict(line.split(":", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def service(runs: list[Run]) -> Service:
    return service_of(runs)


@pytest.fixture(scope="module")
def usual(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What /metrics says after N posts like those of the training set."""
    return metrics_of(service, posts_of(tmp_path_factory.mktemp("usual"), seed=1))


def test_new_posts_are_shown_beside_known_ones(service: Service, usual: str, runs: list[Run]) -> None:
    found = samples(usual)
    shares = {label: found[f'mmsent_posts_total{{label="{label}"}}'] for label in LABELS}
    assert sum(shares.values()) == N
    assert min(shares.values()) > 0
    validation = len(runs[0].validation_ids())
    assert sum(found[f'mmsent_reference_posts{{label="{label}"}}'] for label in LABELS) == validation > 20
    counts = ("post_confidence", "post_distance", "reference_confidence", "reference_distance")
    assert [found[f"mmsent_{name}_count"] for name in counts] == [N, N, validation, 300]
    assert service.training is not None
    near = float((service.training.own() <= DISTANCES[9]).sum())
    assert found[f'mmsent_reference_distance_bucket{{le="{DISTANCES[9]}"}}'] == near > 0
    assert found["mmsent_uncertain_total"] == 0


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({}, set()),
        ({"invert": True}, {"distance"}),
        ({"words": "zorg flib quonk"}, {"distance"}),
        ({"label": "neutral"}, {"labels"}),
    ],
    ids=["alike", "other images", "other texts", "one label"],
)
def test_drift_is_seen_where_posts_have_changed_alone(
    service: Service, tmp_path: Path, changed: dict[str, Any], seen: set[str]
) -> None:
    """By the script of the how-to as it stands there."""
    told = watched(metrics_of(service, posts_of(tmp_path, seed=2, **changed)), tmp_path)
    assert set(told) == {"distance", "confidence", "labels"}
    assert {what for what, said in told.items() if "DRIFT" in said} >= seen
    if not changed:
        assert not any("DRIFT" in said for said in told.values()), told


def test_the_alert_of_the_how_to_reads_what_there_is(usual: str) -> None:
    alert = DOCS.read_text(encoding="utf-8").split("```promql")[1].split("```")[0]
    names = {name for name in alert.replace("(", " ").replace(")", " ").replace("[", " ").split() if "mmsent_" in name}
    assert len(names) == 4
    assert all(f"\n{name}" in usual for name in names)


def test_labels_are_those_of_the_heads_whatever_is_answered(runs: list[Run], tmp_path: Path) -> None:
    """A service that leaves all posts to people counts the label that won."""
    never = Abstention(0.05, LABELS, 2.0, (), 50, 0, 0, 0.1, True)
    found = samples(metrics_of(service_of(runs, abstention=never), posts_of(tmp_path, seed=1)[:20]))
    counted = {key: n for key, n in found.items() if key.startswith("mmsent_posts_total")}
    assert set(counted) <= {f'mmsent_posts_total{{label="{label}"}}' for label in LABELS}
    assert sum(counted.values()) == found["mmsent_uncertain_total"] == found["mmsent_post_confidence_count"] == 20


def test_what_there_is_nothing_to_compare_with_is_left_out(runs: list[Run], tmp_path: Path) -> None:
    bare = Run(Path(shutil.copytree(runs[0].path, tmp_path / runs[0].name)), runs[0].info)
    (bare.path / "validation.csv").unlink()  # as in a folder from a hub, whose cache is elsewhere too
    text = metrics_of(service_of([bare], training=False), posts_of(tmp_path, seed=1)[:3])
    assert samples(text)["mmsent_post_confidence_count"] == 3
    assert "distance" not in text
    assert "reference" not in text


def test_distances_of_tuned_heads_are_the_encoders_own() -> None:
    world = tuned_world()
    service = Service(world.runs, Limits(), opener=lambda _: world.encoders)
    service.training = TrainingRows.of(world.cache)
    posts = [NewPost(post.id, world.data.text_of(post), post.image) for post in world.data.of("train")]
    found = samples(metrics_of(service, posts))
    assert found['mmsent_post_distance_bucket{le="0.02"}'] == found["mmsent_post_distance_count"] == len(posts)


def test_answers_do_not_tell_the_distance(service: Service, tmp_path: Path) -> None:
    with TestClient(create_app(service), base_url=BASE) as client:
        assert "distance" not in client.post("/predict", json=as_json(posts_of(tmp_path, seed=1)[0])).json()
