"""Zero-shot labels: equal to a reference by hand on small CLIP and SigLIP models, and a row beside the heads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from mmsent.cli.main import main
from mmsent.errors import UsageError
from mmsent.evaluation.evaluate import evaluate_validation
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.features.cache.finding import list_caches
from mmsent.inference.zero_shot import Halves, Prompts, ZeroShot, place, stored
from mmsent.metrics import scores
from mmsent.report.content import results
from mmsent.report.study import open_study
from mmsent.training.runs import list_runs
from tests.encoders.test_clip import CONFIG, Tiny, make_tiny
from tests.helpers.made import LABELS, make_guid

# SigLIP's own way: a timm tower with attention pooling, no causal mask, pooled at the last place, a logit bias.
SIGLIP: dict[str, Any] = {
    "embed_dim": 192,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": 49408,
        "width": 192,
        "heads": 3,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}


class Work:
    """A data set, the cache of a tiny model and one head, in a folder."""

    def __init__(self, folder: Path, tiny: Tiny) -> None:
        self.folder, self.tiny = folder, tiny
        self.where = ["--cache", str(folder / "cache"), "--data", str(make_guid(folder / "posts", 40, 12, size=40))]
        self.runs = folder / "runs"

    def extract(self, *more: str) -> Cache:
        arguments = ["--encoder", f"open_clip:{self.tiny.arch}", "--weights", str(self.tiny.safetensors), *more]
        run("extract", *self.where, *arguments, "--views", "0", "--precision", "fp32", "--device", "cpu")
        return list_caches(self.folder / "cache")[0]

    def __call__(self, *arguments: str) -> None:
        command, *others = arguments
        run(command, *self.where, "--runs", str(self.runs), *others)

    def zero_shot(self, *more: str) -> None:
        self("zero-shot", "--out", str(self.folder / "zero.txt"), *more)


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert not stopped.value.code


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Of CLIP, encoded and with one head."""
    folder = tmp_path_factory.mktemp("zero")
    found = Work(folder, make_tiny(folder, "mmsent-zero-clip", CONFIG))
    found.extract()
    found("fit", "--fusion", "concat", "--epochs", "1", "--val-size", "14")
    return found


def by_hand(tiny: Tiny, prompts: Prompts, image: NDArray[np.float32], text: NDArray[np.float32]) -> list[Any]:
    """Probabilities (N, C) of both halves, as open_clip's own examples compute them."""
    import open_clip

    tokenizer = open_clip.get_tokenizer(tiny.arch)
    found = []
    with torch.no_grad():
        for features, templates in ((image, prompts.image), (text, prompts.text)):
            means = []
            for words in prompts.labels.values():
                tokens = tokenizer([template.format(word) for template in templates for word in words])
                each = normalize(tiny.model.encode_text(tokens), dim=-1)
                means.append(normalize(each.mean(dim=0), dim=-1))
            logits = tiny.model.logit_scale.exp() * normalize(torch.from_numpy(features), dim=-1) @ torch.stack(means).T
            if tiny.model.logit_bias is not None:
                logits = logits + tiny.model.logit_bias
            found.append(logits.softmax(dim=-1).numpy())
    return found


# For names with "siglip" open_clip asks the hub for a tokenizer.
@pytest.mark.parametrize(
    ("arch", "config"), [("softmax", CONFIG), pytest.param("sigmoid", SIGLIP, marks=pytest.mark.slow)]
)
def test_it_equals_a_reference_by_hand(arch: str, config: dict[str, Any], tmp_path: Path) -> None:
    work = Work(tmp_path, make_tiny(tmp_path, f"mmsent-zero-{arch}-reference", config))
    cache = work.extract()
    features = cache.load("test")
    image, text = by_hand(work.tiny, Prompts.of(LABELS), features.image[:, 0], features.text)
    assert np.abs(image - text).max() > 1e-3
    for use, wanted in (("both", (image + text) / 2), ("image", image), ("text", text)):
        work.zero_shot("--use", use)
        known = stored([work.runs], cache)
        assert known is not None
        found = known.label(features)
        assert np.abs(found.probabilities - wanted).max() < 1e-6
        np.testing.assert_array_equal(found.labels, wanted.argmax(axis=1))
        with (tmp_path / "zero.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["predicted"] for row in rows] == [LABELS[k] for k in wanted.argmax(axis=1)]
        shown = np.array([[float(row[f"p_{name}"]) for name in LABELS] for row in rows])
        assert np.abs(shown - wanted).max() < 2e-6
        lines = (tmp_path / "zero.txt").read_text(encoding="utf-8").splitlines()
        assert lines[1:] == [f"{row['id']},{row['predicted']}" for row in rows]


def test_it_is_a_row_beside_the_heads_and_below_the_majority(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    cache = list_caches(work.folder / "cache")[0]
    place(work.runs, cache).unlink(missing_ok=True)
    work("evaluate")
    shown = capsys.readouterr()
    assert "`mmsent zero-shot` adds a row" in shown.err
    assert "majority class" in shown.out
    work.zero_shot("--json")
    facts = json.loads(capsys.readouterr().out)
    runs = list_runs(work.runs)
    found = evaluate_validation(runs, cache)
    assert [(e.name, e.fusion) for e in found[1:]] == [("majority class", "majority"), ("zero-shot", "zero-shot")]
    index, rows = cache.index("train"), found[0].positions
    known = stored([work.runs], cache)
    assert known is not None
    done = known.label(cache.load("train"))
    np.testing.assert_array_equal(found[2].predicted, done.labels[rows])
    np.testing.assert_array_equal(found[2].probabilities, done.probabilities[rows])
    train = np.delete(index.labels, rows)
    shares = np.bincount(train) / len(train)
    assert set(found[1].predicted) == {shares.argmax()}
    np.testing.assert_allclose(found[1].probabilities, np.tile(shares, (len(rows), 1)))
    assert found[1].scores["accuracy"] == pytest.approx((index.labels[rows] == shares.argmax()).mean())
    assert facts["train"]["n"] == (index.labels != NO_LABEL).sum()
    assert facts["train"]["zero_shot"]["f1_weighted"] == scores(index.labels, done.labels, 3)["f1_weighted"]
    work("evaluate")
    shown = capsys.readouterr()
    table = shown.out.split("\n\n")[0].splitlines()
    assert [line.split("  ")[0].strip(" *") for line in table[1:3]] == ["majority class", "zero-shot"]
    assert "adds a row" not in shown.err
    report, note = results(open_study(runs, cache, None))
    assert [row[0] for row in report.rows] == ["head", "majority class", "zero-shot", "concat"]
    assert "Rows above the heads are not trained" in note


def test_prompts_can_be_edited(work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = list_caches(work.folder / "cache")[0]
    work.zero_shot()
    own = place(work.runs, cache).with_suffix(".toml")
    assert str(own) in capsys.readouterr().out
    before = stored([work.runs], cache)
    assert before is not None
    text = own.read_text(encoding="utf-8")
    assert Prompts.read(own, LABELS) == Prompts.of(LABELS)
    own.write_text(text.replace('"sad"', '"gloomy"'), encoding="utf-8")
    work("evaluate")
    assert f"{own} has changed; run `mmsent zero-shot` again" in capsys.readouterr().err
    work.zero_shot()
    after = stored([work.runs], cache)
    assert after is not None
    assert "gloomy" in after.prompts.labels["negative"]
    assert after.image[0] != before.image[0]
    assert after.image[1:] == before.image[1:]
    own.write_text(text, encoding="utf-8")
    other = tmp_path / "mine.toml"
    other.write_text(Prompts.of(LABELS).model_copy(update={"image": ("only {}",)}).toml(), encoding="utf-8")
    work.zero_shot("--prompts", str(other))
    assert own.read_text(encoding="utf-8") == text
    named = stored([work.runs], cache)
    assert named is not None
    assert named.prompts.image == ("only {}",)
    assert (named.text, named.image != before.image) == (before.text, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image = [", "holds no prompts"),
        ('image = ["{}"]\ntext = ["no place"]\n[labels]\na = ["a"]\nb = ["b"]', "needs at least one template"),
        ('image = ["{}"]\ntext = ["{}"]\n[labels]\na = ["a"]', "no words for the label 'b'"),
        ('image = ["{}"]\ntext = ["{}"]\n[labels]\na = ["a"]\nb = []', "no words for the label 'b'"),
        ('image = ["{}"]\ntext = ["{}"]\n[labels]\na = ["a"]\nb = ["b"]\nc = ["c"]', "has words for 'c'"),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=reason):
        Prompts.read(tmp_path / "p.toml", ["a", "b"])


def test_prompts_of_any_labels_survive_their_file(tmp_path: Path) -> None:
    labels = ["very_bad", 'so "so"', "gut = \\ schön", "开心"]
    (tmp_path / "p.toml").write_text(Prompts.of(labels).toml(), encoding="utf-8")
    assert Prompts.read(tmp_path / "p.toml", labels) == Prompts.of(labels)
    assert Prompts.of(labels).labels["very_bad"] == ("very bad",)


def test_a_post_without_an_image_is_labelled_by_its_text() -> None:
    half = ((1.0, 0.0), (0.0, 1.0))
    prompts = Prompts.of(["a", "b"])
    zero = ZeroShot(
        contract="",
        labels=("a", "b"),
        halves=Halves.both,
        prompts=prompts,
        file="",
        scale=2,
        image_columns=(0, 2),
        text_columns=(1, 3),
        image=half,
        text=half,
    )
    from types import SimpleNamespace

    index = SimpleNamespace(outcome=np.array([0, 1, 3], np.uint8))
    image = np.array([[[3.0, 0]], [[0, 0]], [[0, 0]]], np.float32)
    text = np.array([[9.0, 0, 0.1], [9, 0, 0.1], [0, 0, 0]], np.float32)
    found = zero.label(SimpleNamespace(index=index, image=image, text=text))  # type: ignore[arg-type]
    high = np.exp(2) / (1 + np.exp(2))
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5], [1 - high, high], [0.5, 0.5]])
    assert found.labels.tolist() == [0, 1, -1]


def test_the_text_tower_beside_another_encoder(work: Work, tmp_path: Path) -> None:
    """Of joined encoders, the part that shares its space with the image tower is compared."""
    plain = list_caches(work.folder / "cache")[0]
    work.zero_shot()
    alone = stored([work.runs], plain)
    both = Work(tmp_path, work.tiny)
    cache = both.extract("--text-encoder", f"lexicon:vader+open_clip:{work.tiny.arch}")
    both.zero_shot()
    joined = stored([both.runs], cache)
    assert alone is not None
    assert joined is not None
    assert joined.text_columns == (7, 39)
    found, wanted = joined.label(cache.load("test")), alone.label(plain.load("test"))
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-6)


def test_unaligned_pairs_are_refused(work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Work(tmp_path, work.tiny)
    other.extract("--text-encoder", "minilm-l6")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["zero-shot", *other.where, "--runs", str(other.runs)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"open_clip:{work.tiny.arch} and sentence-transformers:minilm-l6 were not" in said
    assert "trained together" in said
    assert "mmsent extract --encoder clip-l14-336" in said
    assert not other.runs.exists()
