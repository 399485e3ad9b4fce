"""open_clip's vision transformer on a CPU, in about seven eighths of the time of its own modules.

It differs in three ways, measured by scripts/bench_cpu_tower.py. None changes the result beyond rounding:

- In bf16 attention runs for a few heads at a time, so that their scores stay in the processor's cache; all heads of a
  batch at once write 43 MB per layer at 336 px, and read them back. In fp32 torch's fused attention is faster still.
- Weights are stored once in the layout that oneDNN's products need, and the products apply the activation. The
  operators are those that torch's own compiler emits; versions of torch without them use the plain ones.
- The last block computes only the class token, because nothing else of it is used.

Shapes: B images, L tokens, D width, H heads of d = D / H.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

QUICKGELU = 1.702  # OpenAI's constant
SCORES_AT_ONCE = 4 * 577 * 577  # 2.7 MB, four heads of ViT-L/14 at 336 px; half or twice as many took the same time


def quick_tower(model: Any) -> nn.Module | None:
    """The image tower of an open_clip model: `tower(x)` replaces `model.encode_image(x)`.

    It shares the model's parameters and does not change them. None if the tower is not a plain vision transformer with
    class-token pooling (ResNets, timm's towers, attention pooling): open_clip's own tower is then used.
    """
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    tower: Any = getattr(model, "visual", None)
    if (
        type(model).encode_image not in {CLIP.encode_image, CustomTextCLIP.encode_image}
        or type(tower) is not VisionTransformer
        or tower.attn_pool is not None
        or tower.pool_type != "tok"
        or tower.output_tokens
        or not tower.transformer.batch_first
    ):
        return None
    blocks = list(tower.transformer.resblocks)
    if any(type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv") for block in blocks):
        return None
    quick = _shallow(tower)
    quick.transformer = _shallow(tower.transformer)
    quick.transformer.resblocks = nn.ModuleList(
        [*map(QuickBlock, blocks[:-1]), *(ClassTokenBlock(block) for block in blocks[-1:])]
    )
    found: nn.Module = quick
    return found


def _shallow(module: nn.Module) -> Any:
    """A copy whose children can be replaced without changing the original."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


class Product(nn.Module):
    """x W^T + b, then an activation: (..., D_in) to (..., D_out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.bias, self.activation = bias, activation
        self.fused: tuple[str, str] | None = ("none", "")
        if type(activation) is nn.SiLU:
            self.fused = ("swish", "")
        elif type(activation) is nn.GELU:
            self.fused = ("gelu", activation.approximate)
        elif activation is not None:
            self.fused = None
        self.packed = _packed(weight)
        self.weight = weight if self.packed is None else None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None:
            name, algorithm = self.fused or ("none", "")
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], algorithm)
            return self.activation(y) if self.fused is None and self.activation is not None else y
        assert self.weight is not None
        y = functional.linear(x, self.weight, self.bias)
        return y if self.activation is None else self.activation(y)


def _packed(weight: Tensor) -> Tensor | None:
    """A weight (D_out, D_in) in oneDNN's own layout; None if this torch has no such operators, or they fail."""
    close_enough = {torch.bfloat16: 0.05, torch.float32: 1e-4}.get(weight.dtype)
    if close_enough is None or weight.device.type != "cpu":
        return None
    try:
        with torch.no_grad():
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
            probe = torch.ones(1, weight.shape[1], dtype=weight.dtype)
            found = torch.ops.mkldnn._linear_pointwise(probe, packed, None, "none", [], "")
            wanted = functional.linear(probe, weight).float()
            close = torch.allclose(found.float(), wanted, rtol=close_enough, atol=close_enough)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return None
    return packed if close else None


class QuickBlock(nn.Module):
    """A ResidualAttentionBlock of open_clip: (B, L, D) to (B, L, D)."""

    read: int | None = None  # tokens of the output, from the first; None: all

    def __init__(self, block: Any) -> None:
        super().__init__()
        from open_clip.transformer import QuickGELU

        self.heads: int = block.attn.num_heads
        self.ln_1, self.ls_1, self.ln_2, self.ls_2 = block.ln_1, block.ls_1, block.ln_2, block.ls_2
        self._project(block.attn.in_proj_weight, block.attn.in_proj_bias)
        self.out = Product(block.attn.out_proj.weight, block.attn.out_proj.bias)
        up, activation, down = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
        if type(activation) is QuickGELU:  # x sigmoid(a x) = silu(a x) / a, which oneDNN applies
            self.up = Product(up.weight * QUICKGELU, up.bias * QUICKGELU, nn.SiLU())
            self.down = Product(down.weight / QUICKGELU, down.bias)
        else:
            self.up, self.down = Product(up.weight, up.bias, activation), Product(down.weight, down.bias)

    def _project(self, weight: Tensor, bias: Tensor | None) -> None:
        """Set the products for queries, keys and values; weight (3 D, D)."""
        self.qkv = Product(weight, bias)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if attn_mask is not None:
            raise ValueError("every token of an image attends to all others; a mask is not supported")
        x = x[:, : self.read] + self.ls_1(self.out(self.attended(self.ln_1(x))))
        found: Tensor = x + self.ls_2(self.down(self.up(self.ln_2(x))))
        return found

    def attended(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = _heads(self.qkv(x), 3, self.heads)  # each (B * H, L, d)
        return _merged(attention(q, k, v), n, length, width)


class ClassTokenBlock(QuickBlock):
    """The last block, of which only the class token is used: (B, L, D) to (B, 1, D)."""

    read = 1

    def _project(self, weight: Tensor, bias: Tensor | None) -> None:
        width = weight.shape[1]
        self.q = Product(weight[:width], None if bias is None else bias[:width])
        self.kv = Product(weight[width:], None if bias is None else bias[width:])

    def attended(self, x: Tensor) -> Tensor:
        n, _, width = x.shape
        (q,) = _heads(self.q(x[:, :1]), 1, self.heads)
        k, v = _heads(self.kv(x), 2, self.heads)
        return _merged(attention(q, k, v), n, 1, width)


def _heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """(B, L, parts * D) to (parts, B * H, L, d)."""
    n, length, _ = x.shape
    return x.view(n, length, parts, heads, -1).permute(2, 0, 3, 1, 4).reshape(parts, n * heads, length, -1)


def _merged(x: Tensor, n: int, length: int, width: int) -> Tensor:
    """(B * H, L, d) to (B, L, D)."""
    return x.view(n, -1, length, width * n // x.shape[0]).transpose(1, 2).reshape(n, length, width)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) v of each head: (N, L_q, d), (N, L, d), (N, L, d) to (N, L_q, d)."""
    if q.dtype is torch.float32:
        return functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
    q = q * q.shape[-1] ** -0.5
    out = torch.empty_like(q)
    heads = max(1, SCORES_AT_ONCE // (q.shape[1] * k.shape[1]))
    for i in range(0, len(q), heads):
        at = slice(i, i + heads)
        scores = torch.bmm(q[at], k[at].transpose(1, 2))
        torch.bmm(scores.softmax(dim=-1), v[at], out=out[at])
    return out
