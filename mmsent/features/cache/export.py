"""A split of a cache as one .npz or Parquet file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from mmsent.errors import UsageError
from mmsent.features.cache.reading import Cache
from mmsent.features.cache.table import NO_LABEL
from mmsent.system.files import write_bytes


def export(cache: Cache, split: str, out: Path) -> Path:
    """Write a split as .npz or .parquet: id, label (empty if there is none), good, image (V * D_image in a row), text.

    Raises UsageError on another ending or without pyarrow.
    """
    features = cache.load(split)
    index = features.index
    names = [cache.labels[k] if k != NO_LABEL else "" for k in index.labels]
    if out.suffix == ".npz":
        held = io.BytesIO()
        np.savez(
            held,
            id=np.array(index.ids),
            label=np.array(names),
            good=index.good,
            image=features.image,
            text=features.text,
        )
        return write_bytes(out, held.getvalue())
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: the ending determines the format; use .npz or .parquet")
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow: pip install 'mmsent[parquet]'") from error
    columns = {"id": pa.array(index.ids), "label": pa.array(names), "good": pa.array(index.good)}
    for half, values in (("image", features.image), ("text", features.text)):
        width = int(np.prod(values.shape[1:]))
        columns[half] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
    held = io.BytesIO()
    parquet.write_table(pa.table(columns), held)
    return write_bytes(out, held.getvalue())
