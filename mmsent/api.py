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

import numpy as np
from numpy.typing import NDArray

from mmsent.config import (
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    SplitSettings,
    ViewSettings,
    by_option,
    fit_settings,
    fusions_named,
    settings,
)
from mmsent.data.dataset import Split, load_dataset, name_of
from mmsent.encoders.base import Encoders
from mmsent.encoders.factory import open_encoders
from mmsent.errors import CacheError, UsageError
from mmsent.features.cache import NO_LABEL, Cache
from mmsent.features.cache.finding import find_cache
from mmsent.features.continuing import continued
from mmsent.features.new_posts import BATCH, encode_prepared, posts_of, prepare_post
from mmsent.inference.predict import Prediction, encode_posts, encoder_settings, encoders_of, vote_features
from mmsent.system.failures import promised
from mmsent.training.runs import Run

if TYPE_CHECKING:
    import pandas
    from torch import Tensor
    from torch.utils.data import Dataset

    from mmsent.evaluation.evaluate import Evaluation
    from mmsent.features.new_posts import AnyImage
    from mmsent.inference.vote import Vote

__all__ = ["Arrays", "FeatureCache", "Model", "encode", "load", "open_cache", "train_heads"]


@dataclass(frozen=True)
class Model:
    """One or several trained heads; several vote. runs: their run folders; weights: of the encoder, if they have
    moved; device: to encode on."""

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

    @promised
    def predict(
        self,
        texts: str | Sequence[str | None],
        images: AnyImage | Sequence[AnyImage] = None,
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

    @promised
    def vote(self, cache: FeatureCache, split: Split = "test", *, tie: str | None = None, soft: bool = False) -> Vote:
        """Label every row of a cached split; see mmsent.inference.vote.Vote. Raises RunError where the heads take other
        features than the cache has."""
        from mmsent.inference.vote import averages, vote_split

        return vote_split(self.runs, cache.cache, split, tie=tie, soft=averages(self.runs, soft))

    @promised
    def evaluate(self, cache: FeatureCache) -> list[Evaluation]:
        """Scores with intervals on each head's own validation rows, and of the vote; see mmsent.evaluation.evaluate."""
        from mmsent.evaluation.evaluate import evaluate_validation

        return evaluate_validation(self.runs, cache.cache)

    @promised
    def export(self, out: str | Path, format: Literal["onnx", "hf"] = "onnx", *, with_encoder: bool = False) -> Path:
        """Write the heads for other programs, as `mmsent export` does. Returns the folder."""
        from mmsent.export.model_card import model_card
        from mmsent.inference.vote import averages

        path, soft = Path(out), averages(self.runs, False)
        if format == "hf":
            from mmsent.export.hub import write_hub

            return write_hub(self.runs, path, model_card(self.runs, path.name, format, soft=soft))
        if format != "onnx":
            raise UsageError(f"format {format!r}: choose onnx or hf")
        from mmsent.export.onnx_export import export_onnx

        card = model_card(self.runs, path.name, format, soft=soft)
        return export_onnx(self.runs, path, card=card, soft=soft, with_encoder=with_encoder, weights=self.weights).path

    @cached_property
    def _settings(self) -> EncoderSettings:
        return encoder_settings(self.runs, weights=self.weights, device=self.device)

    @cached_property
    def _encoders(self) -> Encoders:
        return encoders_of(self._settings)


@promised
def open_cache(path: str | Path = "cache", *, data: str | None = None, encoder: str | None = None) -> FeatureCache:
    """Open a cache file, or the one in a folder that fits the data set's name and the encoder. Raises CacheError where
    none or several fit."""
    return FeatureCache(find_cache(Path(path), data_name=data, encoder=encoder))


@promised
def encode(
    data: str | Path,
    *,
    encoder: str | None = None,
    cache: str | Path = "cache",
    splits: Sequence[Split] | None = None,
    show: bool = False,
    **options: Any,
) -> FeatureCache:
    """Encode a data set, a folder or a manifest, into a cache in the folder `cache`; only what is missing or changed is
    encoded. What `mmsent extract` does, with the same defaults.

    encoder: a preset or spec. Where the folder holds one cache of this data set, options that are not given are those
    that it was made with. splits: train, test or both (by default what there is). show: a progress bar. options: any
    other option of `mmsent extract` by its name, such as views=2, labels=("bad", "good"), text_column="tweet",
    weights="clip.pt" or max_bad=0.05. Raises UsageError on an unknown option, DataError, EncoderError or CacheError,
    each with what to do.
    """
    from mmsent.features.extract import extract

    named = options | ({"encoder": encoder} if encoder is not None else {})
    how, pair, views, extraction = by_option(named, DataSettings, EncoderSettings, ViewSettings, ExtractSettings)
    if extraction.engine != "local":
        raise UsageError(f"engine {extraction.engine!r}: from Python only local; `mmsent extract` can use a cluster")
    given = how, pair, views, extraction
    (how, pair, views, extraction), _ = continued(Path(cache), name_of(Path(data)), given)
    dataset = load_dataset(Path(data), how)
    done = extract(
        dataset,
        list(splits or dataset.splits),
        Path(cache),
        encoder=pair,
        views=views,
        options=extraction,
        show=show,
    )
    return FeatureCache(done.cache)


@promised
def train_heads(
    cache: FeatureCache,
    fusion: str | Sequence[str] = "concat",
    *,
    recipe: str = "auto",
    runs: str | Path = "runs",
    device: str = "cpu",
    **options: Any,
) -> Model:
    """Train a head for each fusion and write its run folder into `runs`. What `mmsent fit` does, with its defaults.

    fusion: names, `vote` for the three that vote, or `all`. recipe: auto takes what suits the features. options: any
    other option of `mmsent fit` by its name, of the head (seed, lr, epochs, dropout and so on, see
    mmsent.config.FitSettings) and of the validation split (val_size, group, split_seed, near_image, near_text). Raises
    UsageError on unknown ones, DataError where a class has no row.
    """
    from mmsent.inference.tuned import blocks_from
    from mmsent.system.devices import pick_device
    from mmsent.training.fit import Training, fit
    from mmsent.training.halves import with_half_posts
    from mmsent.training.recipes import recipe_of

    cache.cache.require("train")
    chosen, _ = recipe_of(cache.cache, recipe)
    given = {name: value for name, value in options.items() if value is not None}
    head, split = by_option(given, FitSettings, SplitSettings)
    own = {name: getattr(head, name) for name in head.model_fields_set}
    wanted = [fit_settings(chosen, fusion=name, **own) for name in fusions_named(fusion)]
    if "modality_dropout" not in own:
        wanted, _ = with_half_posts(wanted, cache.cache.index("train"))
    how = Training(chosen, pick_device(device), blocks=blocks_from(cache.cache))
    done = fit(cache.cache, Path(runs), wanted, split, how)
    return Model(tuple(done))


@promised
def load(
    *folders: str | Path,
    runs: str | Path = "runs",
    cache: str | Path = "cache",
    weights: str | None = None,
    device: str = "auto",
) -> Model:
    """Open run folders, or a folder that `mmsent export --format hf` wrote, as one model. Without a folder: the newest
    runs in `runs` that vote on the cache in `cache`, those that a bare `mmsent vote` takes. Raises RunError where a
    folder is none, or the heads take different features or labels, CacheError where no cache or several fit."""
    from mmsent.export.hub import open_runs
    from mmsent.inference.vote import voting_runs

    if folders:
        chosen = [run for folder in folders for run in open_runs(Path(folder))]
    else:
        here = Path("data")
        found = find_cache(Path(cache), data_name=name_of(here) if here.exists() else None)
        chosen = voting_runs(Path(runs), found)
    encoder_settings(chosen, weights=None, device=None)
    return Model(tuple(chosen), weights, device)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Rows of a cache, or new posts, as NumPy arrays.

    ids (N,) str; image (N, D_image), or (N, V, D_image) with views; text (N, D_text), both float32; target (N,) int64,
    indices into `labels`, -1 where there is no label; good (N,) bool: both halves are there (a half that is not is
    zeros); problems: N reasons, empty for good rows; contract: which features these are.
    """

    ids: NDArray[np.str_]
    image: NDArray[np.float32]
    text: NDArray[np.float32]
    target: NDArray[np.int64]
    good: NDArray[np.bool_]
    problems: list[str]
    labels: tuple[str, ...]
    contract: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def X(self) -> NDArray[np.float32]:
        """(N, D_image + D_text): the clean picture's features beside the text's, as FusionClassifier takes them."""
        image = self.image if self.image.ndim == 2 else self.image[:, 0]
        return np.concatenate([image, self.text], axis=1)

    @property
    def y(self) -> NDArray[np.str_]:
        """(N,) the labels' names. Raises UsageError where a row has none."""
        if (self.target == NO_LABEL).any():
            raise UsageError(f"{int((self.target == NO_LABEL).sum())} of {len(self)} rows have no label")
        return np.array(self.labels)[self.target]


class FeatureCache:
    """An open cache. Rows are read on demand and their checksums verified; all that is read is held in memory.

    path; labels: the label set; encoder: the pair's name; contract and fingerprint: digests of what the features are;
    image_width, text_width: D_image, D_text; splits: rows of each split; cache: the mmsent.features.cache.Cache behind
    it.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.path, self.labels, self.encoder = cache.path, cache.labels, cache.encoder
        self.contract, self.fingerprint = cache.settings.contract, cache.fingerprint
        self.image_width, self.text_width = cache.settings.image.width, cache.settings.text.width
        self.splits = dict(cache.rows)
        self._opened: dict[str, Encoders] = {}  # by device

    def __repr__(self) -> str:
        rows = ", ".join(f"{n} {split}" for split, n in self.splits.items())
        return f"<FeatureCache {self.path.name}: {rows}, {self.image_width} + {self.text_width} wide>"

    @promised
    def arrays(self, split: Split = "train", *, views: bool = False, all_rows: bool = False) -> Arrays:
        """A split as arrays. views: all V views of each picture, the clean one first. all_rows: also rows that lack a
        half or, of the training split, a label. Raises CacheError where the cache has no such split or is damaged."""
        features = self.cache.load(split)
        index = features.index
        keep = np.arange(len(index)) if all_rows else self._usable(split)
        return Arrays(
            np.array([index.ids[i] for i in keep], np.str_),
            features.image[keep] if views else features.image[keep, 0],
            features.text[keep],
            index.labels[keep],
            index.good[keep],
            [index.reason(int(i)) for i in keep],
            self.labels,
            self.contract,
        )

    @promised
    def groups(self, split: Split = "train", *, near: bool = False) -> NDArray[np.int64]:
        """(N,) group numbers of the rows that `arrays` gives: duplicates of a picture or a text have one number, near
        ones too if asked. For scikit-learn's group splitters, so that no row is validated on its own copy."""
        from mmsent.features.cache.groups import row_groups, with_thresholds

        chosen = with_thresholds(settings(SplitSettings, group="near" if near else "exact"), self.encoder)
        features = self.cache.load(split) if near else None
        found = row_groups(self.cache.index(split), self._usable(split), chosen, features)
        assert found is not None
        return found

    @promised
    def dataset(self, split: Split = "train", *, views: bool = True) -> Dataset[tuple[Tensor, ...]]:
        """A split as a torch Dataset in memory: items (image, text, target). image (V, D_image), or (D_image,) without
        views; text (D_text,); target (): a label index, -1 in a split without labels."""
        import torch
        from torch.utils.data import TensorDataset

        rows = self.arrays(split, views=views)
        return TensorDataset(*(torch.from_numpy(part) for part in (rows.image, rows.text, rows.target)))

    @promised
    def table(self, split: Split = "train", *, embeddings: bool = False) -> pandas.DataFrame:
        """A split as a pandas table, one row per post, by id: label (None where there is none), good, problem, tokens.

        embeddings: instead the columns image_0... and text_0... of the rows that `arrays` gives, which FusionClassifier
        takes as they are. Raises UsageError without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("a table needs pandas: pip install pandas") from error
        if embeddings:
            rows = self.arrays(split)
            names = [f"image_{i}" for i in range(self.image_width)] + [f"text_{i}" for i in range(self.text_width)]
            return pandas.DataFrame(rows.X, index=pandas.Index(rows.ids, name="id"), columns=names)
        index = self.cache.index(split)
        columns = {
            "label": [self.labels[k] if k != NO_LABEL else None for k in index.labels],
            "good": index.good,
            "problem": [index.reason(i) for i in range(len(index))],
            "tokens": index.tokens,
        }
        return pandas.DataFrame(columns, index=pandas.Index(index.ids, name="id"))

    @promised
    def encode(
        self, texts: str | Sequence[str | None], images: AnyImage | Sequence[AnyImage] = None, device: str = "auto"
    ) -> Arrays:
        """Features of new posts, encoded as this cache was: for estimators that were fitted on it. Arguments as for
        Model.predict. Raises CacheError where the encoders here are others than the cache's."""
        encoders = self._encoders(device)
        known = self.cache.settings
        here = known.model_copy(update={"image": encoders.image.card, "text": encoders.text.card})
        if here.contract != known.contract:
            raise CacheError(
                f"{self.path} was encoded by {known.image.name} and {known.text.name} (contract {self.contract[:8]}); "
                f"here are {here.image.name} and {here.text.name} (contract {here.contract[:8]})"
            )
        posts = posts_of(texts, images, None)
        how, parts = encoders.image.card.preprocess, []
        for start in range(0, len(posts), BATCH):
            prepared = [prepare_post(post, how, known.clean) for post in posts[start : start + BATCH]]
            parts.append(encode_prepared(prepared, encoders, known.normalize))
        image, text, missing = (np.concatenate([part[k] for part in parts]) for k in range(3))
        return Arrays(
            np.array([post.id for post in posts], np.str_),
            image,
            text,
            np.full(len(posts), NO_LABEL, np.int64),
            np.logical_not(missing.any(axis=1)),
            [problem for part in parts for problem in part[3]],
            self.labels,
            self.contract,
        )

    def _usable(self, split: Split) -> NDArray[np.int64]:
        index = self.cache.index(split)
        usable = index.good & (index.labels != NO_LABEL) if split == "train" else index.good
        return np.flatnonzero(usable).astype(np.int64)

    def _encoders(self, device: str) -> Encoders:
        if device not in self._opened:
            self._opened[device] = open_encoders(self.cache.encoder_settings.model_copy(update={"device": device}))
        return self._opened[device]
