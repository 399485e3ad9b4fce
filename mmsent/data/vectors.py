"""Vectors of features."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=np.floating)


def unit_length(vectors: NDArray[F], out: NDArray[F] | None = None) -> NDArray[F]:
    """Vectors (..., D) scaled to length 1; zeros stay zeros. out: where the result goes, which may be the vectors
    themselves."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))
    scaled: NDArray[F] = np.divide(vectors, lengths, out=out)
    return scaled
