"""Cross-validation: folds are even, whole and free of order; no row has a part in its own prediction."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsent.config import FitSettings, Fusion, Group, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.errors import DataError, RunError, UsageError
from mmsent.evaluation.cross_validation import (
    CrossValidated,
    cross_validate,
    list_folds,
    open_folds,
    save_folds,
    vote_spread,
)
from mmsent.features.cache import Cache, Features
from mmsent.features.cache.groups import find_duplicates, row_groups, with_thresholds
from mmsent.training.calibration import apply_temperature
from mmsent.training.folds import fold_numbers, plan_folds
from mmsent.training.sides import split_rows
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid

QUICK: dict[str, Any] = {"epochs": 20, "patience": 20, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}


def names(n: int) -> list[str]:
    return [f"r{i}" for i in range(n)]


def test_single_rows_are_spread_evenly() -> None:
    labels = np.repeat([0, 1, 2], [53, 17, 30])
    folds = fold_numbers(names(100), labels, None, 10, 0)
    table = np.stack([np.bincount(folds[labels == c], minlength=10) for c in range(3)])
    assert table.sum(axis=0).tolist() == [10] * 10
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()
    assert not np.array_equal(folds, fold_numbers(names(100), labels, None, 10, 1))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_folds_are_whole_even_and_free_of_order(data: st.DataObject) -> None:
    n = data.draw(st.integers(12, 60))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    groups = np.array(data.draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    k = data.draw(st.integers(2, 5))
    if len(set(groups.tolist())) < k:
        return
    seed = data.draw(st.integers(0, 99))
    folds = fold_numbers(names(n), labels, groups, k, seed)
    assert all(len(set(folds[groups == g].tolist())) == 1 for g in set(groups.tolist()))
    order = np.array(data.draw(st.permutations(range(n))))
    again = fold_numbers([names(n)[i] for i in order], labels[order], groups[order], k, seed)
    assert np.array_equal(again, folds[order])
    assert np.array_equal(fold_numbers(np.array(names(n), "S"), labels, groups, k, seed), folds)
    largest = np.bincount(np.unique(groups, return_inverse=True)[1]).max()
    for c in range(3):
        counts = np.bincount(folds[labels == c], minlength=k)
        assert counts.max() - counts.min() <= 2 * largest


@pytest.mark.parametrize("paired", [False, True])
def test_corrected_labels_and_added_rows_move_few_rows_to_other_folds(paired: bool) -> None:
    """Of 1,000 rows in 5 folds, in which a twentieth may be in pairs."""
    rng, n = np.random.default_rng(0), 1000
    labels, groups = rng.choice(3, n, p=(0.3, 0.2, 0.5)), np.arange(n)
    groups[1:50:2] = groups[:50:2] if paired else groups[1:50:2]
    before = fold_numbers(names(n), labels, groups, 5, 0)
    for _ in range(20):
        corrected, wrong = labels.copy(), rng.choice(n, 2, replace=False)
        corrected[wrong] = (corrected[wrong] + 1) % 3
        assert (fold_numbers(names(n), corrected, groups, 5, 0) != before).sum() <= 50
    more = fold_numbers(names(n + 50), np.append(labels, rng.choice(3, 50)), np.append(groups, n + np.arange(50)), 5, 0)
    assert (more[:n] != before).sum() <= 50


def test_folds_that_cannot_be() -> None:
    labels = np.zeros(4, np.int64)
    with pytest.raises(UsageError, match="at least 2"):
        fold_numbers(names(4), labels, None, 1, 0)
    with pytest.raises(UsageError, match="only 2 rows"):
        fold_numbers(names(4), labels, np.array([0, 0, 1, 1]), 3, 0)
    with pytest.raises(DataError, match="stand twice"):
        fold_numbers(["a", "a", "b", "c"], labels, None, 2, 0)


# --- on a cache


def make_cache(folder: Path, **more: Any) -> Cache:
    """80 rows; 1-2 share a picture, 3-4 a text; 5 and 6 differ by a comma, which the fakes barely see; one is bad."""
    root = make_guid(folder / "posts", n_train=80, n_test=6, size=24, **more)
    data = root / "data"
    (data / "2.jpg").write_bytes((data / "1.jpg").read_bytes())
    (data / "4.txt").write_bytes((data / "3.txt").read_bytes())
    long = " ".join(f"word{i}" for i in range(11))
    (data / "5.txt").write_text(f"{long} one")
    (data / "6.txt").write_text(f"{long} two")
    (data / "9.jpg").write_bytes(b"no picture")
    return fake_cache(load_dataset(root), folder / "cache", views=1, max_bad=0.1)


NEAR = SplitSettings(group=Group.near, near_image=0.99999, near_text=0.9, val_size=0.2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def features(cache: Cache) -> Features:
    return cache.load("train")


@pytest.fixture(scope="module")
def done(cache: Cache) -> CrossValidated:
    return cross_validate(plan_folds(cache, NEAR, 4), FitSettings(**QUICK))


def test_near_duplicates_are_grouped_by_choice(features: Features) -> None:
    index = features.index
    rows = np.flatnonzero(index.good)
    where = {index.ids[row]: k for k, row in enumerate(rows)}

    def together(split: SplitSettings, a: str, b: str) -> bool:
        groups = row_groups(index, rows, split, features)
        return groups is not None and bool(groups[where[a]] == groups[where[b]])

    assert row_groups(index, rows, SplitSettings(group=Group.none)) is None
    assert [together(SplitSettings(), *pair) for pair in (("1", "2"), ("3", "4"), ("5", "6"))] == [True, True, False]
    assert [together(NEAR, *pair) for pair in (("1", "2"), ("3", "4"), ("5", "6"))] == [True] * 3
    assert not together(NEAR.model_copy(update={"near_text": 0.999}), "5", "6")
    with pytest.raises(UsageError, match="--memory"):
        row_groups(index, rows, NEAR)
    with pytest.raises(UsageError, match="near_image"):
        row_groups(index, rows, SplitSettings(group=Group.near), features)
    own = with_thresholds(SplitSettings(group=Group.near, near_text=0.5), "offline")
    assert (own.near_image, own.near_text) == (0.9, 0.5)
    assert with_thresholds(SplitSettings(group=Group.near), "open_clip:x").near_image == 0.95
    assert with_thresholds(SplitSettings(), "offline") == SplitSettings()


def test_a_validation_split_keeps_near_duplicates_together(features: Features) -> None:
    index = features.index
    pair = [index.ids.index("5"), index.ids.index("6")]
    for seed in range(12):
        split = NEAR.model_copy(update={"seed": seed, "val_size": 0.4})
        assert np.isin(pair, split_rows(index, split, features).val).sum() in (0, 2)
    apart = [split_rows(index, SplitSettings(val_size=0.4, seed=seed)).val for seed in range(12)]
    assert any(np.isin(pair, val).sum() == 1 for val in apart)


def test_settings_of_earlier_runs_are_read() -> None:
    assert SplitSettings.model_validate({"group": True}).group is Group.exact
    assert SplitSettings.model_validate({"group": False}).group is Group.none
    assert SplitSettings.model_validate_json(NEAR.model_dump_json()) == NEAR


def test_duplicates_of_a_cache(cache: Cache) -> None:
    found = find_duplicates(cache, 0.99999, 0.9)
    assert found.rows == 86
    exact = {g.what: g for g in found.found if not g.near}
    near = {g.what: g for g in found.found if g.near}
    assert exact["picture"].members == [[("train", "1"), ("train", "2")]]
    assert exact["text"].members == [[("train", "3"), ("train", "4")]]
    assert (exact["either"].groups, exact["either"].rows) == (2, 4)
    assert [("train", "5"), ("train", "6")] in near["text"].members
    assert [("train", "5"), ("train", "6")] in near["either"].members
    assert near["either"].groups >= 3
    assert all(not any(row_id == "9" for _, row_id in group) for group in near["picture"].members)
    assert len(found.table()) == 7
    assert json.loads(json.dumps(found.to_json()))["rows"] == 86


def test_every_row_is_predicted_once(done: CrossValidated) -> None:
    plan = done.plan
    assert len(plan.rows) == 79
    assert np.bincount(plan.fold).sum() == 79
    assert done.probabilities.sum(axis=1) == pytest.approx(1)
    assert [h.scores["n"] for h in done.heads] == np.bincount(plan.fold).tolist()
    assert all(h.train + h.val + h.scores["n"] == 79 for h in done.heads)
    assert done.pooled["n"] == 79
    assert done.pooled["accuracy"] > 0.6  # half of the rows are positive
    values = np.array([h.scores["f1_weighted"] for h in done.heads])
    found = done.summary["f1_weighted"]
    assert (found["mean"], found["sd"]) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert found["se"] == pytest.approx(found["sd"] / 2)


def test_no_row_has_a_part_in_its_own_prediction(cache: Cache, features: Features, done: CrossValidated) -> None:
    """Spoil everything about one fold: the predictions of the other folds change, its own head's settings do not."""
    plan = done.plan
    held = plan.rows[plan.fold == 2]
    labels = features.index.labels.copy()
    labels[held] = (labels[held] + 1) % 3
    spoilt = replace(features, index=replace(features.index, labels=labels))
    # The same folds, so that only the labels differ.
    other = replace(plan_folds(cache, NEAR, 4, features=spoilt), fold=plan.fold)
    again = cross_validate(other, done.settings)
    mine = plan.fold == 2
    assert np.array_equal(again.probabilities[mine], done.probabilities[mine])
    assert again.heads[2].temperature == done.heads[2].temperature
    assert again.heads[2].best_epoch == done.heads[2].best_epoch
    assert not np.array_equal(again.probabilities[~mine], done.probabilities[~mine])


def test_the_temperature_is_the_folds_own(done: CrossValidated) -> None:
    for number, head in enumerate(done.heads):
        mine = done.plan.fold == number
        logits = np.log(done.plain[mine])
        assert done.probabilities[mine] == pytest.approx(apply_temperature(logits, head.temperature), abs=1e-9)


def test_a_seed_decides_everything(cache: Cache, done: CrossValidated) -> None:
    again = cross_validate(plan_folds(cache, NEAR, 4), done.settings)
    assert np.array_equal(again.probabilities, done.probabilities)
    other = plan_folds(cache, NEAR.model_copy(update={"seed": 5}), 4)
    assert not np.array_equal(other.fold, done.plan.fold)


def test_from_disk_as_from_memory(cache: Cache) -> None:
    split = SplitSettings(val_size=0.2)
    plan = plan_folds(cache, split, 3, memory=10_000)
    assert plan.features is None
    inside = plan_folds(cache, split, 3)
    assert np.array_equal(plan.fold, inside.fold)
    assert plan.ids == inside.ids
    found = cross_validate(plan, FitSettings(**QUICK))
    assert found.pooled["accuracy"] > 0.6
    with pytest.raises(UsageError, match="--memory"):
        plan_folds(cache, NEAR, 3, memory=10_000)


def test_the_folder(cache: Cache, done: CrossValidated, tmp_path: Path) -> None:
    first = save_folds(tmp_path, done, recipe="mine")
    second = save_folds(tmp_path, done, recipe="mine")
    assert first.path != second.path
    assert first.info["recipe"] == "mine"
    assert first.split == NEAR
    assert first.fusion is Fusion.concat
    assert first.summary == done.summary
    assert [h["best_epoch"] for h in first.info["heads"]] == [h.best_epoch for h in done.heads]
    assert {p.name for p in first.path.iterdir()} == {"folds.json", "oof.csv"}
    rows = first.predictions()
    assert rows.ids == done.plan.ids
    assert np.array_equal(rows.given, done.plan.labels)
    assert np.array_equal(rows.fold, done.plan.fold)
    assert rows.probabilities == pytest.approx(done.probabilities, abs=2e-6)
    assert [one.path for one in list_folds(tmp_path, cache)][-1] == first.path
    assert len(list_folds(tmp_path, cache)) == 2
    table = list(csv.DictReader((first.path / "oof.csv").open(encoding="utf-8")))
    assert table[0].keys() >= {"id", "label", "predicted", "confidence", "fold"}
    lines = (second.path / "oof.csv").read_text().splitlines()
    (second.path / "oof.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(RunError, match="78 rows, but 79"):
        second.predictions()
    with pytest.raises(RunError, match="not a cross-validation"):
        open_folds(tmp_path)
    (second.path / "folds.json").write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        open_folds(second.path)
    assert len(list_folds(tmp_path, cache)) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        save_folds(tmp_path / "file", done, recipe="mine")


def test_a_vote_over_folds(done: CrossValidated) -> None:
    assert vote_spread([done, done, done]) == done.summary


def test_a_class_that_one_group_holds(cache: Cache, features: Features) -> None:
    labels = np.where(features.index.labels == 1, 0, features.index.labels)
    labels[:2] = 1  # both are of one group
    with pytest.raises(DataError, match=r"fold \d of 4: no row to train on is labelled neutral; 2 rows are"):
        cross_validate(
            plan_folds(cache, NEAR, 4, features=replace(features, index=replace(features.index, labels=labels))),
            FitSettings(**QUICK),
        )
