"""ONNX and torch on all test posts of mvsa-single: heads alone, and with the offline encoders; and the hub folder.

The heads are trained on 400 posts, which is quick and as good for this purpose; MMSENT_MVSA_CACHE and MMSENT_MVSA_RUNS
may name others (a cache file or its folder, a folder of runs).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import mmsent
from mmsent.api import FeatureCache, Model
from mmsent.config import DataSettings
from mmsent.data.dataset import load_dataset
from mmsent.export.hub import open_runs
from mmsent.export.onnx_runtime import OnnxModel
from mmsent.features.cache import Cache
from mmsent.features.new_posts import NewPost
from mmsent.inference.predict import predict
from mmsent.inference.vote import Vote
from mmsent.serve.app import create_app
from mmsent.serve.limits import Limits
from mmsent.serve.service import Service

pytestmark = [pytest.mark.mvsa, pytest.mark.slow, pytest.mark.timeout(3000)]

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def cache(mvsa: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    if ready := os.environ.get("MMSENT_MVSA_CACHE"):
        return mmsent.open_cache(ready)
    root = tmp_path_factory.mktemp("mvsa") / "few"
    root.mkdir()
    (root / "data").symlink_to(mvsa.resolve() / "data")
    for name, lines in (("train.txt", 401), ("test_without_label.txt", 512)):
        kept = (mvsa / name).read_text().splitlines()[:lines]
        (root / name).write_text("\n".join(kept) + "\n")
    return mmsent.encode(root, encoder="offline", cache=root / "cache", views=0)


@pytest.fixture(scope="module")
def model(cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> Model:
    if ready := os.environ.get("MMSENT_MVSA_RUNS"):
        names = ("concat", "weighted", "attention")
        return mmsent.load(*(next(Path(ready).glob(f"*-{name}-s0")) for name in names))
    return mmsent.train_heads(cache, "vote", runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def vote(cache: FeatureCache, model: Model) -> Vote:
    found = model.vote(cache)
    assert len(found.ids) == 511
    return found


def differs(labels: list[str | None], probabilities: np.ndarray, vote: Vote, what: str) -> None:  # type: ignore[type-arg]
    worst = float(np.abs(probabilities - vote.probabilities).max())
    same = sum(a == b for a, b in zip(labels, vote.predicted, strict=True))
    print(f"{what}: {same} of {len(labels)} labels are the same, probabilities differ by {worst:.1e} at most")
    assert same == len(labels) == 511
    assert worst < TOLERANCE


def test_heads_alone(cache: FeatureCache, model: Model, vote: Vote, tmp_path: Path) -> None:
    onnx = OnnxModel.open(model.export(tmp_path / "heads"))
    rows = cache.arrays("test", all_rows=True)
    found = onnx.classify(rows.image, rows.text, contract=rows.contract)
    differs([onnx.labels[k] for k in found.labels], found.probabilities.astype(np.float64), vote, "heads as ONNX")
    for run, each in zip(model.runs, found.of_heads.swapaxes(0, 1), strict=True):
        alone = Model((run,)).vote(cache)
        chosen: list[str | None] = [onnx.labels[k] for k in each.argmax(axis=1)]
        differs(chosen, each.astype(np.float64), alone, f"{run.fusion} in the same graph")


def test_with_the_offline_encoders(mvsa: Path, cache: FeatureCache, model: Model, vote: Vote, tmp_path: Path) -> None:
    """Raw posts through the exported folder in a process that cannot import torch, through `mmsent predict`, the server
    and the API, against the vote over the cache."""
    folder = model.export(tmp_path / "all", with_encoder=True)
    dataset = load_dataset(mvsa, DataSettings.model_validate(Cache.open(cache.path).provenance["data_settings"]))
    posts = [NewPost(post.id, dataset.text_of(post), post.image) for post in dataset.of("test")]
    given = tmp_path / "posts.json"
    given.write_text(json.dumps([[post.id, post.text, str(post.image)] for post in posts]))
    code = f"""
import json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "torchvision", "transformers", "sentence_transformers", "timm"}}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from pathlib import Path
from mmsent.export.onnx_runtime import OnnxModel
from mmsent.features.new_posts import NewPost
posts = [NewPost(i, text, Path(image)) for i, text, image in json.loads(Path({str(given)!r}).read_text())]
found = OnnxModel.open({str(folder)!r}).predict(posts)
print(json.dumps([[post.label, list(post.probabilities.values()), post.heads] for post in found]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    onnx = np.array([row[1] for row in found])
    differs([row[0] for row in found], onnx, vote, "posts through ONNX, against the cache")
    for run, choices in zip(model.runs, vote.choices, strict=True):
        assert [row[2][run.name] for row in found] == choices
    torch = predict(posts, model.runs, device="cpu")
    numbers = np.array([list(post.probabilities.values()) for post in torch])
    differs([post.label for post in torch], numbers, vote, "posts through mmsent predict, against the cache")
    assert float(np.abs(numbers - onnx).max()) < TOLERANCE
    served = []
    with TestClient(
        create_app(Service(list(model.runs), Limits(), device="cpu")), base_url="http://127.0.0.1"
    ) as client:
        for start in range(0, len(posts), 32):
            part = posts[start : start + 32]
            files = [("image", (Path(str(post.image)).name, Path(str(post.image)).read_bytes())) for post in part]
            answer = client.post("/predict", files=files, data={"text": [post.text for post in part]})
            assert answer.status_code == 200, answer.text
            served += answer.json()["predictions"]
    heard = np.array([list(post["probabilities"].values()) for post in served])
    differs([post["label"] for post in served], heard, vote, "posts through the server, against the cache")
    few = posts[:64]
    again = model.predict([post.text for post in few], [post.image for post in few])
    assert [post.label for post in again] == [post.label for post in torch[:64]]
    anew = np.array([list(post.probabilities.values()) for post in again])
    assert float(np.abs(anew - numbers[:64]).max()) < 2e-6  # heads round otherwise with other numbers of rows


def test_the_hub_folder(cache: FeatureCache, model: Model, vote: Vote, tmp_path: Path) -> None:
    back = mmsent.load(model.export(tmp_path / "hub", "hf"))
    found = back.vote(cache)
    assert np.array_equal(found.probabilities, vote.probabilities)
    assert (found.predicted, found.choices) == (vote.predicted, vote.choices)
    assert [run.name for run in open_runs(tmp_path / "hub")] == [run.name for run in model.runs]
    print("hub folder: 511 rows bit-identical")
