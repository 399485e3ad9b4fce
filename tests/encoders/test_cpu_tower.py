"""The picture tower for CPUs against open_clip's own, and where it must not serve."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from mmsent.encoders import cpu_tower
from mmsent.encoders.clip_model import fold_quickgelu
from mmsent.encoders.cpu_tower import attention, quick_tower
from tests.encoders.test_clip import CONFIG, Tiny, loud, make_tiny


def made(folder: Path, vision: dict[str, Any], **top: Any) -> Any:
    """A model of the tiny architecture with some of it changed."""
    config = json.loads(json.dumps(CONFIG)) | top
    config["vision_cfg"] |= vision
    (folder / "mmsent-variant.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "mmsent-variant.json")
    torch.manual_seed(0)
    return loud(open_clip.create_model("mmsent-variant", device="cpu")).eval().requires_grad_(False)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "QuickGELU": ({}, {}),
    "GELU": ({}, {"quick_gelu": False}),
    "one block, three heads": ({"layers": 1, "width": 48}, {}),
    "layer scale": ({"ls_init_value": 0.3}, {}),
    "norm behind the pool": ({"final_ln_after_pool": True}, {}),
    "no norm before": ({"no_ln_pre": True}, {}),
    "a text tower of its own": ({}, {"custom_text": True}),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("packing", [True, False])
def test_in_fp32_it_is_the_same_function(
    tmp_path: Path, name: str, folded: bool, packing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packing:
        monkeypatch.setattr(cpu_tower, "_packed", lambda weight: None)
    vision, top = VARIANTS[name]
    model = made(tmp_path, vision, **top)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        wanted = model.encode_image(x)
        if folded:
            fold_quickgelu(model)
        before = copy.deepcopy(model.state_dict())
        quick = quick_tower(model)
        assert quick is not None
        torch.testing.assert_close(quick(x), wanted, rtol=1e-4, atol=1e-5)
        assert cosine_similarity(wanted[:-1], wanted[1:]).max() < 0.99
        # The model is left as it was, and shares its parameters.
        torch.testing.assert_close(model.encode_image(x), wanted, rtol=1e-4, atol=1e-5)
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert quick.transformer.resblocks[0].ln_1.weight is model.visual.transformer.resblocks[0].ln_1.weight  # type: ignore[union-attr, index, attr-defined]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("quickgelu", [True, False])
def test_in_bfloat16_it_agrees_with_fp32(
    tmp_path: Path, packing: bool, quickgelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With oneDNN's packed weights where this torch and this processor have them, and without."""
    if not packing:
        monkeypatch.setattr(cpu_tower, "_packed", lambda weight: None)
    model = made(tmp_path, {}, quick_gelu=quickgelu)
    x = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        wanted = model.encode_image(x)
        fold_quickgelu(model)
        quick = quick_tower(model.to(torch.bfloat16))
        assert quick is not None
        found = quick(x.bfloat16())
        assert found.dtype is torch.bfloat16
        assert cosine_similarity(found.float(), wanted).min() > 0.999
        assert all((module.packed is None) or packing for module in quick.modules() if hasattr(module, "packed"))


def test_an_operator_that_fails_or_errs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(8, 4, dtype=torch.bfloat16)

    def reorder(*_: Any) -> Any:
        raise RuntimeError("mkldnn bf16 path needs other instructions")

    class Operators:
        _reorder_linear_weight = staticmethod(reorder)

    monkeypatch.setattr(torch.ops, "mkldnn", Operators())
    assert cpu_tower._packed(weight) is None
    Operators._reorder_linear_weight = staticmethod(lambda weight, _: weight)  # and none to multiply with
    assert cpu_tower._packed(weight) is None
    Operators._linear_pointwise = staticmethod(lambda x, *_: torch.zeros(1, 8))  # type: ignore[attr-defined]
    assert cpu_tower._packed(weight) is None
    Operators._linear_pointwise = staticmethod(lambda x, w, *_: x @ w.T)  # type: ignore[attr-defined]
    found = cpu_tower._packed(weight)
    assert found is not None
    assert found.data_ptr() == weight.data_ptr()
    assert cpu_tower._packed(weight.float()) is not None
    assert cpu_tower._packed(weight.half()) is None


@pytest.mark.parametrize("n", [1, 3, 4, 9])
@pytest.mark.parametrize("scores", [1, 10, 20, 25, 1000])
def test_attention_goes_by_heads(n: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tower, "SCORES_AT_ONCE", scores)  # a head has 2 x 5
    for dtype in (torch.float64, torch.float32):  # fp32 goes to torch's own
        q, k, v = (torch.randn(n, length, 8, dtype=dtype) for length in (2, 5, 5))
        torch.testing.assert_close(attention(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("vision", "top"),
    [
        ({"pool_type": "avg"}, {}),
        ({"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}, {}),
        ({"output_tokens": True}, {}),
        ({"block_type": "custom"}, {}),
        ({"layers": [1, 1, 1, 1], "width": 16, "head_width": 8}, {}),  # a ResNet
        ({"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}, {}),
    ],
)
def test_other_towers_are_left_to_open_clip(tmp_path: Path, vision: dict[str, Any], top: dict[str, Any]) -> None:
    assert quick_tower(made(tmp_path, vision, **top)) is None


def test_it_serves_on_a_cpu_alone(tmp_path: Path) -> None:
    tiny: Tiny = make_tiny(tmp_path, "mmsent-quick", CONFIG)
    for precision in ("fp32", "bf16"):
        clip: Any = tiny.open(precision).image.clip  # type: ignore[attr-defined]
        assert isinstance(clip.encode_image, nn.Module)
    clip = tiny.open("fp32").image.clip  # type: ignore[attr-defined]
    clip.device = "cuda"
    clip.__dict__["model"] = made(tmp_path, {})
    assert clip.encode_image == clip.model.encode_image


def test_a_mask_is_refused(tmp_path: Path) -> None:
    quick: Any = quick_tower(made(tmp_path, {}))
    with pytest.raises(ValueError, match="a mask is not supported"):
        quick.transformer(torch.randn(1, 3, 32), attn_mask=torch.zeros(3, 3))
