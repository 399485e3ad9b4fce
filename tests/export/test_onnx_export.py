"""Exports against what they were made from: ONNX heads and encoders, the hub folder, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import mmsent
from mmsent.api import Model, open_cache
from mmsent.cli.main import main
from mmsent.config import (
    Clean,
    DataSettings,
    EncoderSettings,
    FitSettings,
    Fusion,
    SplitSettings,
)
from mmsent.data.dataset import load_dataset
from mmsent.encoders.base import Encoders
from mmsent.errors import EncoderError, RunError, UsageError
from mmsent.evaluation.evaluate import evaluate_validation
from mmsent.export import onnx_export
from mmsent.export.hub import open_runs, published, write_hub
from mmsent.export.model_card import model_card, scored
from mmsent.export.onnx_export import export_onnx
from mmsent.export.onnx_runtime import OnnxModel
from mmsent.export.voting_graph import VotingHeads
from mmsent.features.cache import Cache
from mmsent.features.new_posts import NewPost
from mmsent.inference.abstain import Abstention
from mmsent.inference.held_out import held_out
from mmsent.inference.logits import head_probabilities
from mmsent.inference.predict import encode_posts, predict, vote_features
from mmsent.inference.tally import Way, tally
from mmsent.inference.tuned import baked
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.encoders.test_clip import CONFIG, TEXTS, Tiny, make_tiny
from tests.helpers.fake import fake_encoders
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid
from tests.helpers.tuned import tuned_world

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
LABELS = ("negative", "neutral", "positive")
# What a service need not install beside mmsent itself.
HEAVY = ("torch", "torchvision", "transformers", "sentence_transformers", "open_clip", "timm", "sklearn", "scipy")


def make_cache(folder: Path, encoders: Encoders, spec: str = "offline", **options: Any) -> Cache:
    root = make_guid(folder / "posts", n_train=60, n_test=10, size=40)
    clean = options.pop("clean", ())
    return fake_cache(
        load_dataset(root, DataSettings(clean=clean)),
        folder / "cache",
        encoder=EncoderSettings(encoder=spec, device="cpu", **options),
        encoders=encoders,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("export"), fake_encoders())


@pytest.fixture(scope="module")
def runs(cache: Cache) -> dict[str, Run]:
    """A run of each fusion by its name; `dropout` takes missing halves, `deep` has three hidden layers."""
    wanted = [FitSettings(**QUICK, fusion=fusion, seed=i) for i, fusion in enumerate(Fusion)]
    wanted += [FitSettings(**QUICK, fusion=Fusion.concat, seed=7, modality_dropout=0.4, standardize=True, rms=True)]
    wanted += [FitSettings(**QUICK, fusion=Fusion.attention, depth=3)]
    done = fit(cache, cache.path.parent / "runs", wanted, SplitSettings(val_size=12))
    return dict(zip([*(fusion.value for fusion in Fusion), "dropout", "deep"], done, strict=True))


def of(runs: dict[str, Run], *names: str) -> list[Run]:
    return [runs[name] for name in names]


def features(cache: Cache, n: int = 400) -> tuple[Any, Any, Any]:
    """Made-up features like a cache's, with missing halves."""
    rng = np.random.default_rng(1)
    known = cache.load("train")
    rows = rng.integers(0, 60, n)
    image = known.image[rows, 0] + rng.normal(0, 0.3, (n, 48)).astype(np.float32)
    text = known.text[rows] + rng.normal(0, 0.5, (n, 32)).astype(np.float32)
    return image, text, rng.random((n, 2)) < 0.15


# --- the graph


@pytest.mark.parametrize(("tie", "soft"), [(1, False), (None, False), (None, True)])
def test_the_graph_votes_as_the_vote_does(runs: dict[str, Run], cache: Cache, tie: int | None, soft: bool) -> None:
    """VotingHeads in torch, against mmsent.inference.logits and mmsent.inference.vote, over rows that tie, differ and
    lack halves."""
    from mmsent.inference.logits import served

    chosen = of(runs, "concat", "image", "text", "dropout", "deep")
    image, text, missing = features(cache)
    cases = np.array([[False, False], [True, False], [False, True], [True, True]])
    serves = torch.from_numpy(np.stack([served(run, cases) for run in chosen]))
    graph = VotingHeads([run.head() for run in chosen], [run.temperature for run in chosen], serves, Way(tie, soft))
    with torch.no_grad():
        found = [part.numpy() for part in graph(*map(torch.from_numpy, (image, text, missing)))]
    each = np.stack([head_probabilities(run, image, text, missing) for run in chosen])
    voting = np.stack([served(run, missing) for run in chosen])
    counted = tally(each, Way(tie, soft), voting)
    mean, winners = counted.probabilities, counted.labels
    there = voting.any(axis=0)
    assert (~there).any()
    assert (counted.tied & there).sum() > 20
    assert np.array_equal(found[0], np.where(there, winners, -1))
    assert found[1] == pytest.approx(mean, abs=2e-6)  # NumPy rounds otherwise than torch
    agreeing = ((each.argmax(axis=2) == winners) & voting).sum(axis=0)
    assert np.array_equal(agreeing, counted.agreeing)
    assert np.array_equal(found[2][there], agreeing[there])
    assert found[3] == pytest.approx(each.swapaxes(0, 1), abs=2e-6)  # NumPy rounds otherwise than torch
    assert np.array_equal(found[4], voting.T)


# --- one export, looked at from all sides


@pytest.fixture(scope="module")
def exported(runs: dict[str, Run], cache: Cache) -> Path:
    out = cache.path.parent / "out" / "vote"
    done = export_onnx(of(runs, "concat", "weighted", "deep"), out, card="the card")
    assert done.worst < 1e-5
    assert done.embeddings is None
    return done.path


def test_a_model_knows_when_to_abstain(tmp_path: Path) -> None:
    when = Abstention(0.05, ("a", "b"), 0.7, (0.2, 0.3), 100, 50, 2, 0.01, True, ("b",))
    assert OnnxModel(tmp_path, {"abstain": when.to_json()}, None).abstention == when
    assert OnnxModel(tmp_path, {}, None).abstention is None


@pytest.mark.slow
def test_export_writes_when_to_abstain(runs: dict[str, Run], cache: Cache) -> None:
    chosen, out = of(runs, "concat", "weighted"), cache.path.parent / "out" / "abstain"
    names = [str(run.path) for run in chosen]
    assert run_command("export", *names, "--out", str(out), "--cache", str(cache.path), "--abstain", "0.6") == 0
    when = OnnxModel.open(out).abstention
    assert when is not None
    assert when == Abstention.of(held_out(chosen), chosen[0].labels, Way.of(chosen[0].labels, None, False), 0.6)
    assert run_command("export", *names, "--format", "hf", "--abstain", "0.6", "--out", str(out / "x")) == 2


@pytest.mark.slow
def test_onnx_says_what_the_vote_says(exported: Path, runs: dict[str, Run], cache: Cache) -> None:
    from mmsent.inference.vote import vote_split

    model = OnnxModel.open(exported)
    test = cache.load("test")
    found = model.classify(test.image[:, 0], test.text, contract=cache.settings.contract)
    vote = vote_split(of(runs, "concat", "weighted", "deep"), cache, "test")
    assert [model.labels[k] for k in found.labels] == vote.predicted
    assert found.probabilities == pytest.approx(vote.probabilities, abs=1e-5)
    assert np.array_equal(found.agreeing, vote.agreeing)
    one = model.classify(test.image[:1, 0], test.text[:1], contract=cache.settings.contract)
    assert one.probabilities == pytest.approx(found.probabilities[:1], abs=1e-6)
    image, text, missing = features(cache, 50)
    gone = model.classify(image, text, missing, contract=model.contract)
    assert np.array_equal(gone.labels == -1, missing.any(axis=1))
    none = model.classify(image[:0], text[:0], contract=model.contract)
    assert none.probabilities.shape == (0, 3)


@pytest.mark.slow
def test_the_file_alone_says_what_it_is(exported: Path, runs: dict[str, Run], cache: Cache) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "heads.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["mmsent.labels"]) == list(LABELS)
    assert json.loads(said["mmsent.inputs"]) == {"image": 48, "text": 32}
    assert said["mmsent.contract"] == cache.settings.contract
    assert said["mmsent.fingerprint"] == cache.fingerprint
    wanted = of(runs, "concat", "weighted", "deep")
    assert json.loads(said["mmsent.temperatures"]) == [run.temperature for run in wanted]
    assert json.loads(said["mmsent.heads"]) == [run.name for run in wanted]
    assert {one.name: one.shape[1] for one in session.get_inputs()} == {"image": 48, "text": 32, "missing": 2}
    about = json.loads((exported / "mmsent.json").read_text())
    assert about["checked"]["worst"] < about["checked"]["tolerance"] == 1e-5
    assert str(cache.path.parent) not in (exported / "mmsent.json").read_text()  # nobody's paths
    package = str(Path(mmsent.__file__).parent).encode()
    assert not [word for word in (package, b"site-packages", b".py:") if word in (exported / "heads.onnx").read_bytes()]
    assert (exported / "README.md").read_text() == "the card"


@pytest.mark.slow
def test_the_reader_refuses_other_features_and_changed_files(exported: Path, cache: Cache, tmp_path: Path) -> None:
    model = OnnxModel.open(exported)
    image, text, _ = features(cache, 3)
    with pytest.raises(RunError, match="contract"):
        model.classify(image, text, contract="0" * 64)
    for pair in ((image[:, 1:], text), (image, text[:2]), (image[0], text[0])):
        with pytest.raises(RunError, match="the heads take"):
            model.classify(*pair, contract=model.contract)
    for missing in (np.zeros((1, 2), np.bool_), np.zeros(3, np.bool_), np.zeros((3, 3), np.bool_)):
        with pytest.raises(RunError, match=r"missing must have the shape \(3, 2\)"):
            model.classify(image, text, missing, contract=model.contract)
    with pytest.raises(UsageError, match="--with-encoder"):
        model.predict([NewPost("1", "a", None)])
    with pytest.raises(RunError, match="not an exported model"):
        OnnxModel.open(tmp_path)
    copy = shutil.copytree(exported, tmp_path / "copy")
    raw = bytearray((copy / "heads.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "heads.onnx").write_bytes(raw)
    with pytest.raises(RunError, match="not the file that was exported"):
        OnnxModel.open(copy)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../elsewhere": "", "heads.onnx": ""}, "outside of its folder"),
        ({"/dev/zero": "", "heads.onnx": ""}, "outside of its folder"),
        ({"heads.onnx": ""}, "not an exported model"),
        ({"pipe": "", "heads.onnx": ""}, "not a regular file"),
        ({}, "no checksum of heads.onnx"),
        ([], "no checksum of heads.onnx"),
        (3, "not an exported model"),
    ],
)
def test_an_exported_folder_is_not_trusted(files: Any, message: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "mmsent.json").write_text(json.dumps({"format_version": 1, "files": files}))
    with pytest.raises(RunError, match=message):
        OnnxModel.open(tmp_path)


@pytest.mark.slow
def test_the_reader_needs_no_torch(exported: Path) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(HEAVY)!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import numpy as np
from mmsent.export.onnx_runtime import OnnxModel
model = OnnxModel.open({str(exported)!r}, threads=1)
found = model.classify(np.ones((2, 48), np.float32), np.ones((2, 32), np.float32), contract=model.contract)
print(model.labels[found.labels[0]])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in LABELS, done.stderr


@pytest.mark.slow
def test_what_disagrees_is_not_written(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    image, text, missing = (np.zeros(shape, kind) for shape, kind in (((4, 48), "f4"), ((4, 32), "f4"), ((4, 2), "?")))
    chosen = of(runs, "concat", "weighted", "deep")
    found = OnnxModel.open(exported).classify(image, text, missing, contract=chosen[0].contract)
    assert onnx_export.difference(found, chosen, image, text, missing, Way(None)) < 1e-5
    shifted = replace(found, probabilities=found.probabilities + np.float32(1e-4))
    with pytest.raises(RunError, match=r"differ by .* nothing was written"):
        onnx_export.difference(shifted, chosen, image, text, missing, Way(None))
    with pytest.raises(RunError, match="vote differently"):
        onnx_export.difference(replace(found, labels=found.labels + 1), chosen, image, text, missing, Way(None))

    def unlike(*_: Any) -> float:
        raise RunError("ONNX and torch differ")

    monkeypatch.setattr(onnx_export, "_compare_heads", unlike)
    monkeypatch.setattr(onnx_export, "_write_heads", lambda *given: shutil.copy(exported / "heads.onnx", given[3]))
    with pytest.raises(RunError, match="differ"):
        export_onnx(chosen, tmp_path / "out", card="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_heads_without_an_onnx_form_and_names_that_are_taken(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        export_onnx([runs["concat"]], tmp_path, card="")

    class Odd(torch.nn.Module):
        config = runs["concat"].head().config

        def forward(self, image: torch.Tensor, text: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a head that asks a dictionary")

    monkeypatch.setattr(Run, "head", lambda self, device="cpu": Odd())
    with pytest.raises(RunError, match="cannot be converted to ONNX"):
        export_onnx([runs["concat"]], tmp_path / "out", card="")
    monkeypatch.setattr(Run, "head", lambda self, device="cpu": type("Lexicon", (), {"config": Odd.config})())
    with pytest.raises(RunError, match=r"concat head of run .* cannot be converted to ONNX"):
        export_onnx([runs["concat"]], tmp_path / "out", card="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_is_no_fault_of_the_heads(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.onnx.export", full)
    with pytest.raises(RunError, match=r"cannot write .*heads\.onnx: No space left on device; free some space"):
        export_onnx(list(runs.values())[:1], tmp_path / "out", card="")
    assert not (tmp_path / "out").exists()


def test_encoders_of_another_kind_are_named(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", lambda settings: fake_encoders())
    monkeypatch.setattr(onnx_export, "_write_heads", lambda *_: None)
    with pytest.raises(EncoderError, match="grid cannot be exported; export only the heads"):
        export_onnx([runs["concat"]], tmp_path / "out", card="", with_encoder=True)
    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", lambda settings: fake_encoders(seed=1))
    with pytest.raises(RunError, match="this machine's encoder"):
        export_onnx([runs["concat"]], tmp_path / "out", card="", with_encoder=True)


def test_exported_encoders_are_compared_with_torch(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runtime made the cache: that one computes with an ONNX file of the same exporter."""
    run, opened = runs["concat"], list[EncoderSettings]()

    def other(settings: EncoderSettings) -> Encoders:
        opened.append(settings)
        return fake_encoders(seed=1)

    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", other)
    for runtime in ("auto", "onnxruntime"):
        monkeypatch.setitem(run.info["cache"]["encoder_settings"], "runtime", runtime)
        with pytest.raises(RunError, match="this machine's encoder"):
            export_onnx([run], tmp_path / "out", card="", with_encoder=True)
    assert [(one.runtime, one.precision, one.device) for one in opened] == [("torch", "fp32", "cpu")] * 2


def test_heads_of_int8_features_are_exported_alone_or_to_the_hub(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["concat"]
    stored = run.info["cache"]["encoder_settings"]
    monkeypatch.setitem(stored, "runtime", "openvino-int8")
    with pytest.raises(UsageError, match=r"no encoder of --runtime openvino-int8; leave --with-encoder out"):
        export_onnx([run], tmp_path / "out", card="", with_encoder=True)
    assert published(run)["cache"]["encoder_settings"]["runtime"] == "openvino-int8"
    monkeypatch.setitem(stored, "runtime", "openvino")
    assert published(run)["cache"]["encoder_settings"]["runtime"] == "auto"


# --- the hub folder


def test_the_hub_folder_comes_back_bit_for_bit(runs: dict[str, Run], cache: Cache, tmp_path: Path) -> None:
    chosen = of(runs, "weighted", "concat", "dropout")
    (chosen[0].path / "oof.csv").write_text("ids of somebody's posts")
    path = write_hub(chosen, tmp_path / "model", "the card")
    back = open_runs(path)
    image, text, missing = features(cache, 60)
    for one, other in zip(chosen, back, strict=True):
        assert (one.name, one.labels, one.temperature, one.fit) == (
            other.name,
            other.labels,
            other.temperature,
            other.fit,
        )
        head = "head.safetensors"
        assert (one.path / head).read_bytes() == (other.path / head).read_bytes()
        pair = [head_probabilities(run, image, text, missing) for run in (one, other)]
        assert np.array_equal(*pair)
        with pytest.raises(RunError, match="contract"):
            other.require("0" * 64, "a cache", "another encoder")
        said = (other.path / "run.json").read_text()
        assert str(cache.path.parent) not in said  # nobody's paths
        assert not {"command", "machine"} & other.info.keys()
        assert {file.name for file in other.path.iterdir()} == {head, "run.json"}
    assert [run.name for run in open_runs(path / "heads" / chosen[0].name)] == [chosen[0].name]
    assert (path / "README.md").read_text() == "the card"
    other_encoder = make_cache(tmp_path, fake_encoders(seed=1))
    with pytest.raises(RunError, match="was trained on features of offline"):
        Model(tuple(back)).vote(open_cache(other_encoder.path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library_name": "transformers"}, "a model of transformers"),
        ({"format_version": 9}, "newer mmsent"),
        ({"heads": [{"name": "../../elsewhere"}]}, "cannot be the name of a folder"),
        ({"heads": 3}, "cannot be read"),
        ({"heads": [{"name": "gone"}]}, "not a run folder"),
    ],
)
def test_a_hub_folder_is_not_trusted(
    change: dict[str, Any], message: str, runs: dict[str, Run], tmp_path: Path
) -> None:
    path = write_hub([runs["concat"]], tmp_path / "model", "")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RunError, match=message):
        open_runs(path)


def test_the_card_has_the_scores_that_evaluate_prints(runs: dict[str, Run], cache: Cache) -> None:
    chosen = of(runs, "concat", "weighted", "attention")
    known = {e.name: e for e in evaluate_validation(chosen, cache)}
    rows = scored(chosen)
    assert [row.name for row in rows] == [*(run.name for run in chosen), "vote of 3"]
    for row in rows:
        assert row.scores["confusion"] == known[row.name].scores["confusion"]
        assert row.intervals == known[row.name].intervals
    card = model_card(chosen, "my model", "hf")
    low, high = known["vote of 3"].intervals["f1_weighted"]
    assert f"{known['vote of 3'].scores['f1_weighted']:.3f} [{low:.3f}, {high:.3f}]" in card
    for said in (
        "## Limits",
        "## Intended use",
        f"48 posts of <code>{cache.definition}</code>",
        cache.settings.contract,
        "The weakest label is",
    ):
        assert said in card
    assert card.startswith("---\nlibrary_name: mmsent\n")


def test_the_card_has_the_scores_of_the_vote_that_is_exported(
    runs: dict[str, Run], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, train, cards = of(runs, "concat", "image", "text", "dropout"), cache.load("train"), []
    rows = [train.index.ids.index(name) for name in chosen[0].validation_ids()]
    each = np.stack([head_probabilities(run, train.image[rows, 0], train.text[rows]) for run in chosen])

    def stop(*_: Any, card: str, **__: Any) -> None:
        cards.append(card)
        raise RunError("enough")

    monkeypatch.setattr(onnx_export, "export_onnx", stop)
    where = ["--runs", str(cache.path.parent / "runs"), "--out", str(tmp_path / "out")]
    found = set()
    for tie in (*LABELS, "soft"):
        counted = tally(each, Way(LABELS.index(tie) if tie in LABELS else None)).labels
        wanted = float((counted == train.index.labels[rows]).mean())
        assert run_command("export", *(run.name for run in chosen), *where, "--tie", tie) == 1
        assert f"      value: {wanted:.4f}" in cards[-1]
        found.add(wanted)
    assert len(found) > 1


def test_a_committee_is_averaged(runs: dict[str, Run], cache: Cache) -> None:
    chosen = [replace(run, info=run.info | {"committee": {"name": "c", "size": 3}}) for run in of(runs, *Fusion)]
    assert "the mean of 6 heads" in model_card(chosen, "m", "onnx", soft=True)
    image, text, missing = features(cache, 300)
    each = np.stack([head_probabilities(run, image, text) for run in chosen])
    mean, counted = each.mean(axis=0).argmax(axis=1), tally(each, Way(1)).labels
    assert (mean != counted).any()
    posts = vote_features([str(i) for i in range(300)], chosen, image, text, missing & False, [""] * 300).predictions
    assert [post.label for post in posts] == [LABELS[k] for k in mean]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("concat weighted", "A post needs both an image and a text."),
        ("image", "A post needs an image; one without a text can be labelled."),
        ("text concat", "A post needs a text; one without an image can be labelled, by fewer heads."),
        ("dropout", "Posts without an image or without a text can be labelled."),
        ("image text", "Posts without an image or without a text can be labelled, by fewer heads."),
    ],
)
def test_the_card_says_which_half_may_be_missing(names: str, said: str, runs: dict[str, Run]) -> None:
    assert f"- {said}\n" in model_card(of(runs, *names.split()), "m", "onnx")


def test_the_card_of_names_that_are_markup(runs: dict[str, Run]) -> None:
    info = json.loads(json.dumps(runs["concat"].info))
    info["labels"] = ["<script>", "a|b", "*c*"]
    info["cache"]["data_name"] = info["cache"]["definition"] = "x`\n# y <img src=z>"
    info["cache"]["encoder"] = "b_16"
    run = Run(runs["concat"].path, info)
    card = model_card([run], 'a: "name"', "onnx")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]["name"] == info["cache"]["data_name"]
    assert "<script>" not in body
    assert "<img" not in body
    assert "\n# y" not in body
    assert "`b_16`" in body
    assert "<code>x&#96; # y &lt;img src=z></code>" in body
    assert "F1 a&#124;b" in body
    assert '- name: "a: \\"name\\""' in card
    front = model_card([run], "mood 😀 情感", "onnx").split("---\n", 2)[1]
    assert yaml.safe_load(front)["model-index"][0]["name"] == "mood 😀 情感"


# --- the command


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def test_the_command_exports_and_predict_reads_back(
    runs: dict[str, Run], cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("mmsent.inference.predict.open_encoders", lambda settings: fake_encoders())
    where = ["--runs", str(cache.path.parent / "runs")]
    out = tmp_path / "hub"
    names = [runs[name].name for name in ("concat", "weighted", "attention")]
    assert run_command("export", *names, *where, "--format", "hf", "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "hf"
    post = ["--text", "a happy day", "--image", str(cache.path.parent.parent / "posts" / "data" / "1.jpg"), "--json"]
    assert run_command("predict", *names, *where, *post) == 0
    first = json.loads(capsys.readouterr().out)
    assert run_command("predict", str(out), *post) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert run_command("export", *names, *where, "--format", "hf", "--out", str(out)) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_command("export", "--format", "pmml", "--out", str(tmp_path / "x")) == 2
    assert run_command("export", *names, *where, "--format", "hf", "--soft", "--out", str(tmp_path / "x")) == 2
    assert "--soft goes with --format onnx" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# --- with the encoders


def posts_of(cache: Cache) -> list[NewPost]:
    folder = Path(cache.provenance["data"]) / "data"
    ids = cache.index("test").ids
    found = [NewPost(i, (folder / f"{i}.txt").read_text(encoding="utf-8"), folder / f"{i}.jpg") for i in ids]
    hard = [
        "",
        "x" * 3000,
        "今日は晴れ 😀 &amp;amp; don't_STOP #goodMood @you",
        " spaces \n and\ttabs ",
        "ＦＵＬＬ ﬁ Å café",
    ]
    more = [NewPost(f"hard {k}", text, found[k % len(ids)].image) for k, text in enumerate([*hard, *TEXTS])]
    return [*found, *more, NewPost("no picture", "a", None)]


def compare_posts(cache: Cache, runs: list[Run], encoders: Encoders, folder: Path) -> OnnxModel:
    """Posts through the exported folder and through torch: the same labels, probabilities within 1e-5."""
    model = OnnxModel.open(folder)
    posts = posts_of(cache)
    image, text, missing, problems = encode_posts(posts, encoders, runs, runs[0].encoder_settings.normalize)
    each = np.stack([head_probabilities(run, image, text, missing) for run in runs])
    wanted = tally(each, Way(), np.stack([~missing.any(axis=1)] * len(runs))).probabilities
    found = model.predict(posts)
    assert [post.id for post in found] == [post.id for post in posts]
    assert found[-1].label is None
    assert "no picture" in found[-1].problem
    for i, post in enumerate(found[:-1]):
        assert post.problem == problems[i]
        assert list(post.probabilities.values()) == pytest.approx(wanted[i], abs=1e-5), posts[i].text
    return model


@pytest.mark.slow
def test_open_clip_as_onnx(tmp_path: Path) -> None:
    tiny: Tiny = make_tiny(tmp_path, "tiny-onnx", CONFIG)
    spec = {"encoder": f"open_clip:{tiny.arch}", "weights": str(tiny.safetensors), "precision": "fp32"}
    encoders = tiny.open(file=tiny.safetensors)
    options = {**spec, "normalize": True, "clean": (Clean.mentions,)}
    cache = make_cache(tmp_path, encoders, options.pop("encoder"), **options)
    runs = fit(cache, tmp_path / "runs", [FitSettings(**QUICK)], SplitSettings(val_size=12))
    done = export_onnx(runs, tmp_path / "out", card="", with_encoder=True)
    assert done.embeddings is not None
    assert done.embeddings < 1e-4
    model = compare_posts(cache, runs, encoders, done.path)
    texts = [*TEXTS, "<start_of_text> odd <end_of_text>", "the ＷＩＤＥ ½ ﷽ text's we'll"]
    ids = encoders.text.clip.tokenizer(texts).numpy()  # type: ignore[attr-defined]
    assert np.array_equal(model.encoders.text.tokens(texts)["ids"], ids)  # type: ignore[attr-defined]
    assert model.encoders.text.lengths(["a b", "so " * 100]) == encoders.text.lengths(["a b", "so " * 100])


@pytest.mark.slow
def test_several_tuned_heads_as_onnx(tmp_path: Path) -> None:
    """Two heads that tune blocks and one that does not, in one folder: the probabilities are those that torch gives
    with each head's blocks in the encoder, in fp32; what all share is computed once."""
    onnx = pytest.importorskip("onnx")
    world = tuned_world()
    done = export_onnx(world.runs, tmp_path / "out", card="", with_encoder=True)
    model, posts = OnnxModel.open(done.path), posts_of(world.cache)
    assert model.about["inputs"]["text"] == 3 * world.cache.settings.text.width
    pairs = [baked(run, world.encoders) for run in world.runs]
    each = []
    for run, pair in pairs:
        image, text, missing, _ = encode_posts(posts, pair, [run], normalize=False)
        each.append(head_probabilities(run, image, text, missing))
    wanted = tally(np.stack(each), Way(), np.stack([~missing.any(axis=1)] * 3)).probabilities
    found = model.predict(posts)
    assert found[-1].label is None
    for i, post in enumerate(found[:-1]):
        assert list(post.probabilities.values()) == pytest.approx(wanted[i], abs=1e-5), posts[i].text
    served = predict(posts, world.runs, encoders=world.encoders)  # whose states are float16
    for one, other in zip(found, served, strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)
    text = onnx.load(done.path / "text.onnx").graph
    softmax = [node for node in text.node if node.op_type == "Softmax"]
    assert len(softmax) == 1 + 3  # the first block once, the last one with three sets of weights


@pytest.mark.slow
def test_a_head_that_tunes_images_as_onnx(tmp_path: Path) -> None:
    world = tuned_world()
    done = export_onnx([world.image], tmp_path / "out", card="", with_encoder=True)
    own, pair = baked(world.image, world.encoders)
    compare_posts(world.cache, [own], pair, done.path)


def test_heads_that_tune_images_are_exported_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tuned_world()
    monkeypatch.setattr("mmsent.encoders.factory.open_encoders", lambda settings: world.encoders)
    with pytest.raises(UsageError, match="tunes blocks of the image encoder: export it alone"):
        export_onnx([world.runs[0], world.image], tmp_path / "out", card="", with_encoder=True)


def test_tuned_heads_without_their_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no cached features: add --with-encoder"):
        export_onnx(tuned_world().runs, tmp_path / "out", card="")
