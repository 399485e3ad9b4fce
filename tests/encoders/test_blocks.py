"""The last blocks of encoders: states through untouched blocks are the encoder's own embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from mmsent.config import EncoderSettings
from mmsent.data.images import Pixels
from mmsent.encoders.base import Encoders, ImageEncoder, TextEncoder
from mmsent.encoders.blocks import last_blocks, require_blocks, states_of, with_blocks
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError, UsageError
from mmsent.features.cache.states import ragged
from mmsent.training.tuning import padded, use_bfloat16
from tests.encoders.test_clip import CONFIG, loud, make_tiny
from tests.helpers.fake import FakeTextEncoder

TEXTS = ["What a day!", "a sad, sad day for all of us, really", "ok", "word " * 400, "情感 😀 RT @someone: #tag"]
COSINE = 0.999  # least, of an embedding from float16 states


def offline(name: str = "offline") -> Encoders:
    return open_encoders(EncoderSettings(encoder=name, device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    tiny = make_tiny(tmp_path_factory.mktemp("blocks"), "mmsent-blocks", CONFIG)
    return tiny.open().text


def rebuilt(encoder: TextEncoder, count: int, *, normalize: bool = False, whole: bool = False) -> torch.Tensor:
    """Embeddings of TEXTS by states and blocks; whole: from states that were not cut to float16."""
    blocks = last_blocks(encoder, count, normalize=normalize)
    states = ragged(states_of(encoder, count, TEXTS))
    given, mask = padded(states, np.arange(len(TEXTS)), "cpu")
    own = torch.from_numpy(encoder.encode(TEXTS))
    with torch.no_grad():
        return blocks.module()(given, mask, own)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_minilm(count: int) -> None:
    encoder = offline().text
    own = torch.from_numpy(encoder.encode(TEXTS))
    assert torch.cosine_similarity(rebuilt(encoder, count), own).min() > 0.9999


@pytest.mark.parametrize("count", [1, 2])
def test_open_clip(clip: TextEncoder, count: int) -> None:
    own = torch.from_numpy(clip.encode(TEXTS))
    assert torch.cosine_similarity(rebuilt(clip, count), own).min() > 0.9999
    torch.testing.assert_close(rebuilt(clip, count, normalize=True).norm(dim=1), torch.ones(len(TEXTS)))


def test_of_joined_encoders_the_one_with_blocks() -> None:
    encoder = offline("offline-plus").text
    own = torch.from_numpy(encoder.encode(TEXTS))
    found = rebuilt(encoder, 2)
    assert torch.cosine_similarity(found, own).min() > COSINE
    torch.testing.assert_close(found[:, 384:], own[:, 384:], rtol=0, atol=0)  # the lexicon's columns as they are
    with pytest.raises(
        EncoderError, match=r"exported to ONNX; export with --format hf, or tune one .*--encoder offline"
    ):
        with_blocks(encoder, 2, {}, "")


def test_states_are_those_of_each_text_alone() -> None:
    """What else is in a batch changes no more than the last bits, and padding is not stored."""
    encoder = offline().text
    together = states_of(encoder, 2, TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = states_of(encoder, 2, [text])
        assert alone.shape == found.shape
        assert alone.dtype == np.float16
        np.testing.assert_allclose(alone.astype(np.float32), found.astype(np.float32), rtol=0.01, atol=0.01)
    assert [len(one) for one in together] == [min(256, n) for n in encoder.lengths(TEXTS)]


@pytest.mark.parametrize("kind", ["sentences", "clip"])
def test_one_pass_gives_the_embedding_and_the_states_of_several_counts(kind: str, clip: TextEncoder) -> None:
    encoder = clip if kind == "clip" else offline().text
    with last_blocks(encoder, 1).caught() as one, last_blocks(encoder, 2).caught() as two:
        found = encoder.encode(TEXTS)
    np.testing.assert_allclose(found, encoder.encode(TEXTS), atol=1e-6)  # which is no longer watched
    for count, states in ((1, one), (2, two)):
        for row, wanted in zip(states, states_of(encoder, count, TEXTS), strict=True):
            np.testing.assert_array_equal(row, wanted)


def test_only_the_blocks_train_and_each_module_is_its_own() -> None:
    blocks = last_blocks(offline().text, 2)
    one, other = blocks.module(), blocks.module()
    assert sum(p.numel() for p in one.parameters() if p.requires_grad) == sum(p.numel() for p in one.trained)
    with torch.no_grad():
        for parameter in one.trained:
            parameter.zero_()
    assert all(bool(p.any()) for p in other.trained if p.ndim > 1)
    other.load(one.weights())
    assert not any(bool(p.any()) for p in other.trained)


@pytest.mark.parametrize("kind", [pytest.param("sentences", marks=pytest.mark.slow), "clip", "images"])
def test_products_in_bf16_and_fused_attention(
    kind: str, clip: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that a GPU runs, here on the CPU: attention is one fused call per block, with a mask where texts are
    padded; in training linear layers multiply in bf16, gradients are fp32."""
    if kind == "images":
        encoder: Any = image_encoder(tmp_path, "test_vit")
        posts: Any = noise(encoder, 2)
    else:
        encoder, posts = clip if kind == "clip" else offline().text, TEXTS
    module, masks = last_blocks(encoder, 2).module(), []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*given: Any, attn_mask: Any = None, **more: Any) -> torch.Tensor:
        masks.append(attn_mask if attn_mask is not None else given[3] if len(given) > 3 else None)
        return attention(*given, attn_mask=attn_mask, **more) if len(given) < 4 else attention(*given, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    states, mask = padded(ragged(states_of(encoder, 2, posts)), np.arange(len(posts)), "cpu")
    cached, masks[:] = torch.from_numpy(encoder.encode(posts)), []
    module.train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    plain = module(states, mask, cached).detach()
    assert len(masks) == 2
    assert all((one is None) == (kind == "images") for one in masks)
    use_bfloat16(module)
    rounded = module(states, mask, cached)
    assert rounded.dtype is torch.float32
    assert torch.cosine_similarity(rounded, plain).min() > COSINE
    assert not torch.equal(rounded, plain)
    slopes = torch.autograd.grad(rounded.square().sum() + rounded.sum(), module.trained)
    assert {slope.dtype for slope in slopes} == {torch.float32}
    module.eval()
    torch.testing.assert_close(module(states, mask, cached).detach(), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sentences", "clip", "images"])
def test_low_rank_updates(kind: str, clip: TextEncoder, tmp_path: Path) -> None:
    """They change nothing at first, are the only thing that trains and is kept, and are merged where they are loaded;
    attention's weights have them too, whatever module holds these."""
    if kind == "images":
        encoder: Any = image_encoder(tmp_path, "test_vit")
        posts: Any = noise(encoder, 2)
    else:
        encoder, posts = clip if kind == "clip" else offline().text, TEXTS
    own = torch.from_numpy(encoder.encode(posts))
    given = (*padded(ragged(states_of(encoder, 1, posts)), np.arange(len(posts)), "cpu"), own)
    plain, module = last_blocks(encoder, 1).module(), last_blocks(encoder, 1).module()
    before, whole = plain(*given).detach(), plain.weights()
    module.use_low_rank(2)
    torch.testing.assert_close(module(*given).detach(), before, rtol=0, atol=0)
    matrices = [values for values in whole.values() if values.ndim == 2]
    assert sum(p.numel() for p in module.trained) == sum(2 * sum(matrix.shape) for matrix in matrices)
    slopes = torch.autograd.grad(module(*given).square().sum() + module(*given).sum(), module.trained)
    with torch.no_grad():
        for weight, slope in zip(module.trained, slopes, strict=True):
            weight += 0.1 * torch.randn_like(weight) * (1 + slope.norm())
    wanted, kept = module(*given).detach(), {name: values.clone() for name, values in module.weights().items()}
    assert (wanted - before).abs().max() > 1e-3
    plain.load(kept)
    torch.testing.assert_close(plain(*given).detach(), wanted, rtol=1e-4, atol=1e-5)
    assert plain.weights().keys() == whole.keys()
    with torch.no_grad():
        for weight in module.trained:
            weight.zero_()
    module.load(kept)  # as training takes its best epoch back
    torch.testing.assert_close(module(*given).detach(), wanted, rtol=0, atol=0)
    found = torch.from_numpy(with_blocks(encoder, 1, kept, "0" * 64).encode(posts))
    assert torch.cosine_similarity(found, wanted).min() > COSINE
    np.testing.assert_array_equal(encoder.encode(posts), own.numpy())
    kept.popitem()
    with pytest.raises(RuntimeError, match="low-rank updates of other blocks"):
        last_blocks(encoder, 1).module().load(kept)


@pytest.mark.parametrize("kind", ["sentences", "clip"])
def test_an_encoder_with_tuned_blocks(kind: str, clip: TextEncoder) -> None:
    encoder = clip if kind == "clip" else offline().text
    module = last_blocks(encoder, 1).module()
    before = encoder.encode(TEXTS)
    with torch.no_grad():
        for parameter in module.trained:
            parameter.mul_(1.1)
        given, mask = padded(ragged(states_of(encoder, 1, TEXTS)), np.arange(len(TEXTS)), "cpu")
        wanted = module(given, mask, torch.from_numpy(before))
    tuned = with_blocks(encoder, 1, module.weights(), "0" * 64)
    assert tuned.card.weights_sha256 != encoder.card.weights_sha256
    found = torch.from_numpy(tuned.encode(TEXTS))
    assert torch.cosine_similarity(found, wanted).min() > COSINE
    assert torch.cosine_similarity(found, torch.from_numpy(before)).min() < COSINE  # it is another encoder now
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)  # and the first is as it was


def noise(encoder: ImageEncoder, n: int = 5) -> Pixels:
    size = encoder.card.preprocess.size
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def rebuilt_images(encoder: ImageEncoder, count: int, *, normalize: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of noise by states and blocks, and the encoder's own."""
    pixels = noise(encoder)
    given, mask = padded(ragged(states_of(encoder, count, pixels)), np.arange(5), "cpu")
    assert mask.bool().all()
    own = torch.from_numpy(encoder.encode(pixels))
    with torch.no_grad():
        return last_blocks(encoder, count, normalize=normalize).module()(given, mask, own), own


TOWERS: dict[str, dict[str, Any]] = {
    "open_clip": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "timm in open_clip": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}


def image_encoder(folder: Path, kind: str, precision: str = "fp32") -> ImageEncoder:
    if kind in TOWERS:
        arch = f"mmsent-blocks-{len(kind)}"
        return make_tiny(folder, arch, CONFIG | {"vision_cfg": TOWERS[kind]}).open(precision).image
    torch.manual_seed(0)
    torch.save(loud(timm.create_model(kind, num_classes=0)).state_dict(), folder / f"{kind}.pt")
    given = {"image_encoder": f"timm:{kind}", "weights": str(folder / f"{kind}.pt"), "device": "cpu"}
    return open_encoders(EncoderSettings.model_validate({"encoder": "offline", **given})).image


@pytest.mark.parametrize("kind", [*TOWERS, "test_vit", "test_vit2"])
@pytest.mark.parametrize("count", [1, 2])
def test_image_blocks(kind: str, count: int, tmp_path: Path) -> None:
    encoder = image_encoder(tmp_path, kind)
    found, own = rebuilt_images(encoder, count)
    assert torch.cosine_similarity(found, own).min() > 0.9999
    assert torch.cosine_similarity(own[:1], own[1:]).max() < 0.9999  # which are not all alike
    _, width = require_blocks(encoder, count)
    scaled, _ = rebuilt_images(encoder, count, normalize=True)
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(5))
    module = last_blocks(encoder, count).module()
    nothing = module(torch.zeros(2, 1, width), torch.ones(2, 1), own[:2])
    assert nothing.isfinite().all()  # of images that are not there


def test_image_blocks_in_half_precision(tmp_path: Path) -> None:
    """The modules that replace the tower on some processors give the same states, but for rounding."""
    encoder = image_encoder(tmp_path, "open_clip", "bf16")
    found, own = rebuilt_images(encoder, 2)
    assert torch.cosine_similarity(found, own).min() > COSINE


@pytest.mark.parametrize("kind", ["open_clip", "test_vit"])
def test_an_image_encoder_with_tuned_blocks(kind: str, tmp_path: Path) -> None:
    encoder = image_encoder(tmp_path, kind)
    pixels = noise(encoder, 2)
    module, before = last_blocks(encoder, 1).module(), encoder.encode(pixels)
    with torch.no_grad():
        for parameter in module.trained:
            parameter.mul_(1.5)
        given, mask = padded(ragged(states_of(encoder, 1, pixels)), np.arange(2), "cpu")
        wanted = module(given, mask, torch.from_numpy(before))
    tuned = with_blocks(encoder, 1, module.weights(), "0" * 64)
    assert tuned.card.weights_sha256 != encoder.card.weights_sha256
    assert torch.cosine_similarity(torch.from_numpy(tuned.encode(pixels)), wanted).min() > COSINE
    assert not np.allclose(tuned.encode(pixels), before, atol=1e-3)
    np.testing.assert_array_equal(encoder.encode(pixels), before)


def test_a_pass_without_memory_leaves_no_states(tmp_path: Path) -> None:
    encoder: Any = image_encoder(tmp_path, "open_clip")
    left = [True]

    def full(*_: Any) -> None:
        if left and left.pop():
            raise torch.OutOfMemoryError("out of memory")

    hook = encoder.clip.model.visual.transformer.resblocks[-1].register_forward_hook(full)
    try:
        with last_blocks(encoder, 1).caught() as found:
            encoder.encode(noise(encoder))
    finally:
        hook.remove()
    assert len(found) == 5
    for one, other in zip(found, states_of(encoder, 1, noise(encoder)), strict=True):
        np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=0.01)


def test_images_of_towers_without_blocks_are_refused(tmp_path: Path) -> None:
    for encoder in (offline().image, image_encoder(tmp_path, "test_efficientnet")):
        with pytest.raises(EncoderError, match=r"no vision transformer .*so it has no image blocks to tune; use a ViT"):
            last_blocks(encoder, 1)
    encoder = image_encoder(tmp_path, "open_clip")
    with pytest.raises(UsageError, match="has 3 blocks; got 4"):
        last_blocks(encoder, 4)
    encoder.card = encoder.card.model_copy(update={"precision": "int8"})
    with pytest.raises(UsageError, match=r"not from int8: extract .* with --runtime torch"):
        last_blocks(encoder, 1)


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize(
    "wrong", [lambda found: found[:, ::-1].copy(), lambda found: 2 * found, lambda found: found * np.nan]
)
def test_blocks_that_do_not_give_the_embedding_are_refused(
    kind: str, wrong: Any, clip: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an encoder that does more after its blocks than is known here."""
    encoder: Any = clip if kind == "text" else image_encoder(tmp_path, "open_clip")
    require_blocks(encoder, 1)
    own = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda given: wrong(own(given)))
    with pytest.raises(EncoderError, match="has blocks that do not give its embedding; they cannot be tuned"):
        require_blocks(encoder, 1)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 6 blocks; got 7"):
        last_blocks(offline().text, 7)
    with pytest.raises(EncoderError, match="bag has no blocks"):
        last_blocks(FakeTextEncoder(), 1)
    with pytest.raises(UsageError, match="without --normalize"):
        last_blocks(offline("offline-plus").text, 2, normalize=True)
