"""What a cache records of its extractions: the data set, the settings, digests of its rows, and what encoded them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmsent.config import EncoderSettings
from mmsent.data.dataset import Dataset, Split
from mmsent.features.cache import HALVES, Cache, RowTable, digests
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.journal import Journal
from mmsent.features.engine import Engine
from mmsent.system.devices import pick_device

MADE_BY = 20  # extractions that a cache remembers: the first one and the newest


def settings_record(dataset: Dataset, encoder: EncoderSettings, batch_size: int, max_bad: float) -> dict[str, Any]:
    """The data set, its settings and the encoders' as plain values; paths are absolute."""
    chosen = encoder.model_dump(mode="json")
    if chosen["weights"]:
        chosen["weights"] = str(Path(chosen["weights"]).resolve())
    return {
        "data": str(dataset.root.resolve()),
        "reader": dataset.layout,
        "data_settings": dataset.settings.model_dump(mode="json"),
        "decoding": dataset.decoding.why,
        "encoder_settings": chosen,
        "batch_size": batch_size,
        "max_bad": max_bad,
        **({"validation": list(dataset.validation)} if dataset.validation else {}),
        "written": now(),
        "command": sys.argv,
    }


def journal_record(
    dataset: Dataset, encoder: EncoderSettings, settings: FeatureSettings, batch_size: int, max_bad: float
) -> dict[str, Any]:
    """What a journal keeps from its beginning: what its rows must go with, and the options to go on with."""
    begun = settings_record(dataset, encoder, batch_size, max_bad)
    begun |= {"data_name": dataset.name, "features": settings.model_dump(mode="json")}
    return {"fingerprint": settings.fingerprint, "batch_size": batch_size, "begun": begun}


def used_later(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The part of a record that later commands rely on: where data set and weights are, the accepted share of bad rows,
    and which rows validate."""
    places = [record["encoder_settings"].get(name) for name in ("weights", "text_folder")]
    return record["data"], *places, record.get("max_bad"), record.get("validation")


def content_record(old: Cache | None, lists: Mapping[Split, RowTable], labels: tuple[str, ...]) -> dict[str, Any]:
    """Digests of all rows that the cache will list, by split. lists: the splits that were extracted now."""
    content: dict[str, Any] = {split: digests.content_of(rows, labels) for split, rows in lists.items()}
    if old is None:
        return content
    others = [split for split in old.rows if split not in content]
    if old.damage is None:
        return content | {split: digests.content(old, split, names=labels) for split in others}
    known = old.provenance.get("content", {})  # digests of the rows before they were damaged
    return content | {split: known[split] for split in others if split in known}


def empty_record(old: Cache | None, journal: Journal) -> dict[str, list[str]]:
    """The hashes of images and of texts that say nothing: those known of before, and those encoded now."""
    known = old.provenance.get("empty", {}) if old is not None else {}
    return {half: sorted({*known.get(half, []), *(h.hex() for h in journal.empty(half))}) for half in HALVES}


def read_record(old: Cache | None) -> dict[str, str]:
    """When the posts of each split were read for a cache; for one of an older mmsent, when it was written."""
    if old is None:
        return {}
    written = old.provenance.get("written")
    return old.provenance.get("read") or (dict.fromkeys(old.rows, written) if written else {})


def makers_record(
    old: Cache | None, encoded: Mapping[str, int], engine: Engine, encoder: EncoderSettings
) -> list[dict[str, Any]]:
    """What encoded the rows, one record per extraction, newest last. encoded: rows encoded now, by split."""
    made_by: list[dict[str, Any]] = []
    if old is not None:
        first = {"written": old.provenance.get("written"), "command": old.provenance.get("command")}
        made_by = old.provenance.get("made_by", [first])
    if any(encoded.values()) or old is None:
        environment = engine.environment(pick_device(encoder.device) if "torch" in sys.modules else None)
        made_by = [*made_by, {"written": now(), "encoded": dict(encoded), **environment}]
    return [*made_by[:1], *made_by[1:][1 - MADE_BY :]]


def mixture(made_by: Sequence[Mapping[str, Any]]) -> str:
    """Whether the newest rows of a cache were encoded on another kind of device than others; empty if not."""
    kinds = [_device(one["machine"]) for one in made_by if one.get("machine", {}).get("device")]
    others = [kind for kind in dict.fromkeys(kinds) if kind != kinds[-1]]
    if not others:
        return ""
    return (
        f"rows of this cache were encoded on {' and '.join(others)} before and on {kinds[-1]} now; the same post has "
        "features that differ by rounding"
    )


def _device(machine: Mapping[str, Any]) -> str:
    name = str(machine["device"])
    if name != "cuda":
        return name
    return f"{name} ({machine.get('gpu')}{'' if machine.get('tf32') is False else ', convolutions in TF32'})"


def now() -> str:
    """This moment, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
