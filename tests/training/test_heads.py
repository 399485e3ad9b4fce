"""The six heads: their shapes, their arithmetic by hand, and what they do with a missing half."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmsent.config import FitSettings, Fusion
from mmsent.errors import UsageError
from mmsent.training.head_config import HeadConfig, head_config
from mmsent.training.heads import Head

ATTENTIONS = [Fusion.attention, Fusion.attention_alt]


def make_head(fusion: Fusion, image: int = 6, text: int = 6, seed: int = 0, **more: Any) -> Head:
    torch.manual_seed(seed)
    values = {"hidden": 5, "heads": 2, **more}
    return Head(HeadConfig(fusion=fusion, image_width=image, text_width=text, classes=3, **values)).eval()


def rows(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


# --- shapes and sizes


@pytest.mark.parametrize(
    ("fusion", "equal", "unequal"),
    [
        (Fusion.concat, 12, 10),
        (Fusion.weighted, 6, 512),
        (Fusion.attention, 6, 512),
        (Fusion.attention_alt, 6, 512),
        (Fusion.image, 6, 6),
        (Fusion.text, 6, 4),
    ],
)
def test_shapes(fusion: Fusion, equal: int, unequal: int) -> None:
    for text_width, fused in ((6, equal), (4, unequal)):
        head = make_head(fusion, text=text_width)
        image, text = rows(7, 6, 1), rows(7, text_width, 2)
        trace = head.trace(image, text)
        assert head.config.fused_width == fused
        assert trace.fused.shape == (7, fused)
        assert head(image, text).shape == trace.logits.shape == (7, 3)
        if fusion is Fusion.attention_alt:
            assert trace.hidden is None
        else:
            assert trace.hidden is not None
            assert trace.hidden.shape == (7, 5)
        if fusion in {Fusion.weighted, *ATTENTIONS}:
            assert trace.shares is not None
            assert trace.shares.shape == (7, 2)
            torch.testing.assert_close(trace.shares.sum(dim=1), torch.ones(7))
        else:
            assert trace.shares is None


def test_a_common_width_projects_equal_widths_too() -> None:
    assert not hasattr(make_head(Fusion.weighted), "project_image")
    assert make_head(Fusion.weighted, common_width=8).config.fused_width == 8
    assert make_head(Fusion.attention, text=4, common_width=8)(rows(2, 6, 0), rows(2, 4, 0)).shape == (2, 3)
    assert make_head(Fusion.concat, text=4, common_width=8).config.fused_width == 10  # concat never projects


@pytest.mark.parametrize(
    ("fusion", "count"),
    [
        # classifier of width w: w * 256 + 256, LayerNorm 2 * 256, 256 * 3 + 3
        (Fusion.concat, 1536 * 256 + 256 + 512 + 771),
        (Fusion.weighted, 768 * 256 + 256 + 512 + 771 + 2),
        # attention: four 768 x 768 matrices with biases
        (Fusion.attention, 4 * (768 * 768 + 768) + 768 * 256 + 256 + 512 + 771),
        (Fusion.attention_alt, 4 * (768 * 768 + 768) + 768 * 3 + 3),
        (Fusion.image, 198147),
        (Fusion.text, 198147),
    ],
)
def test_parameter_counts_of_the_report(fusion: Fusion, count: int) -> None:
    head = Head(head_config(FitSettings(fusion=fusion), 768, 768, 3))
    assert sum(p.numel() for p in head.parameters()) == count


def test_head_config_takes_the_fit_settings_over() -> None:
    wanted: dict[str, Any] = {
        "fusion": Fusion.weighted,
        "hidden": 7,
        "dropout": 0.25,
        "heads": 3,
        "common_width": 9,
        "standardize": True,
        "modality_dropout": 0.125,
    }
    config = head_config(FitSettings(**wanted), 11, 12, 4)
    wanted |= {"image_width": 11, "text_width": 12, "classes": 4}
    assert config.model_dump(include=set(wanted)) == wanted
    assert make_head(Fusion.concat, dropout=0.25).drop.p == 0.25


@pytest.mark.parametrize("fusion", ATTENTIONS)
def test_attention_heads_must_divide_the_width(fusion: Fusion) -> None:
    with pytest.raises(UsageError, match="4 attention heads do not divide the width 6"):
        make_head(fusion, heads=4)
    make_head(fusion, heads=3)
    make_head(Fusion.concat, heads=4)


# --- training in bfloat16


@pytest.mark.parametrize("fusion", list(Fusion))
@pytest.mark.parametrize(
    ("width", "more"),
    [(6, {}), (4, {"common_width": 8, "rms": True, "standardize": True}), (6, {"depth": 3})],
)
def test_products_in_bfloat16_are_near_those_in_float32(fusion: Fusion, width: int, more: dict[str, Any]) -> None:
    head = make_head(fusion, text=width, hidden=16, **more).train()
    with torch.no_grad():  # as after some training: a norm that starts at 1 and 0 would hide a mistake
        for at, (_, norm) in enumerate(head.hidden_layers):
            norm.weight.copy_(rows(16, 16, 5)[at])
            norm.bias.copy_(rows(16, 16, 6)[at])
    image, text, labels = rows(40, 6, 1), rows(40, width, 2), torch.arange(40) % 3
    missing = torch.stack([torch.arange(40) % 4 == 0, torch.arange(40) % 4 == 1], dim=1)
    factors = (rows(40, 16 * head.config.depth, 3) > 0).float() * 2
    head.set_statistics(image, text)

    def slopes() -> tuple[float, list[Tensor]]:
        loss = nn.functional.cross_entropy(head(image, text, missing, factors), labels)
        return float(loss.detach()), list(torch.autograd.grad(loss, list(head.parameters())))

    plain = slopes()
    head.products = torch.bfloat16
    short = slopes()
    assert short[0] == pytest.approx(plain[0], rel=0.01)
    assert all(slope.dtype == torch.float32 for slope in short[1])
    joined = [torch.cat([slope.flatten() for slope in many]) for _, many in (plain, short)]
    assert float(nn.functional.cosine_similarity(*joined, dim=0)) > 0.999
    assert not torch.equal(*joined)  # it did run in another precision

    head.eval()  # a head at work computes in fp32, whatever it was trained in
    with torch.no_grad():
        logits = head(image, text)
        head.products = torch.float32
        assert torch.equal(head(image, text), logits)


def test_dropout_by_hand() -> None:
    """Each hidden layer's units are multiplied by its own part of the factors."""
    head = make_head(Fusion.image, depth=2)
    image, text, factors = rows(4, 6, 1), rows(4, 6, 2), rows(4, 10, 3)
    x = image
    for at, (layer, norm) in enumerate(head.hidden_layers):
        x = nn.functional.gelu(norm(layer(x))) * factors[:, 5 * at : 5 * at + 5]
    assert torch.equal(head(image, text, None, factors), head.out(x))
    assert not torch.allclose(head(image, text), head.out(x))


def test_a_product_in_bfloat16_by_hand() -> None:
    """Numbers that bfloat16 holds exactly give exact products, sums and gradients."""
    head = make_head(Fusion.concat).train()
    head.products = torch.bfloat16
    x = torch.tensor([[[1.0, 2.0]], [[-3.0, 0.5]]], requires_grad=True)  # (2, 1, 2)
    weight = torch.tensor([[1.0, -1.0], [4.0, 2.0], [0.25, 8.0]], requires_grad=True)
    bias = torch.tensor([0.0, 1.0, 0.001], requires_grad=True)  # the last is not exact in bfloat16, and stays fp32
    out = head._linear(weight, bias, x)
    assert torch.equal(out, torch.tensor([[[-1.0, 8.0, 16.25]], [[-3.5, -11.0, 3.25]]]) + bias)
    grads = torch.autograd.grad(out, [x, weight, bias], torch.tensor([[[1.0, 0.0, 2.0]], [[0.5, 1.0, 0.0]]]))
    assert torch.equal(grads[0], torch.tensor([[[1.5, 15.0]], [[4.5, 1.5]]]))
    assert torch.equal(grads[1], torch.tensor([[-0.5, 2.25], [-3.0, 0.5], [2.0, 4.0]]))
    assert torch.equal(grads[2], torch.tensor([1.5, 1.0, 2.0]))


# --- arithmetic


def test_weighted_starts_equal_and_is_the_weighted_sum() -> None:
    head = make_head(Fusion.weighted)
    image, text = rows(4, 6, 1), rows(4, 6, 2)
    trace = head.trace(image, text)
    assert trace.shares is not None
    assert trace.shares.tolist() == [[0.5, 0.5]] * 4
    assert torch.equal(trace.fused, 0.5 * image + 0.5 * text)
    with torch.no_grad():
        head.weight_logits.copy_(torch.tensor([math.log(3.0), 0.0]))
    trace = head.trace(image, text)
    assert trace.shares is not None
    torch.testing.assert_close(trace.shares, torch.tensor([[0.75, 0.25]] * 4))
    torch.testing.assert_close(trace.fused, 0.75 * image + 0.25 * text)


def test_weighted_projects_each_half_where_widths_differ() -> None:
    head = make_head(Fusion.weighted, text=4, common_width=8)
    image, text = rows(4, 6, 1), rows(4, 4, 2)
    by_hand = 0.5 * (image @ head.project_image.weight.T + head.project_image.bias)
    by_hand += 0.5 * (text @ head.project_text.weight.T + head.project_text.bias)
    torch.testing.assert_close(head.trace(image, text).fused, by_hand)


@pytest.mark.parametrize("fusion", ATTENTIONS)
def test_attention_by_hand(fusion: Fusion) -> None:
    head = make_head(fusion)
    image, text = rows(4, 6, 1), rows(4, 6, 2)
    plain = nn.MultiheadAttention(6, 2, batch_first=True)
    plain.load_state_dict(head.attention.state_dict())
    tokens = torch.stack([image, text], dim=1)
    mixed, attention = plain(tokens, tokens, tokens)  # attention (B, query, key), averaged over the heads
    trace = head.trace(image, text)
    torch.testing.assert_close(trace.fused, (mixed[:, 0] + mixed[:, 1]) / 2)
    assert trace.shares is not None
    torch.testing.assert_close(trace.shares[:, 0], (attention[:, 0, 0] + attention[:, 1, 0]) / 2)
    torch.testing.assert_close(trace.shares[:, 1], (attention[:, 0, 1] + attention[:, 1, 1]) / 2)
    assert (trace.shares - 0.5).abs().max() > 1e-3  # else the comparison above could not tell the halves apart
    given = [p.requires_grad_() for p in (image, text)]
    own, theirs = head._attend(*given)[0], plain(tokens := torch.stack(given, dim=1), tokens, tokens)[0].mean(dim=1)
    slopes = [
        torch.autograd.grad(out.square().sum(), [*given, *module.parameters()])
        for out, module in ((own, head.attention), (theirs, plain))
    ]
    for mine, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-6, rtol=1e-4)


def test_concat_puts_the_picture_first() -> None:
    image, text = rows(4, 6, 1), rows(4, 3, 2)
    fused = make_head(Fusion.concat, text=3).trace(image, text).fused
    assert torch.equal(fused[:, :6], image)
    assert torch.equal(fused[:, 6:], text)


def test_attention_alt_is_one_linear_layer() -> None:
    head = make_head(Fusion.attention_alt)
    assert {name for name, _ in head.named_children()} == {"attention", "out"}
    trace = head.trace(rows(4, 6, 1), rows(4, 6, 2))
    torch.testing.assert_close(trace.logits, trace.fused @ head.out.weight.T + head.out.bias)


def test_further_hidden_layers_follow_the_first() -> None:
    head, image = make_head(Fusion.image, hidden=8, depth=3), rows(4, 6, 1)
    assert {"fc1", "norm", "fc2", "norm2", "fc3", "norm3"} < {name for name, _ in head.named_children()}
    assert len(head.hidden_layers) == 3
    assert make_head(Fusion.attention_alt, depth=3).hidden_layers == []
    x = image
    for linear, norm in head.hidden_layers:
        x = torch.nn.functional.gelu(norm(linear(x)))
    trace = head.trace(image, image)
    assert trace.hidden is not None
    torch.testing.assert_close(trace.first, head.fc1(image))
    torch.testing.assert_close(trace.hidden, x)
    torch.testing.assert_close(trace.logits, head.out(x))
    assert make_head(Fusion.image, hidden=8, dropout=0.9, depth=2).train()(image, image).isfinite().all()


def test_a_head_of_one_hidden_layer_is_written_as_ever() -> None:
    """The bytes of a run's head, and so its SHA-256, are those of an mmsent that knew no depth."""
    usual, deep = make_head(Fusion.concat).config, make_head(Fusion.concat, depth=2).config
    assert "depth" not in usual.model_dump(mode="json")
    assert deep.model_dump(mode="json")["depth"] == 2
    assert all(HeadConfig.model_validate(one.model_dump(mode="json")) == one for one in (usual, deep))


def test_classifier_order_by_hand() -> None:
    """width -> H -> LayerNorm -> GELU (exact) -> Dropout -> C."""
    head = make_head(Fusion.image, hidden=8)
    with torch.no_grad():
        head.norm.weight.copy_(rows(1, 8, 5)[0])
        head.norm.bias.copy_(rows(1, 8, 6)[0])
    image = rows(4, 6, 1)
    x = image @ head.fc1.weight.T + head.fc1.bias
    x = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    x = x * head.norm.weight + head.norm.bias
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    trace = head.trace(image, image)
    assert trace.hidden is not None
    torch.testing.assert_close(trace.hidden, x)
    torch.testing.assert_close(trace.logits, x @ head.out.weight.T + head.out.bias)


def test_dropout_comes_last_and_in_training_alone() -> None:
    head = make_head(Fusion.image, hidden=64, dropout=0.5)
    given: list[Tensor] = []
    head.out.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    image = rows(4, 6, 1)
    hidden = head.trace(image, image).hidden
    assert hidden is not None
    assert torch.equal(given[-1], hidden)
    head.train()
    head(image, image)
    kept = given[-1] != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(given[-1][kept], 2 * hidden[kept])  # scaled by 1 / (1 - p)


# --- statistics and missing halves


def test_standardisation_by_the_stored_statistics() -> None:
    image, text = torch.tensor([[1.0, 5.0], [5.0, 5.0]]), torch.tensor([[0.0], [8.0]])
    head = make_head(Fusion.concat, image=2, text=1, standardize=True)
    head.set_statistics(image, text)
    assert head.image_mean.tolist() == [3.0, 5.0]
    assert head.image_std.tolist() == [2.0, 1.0]  # the second never varies: not divided by 0
    assert (head.text_mean.tolist(), head.text_std.tolist()) == ([4.0], [4.0])
    given = torch.tensor([[7.0, 7.0]]), torch.tensor([[12.0]])
    assert head.trace(*given).fused.tolist() == [[2.0, 2.0, 2.0]]
    plain = make_head(Fusion.concat, image=2, text=1)
    plain.set_statistics(image, text)
    assert plain.trace(*given).fused.tolist() == [[7.0, 7.0, 12.0]]


def test_rms_scales_rows_before_anything_else() -> None:
    image, text = torch.tensor([[3.0, 4.0], [0.0, -6.0]]), torch.tensor([[5.0], [-0.1]])
    head = make_head(Fusion.concat, image=2, text=1, rms=True)
    head.set_statistics(image, text)
    root = math.sqrt(2)
    scaled = torch.tensor([[0.6 * root, 0.8 * root, 1.0], [0.0, -root, -1.0]])  # each half of length sqrt(width)
    torch.testing.assert_close(head.trace(image, text).fused, scaled)
    torch.testing.assert_close(head.image_mean, scaled[:, :2].mean(dim=0))
    missing = torch.tensor([[True, False], [False, True]])
    zeros = torch.zeros(2, 2), torch.zeros(2, 1)  # what stands in the place of a missing half is not scaled
    fused = head.trace(torch.where(missing[:, :1], zeros[0], image), text, missing).fused
    torch.testing.assert_close(fused, torch.tensor([[0.3 * root, -0.1 * root, 1.0], [0.0, -root, 0.0]]))


def test_statistics_are_saved_and_not_trained() -> None:
    head = make_head(Fusion.concat)
    assert {"image_mean", "image_std", "text_mean", "text_std"} <= head.state_dict().keys()
    assert not {name for name, _ in head.named_parameters() if name.endswith(("mean", "std"))}


@pytest.mark.parametrize("standardize", [False, True])
def test_a_missing_half_is_the_training_mean(standardize: bool) -> None:
    head = make_head(Fusion.concat, image=2, text=1, standardize=standardize)
    head.set_statistics(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[0.0], [8.0]]))
    nan = math.nan
    image, text = torch.tensor([[nan, nan], [3.0, 6.0], [3.0, 6.0]]), torch.tensor([[8.0], [nan], [8.0]])
    missing = torch.tensor([[True, False], [False, True], [False, False]])
    plain = [[2.0, 5.0, 8.0], [3.0, 6.0, 4.0], [3.0, 6.0, 8.0]]
    scaled = [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    assert head.trace(image, text, missing).fused.tolist() == (scaled if standardize else plain)


@pytest.mark.parametrize("fusion", list(Fusion))
@pytest.mark.parametrize("text_width", [6, 4])
def test_trace_is_the_same_computation(fusion: Fusion, text_width: int) -> None:
    head = make_head(fusion, text=text_width, standardize=True)
    image, text = rows(9, 6, 1), rows(9, text_width, 2)
    head.set_statistics(image, text)
    missing = torch.zeros(9, 2, dtype=torch.bool)
    missing[0, 0] = missing[1, 1] = True
    for gone in (None, missing):
        torch.testing.assert_close(head.trace(image, text, gone).logits, head(image, text, gone))
    assert not torch.equal(head(image, text), head(image, text, missing))


def test_ablations_read_one_half_alone() -> None:
    image, text, other, nan = rows(4, 6, 1), rows(4, 6, 2), rows(4, 6, 3), torch.full((4, 6), math.nan)
    for head, given, twin, changed in (
        (make_head(Fusion.image), (image, text), (image, nan), (other, text)),
        (make_head(Fusion.text), (image, text), (nan, text), (image, other)),
    ):
        assert torch.equal(head(*given), head(*twin))
        assert not torch.equal(head(*given), head(*changed))
