"""What `mmsent fit` is to fit, from its options; shared with cross-validation and the audit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.cli.options import DEVICE
from mmsent.cli.output import note
from mmsent.cli.workspace import Workspace
from mmsent.config import FitSettings, Fusion, SplitSettings, choose_recipe, fit_settings
from mmsent.errors import UsageError
from mmsent.system.process import memory

if TYPE_CHECKING:
    from mmsent.features.cache import Cache
    from mmsent.training.fit import Training


@dataclass(frozen=True)
class FitJob:
    """What to fit: a cache's train split, the settings of each head, the split, the folder of the runs, and how.

    how: recipe, device and memory, see mmsent.training.fit.Training.
    """

    cache: Cache
    settings: list[FitSettings]
    split: SplitSettings
    runs: Path
    how: Training

    @property
    def lacking(self) -> list[int]:
        """The halves that posts may lack from which any of the heads learns."""
        from mmsent.training.halves import lackable

        return sorted({bit for one in self.settings for bit in lackable(one)})


def plan(
    where: Workspace,
    fusions: Sequence[Fusion],
    recipe: str,
    overrides: dict[str, Any],
    split: SplitSettings,
    device: str = DEVICE,
    memory: str | None = None,
) -> FitJob:
    """The job that options ask for. Raises UsageError, CacheError where the cache is behind its data set."""
    choose_recipe(recipe, "")  # a wrong name is told before anything is read
    limit = memory_limit(memory)
    cache = where.require_current("train")
    from mmsent.training.halves import with_half_posts
    from mmsent.training.recipes import recipe_of

    chosen, why = recipe_of(cache, recipe)
    if recipe == "auto":
        note(f"recipe {chosen}: {why}")
    settings = [fit_settings(chosen, fusion=fusion, **overrides) for fusion in fusions]
    if overrides.get("modality_dropout") is None:
        settings, said = with_half_posts(settings, cache.index("train"))
        if said:
            note(said)
    from mmsent.system.devices import pick_device
    from mmsent.training.fit import Training

    how = Training(chosen, pick_device(device), limit, blocks=_blocks(cache))
    return FitJob(cache, settings, split, where.runs_at, how)


def _blocks(cache: Cache) -> Callable[[str], Any]:
    """Fresh blocks of the cache's encoders, which are opened when a head first tunes some."""
    from mmsent.inference.tuned import blocks_from

    return blocks_from(cache)


def memory_limit(text: str | None) -> int | None:
    """Bytes of `2GB`, `500 MB`, `64k`; without a text half of the memory that this process may use.

    None where that is not known. Raises UsageError on anything else.
    """
    if text is None:
        allowed = memory()
        return allowed // 2 if allowed else None
    found = re.fullmatch(r"\s*([0-9]{0,15}\.?[0-9]{1,15})\s*([kmgt]?)i?b?\s*", text.lower())
    if not found or not float(found[1]):
        raise UsageError(f"--memory {text!r}: give a size such as 2GB or 500MB")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))
