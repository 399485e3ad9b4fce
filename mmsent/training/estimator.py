"""FusionClassifier: a fusion head as a scikit-learn estimator, trained by mmsent.training.train like every other head.

Shapes: N rows, D_image and D_text widths, C classes.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mmsent.config import FitSettings, SplitSettings, fit_settings, settings
from mmsent.errors import DataError, InputError, UsageError
from mmsent.system.devices import pick_device
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.loaders import PART, to_tensors
from mmsent.training.splits import validation_split
from mmsent.training.train import train_head
from mmsent.training.tuning import TUNING

_PARTS = ("image", "text")
# Every setting of a head is a parameter, but for the seed (random_state), the views (X has one row per post) and tuned
# blocks (X holds pooled features).
_DEFAULTS: dict[str, Any] = FitSettings().model_dump(mode="json", exclude={"seed", "views", *TUNING}) | {
    "lr": 1e-3,
    "epochs": 40,
    "patience": 10,
    "standardize": True,
}


def _with_settings(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor with a parameter per setting in its signature, which scikit-learn reads."""
    signature = inspect.signature(init)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=v) for name, v in _DEFAULTS.items()]
    vars(init)["__signature__"] = signature.replace(parameters=[*own, *more])
    return init


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A light head over frozen features. X (N, D_image + D_text): picture features first, text features behind them.

    Part of the rows is held out to stop training at the best epoch and to fit the temperature, as in `mmsent fit`. The
    defaults suit features of any scale; `from_recipe` gives those of a recipe. Every setting of `mmsent fit` (see
    mmsent.config.FitSettings) but its seed, its views and its tuned blocks is a parameter too: X holds pooled features,
    and --tune of `mmsent fit` needs what enters the encoder's last blocks.

    Parameters
    ----------
    image_width : D_image, the column where the text begins. None: read off the column names of a data frame
        (`image...`, then `text...`, as from `FeatureCache.table(embeddings=True)`), else half of the columns.
    fusion : concat, weighted, attention, attention_alt, image or text.
    standardize, rms : how features are scaled: each by the training rows; each half of a row to root mean square 1.
    validation_fraction : share of the rows that is held out; 1 or more: their number.
    calibrate : divide the logits by a temperature that is fitted on the held-out rows.
    device : where to train; the fitted head predicts on the CPU.
    random_state : an int repeats the fit bit by bit on one machine.

    Attributes
    ----------
    classes_ : (C,) the labels, sorted.
    image_width_ : D_image.
    n_features_in_, feature_names_in_ : of X, as scikit-learn has them.
    head_ : the trained mmsent.training.heads.Head.
    history_ : a record an epoch; n_iter_ : epochs; best_epoch_ : the one that was kept, counted from 1.
    n_held_out_ : rows that were held out; 0 where there were too few, so that the training rows had to serve.
    temperature_ : what the logits are divided by.
    """

    @_with_settings
    def __init__(
        self,
        image_width: int | None = None,
        *,
        validation_fraction: float = 0.125,
        calibrate: bool = True,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
        **settings: Any,
    ) -> None:
        self.image_width = image_width
        self.validation_fraction = validation_fraction
        self.calibrate = calibrate
        self.device = device
        self.random_state = random_state
        if unknown := settings.keys() - _DEFAULTS.keys():
            raise TypeError(f"FusionClassifier has no parameter {min(unknown)!r}; it has {', '.join(_DEFAULTS)}")
        for name, value in (_DEFAULTS | settings).items():
            setattr(self, name, value)

    @classmethod
    def from_recipe(cls, recipe: str, image_width: int | None = None, **parameters: Any) -> Self:
        """An estimator with the settings of a recipe (`paper`, `offline`, `small`); parameters given by name win.

        Raises UsageError on an unknown recipe.
        """
        named = fit_settings(recipe).model_dump(mode="json")
        own = {name: named[name] for name in cls._get_param_names() if name in named}
        return cls(image_width, **(own | parameters))

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on X (N, D_image + D_text) and labels y (N,) of any kind. groups (N,): rows of one group stay together
        when some are held out. Raises InputError, a ValueError, on what cannot be trained on.
        """
        values, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        classes, target = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"FusionClassifier needs two classes or more; got 1 class, {classes[0]!r}")
        width = self._image_width()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held = self._held_out(target.astype(np.int64), groups, seed)
        train = np.ones(len(target), np.bool_) if not held.any() else ~held
        val = held if held.any() else train  # too few rows to hold some out
        try:
            device = pick_device(self.device)
            learned, checked = (_rows(values[rows], target[rows], width, device) for rows in (train, val))
            trained = train_head(learned, checked, self._settings(seed), len(classes))
        except UsageError as error:
            raise InputError(str(error)) from error
        self.classes_, self.image_width_ = classes, width
        self.head_ = trained.head.cpu()
        self.n_held_out_ = int(held.sum())
        self.history_, self.n_iter_, self.best_epoch_ = trained.history, len(trained.history), trained.best_epoch
        truth = target[val].astype(np.int64)
        self.temperature_ = fit_temperature(trained.val_logits, truth) if self.calibrate else 1.0
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits at the temperature, (N, C); of two classes the second's minus the first's, (N,)."""
        logits = self._logits(X) / self.temperature_
        found: NDArray[np.float64] = logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits
        return found

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (N, C) in the order of `classes_`."""
        logits = self._logits(X)  # first of all it asks whether there is a fit
        return apply_temperature(logits, self.temperature_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest labels, (N,)."""
        best = self._logits(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """(N, C) in float64, so that a row's logits do not depend on its neighbours by more than a rounding there."""
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, dtype=np.float32)
        head = copy.deepcopy(self.head_).double().eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(values), PART):
                part = torch.from_numpy(values[start : start + PART].astype(np.float64))
                parts.append(head(part[:, : self.image_width_], part[:, self.image_width_ :]).numpy())
        return np.concatenate(parts)

    def _image_width(self) -> int:
        """Where the text begins in the X that was just validated."""
        n, width = int(self.n_features_in_), self.image_width
        if n < 2:
            raise InputError(f"X needs a picture column and a text column at least; got n_features={n}")
        if width is None:
            names = [str(name) for name in getattr(self, "feature_names_in_", ())]
            pictures = sum(name.startswith(_PARTS[0]) for name in names)
            texts = [name.startswith(_PARTS[1]) for name in names]
            named = 0 < pictures < n and all(texts[pictures:]) and not any(texts[:pictures])
            return pictures if named else n // 2
        if not isinstance(width, (int, np.integer)) or isinstance(width, bool) or not 0 < width < n:
            raise InputError(f"image_width={width!r}: of {n} columns, 1 to {n - 1} can be the picture's")
        return int(width)

    def _settings(self, seed: int) -> FitSettings:
        own = {name: value for name, value in self.get_params().items() if name in FitSettings.model_fields}
        return settings(FitSettings, **own, seed=seed, views=False)

    def _held_out(self, target: NDArray[np.int64], groups: ArrayLike | None, seed: int) -> NDArray[np.bool_]:
        """(N,) rows to validate on: stratified, whole groups, and no class without a row to train on."""
        n, share = len(target), self.validation_fraction
        numbers = None
        if groups is not None:
            numbers = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64).reshape(-1)
            if len(numbers) != n:
                raise InputError(f"groups must be as many as the rows; got {len(numbers)} and {n}")
        try:
            split = settings(SplitSettings, val_size=share, seed=seed)
        except UsageError as error:
            raise InputError(f"validation_fraction: {error}") from error
        if 1 < n <= share:
            raise InputError(f"validation_fraction={share!r} leaves none of {n} rows to train on")
        held = np.zeros(n, np.bool_)
        with contextlib.suppress(DataError):  # too few rows for a split
            held = validation_split([str(i) for i in range(n)], target, numbers, split)
        for label in np.unique(target):
            rows = target == label
            if held[rows].all():
                held[rows] = False
        return held


def _rows(values: NDArray[np.float32], target: NDArray[np.int64], width: int, device: str) -> Any:
    """X (n, D_image + D_text) as the trainer takes it: copies, for what was given may be read-only."""
    image, text = values[:, None, :width].copy(), values[:, width:].copy()
    return to_tensors(image, text, target.astype(np.int64), device)
