"""Features for heads that tuned the last blocks of an encoder: what each run's own blocks make of the states that enter
them. For other runs they are the cached or encoded features.

Shapes: N rows, D_image and D_text widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsent.config import EncoderSettings, ViewSettings, settings, tuned_blocks
from mmsent.data import views as view_module
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.encoders.runtimes import usable
from mmsent.errors import CacheError, RunError
from mmsent.features.cache import Cache
from mmsent.features.cache.fingerprint import FeatureSettings
from mmsent.features.cache.states import Ragged, StoredStates, half_of, ragged
from mmsent.features.new_posts import Prepared, encode_prepared
from mmsent.training.runs import Run, open_run

Floats = NDArray[np.float32]
KEPT = 64  # runs whose blocks stay loaded


@dataclass(frozen=True)
class Texts:
    """Text features of N rows for any run, and what becomes of their image features for runs that tune image blocks.
    frozen (N, D_text): the encoder's own; own: what the blocks of a run make of the rows at places (n,), with the
    frozen features of the half that it tunes (n, D). places (N,): where these rows stand."""

    frozen: Floats
    places: NDArray[np.int64]
    own: Callable[[Run, NDArray[np.int64], Floats], Floats]

    def __len__(self) -> int:
        return len(self.frozen)

    def __getitem__(self, rows: Any) -> Texts:
        return Texts(self.frozen[rows], self.places[rows], self.own)

    @classmethod
    def at(cls, rows: NDArray[np.int64], runs: Sequence[Run], cache: Cache, split: str, text: Floats) -> Floats | Texts:
        """As `cached_texts`, of the rows at these positions; text (n, D_text): theirs."""
        found = cached_texts(runs, cache, split, text)
        return cls(text, rows, found.own) if isinstance(found, Texts) else found

    def of(self, run: Run, image: Floats) -> tuple[Floats, Floats]:
        """The features (N, D_image), (N, D_text) that a run's head takes; image: the encoder's own. Raises RunError
        where its blocks are damaged, CacheError where states are missing."""
        if not run.tune:
            return image, self.frozen
        if half_of(run.tune) == "image":
            return self.own(run, self.places, image), self.frozen
        return image, self.own(run, self.places, self.frozen)


def run_blocks(run: Run, encoders: Encoders) -> Any:
    """A run's tuned blocks, ready to use; the last ones that were asked for stay loaded."""
    return _loaded(encoders, run.path, str(run.info.get("blocks_sha256")))


@lru_cache(maxsize=KEPT)
def _loaded(encoders: Encoders, path: Path, digest: str) -> Any:
    run = open_run(path)
    blocks = blocks_of(encoders, run.tune, run.encoder_settings.normalize)
    blocks.load(run.blocks())
    return blocks.eval()


def baked(run: Run, encoders: Encoders) -> tuple[Run, Encoders]:
    """A run that tunes blocks as a run on frozen features of an encoder with these blocks in it, for gradients and for
    export: the same logits by another way. Its contract is that encoder's. Any other run as it is. Raises EncoderError
    where the encoder cannot be taken apart."""
    if not run.tune:
        return run, encoders
    from mmsent.encoders.blocks import with_blocks

    half, count = tuned_blocks(run.tune)
    own = with_blocks(getattr(encoders, half), count, run.blocks(), str(run.info["blocks_sha256"]))
    pair = replace(encoders, **{half: own})
    return replace(run, info=frozen_info(run, pair)), pair


def frozen_info(run: Run, encoders: Encoders) -> dict[str, Any]:
    """A run's record as that of a run on frozen features of these encoders."""
    contract = contract_of(encoders, run, run.encoder_settings.normalize)
    cache = run.info["cache"] | {"contract": contract}
    return run.info | {"fit": run.info["fit"] | {"tune": ""}, "cache": cache}


def contract_of(encoders: Encoders, run: Run, normalize: bool) -> str:
    """The contract of features that these encoders give of posts that are cleaned as the run's were."""
    return FeatureSettings(
        image=encoders.image.card,
        text=encoders.text.card,
        normalize=normalize,
        views=settings(ViewSettings, count=0),
        views_version=view_module.VERSION,
        clean=run.data_settings.clean,
        text_encoding="utf-8",
        storage="float32",
    ).contract


def blocks_of(encoders: Encoders, tune: str, normalize: bool) -> Any:
    """A fresh copy of the encoder's blocks, with its own weights (see mmsent.encoders.blocks)."""
    return _last_blocks(encoders, tune, normalize).module()


def _last_blocks(encoders: Encoders, tune: str, normalize: bool) -> Any:
    from mmsent.encoders.blocks import last_blocks

    half, count = tuned_blocks(tune)
    return last_blocks(getattr(encoders, half), count, normalize=normalize)


@dataclass(frozen=True)
class BlocksFrom:
    """Fresh blocks of a cache's encoders by `tune`, as training takes them. It can be handed to other processes;
    each opens the encoder once, when it is first needed."""

    encoder: EncoderSettings
    weights_sha256: dict[str, str]  # by half
    normalize: bool
    name: str  # of the cache

    def __call__(self, tune: str) -> Any:
        """Raises CacheError where the encoder is no longer the one that the cache was made with."""
        found, half = _opened(self.encoder), half_of(tune)
        if getattr(found, half).card.weights_sha256 != self.weights_sha256[half]:
            raise CacheError(f"the {half} encoder on this machine has other weights than the one of {self.name}")
        return blocks_of(found, tune, self.normalize)


def blocks_from(cache: Cache) -> BlocksFrom:
    """Fresh blocks of a cache's encoders."""
    known = cache.settings
    weights = {"image": known.image.weights_sha256, "text": known.text.weights_sha256}
    return BlocksFrom(cache.encoder_settings, weights, known.normalize, cache.path.name)


@lru_cache(maxsize=1)
def _opened(chosen: EncoderSettings) -> Encoders:
    runtime = usable(chosen.runtime, chosen.precision, chosen.device)
    return open_encoders(chosen.model_copy(update={"runtime": runtime}))


def cached_texts(runs: Sequence[Run], cache: Cache, split: str, text: Floats) -> Floats | Texts:
    """The text features of a cached split, (N, D_text), for these runs."""
    if not any(run.tune for run in runs):
        return text
    stored: dict[str, StoredStates] = {}

    def own(run: Run, places: NDArray[np.int64], frozen: Floats) -> Floats:
        if run.tune not in stored:
            stored[run.tune] = StoredStates(cache, split, run.tune)
        return _through_blocks(run, _opened(run.encoder_settings), frozen, stored[run.tune], places)

    return Texts(text, np.arange(len(text)), own)


def encode_batch(
    prepared: Sequence[Prepared], encoders: Encoders, runs: Sequence[Run], normalize: bool
) -> tuple[Floats, Floats | Texts, NDArray[np.bool_], list[str]]:
    """One batch of N new posts as `encode_prepared` gives it, the texts as these runs need them: the encoder runs once,
    and the blocks of each run that tunes some once after it."""
    with ExitStack() as stack:
        caught = {}
        for tune in {run.tune for run in runs if run.tune}:
            caught[tune] = stack.enter_context(_last_blocks(encoders, tune, normalize).caught())
        image, text, missing, problems = encode_prepared(prepared, encoders, normalize)
    if not caught:
        return image, text, missing, problems
    states = {tune: ragged(found) for tune, found in caught.items()}

    def made(run: Run) -> Floats:
        given = [post.pixels if half_of(run.tune) == "image" else post.text for post in prepared]
        there = np.array([one is not None for one in given], dtype=bool)
        found = (image if half_of(run.tune) == "image" else text).copy()
        found[there] = _through_blocks(run, encoders, found[there], states[run.tune], np.arange(there.sum()))
        return found

    own = {run.path: made(run) for run in runs if run.tune}
    return image, Texts(text, np.arange(len(text)), lambda run, rows, _: own[run.path][rows]), missing, problems


def joined_texts(parts: Sequence[Floats | Texts]) -> Floats | Texts:
    """The texts of batches as those of one."""
    text = np.concatenate([part.frozen if isinstance(part, Texts) else part for part in parts])
    batches = [part for part in parts if isinstance(part, Texts)]
    if not batches:
        return text
    return Texts(
        text,
        np.arange(len(text)),
        lambda run, rows, _: np.concatenate([part.own(run, part.places, part.frozen) for part in batches])[rows],
    )


def _through_blocks(
    run: Run, encoders: Encoders, frozen: Floats, states: Ragged | StoredStates, places: NDArray[np.int64]
) -> Floats:
    import torch

    from mmsent.training.tuning import tuned_features

    blocks, own = run_blocks(run, encoders), torch.from_numpy(np.ascontiguousarray(frozen))
    return tuned_features(blocks, own, states, places).numpy()


def features_for(run: Run, image: Floats, text: Floats | Texts) -> tuple[Floats, Floats]:
    """The image and text features that a run's head takes. Raises RunError where it tunes blocks and only the encoders'
    own features are at hand."""
    if isinstance(text, Texts):
        return text.of(run, image)
    if run.tune:
        raise RunError(f"run {run.name} tunes {run.tune}, blocks of an encoder, so it needs the posts' states")
    return image, text
