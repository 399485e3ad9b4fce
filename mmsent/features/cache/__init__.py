"""The feature cache: one HDF5 file per data set and settings. Only this package uses h5py.

A cache file is only replaced as a whole: an extraction in progress is in a journal (mmsent.features.cache.journal), and
when a split is complete, old and journalled rows are copied into a new file that replaces the old one in one rename. So
a file that can be read is complete. Damage is found on reading, row by row (see mmsent.features.cache.damage). The
layout is documented in docs/reference/cache.md.
"""

from __future__ import annotations

from mmsent.features.cache.opening import FORMAT, FORMAT_VERSION, find_damage
from mmsent.features.cache.reading import Cache, Columns, Features, RowIndex
from mmsent.features.cache.sources import HALVES, Sources
from mmsent.features.cache.table import IMAGE_BAD, NO_HASH, NO_LABEL, TEXT_BAD, Row, RowTable
from mmsent.features.cache.writing import REASON_BYTES, pour, write_cache

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
