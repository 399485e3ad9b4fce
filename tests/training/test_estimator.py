"""FusionClassifier: scikit-learn's own checks, the tools that it has to work in, and the trainer underneath."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from mmsent.config import FitSettings, Fusion, fit_settings
from mmsent.errors import InputError, MmsentError
from mmsent.training.calibration import fit_temperature
from mmsent.training.estimator import FusionClassifier
from mmsent.training.loaders import to_tensors
from mmsent.training.train import train_head

IMAGE, TEXT = 6, 4
NAMES = np.array(["bad", "good", "so-so"])
QUICK: dict[str, Any] = {"epochs": 30, "lr": 1e-2, "hidden": 16, "heads": 2, "common_width": 8, "random_state": 0}


def posts(n: int = 240, seed: int = 0, classes: int = 3) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """X (n, 10) and labels: a half of each label's signal is in either half."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, n)
    X = rng.normal(size=(n, IMAGE + TEXT))
    X[:, 0] += 4 * (target == 0)
    X[:, IMAGE] += 4 * (target == 1)
    X[:, 1] *= 20  # scales differ
    return X, NAMES[target]


@pytest.mark.slow
@parametrize_with_checks([FusionClassifier(), FusionClassifier(1, fusion="weighted", common_width=8, epochs=15)])  # type: ignore[untyped-decorator]
def test_scikit_learns_checks(estimator: FusionClassifier, check: Any) -> None:
    check(estimator)


QUICK_CHECKS = {
    "check_no_attributes_set_in_init",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_classifiers_one_label",
    "check_parameters_default_constructible",
    "check_methods_subset_invariance",
}


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_these_checks() -> None:
    ran = set()
    for estimator, check in estimator_checks_generator(FusionClassifier(epochs=2)):
        name = getattr(check, "func", check).__name__
        if name in QUICK_CHECKS:
            check(estimator)
            ran.add(name)
    assert ran == QUICK_CHECKS


@pytest.mark.parametrize("fusion", list(Fusion))
def test_it_learns_from_each_half_that_its_fusion_reads(fusion: Fusion) -> None:
    X, y = posts()
    model = FusionClassifier(IMAGE, fusion=fusion.value, **QUICK).fit(X, y)
    X, y = posts(seed=1)
    found = {name: ((model.predict(X) == name) == (y == name)).mean() for name in ("bad", "good")}
    # The image tells "bad" from the rest, the text "good". The other two look alike, and which one wins is chance.
    assert (found["bad"] > 0.78) == (fusion is not Fusion.text)
    assert (found["good"] > 0.78) == (fusion is not Fusion.image)


def test_it_is_the_trainer_of_every_other_head() -> None:
    """With the seed that it drew and the rows that it held out, train_head gives the same bits."""
    X, y = posts()
    model = FusionClassifier(IMAGE, **QUICK).fit(X, y)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    target = np.searchsorted(model.classes_, y)
    held = model._held_out(target, None, int(seed))
    assert held.sum() == model.n_held_out_ == 30
    known = {k: v for k, v in model.get_params().items() if k in FitSettings.model_fields}
    settings = FitSettings.model_validate({**known, "seed": int(seed), "views": False})
    given = X.astype(np.float32)
    sides = [to_tensors(given[r, None, :IMAGE], given[r, IMAGE:], target[r], "cpu") for r in (~held, held)]
    trained = train_head(sides[0], sides[1], settings, 3)
    for name, value in trained.head.state_dict().items():
        assert torch.equal(value, model.head_.state_dict()[name]), name
    assert model.temperature_ == fit_temperature(trained.val_logits, target[held])
    assert (model.n_iter_, model.best_epoch_) == (len(trained.history), trained.best_epoch)


def test_the_same_random_state_the_same_bits() -> None:
    X, y = posts()
    one, two, other = (
        FusionClassifier(IMAGE, **(QUICK | {"random_state": s})).fit(X, y).predict_proba(X) for s in (3, 3, 4)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_grid_search_in_threads_gives_the_same_scores() -> None:
    X, y = posts()
    grid = {"fusion": ["concat", "weighted"], "dropout": [0.2, 0.5]}
    found = []
    for jobs in (1, 4):
        with joblib.parallel_backend("threading", n_jobs=jobs):
            search = GridSearchCV(FusionClassifier(IMAGE, epochs=3, heads=2, random_state=0), grid, cv=3).fit(X, y)
        found.append((search.cv_results_["mean_test_score"].tolist(), search.predict_proba(X).tolist()))
    assert found[0] == found[1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_pipeline_grid_search_cross_validation_and_calibration() -> None:
    X, y = posts(150)
    piped = make_pipeline(StandardScaler(), FusionClassifier(IMAGE, **(QUICK | {"epochs": 12})))
    grid = {"fusionclassifier__fusion": ["concat", "image"], "fusionclassifier__dropout": [0.2, 0.5]}
    search = GridSearchCV(piped, grid, cv=3, scoring="f1_weighted", error_score="raise").fit(X, y)
    assert search.best_params_["fusionclassifier__fusion"] == "concat"
    assert len(search.cv_results_["params"]) == 4
    groups = np.arange(len(y)) // 2
    cv = StratifiedGroupKFold(3)
    found = cross_val_predict(search.best_estimator_, X, y, cv=cv, groups=groups, method="predict_proba")
    assert found.shape == (150, 3)
    assert np.allclose(found.sum(axis=1), 1)
    assert (NAMES[found.argmax(axis=1)] == y).mean() > 0.6
    for method in ("sigmoid", "temperature"):
        calibrated = CalibratedClassifierCV(clone(search.best_estimator_), method=method, cv=2).fit(X, y)
        assert list(calibrated.classes_) == list(NAMES)
        assert calibrated.score(X, y) > 0.6


def test_groups_stay_on_one_side_when_rows_are_held_out() -> None:
    X, y = posts(200)
    groups = np.repeat(np.arange(40), 5)
    model = FusionClassifier(IMAGE, validation_fraction=0.25, **QUICK).fit(X, y, groups=groups)
    held = model._held_out(np.searchsorted(NAMES, y), groups, 5)
    assert 40 <= held.sum() <= 60
    assert not set(groups[held]) & set(groups[~held])
    with pytest.raises(InputError, match="199 and 200"):
        model.fit(X, y, groups=groups[1:])


def test_groups_reach_it_through_routing() -> None:
    import sklearn

    X, y = posts(120)
    with sklearn.config_context(enable_metadata_routing=True):
        model = FusionClassifier(IMAGE, **(QUICK | {"epochs": 1})).set_fit_request(groups=True)
        scores = cross_val_score(model, X, y, params={"groups": np.arange(120) // 4}, cv=StratifiedGroupKFold(2))
    assert len(scores) == 2


def test_where_the_text_begins() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = posts(60)
    few = QUICK | {"epochs": 1}
    assert FusionClassifier(**few).fit(X, y).image_width_ == 5  # half
    columns = [f"image_{i}" for i in range(IMAGE)] + [f"text_{i}" for i in range(TEXT)]
    frame = pandas.DataFrame(X, columns=columns)
    model = FusionClassifier(**few).fit(frame, y)
    assert model.image_width_ == IMAGE
    assert list(model.feature_names_in_) == columns
    assert FusionClassifier(2, **few).fit(frame, y).image_width_ == 2
    mixed = frame[columns[1:] + columns[:1]]  # a picture column behind the texts names no border
    assert FusionClassifier(**few).fit(mixed, y).image_width_ == 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_width": 10}, "1 to 9"),
        ({"image_width": 0}, "1 to 9"),
        ({"image_width": 2.5}, "1 to 9"),
        ({"fusion": "sum"}, "fusion"),
        ({"dropout": 1.5}, "dropout"),
        ({"fusion": "attention", "common_width": None, "image_width": 5, "heads": 3}, "3 attention heads"),
        ({"validation_fraction": 60}, "none of 60"),
        ({"validation_fraction": -1}, "validation_fraction"),
        ({"device": "warp"}, "warp"),
    ],
)
def test_what_cannot_be_is_both_kinds_of_error(parameters: dict[str, Any], message: str) -> None:
    X, y = posts(60)
    with pytest.raises(ValueError, match=message) as caught:
        FusionClassifier(**({"image_width": IMAGE} | QUICK | parameters)).fit(X, y)
    assert isinstance(caught.value, MmsentError)


def test_two_classes_of_any_kind() -> None:
    X, y = posts(120, classes=2)
    model = FusionClassifier(IMAGE, **QUICK).fit(X, y == "good")
    assert model.classes_.tolist() == [False, True]
    margin = model.decision_function(X)
    assert margin.shape == (120,)
    assert np.array_equal(margin > 0, model.predict(X))
    assert np.allclose(1 / (1 + np.exp(-margin)), model.predict_proba(X)[:, 1])


def test_too_few_rows_to_hold_some_out() -> None:
    X, y = posts(60)
    first = [int(np.flatnonzero(y == name)[0]) for name in NAMES]
    model = FusionClassifier(IMAGE, **QUICK).fit(X[first], y[first])
    assert model.n_held_out_ == 0
    assert set(model.predict(X)) <= set(NAMES)


def test_recipes() -> None:
    model = FusionClassifier.from_recipe("offline", IMAGE, fusion="weighted", dropout=0.1)
    known = fit_settings("offline", fusion="weighted", dropout=0.1).model_dump(mode="json")
    for name in ("seed", "views", "tune", "tune_lr", "lora"):
        known.pop(name)
    assert known.items() <= model.get_params().items()
    assert model.image_width == IMAGE
    assert model.fusion == "weighted"
    with pytest.raises(MmsentError, match="unknown recipe"):
        FusionClassifier.from_recipe("stew")
