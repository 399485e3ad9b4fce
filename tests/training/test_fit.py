"""Fitting a cache: what a run records, which rows it uses, and that a seed decides everything."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.config import (
    DEFAULT_LABELS,
    HALF_DROPOUT,
    DataSettings,
    EncoderSettings,
    FitSettings,
    Fusion,
    SplitSettings,
)
from mmsent.data.dataset import load_dataset
from mmsent.errors import DataError
from mmsent.features.cache import IMAGE_BAD, NO_LABEL, TEXT_BAD, Cache, RowIndex
from mmsent.inference.logits import head_logits
from mmsent.metrics import negative_log_likelihood, scores
from mmsent.sweep.shared_rows import cut
from mmsent.training.calibration import apply_temperature, fit_temperature
from mmsent.training.fit import Training, fit
from mmsent.training.halves import lackable, with_half_posts
from mmsent.training.sides import Sides, SplitRows, sides, split_rows
from mmsent.training.train import precision_for
from tests.helpers.fake_cache import fake_cache
from tests.helpers.made import make_guid, make_manifest

QUICK: dict[str, Any] = {"epochs": 3, "lr": 1e-2, "hidden": 16, "common_width": 16, "heads": 4}
BAD = "7"  # its picture is broken


def make_cache(folder: Path, labels: tuple[str, ...] = DEFAULT_LABELS) -> Cache:
    """60 rows: one bad picture; 1-2-3 and 10-20 share a text, 3-4 a picture."""
    root = make_guid(folder / "posts", n_train=60, n_test=4, size=24)
    data = root / "data"
    for source, copy in (("1.txt", "2.txt"), ("1.txt", "3.txt"), ("10.txt", "20.txt"), ("3.jpg", "4.jpg")):
        (data / copy).write_bytes((data / source).read_bytes())
    (data / f"{BAD}.jpg").write_bytes(b"no picture")
    dataset = load_dataset(root, DataSettings(labels=labels))
    return fake_cache(dataset, folder / "cache", ["train"], views=2, max_bad=0.1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("fit"))


def quick(**more: Any) -> FitSettings:
    return FitSettings(**{**QUICK, **more})


# --- rows


def test_split_rows_are_good_labelled_and_apart(cache: Cache) -> None:
    index = cache.index("train")
    for seed in range(8):
        rows = split_rows(index, SplitSettings(seed=seed))
        both = np.concatenate([rows.train, rows.val])
        assert len(both) == len(set(both.tolist())) == 59
        assert index.ids.index(BAD) not in both
        # 59 * 0.125 = 7.4
        assert len(rows.val) == 7


def test_duplicates_stay_on_one_side(cache: Cache) -> None:
    index = cache.index("train")

    def shared(settings: SplitSettings) -> int:
        rows = split_rows(index, settings)
        return sum(
            len({hashes[i] for i in rows.train} & {hashes[i] for i in rows.val})
            for hashes in (index.image_hashes, index.text_hashes)
        )

    seeds = range(30)
    assert [shared(SplitSettings(val_size=0.4, seed=s)) for s in seeds] == [0] * 30
    assert sum(shared(SplitSettings(val_size=0.4, seed=s, group=False)) for s in seeds) > 0
    # 1, 2, 3 and 4 hang together, though 1 and 4 share nothing
    sides = [np.isin([0, 1, 2, 3], split_rows(index, SplitSettings(val_size=0.4, seed=s)).val) for s in seeds]
    assert {side.sum() for side in sides} == {0, 4}


def test_unlabelled_rows_are_left_out(cache: Cache) -> None:
    index = cache.index("train")
    labels = index.labels.copy()
    labels[30:] = NO_LABEL
    rows = split_rows(replace(index, labels=labels), SplitSettings())
    assert max(*rows.train, *rows.val) < 30
    with pytest.raises(DataError, match="no row with both halves and a label"):
        split_rows(replace(index, labels=np.full(60, NO_LABEL)), SplitSettings())
    with pytest.raises(DataError, match="no row with both halves and a label"):
        split_rows(replace(index, outcome=np.ones(60, np.uint8)), SplitSettings())


def of_rows(index: RowIndex, rows: Sequence[int]) -> RowIndex:
    """Some rows of an index."""
    values = {one.name: getattr(index, one.name) for one in fields(index)}
    return RowIndex(
        **{k: v[list(rows)] if isinstance(v, np.ndarray) else [v[i] for i in rows] for k, v in values.items()}
    )


def validating(index: RowIndex, rows: SplitRows) -> set[str]:
    return {index.ids[i] for i in rows.val}


def test_rows_that_validate_do_so_again_when_labels_change(cache: Cache) -> None:
    index = cache.index("train")
    first = validating(index, split_rows(index, SplitSettings(val_size=0.3)))
    labels = index.labels.copy()
    labels[:20] = (labels[:20] + 1) % 3
    corrected = replace(index, labels=labels)
    assert validating(corrected, split_rows(corrected, SplitSettings(val_size=0.3))) != first
    again = split_rows(corrected, SplitSettings(val_size=0.3), kept=first)
    assert (validating(corrected, again), again.kept) == (first, True)
    same = split_rows(index, SplitSettings(val_size=0.3), kept=first)
    assert (validating(index, same), same.kept) == (first, False)


def test_rows_that_validate_do_so_again_when_rows_are_added(cache: Cache) -> None:
    whole = cache.index("train")
    index = of_rows(whole, range(20, 60))
    first = validating(index, split_rows(index, SplitSettings(val_size=0.3)))
    again = split_rows(whole, SplitSettings(val_size=0.3), kept=first)
    twin = {"10"} if "20" in first else set()  # which shares a text with 20
    assert validating(whole, again) == first | twin
    few = split_rows(whole, SplitSettings(val_size=0.3), kept=sorted(first)[:3])
    assert len(few.val) == 18  # too few to keep
    assert not few.kept


def test_a_split_is_kept_with_the_runs(cache: Cache, tmp_path: Path) -> None:
    (first,) = fit(cache, tmp_path / "runs", [quick()], SplitSettings(val_size=20, group=False))
    root = make_guid(tmp_path / "posts", n_train=60, n_test=4, size=24)
    listed = (root / "train.txt").read_text().splitlines()
    changed = [line.replace("positive", "negative") if k % 2 else line for k, line in enumerate(listed)]
    (root / "train.txt").write_text("\n".join(changed) + "\n")
    other = fake_cache(load_dataset(root), tmp_path / "cache", ["train"], views=2)
    (again,) = fit(other, tmp_path / "runs", [quick()], SplitSettings(val_size=20, group=False))
    assert set(again.validation_ids()) == set(first.validation_ids())
    (fresh,) = fit(other, tmp_path / "elsewhere", [quick()], SplitSettings(val_size=20, group=False))
    assert set(fresh.validation_ids()) != set(first.validation_ids())
    (seeded,) = fit(other, tmp_path / "runs", [quick()], SplitSettings(val_size=20, group=False, seed=1))
    assert set(seeded.validation_ids()) != set(first.validation_ids())


def test_rows_that_a_data_set_keeps_for_validation_validate(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "posts", "csv", 30, 4, size=24)
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{line},{'dev' if k % 5 == 0 else 'train'}" for k, line in enumerate(lines[:30])]

    def encoded(lines: list[str]) -> Cache:
        path.write_text("\n".join([f"{head},split", *lines]) + "\n", encoding="utf-8")
        return fake_cache(load_dataset(path), tmp_path / "cache", ["train"])

    cache = encoded(lines)
    assert cache.validation == tuple(f"post {k + 1}" for k in range(0, 30, 5))
    for seed in (0, 1):
        (run,) = fit(cache, tmp_path / "runs", [quick()], SplitSettings(seed=seed))
        assert set(run.validation_ids()) == set(cache.validation)
        assert run.info["rows"] == {"train": 24, "val": 6}
    parts, _, _ = cut(cache, cache.load("train"), SplitSettings(), None, 1)
    assert {tuple(part.val.tolist()) for part in parts} == {tuple(range(0, 30, 5))}
    # nothing but the list changes: the cache follows
    assert encoded([line.replace(",dev", ",train") for line in lines]).validation == ()


# --- posts that lack a half


def test_heads_of_one_half_train_on_every_row_that_has_it(cache: Cache, tmp_path: Path) -> None:
    lacking = cache.index("train")
    outcome = lacking.outcome.copy()
    outcome[30:40], outcome[40:50] = IMAGE_BAD, TEXT_BAD
    features = replace(cache.load("train"), index=replace(lacking, outcome=outcome))
    wanted = [quick(fusion=fusion) for fusion in ("concat", "image", "text")]
    seen: list[Sides] = []
    done = fit(cache, tmp_path, wanted, SplitSettings(), features=features, on_run=lambda *given: seen.append(given[2]))
    whole = 60 - 21  # the row BAD too
    val = done[0].info["rows"]["val"]
    assert [sum(run.info["rows"].values()) for run in done] == [whole, whole + 10, whole + 11]
    kinds = [Counter(outcome[rows.rows.val].tolist()) for rows in seen]
    assert kinds == [{0: val}, {0: val, TEXT_BAD: 1}, {0: val, IMAGE_BAD: 1}]  # the same whole posts
    assert set.intersection(*(set(run.validation_ids()) for run in done)) == set(done[0].validation_ids())
    assert [run.info["lacking"] for run in done] == [[], ["text"], ["image"]]
    assert seen[0].left_out == (
        " (of 60 labelled rows 11 lack an image, 10 lack a text; --fusion image and --fusion text train on every row "
        "that has their half, --modality-dropout on all)"
    )


def test_what_stands_in_a_missing_half_does_not_matter(cache: Cache, tmp_path: Path) -> None:
    """Heads with modality dropout train and validate on half posts, wherever the rows are: of all that a missing half
    may hold, nothing reaches the head."""
    index = cache.index("train")
    outcome = index.outcome.copy()
    outcome[20:35], outcome[35:50] = IMAGE_BAD, TEXT_BAD
    given = cache.load("train")
    heads = []
    for filler in (0.0, 7.0):
        image, text = given.image.copy(), given.text.copy()
        image[outcome & IMAGE_BAD > 0], text[outcome & TEXT_BAD > 0] = filler, filler
        features = replace(given, image=image, text=text, index=replace(index, outcome=outcome))
        for fusion, dropout in (("concat", 0.2), ("attention", 0.2), ("image", 0.0)):
            settings = quick(fusion=fusion, modality_dropout=dropout)
            (run,) = fit(cache, tmp_path, [settings], SplitSettings(val_size=0.3), features=features)
            heads.append((run.path / "head.safetensors").read_bytes() + (run.path / "validation.csv").read_bytes())
            rows = split_rows(features.index, SplitSettings(val_size=0.3), lacking=lackable(settings))
            assert {0, TEXT_BAD} <= set(outcome[rows.train].tolist()) & set(outcome[rows.val].tolist())
    assert heads[:3] == heads[3:]


def test_modality_dropout_is_on_by_default_where_posts_lack_a_half(cache: Cache) -> None:
    index = cache.index("train")  # one of 60 lacks its image
    wanted = [quick(), quick(fusion="image")]
    chosen, said = with_half_posts(wanted, index)
    assert [one.modality_dropout for one in chosen] == [HALF_DROPOUT, 0]
    assert said.startswith("1 of 60 training posts have no image and 0 no text, so modality dropout 0.2 is on")
    whole = replace(index, outcome=np.zeros(60, np.uint8))
    assert with_half_posts(wanted, whole) == (wanted, "")
    assert with_half_posts(wanted[1:], index) == (wanted[1:], "")
    images = replace(index, outcome=np.full(60, TEXT_BAD, np.uint8))
    assert with_half_posts(wanted, images) == (wanted, "")  # no head of both halves can learn from these


def test_no_half_post_trains_beside_its_double_in_validation(cache: Cache) -> None:
    index = cache.index("train")
    for seed in range(20):
        outcome = index.outcome.copy()
        outcome[0] = IMAGE_BAD  # shares its text with 2 and 3
        rows = split_rows(replace(index, outcome=outcome), SplitSettings(seed=seed, val_size=0.4), lacking=[IMAGE_BAD])
        assert (0 in rows.train) != (1 in rows.val)


def test_a_data_set_of_halves_trains_on_them(cache: Cache) -> None:
    index = cache.index("train")
    halves = replace(index, outcome=np.full(60, TEXT_BAD, np.uint8))
    rows = split_rows(halves, SplitSettings(), lacking=[TEXT_BAD])
    assert (len(rows.train), len(rows.val)) == (52, 8)
    message = r"no row with both halves and a label \(of 60 labelled rows 60 lack a text; --fusion image"
    with pytest.raises(DataError, match=message):
        split_rows(halves, SplitSettings())


def test_a_class_without_whole_posts_is_said_to_be_there(cache: Cache) -> None:
    index = cache.index("train")
    outcome = np.where(index.labels == 1, np.uint8(TEXT_BAD), index.outcome).astype(np.uint8)
    features = replace(cache.load("train"), index=replace(index, outcome=outcome))
    with pytest.raises(DataError, match=r"no row to train on is labelled neutral; 12 rows are, but .* lack a half"):
        sides(cache, SplitSettings(), device="cpu", features=features)


# --- runs


def test_what_a_run_records(cache: Cache, tmp_path: Path) -> None:
    index = cache.index("train")
    split = SplitSettings(val_size=20, seed=4)
    wanted = [quick(fusion=Fusion.concat, seed=2), quick(fusion=Fusion.text)]
    runs = fit(cache, tmp_path, wanted, split, Training("mine"))
    assert [r.fit for r in runs] == [w.model_copy(update={"precision": precision_for("cpu")}) for w in wanted]
    assert [r.name.split("-", 2)[2] for r in runs] == ["concat-s2", "text-s0"]
    rows = split_rows(index, split)
    for run in runs:
        info = run.info
        assert info["recipe"] == "mine"
        assert run.split == split
        assert info["rows"] == {"train": 40 if run.fusion == "text" else 39, "val": 20}
        assert run.labels == list(cache.labels)
        assert info["cache"]["fingerprint"] == cache.fingerprint
        assert info["cache"]["contract"] == cache.settings.contract
        assert info["cache"]["data_name"] == "posts"
        assert run.encoder_settings == EncoderSettings(encoder="offline", runtime="torch")
        assert run.data_settings == DataSettings()
        history = json.loads((run.path / "history.json").read_text())
        assert [(run.fusion, r["epoch"]) for r in history] == [(run.fusion, k) for k in range(1, len(history) + 1)]
        best = history[info["best_epoch"] - 1]
        assert best["val_f1_weighted"] == max(r["val_f1_weighted"] for r in history) == info["metrics"]["f1_weighted"]
        table = list(csv.DictReader((run.path / "validation.csv").open(encoding="utf-8")))
        assert [r["id"] for r in table] == [index.ids[i] for i in rows.val]
        numbers = {label: i for i, label in enumerate(cache.labels)}
        truth = np.array([numbers[r["label"]] for r in table])
        assert truth.tolist() == index.labels[rows.val].tolist()
        predicted = np.array([numbers[r["predicted"]] for r in table])
        assert scores(truth, predicted, 3) == info["metrics"]
        for r in table:
            shares = [float(r[f"p_{label}"]) for label in cache.labels]
            assert sum(shares) == pytest.approx(1, abs=2e-6)
            assert float(r["confidence"]) == max(shares) == float(r[f"p_{r['predicted']}"])


def test_a_run_has_the_temperature_of_its_validation_rows(cache: Cache, tmp_path: Path) -> None:
    split = SplitSettings(val_size=20, seed=1)
    features = cache.load("train")
    rows = split_rows(features.index, split).val
    truth = features.index.labels[rows]
    for run in fit(cache, tmp_path, [quick(), quick(fusion=Fusion.text, lr=3e-2)], split):
        logits = head_logits(run, features.image[rows, 0], features.text[rows])
        assert run.calibrated
        assert run.temperature == run.info["temperature"] == pytest.approx(fit_temperature(logits, truth), rel=1e-4)
        assert run.temperature != 1
        table = list(csv.DictReader((run.path / "validation.csv").open(encoding="utf-8")))
        written = np.array([[float(row[f"p_{label}"]) for label in cache.labels] for row in table])
        assert written == pytest.approx(apply_temperature(logits, run.temperature), abs=1e-5)
        assert [row["predicted"] for row in table] == [cache.labels[i] for i in logits.argmax(axis=1)]
        plain = negative_log_likelihood(truth, apply_temperature(logits, 1.0))
        assert negative_log_likelihood(truth, apply_temperature(logits, run.temperature)) < plain


def test_a_head_learns_the_made_up_posts(cache: Cache, tmp_path: Path) -> None:
    (run,) = fit(cache, tmp_path, [quick(epochs=15, patience=15)], SplitSettings(val_size=20))
    assert run.info["metrics"]["accuracy"] >= 0.75  # half of them are positive


def test_a_seed_decides_every_byte(cache: Cache, tmp_path: Path) -> None:
    wanted = [quick(fusion=f, seed=s) for f in (Fusion.concat, Fusion.attention) for s in (1, 1, 2)]
    runs = fit(cache, tmp_path, wanted, SplitSettings())
    assert len({r.path for r in runs}) == 6
    weights = [(r.path / "head.safetensors").read_bytes() for r in runs]
    for first, second, other in (weights[:3], weights[3:]):
        assert first == second
        assert first != other
    tables = [(r.path / "validation.csv").read_bytes() for r in runs]
    assert tables[0] == tables[1] != tables[2]


def test_bad_rows_and_held_out_views_are_never_read(cache: Cache, tmp_path: Path) -> None:
    features = cache.load("train")
    split = SplitSettings()
    rows = split_rows(features.index, split)
    image, text = features.image.copy(), features.text.copy()
    bad = features.index.ids.index(BAD)
    image[bad] = text[bad] = np.nan
    image[rows.val, 1:] = np.nan  # validation uses the clean picture alone
    spoilt = replace(features, image=image, text=text)
    (ours,) = fit(cache, tmp_path, [quick()], split, features=spoilt)
    (plain,) = fit(cache, tmp_path, [quick()], split)
    assert (ours.path / "head.safetensors").read_bytes() == (plain.path / "head.safetensors").read_bytes()
    assert ours.info["metrics"] == plain.info["metrics"]
    image[rows.train[0], 0] += 1
    (broken,) = fit(cache, tmp_path, [quick()], split, features=spoilt)
    assert (broken.path / "head.safetensors").read_bytes() != (plain.path / "head.safetensors").read_bytes()


def test_a_label_without_training_rows(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, (*DEFAULT_LABELS, "mixed", "other"))
    with pytest.raises(DataError, match="no training row is labelled mixed, other"):
        fit(cache, tmp_path / "runs", [quick()], SplitSettings())
    assert not (tmp_path / "runs").exists()
