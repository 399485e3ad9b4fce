"""The open_clip adapter against open_clip used directly, on a tiny architecture; and once on the real one (slow)."""

from __future__ import annotations

import copy
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mmsent.config import EncoderSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import Pixels, as_pixels, open_rgb, read_image
from mmsent.data.preprocess import fit_square
from mmsent.encoders import clip_model
from mmsent.encoders.base import Encoders
from mmsent.encoders.clip import ClipTextEncoder
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError, UsageError
from mmsent.system.devices import half_precision_for
from tests.helpers.made import make_guid, make_picture

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SIZES = [(48, 48), (64, 40), (40, 64), (33, 120), (300, 200), (32, 32), (31, 35), (90, 91)]
TEXTS = [
    "a lovely day",
    "",
    "Sad. Broken!",
    "!!! #happy 😀 &amp; @you",
    "今日は晴れ",
    "MONDAY report — table 3",
    "so " * 75,  # 77 tokens: the longest text that is not cut
    "lost",
]


@dataclass(frozen=True)
class Tiny:
    """A registered architecture with random weights: its name, two files of them, the model, open_clip's transform."""

    arch: str
    file: Path
    safetensors: Path
    model: Any
    transform: Callable[[Image.Image], torch.Tensor]

    def open(self, precision: str = "fp32", file: Path | None = None) -> Encoders:
        """The adapters over these weights."""
        weights = str(file or self.file)
        given = {"encoder": f"open_clip:{self.arch}", "weights": weights, "device": "cpu", "precision": precision}
        return open_encoders(EncoderSettings.model_validate(given))


def loud(model: Any) -> Any:
    """Widen freshly drawn weights, so that different posts get embeddings that differ."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim >= 2:
                values.mul_(1.5)
            elif name.endswith("bias"):
                values.normal_(0, 0.1)
    return model


def make_tiny(folder: Path, arch: str, config: dict[str, Any]) -> Tiny:
    import open_clip
    from safetensors.torch import save_file

    description = folder / f"{arch}.json"
    description.write_text(json.dumps(config))
    open_clip.add_model_config(description)
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(arch, device="cpu")
    model = loud(model).eval()
    torch.save(model.state_dict(), folder / f"{arch}.pt")
    save_file(model.state_dict(), folder / f"{arch}.safetensors")
    return Tiny(arch, folder / f"{arch}.pt", folder / f"{arch}.safetensors", model, transform)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"), "mmsent-tiny", CONFIG)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Another architecture: the same, half as wide."""
    config = json.loads(json.dumps(CONFIG))
    config["vision_cfg"]["width"] = config["text_cfg"]["width"] = 16
    return make_tiny(tmp_path_factory.mktemp("narrow"), "mmsent-narrow", config)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    labels = ("negative", "neutral", "positive")
    return [make_picture(labels[i % 3], 12, rng).resize(size) for i, size in enumerate(SIZES)]


def pixels_of(encoders: Encoders, given: list[Image.Image]) -> Pixels:
    return np.stack([as_pixels(fit_square(p, encoders.image.card.preprocess)) for p in given])


def direct(model: Any, transform: Any, given: list[Image.Image], texts: list[str], arch: str) -> tuple[Any, Any]:
    """Both embeddings by open_clip itself: its transform on the pictures, its tokenizer padded to 77."""
    import open_clip

    tokens = open_clip.get_tokenizer(arch)(texts)
    assert tokens.shape[1] == 77
    with torch.inference_mode():
        x = torch.stack([transform(p) for p in given])
        return model.encode_image(x).numpy(), model.encode_text(tokens).numpy()


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each row of (n, D) with the same row of the other."""
    assert a.shape == b.shape
    a, b = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def apart(values: NDArray[Any]) -> float:
    """The largest cosine between neighbours: well below the bound that equal ones must keep."""
    return float(cosines(values[:-1], values[1:]).max())


@contextmanager
def spied(model: Any) -> Iterator[list[int]]:
    """The widths of the token tensors that encode_text is given."""
    widths: list[int] = []
    original = model.encode_text

    def encode_text(tokens: torch.Tensor, *args: Any, **options: Any) -> Any:
        widths.append(tokens.shape[1])
        return original(tokens, *args, **options)

    model.encode_text = encode_text
    try:
        yield widths
    finally:
        del model.encode_text


# --- numbers


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("bf16", 0.999)])
@pytest.mark.parametrize("form", ["file", "safetensors"])
def test_equals_open_clip(tiny: Tiny, precision: str, least: float, form: str) -> None:
    given = pictures()
    image, text = direct(tiny.model, tiny.transform, given, TEXTS, tiny.arch)
    assert apart(image) < 0.99
    assert apart(text) < 0.99
    encoders = tiny.open(precision, getattr(tiny, form))
    ours = encoders.image.encode(pixels_of(encoders, given)), encoders.text.encode(TEXTS)
    for mine, theirs in zip(ours, (image, text), strict=True):
        assert mine.dtype == np.float32
        assert mine.shape == (8, 32)
        assert cosines(mine, theirs).min() >= least
    if precision == "fp32":
        np.testing.assert_allclose(ours[0], image, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours[1], text, rtol=1e-3, atol=1e-4)
    else:
        weight = encoders.image.clip.model.visual.conv1.weight  # type: ignore[attr-defined]
        assert weight.dtype == torch.bfloat16


def test_quickgelu_is_folded_in_16_bits_alone(tiny: Tiny) -> None:
    from open_clip.transformer import QuickGELU

    def activations(model: Any) -> int:
        return sum(isinstance(module, QuickGELU) for module in model.modules())

    own = copy.deepcopy(tiny.model)
    assert activations(own) == 4  # two layers of each tower
    clip_model.fold_quickgelu(own)
    assert activations(own) == 0
    x, tokens = torch.randn(4, 3, 32, 32), torch.randint(1, 40_000, (4, 77))
    with torch.inference_mode():  # the same function, to the rounding of fp32
        torch.testing.assert_close(own.encode_image(x), tiny.model.encode_image(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.encode_text(tokens), tiny.model.encode_text(tokens), rtol=1e-4, atol=1e-5)
    # In fp32 the model is as open_clip builds it.
    for precision, left in (("fp32", 4), ("bf16", 0)):
        assert activations(tiny.open(precision).image.clip.model) == left  # type: ignore[attr-defined]


def test_cards(tiny: Tiny) -> None:
    import hashlib

    encoders = tiny.open()
    image, text = encoders.image.card, encoders.text.card
    assert (image.library, image.name, image.tag, image.width) == ("open_clip", "mmsent-tiny", None, 32)
    assert image.weights_sha256 == text.weights_sha256 == hashlib.sha256(tiny.file.read_bytes()).hexdigest()
    assert (text.max_tokens, text.width) == (77, 32)
    assert set(image.libraries) == {"open_clip_torch", "pillow", "torch"}
    how = image.preprocess
    assert (how.size, how.resize_to, how.resize, how.interpolation) == (32, 32, "shortest", "bicubic")
    assert how.mean == (0.48145466, 0.4578275, 0.40821073)
    assert tiny.open("auto").image.card.precision == half_precision_for("cpu")
    assert tiny.open("bf16").text.card.precision == "bf16"


def test_both_sides_share_one_model(tiny: Tiny) -> None:
    encoders = tiny.open()
    assert encoders.image.clip is encoders.text.clip  # type: ignore[attr-defined]


def test_mixed_pair(tiny: Tiny) -> None:
    """Pictures by one library, texts by another: the weights go to the open_clip side."""
    spec = f"open_clip:{tiny.arch}"
    options: dict[str, Any] = {"weights": str(tiny.file), "device": "cpu", "precision": "fp32"}
    mixed = open_encoders(EncoderSettings(encoder="offline", text_encoder=spec, **options))
    assert (mixed.image.card.name, mixed.text.card.name) == ("efficientnet-lite2", tiny.arch)
    np.testing.assert_array_equal(mixed.text.encode(TEXTS[:2]), tiny.open().text.encode(TEXTS[:2]))
    other = open_encoders(EncoderSettings(encoder="offline", image_encoder=spec, **options))
    assert (other.image.card.name, other.text.card.name) == (tiny.arch, "minilm-l6")
    assert other.text.encode(["a"]).shape == (1, 384)


def test_weights_go_to_the_open_clip_side(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsent.encoders import timm as timm_module

    hub = tmp_path / "hub.safetensors"
    hub.write_bytes(b"abc")
    monkeypatch.setattr(timm_module, "_hub_file", lambda name: hub)
    text = f"open_clip:{tiny.arch}"
    settings = EncoderSettings(image_encoder="timm:test_resnet", text_encoder=text, weights=str(tiny.file))
    pair = open_encoders(settings)
    assert pair.image.card.weights_sha256.startswith("ba7816bf")  # of abc
    assert pair.text.card.weights_sha256 == tiny.open().text.card.weights_sha256


# --- short padding


def test_padding_goes_to_the_longest_text_only(tiny: Tiny) -> None:
    import open_clip

    encoders = tiny.open()
    model = encoders.text.clip.model  # type: ignore[attr-defined]
    batch = ["a lovely day", "lost", "!"]
    assert encoders.text.lengths(batch) == [5, 3, 3]
    encoders.text.encode(["a"])  # measures once whether shortening is sound
    with spied(model) as widths:
        short = encoders.text.encode(batch)
        long = encoders.text.encode([*batch, "so " * 75])
    assert widths == [5, 77]
    with torch.inference_mode():
        full = model.encode_text(open_clip.get_tokenizer(tiny.arch)(batch)).numpy()
    np.testing.assert_allclose(short, full, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(long[:3], full, rtol=1e-4, atol=1e-5)


def test_model_is_left_as_it_was(tiny: Tiny) -> None:
    encoders = tiny.open()
    model = encoders.text.clip.model  # type: ignore[attr-defined]
    position, mask, names = model.positional_embedding, model.attn_mask, list(model.state_dict())
    encoders.text.encode(TEXTS[:2])
    assert model.positional_embedding is position
    assert model.attn_mask is mask
    assert list(model.state_dict()) == names
    shapes = []

    def fails() -> None:
        with clip_model.context_length(model, 5):
            shapes.extend([model.positional_embedding.shape, model.attn_mask.shape])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert shapes == [(5, 32), (5, 5)]
    assert model.positional_embedding is position
    assert model.attn_mask is mask


def test_a_tower_that_is_not_causal_is_padded_in_full(tmp_path: Path) -> None:
    """Without the causal mask the padding is seen: the measurement must forbid the short cut."""
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["no_causal_mask"] = True
    open_tower = make_tiny(tmp_path, "mmsent-open", config)
    encoders = open_tower.open()
    clip = encoders.text.clip  # type: ignore[attr-defined]
    assert not clip.shortens
    with spied(clip.model) as widths:
        found = encoders.text.encode(TEXTS)
    assert widths == [77]
    _, text = direct(open_tower.model, open_tower.transform, pictures(), TEXTS, open_tower.arch)
    np.testing.assert_allclose(found, text, rtol=1e-3, atol=1e-4)


def test_long_texts_are_cut_and_counted_uncut(tiny: Tiny) -> None:
    import open_clip

    encoders = tiny.open()
    texts = ["so " * 75, "so " * 76, "so " * 200 + "happy"]
    assert encoders.text.lengths(texts) == [77, 78, 203]
    found = encoders.text.encode(texts)
    with torch.inference_mode():
        full = tiny.model.encode_text(open_clip.get_tokenizer(tiny.arch)(texts)).numpy()
    np.testing.assert_allclose(found, full, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)  # the 76th word is cut


def test_special_tokens_in_a_text_are_text(tiny: Tiny) -> None:
    text = tiny.open().text
    assert isinstance(text, ClipTextEncoder)
    odd = "I love it <end_of_text> worst day <START_OF_TEXT> ever"
    found = text.tokenize(odd)
    assert [i for i, special in zip(found.ids, found.special, strict=True) if special] == [49406, 49407]
    assert found.ids[-1] == 49407
    assert " ".join(word.text for word in found.words) == "i love it < end_of_text > worst day < start_of_text > ever"
    assert text.lengths([odd]) == [len(found.ids)]
    a, b, c, d = text.encode([odd, "I love it", "<end_of_text> worst day", ""])
    assert np.abs(a - b).max() > 1e-3
    assert np.abs(c - d).max() > 1e-3


def test_a_long_run_of_one_letter_keeps_its_tokens(tiny: Tiny) -> None:
    """As of open_clip itself, which is slow, not of a run that was cut before its tokens were made."""
    import open_clip

    text = tiny.open().text
    run = "&#128514;" * 400 + " oh " + "o" * 3000  # entities, which are longer than their characters
    with torch.inference_mode():
        full = tiny.model.encode_text(open_clip.get_tokenizer(tiny.arch)([run])).numpy()
    np.testing.assert_allclose(text.encode([run]), full, rtol=1e-3, atol=1e-4)


# --- weights that do not fit


def test_checkpoint_of_another_architecture(tiny: Tiny, narrow: Tiny) -> None:
    encoders = tiny.open(file=narrow.file)
    with pytest.raises(EncoderError, match=r"mmsent-narrow\.pt does not load as mmsent-tiny: "):
        encoders.image.encode(np.zeros((1, 32, 32, 3), np.uint8))


def test_checkpoint_with_other_names(tiny: Tiny, tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(EncoderError, match=r"other\.pt does not load as mmsent-tiny: "):
        tiny.open(file=tmp_path / "other.pt").text.encode(["a"])


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.safetensors"])
def test_a_file_that_is_no_checkpoint(tiny: Tiny, tmp_path: Path, name: str) -> None:
    for content in (b"", b"not a checkpoint", tiny.file.read_bytes()[:5000]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EncoderError, match=name):
            tiny.open(file=tmp_path / name).text.encode(["a"])


@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.safetensors"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused(tiny: Tiny, tmp_path: Path, name: str, how: str) -> None:
    proof = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(proof),)

    content = dict(tiny.model.state_dict()) | {"logit_scale": Evil()}
    with (tmp_path / name).open("wb") as file:
        if how == "torch":
            torch.save(content, file)
        else:
            pickle.dump(content, file)
    with pytest.raises(EncoderError, match=name.replace(".", r"\.")):
        tiny.open(file=tmp_path / name).image.encode(np.zeros((1, 32, 32, 3), np.uint8))
    assert not proof.exists()
    if name == "evil.pt" and how == "pickle":  # the payload does work where pickle is trusted
        pickle.loads((tmp_path / name).read_bytes())
        assert proof.exists()


def test_the_other_gelu_is_refused(tiny: Tiny) -> None:
    with pytest.raises(EncoderError, match=r"another GELU; use open_clip:ViT-L-14-336-quickgelu:openai$"):
        open_encoders(EncoderSettings(encoder="open_clip:ViT-L-14-336:openai"))
    fits = EncoderSettings(encoder="open_clip:ViT-B-32:laion2b_s34b_b79k", weights=str(tiny.file))
    assert open_encoders(fits).image.card.tag == "laion2b_s34b_b79k"


def test_unknown_architecture_or_tag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="open_clip has no architecture 'ViT-L-15'"):
        open_encoders(EncoderSettings(encoder="open_clip:ViT-L-15:openai"))
    with pytest.raises(UsageError, match=r"no weights 'opanai' for ViT-L-14-336-quickgelu; its tags are openai"):
        open_encoders(EncoderSettings(encoder="open_clip:ViT-L-14-336-quickgelu:opanai"))
    with pytest.raises(UsageError, match=r"ViT-B-32 has no pretrained tag: use .* or pass --weights FILE"):
        open_encoders(EncoderSettings(encoder="open_clip:ViT-B-32"))
    with pytest.raises(EncoderError, match=r"no weights at .*none\.pt; pass a local file with --weights FILE"):
        open_encoders(EncoderSettings(encoder="open_clip:ViT-B-32", weights=str(tmp_path / "none.pt")))


# --- the real architecture


@pytest.mark.slow
def test_real_architecture(tmp_path: Path) -> None:
    """ViT-L-14-336-quickgelu with random weights: 8 made posts, by torch in fp32 and as `auto` computes them here."""
    import open_clip

    started = time.monotonic()
    dataset = load_dataset(make_guid(tmp_path / "posts", 8, 0, size=400))
    posts = dataset.of("train")
    given = [open_rgb(read_image(post.image)) for post in posts]
    texts = [dataset.text_of(post) for post in posts]
    arch, file = "ViT-L-14-336-quickgelu", tmp_path / "weights.pt"
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(arch, device="cpu")
    model = model.eval()
    torch.save(model.state_dict(), file)
    image, text = direct(model, transform, given, texts, arch)
    del model
    for precision, least in (("fp32", 0.9999), ("auto", 0.999)):
        runtime = "torch" if precision == "fp32" else "auto"
        settings = {"weights": str(file), "device": "cpu", "precision": precision, "runtime": runtime}
        encoders = open_encoders(EncoderSettings.model_validate(settings))
        ours = encoders.image.encode(pixels_of(encoders, given)), encoders.text.encode(texts)
        lowest = [float(cosines(a, b).min()) for a, b in zip(ours, (image, text), strict=True)]
        print(
            f"{precision} ({encoders.image.card.precision}): lowest cosine image {lowest[0]:.6f}, text {lowest[1]:.6f}"
        )
        assert encoders.image.card.width == 768
        assert min(lowest) >= least
        if precision == "fp32":
            # Random weights give pictures that are nearly alike, so what tells them apart is compared too.
            apart_ours, apart_direct = ours[0] - ours[0].mean(axis=0), image - image.mean(axis=0)
            centred = float(cosines(apart_ours, apart_direct).min())
            print(f"fp32 pictures, centred: lowest cosine {centred:.6f}")
            assert centred >= 0.999
        del encoders
    print(f"neighbours: image {apart(image):.6f}, text {apart(text):.6f}; {time.monotonic() - started:.0f} s")
    assert apart(text) < 0.999
