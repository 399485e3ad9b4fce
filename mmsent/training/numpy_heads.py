"""A trained head's answers in NumPy, as `mmsent.training.heads.Head` gives them but for rounding: importing torch takes
longer than all that a vote computes.

Shapes: B batch, D_image and D_text feature widths, D fused width, H hidden width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Fusion
from mmsent.training.head_config import HeadConfig

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]  # as a run's head.safetensors holds them
PART = 8192  # rows at a time
NORM_EPSILON = 1e-5  # torch's LayerNorm's
# The error function's approximation 7.1.26 of Abramowitz and Stegun, right to 1.5e-7: p, and a5 to a1.
_ERF_P, *_ERF_A = (0.3275911, 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def head_outputs(
    config: HeadConfig, weights: Weights, image: Floats, text: Floats, missing: NDArray[np.bool_] | None = None
) -> tuple[Floats, Floats | None]:
    """image (B, D_image), text (B, D_text), missing (B, 2) or None: logits (B, C), and how much of the fused features
    is image and text (B, 2), None for fusions that do not say (see `mmsent.training.heads.Trace`). Raises KeyError or
    ValueError where the weights are not such a head's."""
    logits, shares = [], []
    for start in range(0, max(1, len(image)), PART):
        part = slice(start, start + PART)
        halves = [
            _prepared(config, weights, name, x[part], None if missing is None else missing[part, at, None])
            for at, (name, x) in enumerate((("image", image), ("text", text)))
        ]
        fused, share = _fuse(config, weights, *halves)
        logits.append(_classify(config, weights, fused))
        if share is not None:
            shares.append(share)
    return np.concatenate(logits), np.concatenate(shares) if shares else None


def _prepared(config: HeadConfig, weights: Weights, half: str, x: Floats, gone: NDArray[np.bool_] | None) -> Floats:
    """Scaled features of one half, the training rows' mean in the place of missing ones."""
    mean = weights[f"{half}_mean"]
    if config.rms:
        x = x / np.sqrt(np.maximum(np.square(x).mean(axis=1, keepdims=True), np.float32(1e-12)))
    if config.standardize:
        x = (x - mean) / weights[f"{half}_std"]
    if gone is None:
        return x
    fill: Floats = np.where(gone, np.zeros_like(mean) if config.standardize else mean, x)
    return fill


def _linear(weights: Weights, name: str, x: Floats) -> Floats:
    out: Floats = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return out


def _fuse(config: HeadConfig, weights: Weights, image: Floats, text: Floats) -> tuple[Floats, Floats | None]:
    fusion = config.fusion
    if fusion is Fusion.image or fusion is Fusion.text:
        return image if fusion is Fusion.image else text, None
    if fusion is Fusion.concat:
        return np.concatenate([image, text], axis=1), None
    if config.projects:
        image, text = _linear(weights, "project_image", image), _linear(weights, "project_text", text)
    if fusion is Fusion.weighted:
        share = _softmax(weights["weight_logits"])
        return share[0] * image + share[1] * text, np.broadcast_to(share, (len(image), 2))
    pair = np.stack([image, text], axis=1)  # (B, 2, D)
    n, _, width = pair.shape
    joint = pair @ weights["attention.in_proj_weight"].T + weights["attention.in_proj_bias"]
    each = joint.reshape(n, 2, 3, config.heads, width // config.heads)
    query, key, value = each.transpose(2, 0, 3, 1, 4)  # (B, heads, 2, d)
    attention = _softmax(query @ key.swapaxes(2, 3) / np.float32(sqrt(width // config.heads)))  # (B, heads, 2, 2)
    mixed = (attention @ value).mean(axis=2).reshape(n, width)  # the mean of the two tokens, which the rest keeps
    return _linear(weights, "attention.out_proj", mixed), attention.mean(axis=(1, 2))


def _classify(config: HeadConfig, weights: Weights, x: Floats) -> Floats:
    for k in range(1, config.depth + 1) if config.fusion is not Fusion.attention_alt else ():
        norm = "norm" if k == 1 else f"norm{k}"
        x = _linear(weights, f"fc{k}", x)  # (B, H)
        x = x - x.mean(axis=1, keepdims=True)
        spread: Floats = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(NORM_EPSILON))
        x = x / spread * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]
        x = _gelu(x)
    return _linear(weights, "out", x)


def _softmax(x: Floats) -> Floats:
    exp = np.exp(x - x.max(axis=-1, keepdims=True))
    out: Floats = exp / exp.sum(axis=-1, keepdims=True)
    return out


def _gelu(x: Floats) -> Floats:
    out: Floats = erf(x / np.float32(sqrt(2)))
    out += 1
    out *= x / 2
    return out


def erf(x: Floats) -> Floats:
    """The error function, for NumPy has none and SciPy takes long to import."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(_ERF_P) * size)
    tail = np.zeros_like(t)
    for coefficient in _ERF_A:
        tail += np.float32(coefficient)
        tail *= t
    out: Floats = np.copysign(1 - tail * np.exp(-size * size), x)
    return out
