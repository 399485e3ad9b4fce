"""The Python API: caches as arrays, datasets and tables, and the same answers as the command line."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmsent
from mmsent.api import FeatureCache, Model
from mmsent.cli.main import main
from mmsent.errors import CacheError, InputError, RunError, UsageError
from mmsent.features.cache import Cache
from mmsent.inference.vote import voting_runs
from tests.helpers.fake import fake_encoders
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
BAD = 7  # position in the training list of a post without a picture


@pytest.fixture(scope="module")
def patched() -> Any:
    """Every encoder is a fake."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("features.extract", "inference.predict", "api"):
            patch.setattr(f"mmsent.{module}.open_encoders", lambda settings: fake_encoders())
        yield patch


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, patched: Any) -> FeatureCache:
    folder = tmp_path_factory.mktemp("api")
    root = make_guid(folder / "posts", n_train=60, n_test=10, size=24)
    (root / "data" / f"{1 + BAD}.jpg").unlink()
    (root / "data" / "3.jpg").write_bytes((root / "data" / "2.jpg").read_bytes())
    with pytest.raises(mmsent.MmsentError, match="1 of 60"):  # the default takes one bad row in a hundred
        mmsent.encode(root, encoder="offline", cache=folder / "strict", views=2)
    return mmsent.encode(root, encoder="offline", cache=folder / "cache", views=2, max_bad=0.1)


@pytest.fixture(scope="module")
def model(cache: FeatureCache) -> Model:
    return mmsent.train_heads(cache, "vote", runs=cache.path.parent.parent / "runs", val_size=12, **QUICK)


def test_the_package_hands_out_its_names_late() -> None:
    code = """
import sys, mmsent
assert set(mmsent.__all__) <= set(dir(mmsent))
assert not [m for m in ("torch", "sklearn", "numpy", "h5py", "pandas") if m in sys.modules]
mmsent.open_cache, mmsent.train_heads
assert "torch" not in sys.modules and "sklearn" not in sys.modules
try:
    mmsent.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(mmsent, name) is not None for name in mmsent.__all__)
    # A name that is a submodule's too would change its meaning when that is imported.
    assert not [name for name in mmsent.__all__ if find_spec(f"mmsent.{name}")]


def test_errors_of_the_machine_are_mmsents(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mmsent.api.find_cache", refuse)
    with pytest.raises(mmsent.MmsentError, match="Too many open files"):
        mmsent.open_cache(cache.path)
    monkeypatch.setattr(type(cache.cache), "load", refuse)
    with pytest.raises(mmsent.MmsentError, match="Too many open files"):
        cache.arrays()


def test_arrays(cache: FeatureCache) -> None:
    stored = Cache.open(cache.path).load("train")
    rows = cache.arrays()
    keep = np.delete(np.arange(60), BAD)
    assert rows.ids.tolist() == [stored.index.ids[i] for i in keep]
    assert np.array_equal(rows.X, np.concatenate([stored.image[keep, 0], stored.text[keep]], axis=1))
    assert rows.y.tolist() == [cache.labels[k] for k in stored.index.labels[keep]]
    assert rows.good.all()
    assert (len(rows), cache.image_width, cache.text_width) == (59, 48, 32)
    whole = cache.arrays(views=True, all_rows=True)
    assert whole.image.shape == (60, 3, 48)
    assert whole.good.tolist() == [i != BAD for i in range(60)]
    assert whole.problems[BAD].startswith("no file ")
    assert np.array_equal(whole.X[keep], rows.X)
    test = cache.arrays("test")
    assert (test.target == -1).all()
    with pytest.raises(UsageError, match="10 of 10 rows have no label"):
        _ = test.y


def test_groups_keep_copies_together(cache: FeatureCache) -> None:
    groups, ids = cache.groups(), cache.arrays().ids.tolist()
    assert len(groups) == 59
    assert groups[ids.index("2")] == groups[ids.index("3")]
    assert len(set(groups.tolist())) == 58
    assert len(set(cache.groups(near=True).tolist())) <= 58


def test_a_torch_dataset(cache: FeatureCache) -> None:
    from torch.utils.data import DataLoader

    rows = cache.arrays(views=True)
    image, text, target = next(iter(DataLoader(cache.dataset(), batch_size=4)))
    assert image.shape == (4, 3, 48)
    assert torch.equal(image, torch.from_numpy(rows.image[:4]))
    assert torch.equal(text, torch.from_numpy(rows.text[:4]))
    assert target.tolist() == rows.target[:4].tolist()
    assert cache.dataset("test", views=False)[0][0].shape == (48,)


def test_a_table(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cache.table()
    assert table.index.name == "id"
    assert table.loc["1", "label"] in cache.labels
    assert table["good"].sum() == 59
    assert table.loc[str(1 + BAD), "problem"].startswith("no file ")
    assert cache.table("test")["label"].isna().all()
    wide = cache.table(embeddings=True)
    assert np.array_equal(wide.to_numpy(), cache.arrays().X)
    head = mmsent.FusionClassifier(epochs=1, random_state=0).fit(wide, cache.arrays().y)
    assert head.image_width_ == 48  # read off the columns
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        cache.table()


def test_open_cache_finds_one(cache: FeatureCache, tmp_path: Path) -> None:
    for where in (cache.path, str(cache.path.parent)):
        assert mmsent.open_cache(where).fingerprint == cache.fingerprint
    assert "60 train" in repr(cache)
    assert "48 + 32 wide" in repr(cache)
    with pytest.raises(CacheError, match="no cache"):
        mmsent.open_cache(tmp_path)


def test_training_is_that_of_the_command_line(cache: FeatureCache, model: Model, tmp_path: Path) -> None:
    flags = ["--cache", str(cache.path), "--runs", str(tmp_path), "--val-size", "12"]
    for name, value in QUICK.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *flags, "--fusion", "concat", "--fusion", "weighted", "--fusion", "attention"])
    assert not stopped.value.code
    theirs = {run.name.split("-")[2]: run for run in mmsent.load(*tmp_path.iterdir()).runs}
    assert len(model.runs) == 3
    for run in model.runs:
        other = theirs[run.fusion.value]
        assert run.info["head_sha256"] == other.info["head_sha256"]
        assert run.info["fit"] == other.info["fit"]
        assert run.info["split"] == other.info["split"]


def test_predict_vote_and_the_command_line_agree(
    cache: FeatureCache, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = cache.path.parent.parent / "posts"
    ids = cache.arrays("test").ids.tolist()
    texts = [(root / "data" / f"{i}.txt").read_text(encoding="utf-8") for i in ids]
    found = model.predict(texts, [root / "data" / f"{i}.jpg" for i in ids], ids=ids)
    vote = model.vote(cache)
    assert [post.label for post in found] == vote.predicted
    given = np.array([list(post.probabilities.values()) for post in found])
    assert given == pytest.approx(vote.probabilities, abs=1e-6)
    manifest = tmp_path / "new.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text"])
        writer.writerows([i, root / "data" / f"{i}.jpg", text] for i, text in zip(ids, texts, strict=True))
    with pytest.raises(SystemExit):
        main(["predict", *(str(run.path) for run in model.runs), "--manifest", str(manifest)])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["id"] for row in rows] == ids
    assert [row["predicted"] for row in rows] == vote.predicted
    shown = np.array([[float(row[f"p_{name}"]) for name in cache.labels] for row in rows])
    assert shown == pytest.approx(given, abs=1e-6)
    assert {e.fusion for e in model.evaluate(cache)} == {
        *("majority", "concat", "weighted", "attention", "vote", "soft vote")
    }


def test_every_form_of_a_picture_is_the_same_picture(cache: FeatureCache, model: Model) -> None:
    path = cache.path.parent.parent / "posts" / "data" / "5.jpg"
    opened = Image.open(path)
    forms: list[Any] = [str(path), path, path.read_bytes(), opened, np.asarray(opened), opened.copy()]
    found = model.predict(["a happy day"] * len(forms), forms)
    first, *others = [list(post.probabilities.values()) for post in found]
    for other in others:  # the place in a batch may move the last bits
        assert other == pytest.approx(first, abs=1e-6)
    assert [post.id for post in found] == ["0", "1", "2", "3", "4", "5"]
    one = model.predict("a happy day", opened)
    assert one[0].probabilities == pytest.approx(found[0].probabilities, abs=1e-6)
    turned = opened.copy()
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.info["exif"] = exif.tobytes()
    upright = model.predict("a happy day", opened.transpose(Image.Transpose.ROTATE_180))
    assert model.predict("a happy day", turned)[0].probabilities == upright[0].probabilities
    cmyk = model.predict("a happy day", opened.convert("CMYK"))
    assert cmyk[0].probabilities == pytest.approx(found[0].probabilities, abs=1e-6)


def test_a_missing_half_is_said(cache: FeatureCache, model: Model, tmp_path: Path) -> None:
    # some training posts lack a half, so heads learn to do without one, unless that is switched off
    assert model.predict(["a happy day"], None)[0].label is not None
    plain = mmsent.train_heads(cache, "vote", runs=tmp_path, val_size=12, modality_dropout=0, **QUICK)
    found = plain.predict(["a happy day", None], None)
    assert [post.label for post in found] == [None, None]
    assert "no picture" in found[0].problem
    assert "no text" in found[1].problem


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], [None]), "got 2 and 1"),
        (([], []), "no posts"),
        ((["a"], [3.5]), "float"),
        ((["a"], [np.zeros((4, 4), np.float32)]), "float32"),
        ((["a"], [Image.new("F", (4, 4))]), "mode F"),
        ((["a"], [np.zeros((4, 4, 1), np.uint8)]), "shape \\(4, 4, 1\\)"),
        (([float("nan")], [None]), "a text is a str, or None where it is missing; got float"),
    ],
)
def test_what_goes_in_is_checked(arguments: Any, message: str, model: Model) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(*arguments)


def test_columns_of_a_table_and_a_block_of_pictures_are_sequences(cache: FeatureCache, model: Model) -> None:
    pandas = pytest.importorskip("pandas")
    folder = cache.path.parent.parent / "posts" / "data"
    paths = [str(folder / f"{i}.jpg") for i in (1, 2)]
    texts = ["a happy day", "so sad"]
    wanted = [post.probabilities for post in model.predict(texts, paths)]
    for column in (pandas.Series, np.array):
        found = model.predict(column(texts), column(paths))
        assert [post.probabilities for post in found] == wanted
    block = np.zeros((2, 8, 8, 3), np.uint8)
    assert model.predict(texts, block) == model.predict(texts, list(block))


def test_encoding_new_posts_for_an_estimator(cache: FeatureCache, patched: Any) -> None:
    root = cache.path.parent.parent / "posts" / "data"
    ids = cache.arrays("test").ids.tolist()
    texts: list[str | None] = [(root / f"{i}.txt").read_text(encoding="utf-8") for i in ids]
    rows = cache.encode([*texts, None], [*(root / f"{i}.jpg" for i in ids), root / "1.jpg"])
    assert rows.X[:-1] == pytest.approx(cache.arrays("test").X, abs=1e-6)
    assert rows.good.tolist() == [True] * 10 + [False]
    assert rows.problems[-1] == "no text"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsent.api.open_encoders", lambda settings: fake_encoders(seed=1))
        with pytest.raises(CacheError, match="contract"):
            mmsent.open_cache(cache.path).encode("a", root / "1.jpg")


def test_load_without_names_takes_what_vote_takes(
    model: Model, cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data/ is
    found = mmsent.load(runs=model.runs[0].path.parent, cache=cache.path.parent)
    assert [run.path for run in found.runs] == [run.path for run in voting_runs(model.runs[0].path.parent, cache.cache)]
    assert {run.fusion for run in found.runs} == {"concat", "weighted", "attention"}


def test_training_takes_every_option_of_the_split(cache: FeatureCache, tmp_path: Path) -> None:
    options = {"group": "near", "near_image": 0.999, "near_text": 0.99, "split_seed": 3, "val_size": 0.3}
    (run,) = mmsent.train_heads(cache, runs=tmp_path, **options, **QUICK).runs
    assert (run.split.near_image, run.split.near_text, run.split.seed) == (0.999, 0.99, 3)
    assert run.split.group == "near"


def test_load_refuses_what_does_not_fit(model: Model, cache: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache"):
        mmsent.load(cache=tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        mmsent.load(tmp_path)
    with pytest.raises(UsageError, match="unknown recipe"):
        mmsent.train_heads(cache, recipe="stew", runs=tmp_path)
    with pytest.raises(UsageError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        mmsent.train_heads(cache, runs=tmp_path, epoch=3)
    with pytest.raises(UsageError, match="onnx or hf"):
        model.export(tmp_path / "out", "pmml")  # type: ignore[arg-type]
    assert mmsent.load(model.runs[0].path).labels == list(cache.labels)
    assert model.runs[0].name in repr(model)


@pytest.mark.slow  # it exports to ONNX
def test_the_examples_of_the_documents_run(tmp_path: Path, patched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parent.parent / "docs"
    pages = [docs / "reference" / "python.md", docs / "how-to" / "export.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    make_guid(tmp_path / "data", n_train=60, n_test=10, size=24)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["found"].probabilities.shape == (60, 3)
    assert next(iter(names["labels"])) in names["cache"].labels
