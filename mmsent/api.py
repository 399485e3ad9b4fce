"""The Python API: caches as arrays, datasets and tables; encode, train, load and predict in a few lines.

    import mmsent

    cache = mmsent.encode("data", encoder="offline")
    model = mmsent.train_heads(cache, ["concat", "weighted", "attention"])
    model.predict(["a happy day"], ["post.jpg"])[0].label

Everything here is also `mmsent.NAME`, loaded at first use. Errors are MmsentError and its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmsent.caches import find_cache
from mmsent.config import (
    VOTING_FUSIONS,
    Clean,
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    Fusion,
    SplitSettings,
    ViewSettings,
    fit_settings,
    settings,
)
from mmsent.dataset import Split, load_dataset
from mmsent.encoders import Encoders, recipe_for
from mmsent.errors import UsageError
from mmsent.feature_cache import Arrays, FeatureCache
from mmsent.given import posts_of
from mmsent.predict import Prediction, encode_posts, encoder_settings, encoders_of, vote_features
from mmsent.runs import Run

if TYPE_CHECKING:
    from mmsent.evaluate import Evaluation
    from mmsent.given import Picture
    from mmsent.vote import Vote

__all__ = ["Arrays", "FeatureCache", "Model", "encode", "load", "open_cache", "train_heads"]


@dataclass(frozen=True)
class Model:
    """One or several trained heads; several vote. runs: their run folders; weights: of the encoder, where they are no
    longer where they were; device: to encode on."""

    runs: tuple[Run, ...]
    weights: str | None = None
    device: str = "auto"

    def __repr__(self) -> str:
        return f"<Model of {', '.join(run.name for run in self.runs)}>"

    @property
    def labels(self) -> list[str]:
        """The label set, in the order of the probabilities."""
        return self.runs[0].labels

    @property
    def contract(self) -> str:
        """The digest of the features that the heads take."""
        return self.runs[0].contract

    def predict(
        self,
        texts: str | Sequence[str | None],
        images: Picture | Sequence[Picture] = None,
        *,
        ids: Sequence[str] | None = None,
        tie: str | None = None,
        soft: bool = False,
    ) -> list[Prediction]:
        """Label new posts: a label, calibrated probabilities and each head's choice for each.

        texts, images: as many of each, or one of each; None for a half that is missing. An image is a path, the bytes
        of a picture file, a Pillow image or an array (H, W, 3) of bytes. ids: names, by default 0, 1, ... tie, soft: as
        `mmsent vote` has them; a committee is averaged. A post that no head can label has label None, and `problem`
        says why. The first call loads the encoders. Raises InputError where texts and images do not go together.
        """
        posts = posts_of(texts, images, ids)
        features = encode_posts(posts, self._encoders, self.runs, self._settings.normalize)
        return vote_features([post.id for post in posts], self.runs, *features, tie=tie, soft=soft).predictions

    def vote(self, cache: FeatureCache, split: Split = "test", *, tie: str | None = None, soft: bool = False) -> Vote:
        """Label every row of a cached split; see mmsent.vote.Vote. Raises RunError where the heads take other features
        than the cache has."""
        from mmsent.vote import averages, vote_split

        return vote_split(self.runs, cache.cache, split, tie=tie, soft=averages(self.runs, soft))

    def evaluate(self, cache: FeatureCache) -> list[Evaluation]:
        """Scores with intervals on each head's own validation rows, and of the vote; see mmsent.evaluate."""
        from mmsent.evaluate import evaluate_validation

        return evaluate_validation(self.runs, cache.cache)

    def export(self, out: str | Path, format: Literal["onnx", "hf"] = "onnx", *, with_encoder: bool = False) -> Path:
        """Write the heads for other programs, as `mmsent export` does. Returns the folder."""
        from mmsent.card import model_card
        from mmsent.vote import averages

        path, soft = Path(out), averages(self.runs, False)
        if format == "hf":
            from mmsent.hub import write_hub

            return write_hub(self.runs, path, model_card(self.runs, path.name, format, soft=soft))
        if format != "onnx":
            raise UsageError(f"format {format!r}: choose onnx or hf")
        from mmsent.onnx_export import export_onnx

        card = model_card(self.runs, path.name, format, soft=soft)
        return export_onnx(self.runs, path, card=card, soft=soft, with_encoder=with_encoder, weights=self.weights).path

    @cached_property
    def _settings(self) -> EncoderSettings:
        return encoder_settings(self.runs, weights=self.weights, device=self.device)

    @cached_property
    def _encoders(self) -> Encoders:
        return encoders_of(self._settings)


def open_cache(path: str | Path = "cache", *, data: str | None = None, encoder: str | None = None) -> FeatureCache:
    """Open a cache file, or the one in a folder that fits the data set's name and the encoder. Raises CacheError where
    none or several fit."""
    return FeatureCache(find_cache(Path(path), data_name=data, encoder=encoder))


def encode(
    data: str | Path,
    *,
    encoder: str = "clip-l14-336",
    cache: str | Path = "cache",
    splits: Sequence[Split] | None = None,
    views: int = 4,
    labels: Sequence[str] | None = None,
    clean: Sequence[str] = (),
    weights: str | None = None,
    device: str = "auto",
    max_bad: float | None = None,
    show: bool = False,
) -> FeatureCache:
    """Encode a data set, a folder or a manifest, into a cache in the folder `cache`; only what is missing or changed is
    encoded. What `mmsent extract` does, with the same defaults.

    splits: train, test or both (by default what there is). views: K augmented views of each picture beside the clean
    one. labels: the label set. clean: steps of text cleaning. weights: a local checkpoint. max_bad: share of rows that
    may be quarantined (by default 1%). show: a progress bar. Raises DataError, EncoderError or CacheError, each with
    what to do.
    """
    from mmsent.extract import extract

    how = settings(DataSettings, labels=tuple(labels) if labels else None, clean=tuple(map(Clean, clean)) or None)
    dataset = load_dataset(Path(data), how)
    done = extract(
        dataset,
        list(splits or dataset.splits),
        Path(cache),
        encoder=settings(EncoderSettings, encoder=encoder, weights=weights, device=device),
        views=settings(ViewSettings, count=views),
        options=settings(ExtractSettings, max_bad=max_bad),
        show=show,
    )
    return FeatureCache(done.cache)


def train_heads(
    cache: FeatureCache,
    fusion: str | Sequence[str] = "concat",
    *,
    recipe: str = "auto",
    runs: str | Path = "runs",
    val_size: float | None = None,
    group: str | None = None,
    split_seed: int | None = None,
    device: str = "cpu",
    **overrides: Any,
) -> Model:
    """Train a head for each fusion and write its run folder into `runs`. What `mmsent fit` does, with its defaults.

    fusion: names, `vote` for the three that vote, or `all`. recipe: auto takes the encoder pair's own. val_size, group
    (none, exact, near) and split_seed: the validation split. Further settings by name: seed, lr, epochs, dropout and so
    on (see mmsent.config.FitSettings). Raises UsageError on unknown ones, DataError where a class has no row.
    """
    from mmsent.encoders.common import pick_device
    from mmsent.fit import fit

    chosen = recipe_for(cache.encoder) if recipe == "auto" else recipe
    wanted = [fit_settings(chosen, fusion=name, **overrides) for name in _fusions(fusion)]
    split = settings(SplitSettings, val_size=val_size, group=group, seed=split_seed)
    done = fit(cache.cache, Path(runs), wanted, split, recipe=chosen, device=pick_device(device))
    return Model(tuple(done))


def load(*folders: str | Path, weights: str | None = None, device: str = "auto") -> Model:
    """Open run folders, or a folder that `mmsent export --format hf` wrote, as one model. Raises RunError where a
    folder is none, or the heads take different features or labels."""
    from mmsent.hub import open_runs

    if not folders:
        raise UsageError("load needs a run folder; `mmsent fit` and mmsent.train_heads write them")
    runs = tuple(run for folder in folders for run in open_runs(Path(folder)))
    encoder_settings(runs, weights=None, device=None)
    return Model(runs, weights, device)


def _fusions(names: str | Sequence[str]) -> list[str]:
    if isinstance(names, str):
        several = {"all": tuple(Fusion), "vote": VOTING_FUSIONS}.get(names)
        return [fusion.value for fusion in several] if several else [names]
    return list(names)
