"""The feature cache: one HDF5 file per data set and settings. This package alone touches h5py.

A cache file is only ever replaced whole: an extraction in progress lives in a journal (mmsent.features.cache.journal),
and when the split is complete, old rows and journalled rows are poured into a new file that takes the old one's place
in one rename. So a file that can be read is a file that was finished. Damage is found on reading, row by row (see
mmsent.features.cache.damage). The layout is documented in docs/reference/cache.md.
"""

from __future__ import annotations

from mmsent.features.cache.opening import FORMAT, FORMAT_VERSION, find_damage
from mmsent.features.cache.reading import Cache, Columns, Features, RowIndex
from mmsent.features.cache.sources import HALVES, Sources
from mmsent.features.cache.table import NO_HASH, NO_LABEL, Row, RowTable
from mmsent.features.cache.writing import IMAGE_BAD, REASON_BYTES, TEXT_BAD, pour, write_cache

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "HALVES",
    "IMAGE_BAD",
    "NO_HASH",
    "NO_LABEL",
    "REASON_BYTES",
    "TEXT_BAD",
    "Cache",
    "Columns",
    "Features",
    "Row",
    "RowIndex",
    "RowTable",
    "Sources",
    "find_damage",
    "pour",
    "write_cache",
]
