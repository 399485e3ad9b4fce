"""Embeddings scaled to length 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def l2_normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (..., D) scaled to length 1; zero vectors stay zero."""
    norms = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))
    scaled: NDArray[np.float32] = vectors / norms
    return scaled
