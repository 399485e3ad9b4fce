"""The preflight's near-duplicates: pictures that look alike, texts with the same words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsent.data.check import check_dataset
from mmsent.data.check_report import CheckReport, Finding
from mmsent.data.dataset import load_dataset
from tests.helpers.made import make_guid


def photo(seed: int) -> Image.Image:
    """A smooth picture; no two seeds look alike."""
    cells = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CheckReport:
    """1, 2 and 3 are one photo in three files, 3 in the test split; 4 and 5 are blank, 6 and 7 one file."""
    root = make_guid(tmp_path_factory.mktemp("near"), n_train=12, n_test=4)
    data = root / "data"
    for number in range(1, 17):
        photo(number).save(data / f"{number}.jpg")
    photo(1).save(data / "2.jpg", quality=50)
    photo(1).resize((200, 150)).save(data / "13.jpg")
    for number, level in ((4, 30), (5, 200)):
        Image.new("RGB", (64, 64), (level,) * 3).save(data / f"{number}.jpg")
    (data / "7.jpg").write_bytes((data / "6.jpg").read_bytes())
    texts = {8: "What a day! http://t.co/abc", 9: "RT @me: what a DAY", 10: "What a night", 11: "…", 12: "!!"}
    for number, text in texts.items():
        (data / f"{number}.txt").write_text(text, encoding="utf-8")
    lines = (root / "train.txt").read_text().splitlines()
    labels = {1: "positive", 2: "negative", 8: "neutral", 9: "neutral"}
    lines = [f"{i},{labels[i]}" if i in labels else line for i, line in enumerate(lines)]
    (root / "train.txt").write_text("\n".join(lines) + "\n")
    return check_dataset(load_dataset(root, strict=False))


def finding(report: CheckReport, kind: str) -> Finding | None:
    return next((f for f in report.findings if f.kind == kind), None)


def test_pictures_that_look_alike(report: CheckReport) -> None:
    similar = finding(report, "similar pictures")
    assert similar is not None
    assert similar.examples == ("1=2=13",)  # neither the blank ones nor the one file of 6 and 7
    assert "3 rows in all" in similar.message
    spanning = finding(report, "similar picture in both splits")
    assert spanning is not None
    assert spanning.severity == "warning"
    assert spanning.examples == ("1=2=13",)
    unsure = finding(report, "similar picture with two labels")
    assert unsure is not None
    assert unsure.count == 1
    identical = finding(report, "identical pictures")
    assert identical is not None
    assert identical.examples == ("6=7",)


def test_texts_with_the_same_words(report: CheckReport) -> None:
    similar = finding(report, "similar texts")
    assert similar is not None
    assert similar.examples == ("8=9",)  # those without a word are like nothing
    assert finding(report, "similar text in both splits") is None
    assert finding(report, "similar text with two labels") is None
    assert finding(report, "identical texts") is None


def test_no_picture_at_all(tmp_path: Path) -> None:
    root = make_guid(tmp_path, n_train=4, n_test=0)
    for path in (root / "data").glob("*.jpg"):
        path.unlink()
    assert finding(check_dataset(load_dataset(root, strict=False)), "similar pictures") is None
