"""The preflight finds what was put in, with its severity, and nothing in a sound data set."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmsent.config import DataSettings
from mmsent.data.check import FOREIGN_WAY, check_dataset
from mmsent.data.check_report import CheckReport, Finding
from mmsent.data.dataset import load_dataset
from mmsent.data.reading import HARDLY_READ, reading_problems
from tests.helpers.made import make_guid, make_manifest


def check(root: Path, **options: Any) -> CheckReport:
    return check_dataset(load_dataset(root, strict=False), workers=2, **options)


def found(report: CheckReport) -> dict[str, Finding]:
    kinds = {finding.kind: finding for finding in report.findings}
    assert len(kinds) == len(report.findings)  # each kind once
    return kinds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_guid(tmp_path / "posts", 40, 10)


def text(root: Path, number: int) -> Path:
    return root / "data" / f"{number}.txt"


def picture(root: Path, number: int) -> Path:
    return root / "data" / f"{number}.jpg"


def test_a_sound_data_set_has_no_findings(root: Path) -> None:
    done: list[int] = []
    report = check(root, progress=done.append)
    assert report.findings == ()
    assert sum(done) == 50
    assert (report.exit_status(), report.exit_status(strict=True)) == (0, 0)
    assert report.balance == {
        "train": {"negative": 12, "neutral": 8, "positive": 20},
        "test": {"no label": 10},
    }
    assert (report.name, report.layout, report.encoding, report.with_bom) == ("posts", "guid", "utf-8", 0)


@pytest.mark.parametrize(
    ("number", "raw", "kind", "message"),
    [
        (1, None, "missing text", r"no file .*1\.txt; 2.0% of the rows cannot be used; the limit is 1%"),
        (2, b"\xff\xfe\xfd", "undecodable text", "text is not utf-16"),
    ],
)
def test_texts_that_bar_a_row(root: Path, number: int, raw: bytes | None, kind: str, message: str) -> None:
    if raw is None:
        text(root, number).unlink()
    else:
        text(root, number).write_bytes(raw)  # claims to be UTF-16, and is cut
    finding = found(check(root))[kind]
    assert (finding.severity, finding.count, finding.examples) == ("error", 1, (str(number),))
    assert re.match(message, finding.message)


def test_pictures_that_bar_a_row(root: Path) -> None:
    picture(root, 1).unlink()
    picture(root, 2).write_bytes(b"no picture")
    picture(root, 3).write_bytes(picture(root, 3).read_bytes()[:300])
    Image.new("1", (20_000, 10_000)).save(root / "data" / "4.png")
    picture(root, 4).unlink()
    report = check(root)
    kinds = found(report)
    assert {k: (f.severity, f.count, f.examples) for k, f in kinds.items()} == {
        "missing picture": ("error", 1, ("1",)),
        "broken picture": ("error", 2, ("2", "3")),
        "picture too large": ("error", 1, ("4",)),
    }
    assert "8.0% of the rows cannot be used" in kinds["broken picture"].message
    assert report.exit_status() == 1


def test_within_the_limit_it_is_a_warning(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 90, 10, size=32)
    picture(root, 5).unlink()
    report = check(root)
    assert found(report)["missing picture"].severity == "warning"  # 1 of 100 rows: at the limit, not above
    assert (report.exit_status(), report.exit_status(strict=True)) == (0, 1)
    text(root, 6).unlink()  # each kind alone is within the limit; together they are not
    assert {f.severity for f in check(root).findings} == {"error"}
    text(root, 5).unlink()
    picture(root, 6).unlink()
    assert "2.0% of the rows" in found(check(root))["missing text"].message  # rows, not missing parts


def test_empty_and_bare_texts(root: Path) -> None:
    text(root, 1).write_text(" \n")
    for number, bare in enumerate(("http://t.co/x @you !", "RT @me: ... http://t.co/y", "?!… 😀"), 2):
        text(root, number).write_text(bare, encoding="utf-8")
    text(root, 5).write_text("RT @me: 好", encoding="utf-8")
    kinds = found(check(root))
    assert {k: (f.severity, f.examples) for k, f in kinds.items()} == {
        "empty text": ("note", ("1",)),
        "bare text": ("note", ("2", "3", "4")),
    }


def test_looks_of_pictures(root: Path) -> None:
    Image.radial_gradient("L").resize((31, 40)).save(picture(root, 1))
    Image.radial_gradient("L").resize((32, 32)).save(picture(root, 2))
    Image.new("RGB", (60, 50), (9, 99, 9)).save(picture(root, 3))
    Image.radial_gradient("L").resize((40, 161)).save(picture(root, 4))
    Image.radial_gradient("L").resize((160, 40)).save(picture(root, 5))
    kinds = found(check(root))
    assert {k: (f.severity, f.examples) for k, f in kinds.items()} == {
        "tiny picture": ("warning", ("1",)),
        "blank picture": ("note", ("3",)),
        "narrow picture": ("note", ("4",)),
    }


def test_duplicates(root: Path) -> None:
    labels = {p.id: p.label for p in load_dataset(root).of("train")}
    same = [int(i) for i, label in labels.items() if label == "positive"][:2]
    other = next(int(i) for i, label in labels.items() if label == "negative")
    shutil.copyfile(picture(root, same[0]), picture(root, same[1]))
    shutil.copyfile(picture(root, 41), picture(root, other))  # spans
    for number in (other, same[0], 42):
        text(root, number).write_text("word for word")
    for number in (43, 44):
        text(root, number).write_bytes(b"")  # empty texts are no duplicates
    kinds = found(check(root))
    assert {k: (f.severity, f.count) for k, f in kinds.items() if k != "empty text"} == {
        "picture in both splits": ("warning", 1),
        "text in both splits": ("warning", 1),
        "identical pictures": ("note", 2),
        "identical texts": ("note", 1),
        "text with two labels": ("note", 1),
    }
    assert kinds["identical pictures"].message.endswith("4 rows in all")
    assert set(kinds["picture in both splits"].examples[0].split("=")) == {str(other), "41"}


def relabel(root: Path, counts: dict[str, int]) -> None:
    labels = [label for label, n in counts.items() for _ in range(n)]
    lines = [f"{i},{label}" for i, label in enumerate(labels, 1)]
    (root / "train.txt").write_text("guid,tag\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("counts", "kind", "severity", "message"),
    [
        ({"negative": 39, "neutral": 1}, "class without rows", "error", "no row to train on"),
        ({"negative": 39, "neutral": 1}, "class of one row", "warning", "no row validates it"),
        ({"negative": 98, "neutral": 4, "positive": 98}, "rare class", "warning", "'neutral' has 4 of 200 rows"),
        ({"negative": 95, "neutral": 10, "positive": 95}, "uneven classes", "note", r"10 of 200 rows \(5.0%\)"),
    ],
)
def test_class_balance(tmp_path: Path, counts: dict[str, int], kind: str, severity: str, message: str) -> None:
    root = make_guid(tmp_path, sum(counts.values()), 0, size=32)
    relabel(root, counts)
    finding = found(check(root))[kind]
    assert finding.severity == severity
    assert re.search(message, finding.message)


def test_classes_without_rows_are_named(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 40, 0)
    relabel(root, {"negative": 39, "neutral": 1})
    finding = found(check(root))["class without rows"]
    assert (finding.count, finding.examples) == (1, ("positive",))
    assert check(root).balance["train"] == {"negative": 39, "neutral": 1, "positive": 0}


def test_a_test_split_alone_is_no_class_problem(root: Path) -> None:
    (root / "train.txt").unlink()
    report = check(root)
    assert [f.kind for f in report.findings] == ["unlisted"]
    assert list(report.balance) == ["test"]


def test_loader_problems_are_gathered_by_kind(root: Path) -> None:
    text(root, 99).write_text("in no list")  # a note, which the loader reports first
    with (root / "train.txt").open("a") as file:
        file.write("".join(f"{i},good\n" for i in range(51, 58)) + "1,neutral\n")
    report = check(root)
    kinds = found(report)
    assert (kinds["unknown label"].severity, kinds["unknown label"].count) == ("error", 7)
    assert len(kinds["unknown label"].examples) == 5
    assert kinds["duplicate id"].examples == ("posts train 1",)
    assert report.balance["train"]["good"] == 7
    severities = [finding.severity for finding in report.findings]
    assert severities == ["error"] * (len(severities) - 1) + ["note"]


def test_lengths(root: Path) -> None:
    characters = check(root).lengths
    assert characters is not None
    assert (characters.unit, characters.limit) == ("characters", None)
    sizes = list(range(1, 51))
    report = check(root, tokenizer=lambda texts: [*sizes, 1][: len(texts)], max_tokens=45)
    assert report.lengths is not None
    n = report.lengths
    assert (n.unit, n.median, n.p95, n.longest, n.limit, n.cut) == ("tokens", 25.5, 48, 50, 45, 5)
    assert "tokens: median 25.5, 95% 48, longest 50; 5 cut at 45" in report.table()


def test_json_and_table(root: Path) -> None:
    picture(root, 1).unlink()
    Image.new("RGB", (60, 50), (9, 99, 9)).save(picture(root, 3))
    report = check(root)
    again = json.loads(json.dumps(report.to_json()))
    assert again["findings"][0]["kind"] == "missing picture"
    assert again["balance"]["train"]["neutral"] == 8
    lines = report.table().splitlines()
    assert lines[0] == "posts        guid layout; posts: 40 train, 10 test"
    assert lines[4].split() == ["split", "negative", "neutral", "positive", "no", "label"]
    assert lines[5].split() == ["train", "12", "8", "20", "0"]
    assert lines[-3].split()[:4] == ["note", "1", "blank", "picture"]
    assert lines[-1] == "1 error, 0 warnings, 1 note"


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, "csv", 30, 0, size=32)
    name = tmp_path / "\x1b[31mred.csv"
    manifest.rename(name)
    report = check(name)
    assert report.name == "\x1b[31mred"
    assert "\x1b" not in report.table()
    assert "?[31mred" in report.table()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_manifests_are_checked_too(tmp_path: Path, ending: str) -> None:
    report = check(make_manifest(tmp_path, ending))
    assert report.findings == ()
    assert (report.name, report.layout) == ("posts", "manifest")


def test_a_forced_encoding_that_does_not_fit(tmp_path: Path) -> None:
    root = make_guid(tmp_path, 10, 0, encoding="gb18030")
    report = check_dataset(load_dataset(root, DataSettings(text_encoding="utf-8"), strict=False))
    assert found(report)["undecodable text"].count == 10
    assert report.lengths is None


def test_texts_that_the_encoder_hardly_reads(tmp_path: Path) -> None:
    from mmsent.config import EncoderSettings
    from mmsent.encoders.factory import open_encoders

    encoder = open_encoders(EncoderSettings(encoder="offline")).text
    words = [
        "今天天气很好，我们去公园玩",
        "Сегодня очень хорошая погода",
        "오늘 날씨가 정말 좋아요",
        "السلام عليكم ورحمة الله",
    ]
    words += [
        "What a day http://t.co/Ab1x9Z",
        "très déçu par ce café",
        "Schöner Tag für alle",
        "!!! 😀😀 ok",
        "",
        "@сегодня_погода http://т.рф/погода ok",
    ]
    problems = reading_problems(words, encoder.lengths, encoder.card.max_tokens)
    assert [problem == HARDLY_READ for problem in problems] == [True] * 4 + [False] * 6
    assert reading_problems(["so good " * 200], encoder.lengths, 256) == [
        "the text encoder reads 256 of the text's 402 tokens, not its end"
    ]
    root = make_guid(tmp_path, 20, 0)
    for number, odd in enumerate(words, 1):
        text(root, number).write_text(odd, encoding="utf-8")
    report = check_dataset(load_dataset(root), tokenizer=encoder.lengths, max_tokens=256)  # type: ignore[arg-type]
    assert found(report)["foreign text"].examples == ("1", "2", "3", "4")
    foreign = found(report)["foreign text"]
    assert foreign.severity == "warning"
    assert foreign.message == f"{HARDLY_READ}; {FOREIGN_WAY}"
    assert "--encoder multilingual" in foreign.message
    read = check_dataset(load_dataset(root), reader=encoder.lengths)  # type: ignore[arg-type]
    assert found(read)["foreign text"] == foreign
    assert read.lengths is not None
    assert read.lengths.unit == "characters"
    assert "foreign text" not in found(check_dataset(load_dataset(root)))


@pytest.mark.slow
@pytest.mark.mvsa
def test_mvsa_report(mvsa: Path) -> None:
    started = time.monotonic()
    report = check(mvsa)
    assert time.monotonic() - started < 60
    kinds = found(report)
    assert (report.encoding, report.encoding_why) == ("gb18030", "decodes all 4511 texts; utf-8 fails on 1061")
    assert report.balance["train"] == {"negative": 1193, "neutral": 419, "positive": 2388}
    assert report.balance["test"] == {"no label": 511}
    counts = {
        "identical pictures": 41,
        "picture in both splits": 10,
        "identical texts": 154,
        "text in both splits": 38,
        "blank picture": 1,
        "unlisted": 1,
    }
    assert {kind: kinds[kind].count for kind in counts} == counts
    assert kinds["blank picture"].examples == ("4719",)
    assert kinds["uneven classes"].severity == "note"
    assert (report.exit_status(), report.exit_status(strict=True)) == (0, 1)
