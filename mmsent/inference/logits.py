"""Which rows a head can label, and its logits and calibrated probabilities on features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmsent.config import Fusion
from mmsent.errors import RunError, first_line
from mmsent.features.cache import Cache
from mmsent.inference.tuned import Floats, Texts, features_for
from mmsent.metrics import Probabilities
from mmsent.training.calibration import apply_temperature
from mmsent.training.halves import Missing
from mmsent.training.numpy_heads import head_outputs
from mmsent.training.runs import Run


def served(run: Run, missing: Missing) -> Missing:
    """(N,) bool: which rows a run's head can label. A head needs both halves, unless it was trained with modality
    dropout (then one is enough) or reads one half only."""
    if run.fusion is Fusion.image:
        return ~missing[:, 0]
    if run.fusion is Fusion.text:
        return ~missing[:, 1]
    if run.fit.modality_dropout > 0:
        return np.logical_not(missing.all(axis=1))
    return np.logical_not(missing.any(axis=1))


def head_logits(
    run: Run, image: NDArray[np.float32], text: Floats | Texts, missing: Missing | None = None
) -> NDArray[np.float32]:
    """A run's logits (N, C) for image (N, D_image) and text (N, D_text) features; missing (N, 2) bool. text: an array
    for heads on frozen features, else see mmsent.inference.tuned. Raises RunError where the widths are not the head's,
    or a head that tunes blocks gets an array."""
    return _outputs(run, image, text, missing)[0]


def head_probabilities(
    run: Run, image: NDArray[np.float32], text: Floats | Texts, missing: Missing | None = None
) -> Probabilities:
    """A run's probabilities (N, C) at its temperature; arguments and errors as for head_logits."""
    return apply_temperature(head_logits(run, image, text, missing), run.temperature)


def head_shares(
    run: Run, image: NDArray[np.float32], text: Floats | Texts, missing: Missing | None = None
) -> NDArray[np.float32] | None:
    """How much of a run's fused features is image and text, (N, 2): a weighted head's weights, an attention head's mean
    attention to each half; None for other fusions. Arguments and errors as for head_logits."""
    return _outputs(run, image, text, missing)[1]


def _outputs(
    run: Run, image: NDArray[np.float32], text: Floats | Texts, missing: Missing | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    config, weights = run.weights()
    image, text = features_for(run, image, text)
    text = text[:, run.columns]
    widths = (config.image_width, config.text_width)
    if widths != (image.shape[1], text.shape[1]):
        raise RunError(f"run {run.name} takes features of widths {widths}, got {(image.shape[1], text.shape[1])}")
    try:
        return head_outputs(config, weights, image, text, missing if missing is not None and missing.any() else None)
    except (KeyError, ValueError) as error:
        raise RunError(
            f"the weights of run {run.name} are not those of its head ({first_line(error)}); run `mmsent fit` again"
        ) from error


def require(run: Run, cache: Cache) -> None:
    """Raise RunError unless a run's head takes this cache's features and names its labels."""
    run.require(cache.settings.contract, str(cache.path), cache.encoder)
    if run.labels != list(cache.labels):
        raise RunError(
            f"run {run.name} has the labels {', '.join(run.labels)}; the cache has {', '.join(cache.labels)}"
        )
