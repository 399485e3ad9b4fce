"""Explanations: the chain from logit to encoder against what is known by hand, by finite differences and by captum."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmsent.config import DataSettings, EncoderSettings, FitSettings, Fusion, SplitSettings, ViewSettings, settings
from mmsent.data import views as view_module
from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders, ImageCard, TextCard
from mmsent.encoders.common import normalized
from mmsent.encoders.explainable import Layer, Tokens, Word, captured, find_layers
from mmsent.encoders.factory import open_encoders
from mmsent.errors import EncoderError, RunError, UsageError
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.new_posts import NewPost
from mmsent.inference.explain import Explanation, explain, spearman
from mmsent.inference.logits import head_probabilities
from mmsent.inference.predict import encode_posts
from mmsent.inference.tuned import run_blocks
from mmsent.report.figures.explanations import explanation_figure, grad_cam_figure, word_figure
from mmsent.report.figures.style import png_bytes
from mmsent.training.head_config import HeadConfig
from mmsent.training.heads import Head
from mmsent.training.runs import Run, save_run
from mmsent.training.train import Trained
from tests.helpers.fake import PREPROCESS, fake_encoders
from tests.helpers.tuned import tuned_world

LABELS = ["negative", "neutral", "positive"]
TEXT: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT: dict[str, Any] = {"image_size": 56, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
RESNET: dict[str, Any] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None}
TOWER: dict[str, Any] = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
MIXED = "I don't miss 今日は晴れ 😀 @you #happyDay, antidisestablishmentarianism!"


# --- encoders and runs


def open_tiny(folder: Path, name: str, vision: dict[str, Any], precision: str = "fp32") -> Encoders:
    """An open_clip pair of a made-up architecture with random weights."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(name, device="cpu")
    with torch.no_grad():
        for values in model.parameters():
            values.copy_(torch.randn_like(values) * 0.1 if values.ndim == 1 else values * 2)
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return open_encoders(
        EncoderSettings(
            encoder=f"open_clip:{name}", weights=str(folder / f"{name}.pt"), device="cpu", precision=precision
        )
    )


def open_timm(folder: Path, name: str) -> Encoders:
    """A small timm model with random weights for the pictures, MiniLM for the texts."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.pt")
    given = {"image_encoder": f"timm:{name}", "weights": str(folder / f"{name}.pt"), "device": "cpu"}
    return open_encoders(EncoderSettings.model_validate({"encoder": "offline", **given}))


KINDS = ["vit", "resnet", "tower", "test_efficientnet", "test_vit", "offline"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoders]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "vit": open_tiny(folder, "mmsent-explain-vit", VIT),
        "resnet": open_tiny(folder, "mmsent-explain-resnet", RESNET),
        "tower": open_tiny(folder, "mmsent-explain-tower", TOWER),
        "test_efficientnet": open_timm(folder, "test_efficientnet"),
        "test_vit": open_timm(folder, "test_vit"),
        "offline": open_encoders(EncoderSettings(encoder="offline", device="cpu")),
    }


def make_run(
    folder: Path,
    encoders: Encoders,
    *,
    fusion: Fusion = Fusion.concat,
    head: Head | None = None,
    seed: int = 0,
    normalize: bool = False,
    modality_dropout: float = 0.0,
    temperature: float | None = None,
) -> Run:
    """A run folder with a random (or the given) head, fit for these encoders."""
    features = FeatureSettings(
        image=encoders.image.card,
        text=encoders.text.card,
        normalize=normalize,
        views=settings(ViewSettings, count=0),
        views_version=view_module.VERSION,
        clean=(),
        text_encoding="utf-8",
        storage="float32",
    )
    if head is None:
        torch.manual_seed(seed)
        head = Head(
            HeadConfig(
                fusion=fusion,
                image_width=encoders.image.card.width,
                text_width=encoders.text.card.width,
                classes=3,
                hidden=16,
                heads=4,
                common_width=16,
                rms=True,
            )
        )
    info = {
        "fit": FitSettings(fusion=fusion, modality_dropout=modality_dropout).model_dump(mode="json"),
        "split": SplitSettings().model_dump(mode="json"),
        "labels": LABELS,
        "cache": {
            "contract": features.contract,
            "fingerprint": "f",
            "data_name": "d",
            "encoder": "e",
            "encoder_settings": EncoderSettings(encoder="offline", normalize=normalize).model_dump(mode="json"),
            "data_settings": DataSettings().model_dump(mode="json"),
        },
        "metrics": {},
        "finished": "2026-01-01T00:00:00",
    }
    if temperature is not None:
        info["temperature"] = temperature
    trained = Trained(head, [], 1, np.zeros((0, 3), np.float32), 0.0)
    return save_run(folder / "runs", fusion.value, info, trained, "id\n")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((200, 150), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def explained(
    opened: dict[str, Encoders], picture: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Run, Explanation]]:
    found = {}
    for kind, encoders in opened.items():
        run = make_run(tmp_path_factory.mktemp(kind), encoders)
        found[kind] = run, explain(run, encoders, NewPost("a", "a happy day, isn't it? 😀", picture))
    return found


def maps_of(found: Explanation) -> dict[str, Any]:
    assert found.picture is not None
    return {m.layer: m for m in found.picture.maps}


# --- layers


@pytest.mark.parametrize(
    ("kind", "names", "grids"),
    [
        ("vit", ["conv1", "transformer.resblocks.0", "transformer.resblocks.2"], [7, 7, 7]),
        ("resnet", ["conv1", "layer1", "layer4"], [32, 16, 2]),
        ("tower", ["trunk.patch_embed.proj", "trunk.blocks.0", "trunk.blocks.5"], [10, 10, 10]),
        ("test_vit", ["patch_embed.proj", "blocks.0", "blocks.5"], [10, 10, 10]),
        ("test_efficientnet", ["conv_stem", "blocks.0", "bn2"], [80, 80, 5]),
        ("offline", ["conv_stem", "blocks.0", "bn2"], [130, 130, 9]),
    ],
)
def test_layers_in_forward_order(opened: dict[str, Encoders], kind: str, names: list[str], grids: list[int]) -> None:
    layers = opened[kind].image.layers()  # type: ignore[attr-defined]
    by_name = {layer.name: layer for layer in layers}
    assert [layers[0].name, layers[-1].name] == [names[0], names[-1]]
    assert list(by_name).index(names[1]) > 0
    assert [by_name[name].grid for name in names] == [(g, g) for g in grids]
    sides = [layer.grid[0] for layer in layers]
    assert sides == sorted(sides, reverse=True)


def test_grid_of_the_real_clip_towers() -> None:
    """24 x 24 for L/14@336 and 7 x 7 for B/32; on the meta device nothing is computed."""
    import open_clip

    for arch, side, grid, blocks in (("ViT-L-14-336-quickgelu", 336, 24, 24), ("ViT-B-32", 224, 7, 12)):
        with torch.device("meta"):
            tower = open_clip.create_model(arch, device="meta").visual.eval()
            layers = find_layers(tower, lambda t=tower, s=side: t(torch.zeros(1, 3, s, s)))
        assert [la.name for la in layers] == ["conv1", *(f"transformer.resblocks.{i}" for i in range(blocks))]
        assert {la.grid for la in layers} == {(grid, grid)}
        assert [la.prefix for la in layers[1:]] == [1] * blocks


def test_maps_of_every_form() -> None:
    module = nn.Identity()
    places = torch.arange(6.0).reshape(1, 1, 2, 3)  # value = row * 3 + column
    patches = places.flatten(2).transpose(1, 2)  # (1, 6, 1)
    tokens = torch.cat([torch.full((1, 2, 1), -1.0), patches], dim=1)
    for form, output, prefix in (
        ("NCHW", places, 0),
        ("NHWC", places.permute(0, 2, 3, 1), 0),
        ("NLC", tokens, 2),
        ("LNC", tokens.transpose(0, 1), 2),
    ):
        layer = Layer("x", module, form, (2, 3), prefix)  # type: ignore[arg-type]
        torch.testing.assert_close(layer.map_of(output), places)


def test_swin_has_its_channels_last() -> None:
    import timm

    with torch.device("meta"):
        tower = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).eval()
        layers = find_layers(tower, lambda: tower(torch.zeros(1, 3, 224, 224)))
    assert [(la.name, la.form, la.grid[0]) for la in layers] == [
        ("patch_embed.proj", "NCHW", 56),
        ("layers.0", "NHWC", 56),
        ("layers.1", "NHWC", 28),
        ("layers.2", "NHWC", 14),
        ("layers.3", "NHWC", 7),
    ]


def test_a_tower_without_maps_is_refused() -> None:
    tower = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(EncoderError, match="no layer of Sequential outputs a map"):
        find_layers(tower, lambda: tower(torch.zeros(1, 3, 2, 2)))


# --- the chain is the one that predicts


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_explained_is_the_path_that_predicts(
    kind: str, opened: dict[str, Encoders], explained: dict[str, tuple[Run, Explanation]], picture: Path
) -> None:
    run, found = explained[kind]
    post = NewPost("a", "a happy day, isn't it? 😀", picture)
    image, text, missing, _ = encode_posts([post], opened[kind], [run], False)
    wanted = head_probabilities(run, image, text, missing)[0]
    assert list(found.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
    assert found.difference < 1e-3
    head = run.head()
    with torch.no_grad():
        logits = head(torch.from_numpy(image), torch.from_numpy(text))[0]
    assert found.logit == pytest.approx(float(logits[LABELS.index(found.target)]), abs=1e-3)
    assert found.target == found.label == LABELS[int(wanted.argmax())]
    assert found.temperature is None


def test_features_scaled_to_length_1(opened: dict[str, Encoders], picture: Path, tmp_path: Path) -> None:
    """The scaling is inside the graph: with it the gradient has no part along the embedding."""
    encoders = opened["test_efficientnet"]
    torch.manual_seed(0)
    width = encoders.image.card.width
    plain = Head(HeadConfig(fusion=Fusion.image, image_width=width, text_width=384, classes=3, hidden=16))
    run = make_run(tmp_path, encoders, fusion=Fusion.image, head=plain, normalize=True)
    found = explain(run, encoders, NewPost("a", None, picture))
    assert found.difference < 1e-5
    assert found.text is None
    raw = make_run(tmp_path / "raw", encoders, fusion=Fusion.image, head=plain)
    assert explain(raw, encoders, NewPost("a", None, picture)).logit != pytest.approx(found.logit, abs=1e-4)


def test_half_precision_is_explained_in_fp32(tmp_path: Path, picture: Path) -> None:
    encoders = open_tiny(tmp_path, "mmsent-explain-half", VIT, "bf16")
    run = make_run(tmp_path, encoders)
    found = explain(run, encoders, NewPost("a", "a happy day", picture))
    assert 0 < found.difference < 0.05
    assert encoders.image.clip.model.visual.conv1.weight.dtype is torch.bfloat16  # type: ignore[attr-defined]
    assert all(m.maximum >= 0 and np.isfinite(m.values).all() for m in maps_of(found).values())


def test_calibrated_probabilities_say_so(opened: dict[str, Encoders], picture: Path, tmp_path: Path) -> None:
    encoders, post = opened["vit"], NewPost("a", "a happy day", picture)
    plain = explain(make_run(tmp_path, encoders), encoders, post)
    warm = explain(make_run(tmp_path / "w", encoders, temperature=2.0), encoders, post)
    assert (plain.temperature, warm.temperature) == (None, 2.0)
    assert warm.logit == pytest.approx(plain.logit)
    logits = np.log(list(plain.probabilities.values())) / 2
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert list(warm.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_the_encoder_is_left_as_it_was(tmp_path: Path, picture: Path) -> None:
    """Frozen weights stay frozen, nothing is hooked any more, and encode gives the same bytes. The model is loaded
    inside inference mode here, as encode of old did."""
    encoders = open_tiny(tmp_path, "mmsent-explain-frozen", VIT)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    with torch.inference_mode():
        before = encoders.image.encode(pixels).tobytes(), encoders.text.encode(["a happy day", "b"]).tobytes()
    model = encoders.image.clip.model  # type: ignore[attr-defined]
    explain(make_run(tmp_path, encoders), encoders, NewPost("a", "a happy day", picture))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert before == (encoders.image.encode(pixels).tobytes(), encoders.text.encode(["a happy day", "b"]).tobytes())


def test_the_callers_gradient_mode_does_not_matter(
    opened: dict[str, Encoders], explained: dict[str, tuple[Run, Explanation]], picture: Path
) -> None:
    run, found = explained["vit"]
    with torch.inference_mode():
        again = explain(run, opened["vit"], NewPost("a", "a happy day, isn't it? 😀", picture))
    assert again.to_json() == found.to_json()


# --- pictures


@pytest.mark.parametrize("kind", KINDS)
def test_grad_cam_maps(kind: str, explained: dict[str, tuple[Run, Explanation]]) -> None:
    _, found = explained[kind]
    maps = list(maps_of(found).values())
    assert len(maps) >= 2
    for one in maps:
        assert one.grid == one.values.shape
        assert one.values.min() >= 0
        if one.maximum > 0:
            assert one.values.max() == pytest.approx(1)
            assert one.values[one.peak] == one.values.max()
            assert one.correlation is not None
            assert -1 <= one.correlation <= 1
    assert any(m.maximum > 0 for m in maps)


@pytest.mark.parametrize("kind", ["test_efficientnet", "resnet"])
def test_grad_cam_is_that_of_captum(
    kind: str, opened: dict[str, Encoders], explained: dict[str, tuple[Run, Explanation]]
) -> None:
    from captum.attr import LayerGradCam

    run, found = explained[kind]
    assert found.picture is not None
    encoder: Any = opened[kind].image
    head = run.head().requires_grad_(False)
    text = torch.from_numpy(opened[kind].text.encode(["a happy day, isn't it? 😀"]))
    modules = {layer.name: layer.module for layer in encoder.layers()}
    goal = LABELS.index(found.target)
    for one in found.picture.maps:
        x = encoder.prepared(found.picture.pixels[None]).requires_grad_()
        cam = LayerGradCam(
            lambda x: head(encoder.features(x), text.expand(len(x), -1))[:, goal], modules[one.layer]
        ).attribute(x, relu_attributions=True)
        np.testing.assert_allclose(one.values * one.maximum, cam[0, 0].detach().numpy(), rtol=1e-3, atol=1e-6)


def test_late_is_the_last_layer_that_still_counts(
    opened: dict[str, Encoders], explained: dict[str, tuple[Run, Explanation]], picture: Path
) -> None:
    """CLIP reads its class token: what the last block makes of the patches goes nowhere."""
    run, found = explained["vit"]
    assert list(maps_of(found)) == ["conv1", "transformer.resblocks.0", "transformer.resblocks.1"]
    last = explain(run, opened["vit"], NewPost("a", "x", picture), layers=["transformer.resblocks.2"])
    (dead,) = maps_of(last).values()
    assert (dead.maximum, dead.correlation) == (0.0, None)
    assert list(maps_of(explained["resnet"][1]))[-1] == "layer4"


def test_another_head_another_map(opened: dict[str, Encoders], picture: Path, tmp_path: Path) -> None:
    encoders = opened["test_efficientnet"]
    post = NewPost("a", "a happy day", picture)
    one, two = (
        maps_of(
            explain(make_run(tmp_path / str(s), encoders, seed=s), encoders, post, target="neutral", layers=["late"])
        )
        for s in (0, 1)
    )
    assert np.abs(one["bn2"].values - two["bn2"].values).max() > 0.1


# --- words


def logit_of(run: Run, encoders: Encoders, found: Explanation, text: str) -> float:
    """A text head's logit of the target for another text, through encode alone."""
    blank, words = torch.zeros(1, encoders.image.card.width), torch.from_numpy(encoders.text.encode([text]))
    with torch.no_grad():
        return float(run.head()(blank, words)[0, LABELS.index(found.target)])


def test_occlusion_goes_in_halves_where_memory_is_short(
    opened: dict[str, Encoders], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, post = opened["test_vit"], NewPost("a", None, picture)
    run = make_run(tmp_path, pair, fusion=Fusion.image)
    whole = explain(run, pair, post)
    features, sizes = pair.image.features, []  # type: ignore[attr-defined]

    def small(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found: Tensor = features(x)
        return found

    monkeypatch.setattr(pair.image, "features", small)
    halved = explain(run, pair, post)
    assert max(sizes) > 2
    assert whole.picture is not None
    assert halved.picture is not None
    assert whole.picture.occlusion == pytest.approx(halved.picture.occlusion, abs=1e-5)


@pytest.mark.parametrize("kind", ["vit", "offline"])
def test_word_occlusion_is_the_text_without_the_word(kind: str, opened: dict[str, Encoders], tmp_path: Path) -> None:
    run = make_run(tmp_path, opened[kind], fusion=Fusion.text)
    found = explain(run, opened[kind], NewPost("a", "a happy day", None))
    assert found.text is not None
    assert [w.word for w in found.text.words] == ["a", "happy", "day"]
    for score, rest in zip(found.text.words, ("happy day", "a day", "a happy"), strict=True):
        wanted = found.logit - logit_of(run, opened[kind], found, rest)
        assert score.occlusion == pytest.approx(wanted, abs=1e-4)
    assert len({round(w.occlusion, 6) for w in found.text.words}) == 3


@pytest.mark.parametrize("kind", ["vit", "offline"])
def test_gradients_of_words(kind: str, opened: dict[str, Encoders], tmp_path: Path) -> None:
    """Gradient x input is what the logit gains when the word's embedding grows by a little; the integral adds up to
    the difference from the baseline."""
    encoders = opened[kind]
    run = make_run(tmp_path, encoders, fusion=Fusion.text)
    found = explain(run, encoders, NewPost("a", "a happy day 😀", None))
    assert found.text is not None
    encoder: Any = encoders.text
    tokens = encoder.tokenize("a happy day 😀")
    image = torch.zeros(1, encoders.image.card.width)

    def logit(change: Callable[[Tensor], Tensor]) -> float:
        """The target's logit where `change` alters the token embeddings (1, L, C)."""
        handle = encoder.embedding().register_forward_hook(lambda _, __, out: change(out))
        try:
            with torch.no_grad():
                text = encoder.features_of(*encoder.batch([tokens.ids]))
                return float(run.head()(image, text)[0, LABELS.index(found.target)].double())
        finally:
            handle.remove()

    def grown(places: Sequence[int], by: float) -> Callable[[Tensor], Tensor]:
        factor = torch.ones(1, len(tokens.ids), 1)
        factor[0, list(places)] += by
        return lambda out: out * factor

    for score, word in zip(found.text.words, tokens.words, strict=True):
        slope = (logit(grown(word.positions, 0.01)) - logit(grown(word.positions, -0.01))) / 0.02
        assert score.gradient == pytest.approx(slope, abs=1e-4, rel=0.02)
        assert score.gradient_norm > 0
    assert max(abs(w.gradient) for w in found.text.words) > 2e-3
    row = torch.tensor([[i if kept else tokens.pad for i, kept in zip(tokens.ids, tokens.special, strict=True)]])
    nothing = encoder.embedding()(row)
    total = sum(w.integrated for w in found.text.words)
    assert total == pytest.approx(found.logit - logit(lambda _: nothing), abs=1e-3)
    assert abs(total) > 0.05
    assert abs(found.text.delta) < 1e-3


def test_gradients_go_through_tuned_blocks(picture: Path) -> None:
    """Gradient x input is what the logit gains on the way that predicts: trunk, states, tuned blocks, head. On frozen
    features the same head gains something else."""
    world, text = tuned_world(), "a happy sad day"
    run, encoder = world.runs[0], cast(Any, world.encoders.text)
    found = explain(run, world.encoders, NewPost("a", text, picture), occlude=False)
    assert found.text is not None
    image, _, _, _ = encode_posts([NewPost("a", text, picture)], world.encoders, [run], normalize=False)
    tokens, model = encoder.tokenize(text), encoder.clip.fp32_model
    ids, mask = encoder.batch([tokens.ids])

    def slope(places: Sequence[int], *, tuned: bool) -> float:
        logits = []
        for by in (0.01, -0.01):
            factor = torch.ones(1, len(tokens.ids), 1)
            factor[0, list(places)] += by
            states: list[Tensor] = []
            hooks = [
                encoder.embedding().register_forward_hook(lambda _, __, out, factor=factor: out * factor),
                model.transformer.resblocks[-1].register_forward_pre_hook(
                    lambda _, given, to=states: to.append(given[0])
                ),
            ]
            with torch.no_grad():
                own = encoder.features_of(ids, mask)
                for hook in hooks:
                    hook.remove()
                own = run_blocks(run, world.encoders)(states[0], mask, own) if tuned else own
                logits.append(run.head()(torch.from_numpy(image), own)[0, run.labels.index(found.target)].double())
        return float(logits[0] - logits[1]) / 0.02

    apart = []
    for score, word in zip(found.text.words, tokens.words, strict=True):
        assert score.gradient == pytest.approx(slope(word.positions, tuned=True), abs=1e-4, rel=0.02)
        apart.append(abs(score.gradient - slope(word.positions, tuned=False)))
    assert max(apart) > 0.01
    whole = sum(abs(w.gradient) for w in found.text.words)
    assert whole > 0.01


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "offline",
            ["I", "don't", "miss", *"今日は晴れ", "😀", "@you", "#happyDay", ",", "antidisestablishmentarianism", "!"],
        ),
        (
            "vit",
            ["i", "don't", "miss", "今日は晴れ", "😀", "@you", "#happyday", ",", "antidisestablishmentarianism", "!"],
        ),
    ],
)
def test_words_are_whole_and_special_tokens_are_none(kind: str, words: list[str], opened: dict[str, Encoders]) -> None:
    encoder: Any = opened[kind].text
    tokens = encoder.tokenize(MIXED)
    assert [w.text for w in tokens.words] == words
    held = [p for w in tokens.words for p in w.positions]
    assert sorted(held) == [i for i, special in enumerate(tokens.special) if not special]
    assert len(set(held)) == len(held)
    assert len(tokens.ids) == encoder.lengths([MIXED])[0]
    assert not tokens.cut
    assert (tokens.special[0], tokens.special[-1], sum(tokens.special)) == (True, True, 2)
    assert encoder.tokenize("").words == ()


@pytest.mark.parametrize("kind", ["vit", "offline"])
def test_long_texts_are_cut_as_encode_cuts_them(kind: str, opened: dict[str, Encoders]) -> None:
    encoder: Any = opened[kind].text
    text = "so very " * 200
    tokens = encoder.tokenize(text)
    limit = encoder.card.max_tokens
    assert (len(tokens.ids), len(tokens.words), tokens.cut) == (limit, limit - 2, True)
    with torch.no_grad():
        ours = encoder.features_of(*encoder.batch([tokens.ids])).numpy()
    np.testing.assert_allclose(ours, encoder.encode([text]), rtol=1e-3, atol=1e-5)


def test_rows_of_several_lengths_do_not_disturb_each_other(opened: dict[str, Encoders]) -> None:
    texts = ["a", "a lovely long day in the sun", "今日は晴れ 😀"]
    for kind in ("vit", "offline"):
        encoder: Any = opened[kind].text
        with torch.no_grad():
            ours = encoder.features_of(*encoder.batch([encoder.tokenize(t).ids for t in texts])).numpy()
        np.testing.assert_allclose(ours, encoder.encode(texts), rtol=1e-3, atol=1e-5)


def test_literal_special_tokens_are_words(opened: dict[str, Encoders]) -> None:
    encoder: Any = opened["offline"].text
    tokens = encoder.tokenize("[SEP] is a token [CLS]")
    assert [w.text for w in tokens.words] == ["[", "SEP", "]", "is", "a", "token", "[", "CLS", "]"]


# --- planted by hand


class PatchEncoder:
    """(B, 16, 16, 3) to 48-d: a convolution into 4 x 4 patches, of which one alone is read."""

    batch_size = 8

    def __init__(self, row: int = 1, column: int = 2) -> None:
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 4, stride=4, bias=False).requires_grad_(False)
        self.out = nn.Linear(6, 48, bias=False).requires_grad_(False)
        self.place = row, column
        digest = hashlib.sha256(f"{row} {column}".encode()).hexdigest()
        card: dict[str, Any] = {"library": "fake", "name": "patch", "weights_sha256": digest, "precision": "fp32"}
        self.card = ImageCard(**card, width=48, libraries={"fake": "1"}, preprocess=PREPROCESS)

    def prepared(self, pixels: Pixels) -> Tensor:
        return normalized(pixels, PREPROCESS, "cpu", torch.float32)

    def features(self, x: Tensor) -> Tensor:
        row, column = self.place
        found: Tensor = self.out(self.conv(x)[:, :, row, column])
        return found

    def layers(self) -> list[Layer]:
        return [Layer("conv", self.conv, "NCHW", (4, 4))]

    def encode(self, pixels: Pixels) -> Embeddings:
        with torch.inference_mode():
            return self.features(self.prepared(pixels)).numpy()


class WordEncoder:
    """Texts to 32-d: one word alone is read, wherever it stands. Ids: 0 padding, 1 and 2 start and end."""

    def __init__(self, key: str = "happy") -> None:
        torch.manual_seed(1)
        self.table = nn.Embedding(200, 8).requires_grad_(False)
        self.out = nn.Linear(8, 32, bias=False).requires_grad_(False)
        self.key = self.number(key)
        digest = hashlib.sha256(key.encode()).hexdigest()
        card: dict[str, Any] = {"library": "fake", "name": "word", "weights_sha256": digest, "precision": "fp32"}
        self.card = TextCard(**card, width=32, libraries={"fake": "1"}, max_tokens=40)

    @staticmethod
    def number(word: str) -> int:
        return 3 + int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 197

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def tokenize(self, text: str) -> Tokens:
        words = text.split()[: self.card.max_tokens - 2]
        ids = (1, *(self.number(w) for w in words), 2)
        special = (True, *(False for _ in words), True)
        named = tuple(Word(w, (i + 1,)) for i, w in enumerate(words))
        return Tokens(ids, special, named, 0, len(ids) < len(text.split()) + 2)

    def batch(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids, (ids > 0).long()

    def features_of(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = (ids == self.key)[:, :, None]
        found: Tensor = self.out((self.table(ids) * read).sum(dim=1))
        return found

    def embedding(self) -> nn.Module:
        return self.table

    def encode(self, texts: list[str]) -> Embeddings:
        with torch.inference_mode():
            return self.features_of(*self.batch([self.tokenize(t).ids for t in texts])).numpy()


def planted(row: int = 1, column: int = 2, key: str = "happy") -> Encoders:
    return Encoders(PatchEncoder(row, column), WordEncoder(key))


def linear_head(target: int, *, image: Tensor | None = None, text: Tensor | None = None) -> Head:
    """A concat head, attention_alt-like plain: the hidden units see the given directions of the halves alone."""
    torch.manual_seed(3)
    head = Head(HeadConfig(fusion=Fusion.concat, image_width=48, text_width=32, classes=3, hidden=8))
    with torch.no_grad():
        head.fc1.weight.zero_()
        head.fc1.bias.zero_()
        head.norm.bias.zero_()
        head.out.weight.zero_()
        head.out.bias.zero_()
        # Unit 0 rises with the evidence, unit 1 falls; both pass LayerNorm against each other and speak for the target.
        head.fc1.bias[2:] = torch.linspace(-1, 1, 6)
        if image is not None:
            head.fc1.weight[0, :48], head.fc1.weight[1, :48] = image, -image
        if text is not None:
            head.fc1.weight[0, 48:], head.fc1.weight[1, 48:] = text, -text
        head.out.weight[target, 0] = 1.0
    return head


def spot(path: Path, row: int, column: int) -> Path:
    """A 16 x 16 picture in the mean colour with one bright patch of the 4 x 4."""
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = (255, 200, 180)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 3)])
def test_the_one_patch_that_is_read(place: tuple[int, int], tmp_path: Path) -> None:
    encoders = planted(*place)
    path = spot(tmp_path / "spot.png", *place)
    pixels = np.array(Image.open(path))[None]
    direction = torch.from_numpy(encoders.image.encode(pixels))[0]
    run = make_run(tmp_path, encoders, head=linear_head(2, image=direction / direction.norm()))
    found = explain(run, encoders, NewPost("a", "x", path), target="positive")
    (cam,) = maps_of(found).values()
    assert found.picture is not None
    assert (cam.layer, cam.grid, cam.peak) == ("conv", (4, 4), place)
    assert cam.maximum > 0
    assert np.sort(cam.values.ravel())[-2] < 0.05  # nowhere else
    n = len(found.picture.occlusion)
    row, column = np.unravel_index(int(found.picture.occlusion.argmax()), (n, n))
    assert (row * 4 // n, column * 4 // n) == place
    assert found.picture.occlusion.max() > 0
    assert cam.correlation is not None
    assert cam.correlation > 0
    assert found.modality.image > 0
    assert found.modality.text == 0  # its columns are zero
    assert found.cam_of == "logit"
    # Two labels besides with the logits 0: the log-probability rises by 1 - p of what the logit rises by.
    of_loss = explain(run, encoders, NewPost("a", "x", path), target="positive", cam_of="loss")
    (lowered,) = maps_of(of_loss).values()
    assert (of_loss.cam_of, lowered.peak) == ("loss", place)
    p = float(torch.softmax(torch.tensor([0.0, 0.0, found.logit]), 0)[2])
    assert lowered.maximum == pytest.approx(cam.maximum * (1 - p), rel=1e-4)
    assert lowered.values == pytest.approx(cam.values, abs=1e-5)
    np.testing.assert_array_equal(of_loss.picture.occlusion, found.picture.occlusion)  # type: ignore[union-attr]


def test_grad_cam_is_not_fooled_into_another_patch(tmp_path: Path) -> None:
    """A bright patch that is not read: nothing is lost by covering it."""
    encoders = planted(1, 2)
    path = spot(tmp_path / "spot.png", 3, 0)
    run = make_run(tmp_path, encoders, head=linear_head(2, image=torch.ones(48)))
    found = explain(run, encoders, NewPost("a", "x", path), target="positive")
    assert found.picture is not None
    n = len(found.picture.occlusion)
    assert np.abs(found.picture.occlusion[n * 3 // 4 + 1 :, : n // 4]).max() < 1e-6


@pytest.mark.parametrize("key", ["happy", "sad"])
def test_the_one_word_that_is_read(key: str, tmp_path: Path) -> None:
    encoders = planted(key=key)
    direction = torch.from_numpy(encoders.text.encode([key]))[0]
    run = make_run(tmp_path, encoders, head=linear_head(2, text=direction / direction.norm()))
    path = spot(tmp_path / "spot.png", 0, 0)
    found = explain(run, encoders, NewPost("a", "so happy and sad today", path), target="positive")
    assert found.text is not None
    assert found.text.ranked("grad_cam")[0].word == key
    for method in ("gradient", "gradient_norm", "integrated", "occlusion"):
        ranked = found.text.ranked(method)
        assert ranked[0].word == key
        assert getattr(ranked[0], method) > 1e-3
        assert [getattr(w, method) for w in ranked[1:]] == pytest.approx([0] * 4, abs=1e-6)
    assert found.text.correlations["gradient"] == pytest.approx(1)
    assert found.text.correlations["integrated"] == pytest.approx(1)
    assert found.modality.image == 0
    assert found.modality.text > 0
    of_loss = explain(
        run, encoders, NewPost("a", "so happy and sad today", path), target="positive", cam_of="loss"
    ).text
    assert of_loss is not None
    p = float(torch.softmax(torch.tensor([0.0, 0.0, found.logit]), 0)[2])
    assert [w.grad_cam for w in of_loss.words] == pytest.approx(
        [w.grad_cam * (1 - p) for w in found.text.words], abs=1e-6
    )
    assert [w.integrated for w in of_loss.words] == [w.integrated for w in found.text.words]
    against = explain(
        make_run(tmp_path / "n", encoders, head=linear_head(2, text=-direction / direction.norm())),
        encoders,
        NewPost("a", "so happy and sad today", path),
        target="positive",
    )
    assert against.text is not None
    assert against.text.ranked("occlusion")[-1].word == key  # it speaks against, and that is no support
    assert against.text.ranked("occlusion")[-1].occlusion < -1e-3
    assert against.modality.text < 0


# --- halves


def test_shares_of_the_halves(tmp_path: Path) -> None:
    encoders = planted()
    path = spot(tmp_path / "spot.png", 1, 2)
    post = NewPost("a", "happy day", path)
    direction = torch.from_numpy(encoders.image.encode(np.array(Image.open(path))[None]))[0]
    blank = explain(make_run(tmp_path / "0", encoders, head=linear_head(2)), encoders, post)
    assert (blank.modality.image, blank.modality.text) == (0, 0)
    run = make_run(tmp_path / "1", encoders)
    both = explain(run, encoders, post)
    image, text = (torch.from_numpy(x) for x in encode_posts([post], encoders, [run], False)[:2])
    head, goal = run.head(), LABELS.index(both.target)
    with torch.no_grad():
        whole = head(image, text)[0, goal]
        lost = [
            float(whole - head(image, text, torch.tensor([gone]))[0, goal]) for gone in ([True, False], [False, True])
        ]
    assert [both.modality.image, both.modality.text] == pytest.approx(lost, abs=1e-5)
    # The mean that stands in is the training rows' own.
    centred = linear_head(2, image=direction / direction.norm())
    centred.image_mean.copy_(direction)
    still = explain(make_run(tmp_path / "2", encoders, head=centred), encoders, post)
    assert still.modality.image == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("fusion", [Fusion.image, Fusion.text])
def test_heads_of_one_half(fusion: Fusion, tmp_path: Path) -> None:
    encoders = planted()
    run = make_run(tmp_path, encoders, fusion=fusion)
    path = spot(tmp_path / "spot.png", 1, 2)
    found = explain(run, encoders, NewPost("a", "happy day", path))
    assert (found.modality.text if fusion is Fusion.image else found.modality.image) == 0
    assert (found.picture is None, found.text is None) == (fusion is Fusion.text, fusion is Fusion.image)
    half = NewPost("a", "happy", None) if fusion is Fusion.text else NewPost("a", None, path)
    assert explain(run, encoders, half).probabilities


@pytest.mark.parametrize("fusion", [Fusion.weighted, Fusion.attention, Fusion.attention_alt])
def test_the_other_fusions(fusion: Fusion, tmp_path: Path) -> None:
    encoders = planted()
    post = NewPost("a", "happy day", spot(tmp_path / "spot.png", 1, 2))
    found = explain(make_run(tmp_path, encoders, fusion=fusion), encoders, post)
    assert found.difference < 1e-6
    assert found.text is not None
    assert abs(found.text.words[0].occlusion) > 0
    assert found.text.words[1].occlusion == pytest.approx(0, abs=1e-6)


def test_a_post_that_lacks_a_half(tmp_path: Path) -> None:
    encoders = planted()
    plain = make_run(tmp_path, encoders)
    for post, problem in (
        (NewPost("a", "happy", None), "no picture"),
        (NewPost("a", None, None), "no picture; no text"),
    ):
        with pytest.raises(RunError, match=rf"^a: {problem}; the concat head .* --modality-dropout$"):
            explain(plain, encoders, post)
    serving = make_run(tmp_path / "d", encoders, modality_dropout=0.3)
    found = explain(serving, encoders, NewPost("a", "happy day", None))
    assert found.picture is None
    assert found.text is not None
    assert found.problem == "no picture"
    assert found.modality.image == 0


@pytest.mark.parametrize(("fusion", "needs"), [(Fusion.image, "an image"), (Fusion.text, "a text")])
def test_a_head_of_one_half_asks_for_that_half(fusion: Fusion, needs: str, tmp_path: Path) -> None:
    encoders = planted()
    run = make_run(tmp_path, encoders, fusion=fusion)
    half = NewPost("a", "happy", None) if fusion is Fusion.image else NewPost("a", None, spot(tmp_path / "s.png", 1, 2))
    with pytest.raises(RunError, match=rf"the {fusion} head .* cannot label it: give {needs}$"):
        explain(run, encoders, half)


def test_the_mean_stands_in_where_that_is_asked_for(tmp_path: Path) -> None:
    encoders = planted()
    run = make_run(tmp_path, encoders)
    found = explain(run, encoders, NewPost("a", "happy day", None), stand_in=True)
    assert (
        found.problem
        == "no picture; the mean of the training rows is used instead, which this head was not trained for"
    )
    head = run.head()
    with torch.no_grad():
        image, text = head.image_mean[None], torch.from_numpy(encoders.text.encode(["happy day"]))
        logits = head(torch.zeros(1, 48), text, torch.tensor([[True, False]]))
        torch.testing.assert_close(head._classify(torch.cat([image, head.scale(image, text)[1]], 1))[2], logits)
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-5)
    assert found.modality.image == 0
    with pytest.raises(RunError, match="no picture; no text; the concat head"):
        explain(run, encoders, NewPost("a", None, None), stand_in=True)
    text_head = make_run(tmp_path / "t", encoders, fusion=Fusion.text)
    with pytest.raises(RunError, match="the text head"):
        explain(text_head, encoders, NewPost("a", None, spot(tmp_path / "s.png", 0, 0)), stand_in=True)


# --- requests that cannot be met


def test_unknown_target_layer_or_encoder(tmp_path: Path) -> None:
    encoders = planted()
    run = make_run(tmp_path, encoders)
    post = NewPost("a", "happy", spot(tmp_path / "spot.png", 1, 2))
    with pytest.raises(UsageError, match=r"--target 'joy': run concat has the labels negative, neutral, positive"):
        explain(run, encoders, post, target="joy")
    with pytest.raises(UsageError, match=r"--layer 'conv9': choose from first, middle, late, conv$"):
        explain(run, encoders, post, layers=["conv9"])
    fakes = fake_encoders()
    with pytest.raises(EncoderError, match="grid cannot be differentiated"):
        explain(make_run(tmp_path / "f", fakes), fakes, post)
    half = Encoders(encoders.image, fakes.text)
    with pytest.raises(EncoderError, match="bag cannot be differentiated"):
        explain(make_run(tmp_path / "h", half), half, post)
    with pytest.raises(RunError, match="was trained on features of"):
        explain(run, planted(0, 0), post)


def test_captured_outputs_survive_work_in_place() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)).requires_grad_(False)
    with captured({"0": model[0]}) as found:
        out = model(torch.tensor([[1.0, -3.0]])).sum()
    (slope,) = torch.autograd.grad(out, [found["0"]])
    torch.testing.assert_close(slope, (found["0"] > 0).float())


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1], [1]) is None
    assert spearman(np.eye(2), -np.eye(2)) == pytest.approx(-1)


# --- results and figures


def test_json_holds_plain_numbers(explained: dict[str, tuple[Run, Explanation]]) -> None:
    _, found = explained["vit"]
    again = json.loads(json.dumps(found.to_json()))
    assert again == found.to_json()
    assert again["picture"]["grad_cam"][0]["layer"] == "conv1"
    assert np.shape(again["picture"]["grad_cam"][0]["values"]) == (7, 7)
    assert [w["word"] for w in again["text"]["words"]] == ["a", "happy", "day", ",", "isn't", "it", "?", "😀"]
    assert again["probabilities"] == found.probabilities


def drawn_texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_figures(explained: dict[str, tuple[Run, Explanation]]) -> None:
    found = [replace(explained[kind][1], id=f"post {kind} $5$") for kind in ("vit", "test_efficientnet")]
    rows = grad_cam_figure(found)
    texts = drawn_texts(rows)
    assert any(t.startswith("conv1\nGrad-CAM\n7 × 7") for t in texts)
    assert any(t.startswith("conv_stem\nGrad-CAM\n80 × 80") for t in texts)
    assert any("share of the maximum" in t for t in texts)
    page = explanation_figure(found[0])
    assert {"negative", "😀", "isn't", "Grad-CAM, embedding"} <= {text.partition("\n")[0] for text in drawn_texts(page)}
    for figure in (rows, page, word_figure(found[0])):
        raw = png_bytes(figure, dpi=60)
        with Image.open(io.BytesIO(raw)) as image:
            assert len(image.convert("RGB").getcolors(10**6) or []) > 50


def test_the_same_explanation_the_same_bytes(explained: dict[str, tuple[Run, Explanation]]) -> None:
    _, found = explained["vit"]
    assert png_bytes(explanation_figure(found), dpi=60) == png_bytes(explanation_figure(found), dpi=60)


def test_labels_stay_inside_the_page(explained: dict[str, tuple[Run, Explanation]]) -> None:
    """Long ids, texts and words are cut or broken, never clipped at the edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _, found = explained["vit"]
    assert found.text is not None
    words = tuple(replace(w, word=w.word * 9 or "x") for w in found.text.words)
    long = replace(found, id="i" * 200, text=replace(found.text, text="今日は晴れ 😀 very long " * 30, words=words))
    for figure in (explanation_figure(long), word_figure(long), grad_cam_figure([long])):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box = figure.get_tightbbox(canvas.get_renderer())  # type: ignore[attr-defined]
        width, height = figure.get_size_inches()
        assert box.x0 > -0.05
        assert box.x1 < width + 0.05
        assert box.y0 > -0.05
        assert box.y1 < height + 0.05


def test_of_many_words_the_strongest_are_drawn(explained: dict[str, tuple[Run, Explanation]]) -> None:
    _, found = explained["vit"]
    assert found.text is not None
    one = found.text.words[0]
    many = tuple(replace(one, word=f"w{i}", occlusion=float(i), grad_cam=0.0, integrated=0.0) for i in range(40))
    names = drawn_texts(word_figure(replace(found, text=replace(found.text, words=many))))
    shown = [n for n in dict.fromkeys(names) if n[:1] == "w" and n[1:].isdigit()]
    assert shown == [f"w{i}" for i in range(16, 40)]
    assert "(mean of 16 others)" in names


def test_figures_of_what_is_not_there(explained: dict[str, tuple[Run, Explanation]]) -> None:
    _, found = explained["vit"]
    assert found.text is not None
    with pytest.raises(ValueError, match="no words"):
        word_figure(replace(found, text=None))
    with pytest.raises(ValueError, match="has an image"):
        grad_cam_figure([replace(found, picture=None)])
    for bare in (replace(found, picture=None), replace(found, text=None)):
        assert png_bytes(explanation_figure(bare), dpi=50)
    empty = replace(found, text=replace(found.text, words=(), text=""))
    assert "the text has no words" in drawn_texts(explanation_figure(empty))
