"""The audit: wrong labels come first, its files and its page are safe, and the commands around it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mmsent.errors import UsageError
from mmsent.evaluation.audit import audit_labels, estimated_precision, label_quality
from tests.cli.test_cli import fails, run, work  # noqa: F401
from tests.helpers.made import make_guid, make_manifest
from tests.helpers.small import NASTY
from tests.report.test_write import Elements

STRICT = 0.9999999  # the fakes' pictures of one colour are all near each other


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsent.features.cache.groups.near_cosine", lambda *_: STRICT)


QUICK = ("--epochs", "4", "--lr", "0.01", "--hidden", "16", "--val-size", "0.2")


def test_the_worst_comes_first() -> None:
    given = np.array([0, 1, 2, 0, 1, 2])
    sure = np.full((6, 3), 0.05)
    sure[np.arange(6), given] = 0.9
    sure[3] = [0.02, 0.95, 0.03]  # labelled 0
    sure[5] = [0.5, 0.2, 0.3]  # labelled 2
    found = audit_labels(["f", "e", "d", "c", "b", "a"], given, sure, ["x", "y", "z"], ["run"])
    assert [(one.rank, one.id, one.given, one.suggested) for one in found.suspects[:2]] == [
        (1, "c", "x", "y"),
        (2, "a", "z", "x"),
    ]
    assert found.suspects[0].quality == pytest.approx(0.02)
    assert (found.suspects[0].p_given, found.suspects[0].p_suggested) == (0.02, 0.95)
    assert [one.id for one in found.suspects[2:]] == ["b", "d", "e", "f"]  # alike: by id
    assert not found.suspects[-1].likely_wrong
    assert found.sources == ["run"]
    with pytest.raises(UsageError, match="no row is labelled z"):
        audit_labels(["a", "b"], np.array([0, 1]), sure[:2], ["x", "y", "z"])


def made_up(n: int, sure: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of heads that are this sure of them."""
    given = rng.integers(0, 3, n)
    probabilities = rng.dirichlet([1, 1, 1], n) * (1 - sure)
    probabilities[np.arange(n), given] += sure
    return given, probabilities


def test_the_precision_is_the_share_of_changed_labels() -> None:
    """What the estimate says of changed labels is what counting finds."""
    rng = np.random.default_rng(0)
    given, probabilities = made_up(2000, 0.35, rng)
    estimate, quality = estimated_precision(given, probabilities), label_quality(given, probabilities)
    assert ((estimate >= 0) & (estimate <= 1)).all()
    for row in np.argsort(quality)[[0, 20, 200, 1999]]:
        counted, there = 0, 0
        for _ in range(200):
            rows = rng.choice(2000, 100, replace=False)
            changed = given.copy()
            changed[rows] = (changed[rows] + rng.integers(1, 3, 100)) % 3
            low = label_quality(changed, probabilities) <= quality[row]
            counted, there = counted + low[rows].sum(), there + low.sum()
        assert estimate[row] == pytest.approx(counted / there, abs=0.04)
    # Labels that are wrong already count as right, so that the estimate is no more than what is true.
    changed = given.copy()
    changed[:100] = (changed[:100] + 1) % 3
    found = audit_labels([str(i) for i in range(2000)], changed, probabilities, ["x", "y", "z"])
    marked = [int(one.id) for one in found.suspects if one.likely_wrong]
    assert np.mean([i < 100 for i in marked]) > found.suspects[len(marked) - 1].precision


def test_only_what_passes_is_marked() -> None:
    rng = np.random.default_rng(1)
    ids = [str(i) for i in range(400)]
    given, blind = made_up(400, 0.0, rng)
    none = audit_labels(ids, given, blind, ["x", "y", "z"])
    assert none.likely_wrong == 0
    assert none.in_words().startswith(
        "no label is marked: fewer than 50% are wrong at every rank, estimated by changing 5%"
    )
    given, sharp = made_up(400, 0.9, rng)
    changed = given.copy()
    changed[:20] = (changed[:20] + 1) % 3
    some = audit_labels(ids, changed, sharp, ["x", "y", "z"])
    marked = [one for one in some.suspects if one.likely_wrong]
    assert [one.rank for one in marked] == list(range(1, len(marked) + 1))  # the top of the list and nothing else
    assert {one.id for one in marked} >= {str(i) for i in range(20)}
    assert marked[-1].precision >= 0.5
    assert some.in_words().startswith(f"{len(marked)} of 400 labels are marked: ")
    again = audit_labels(ids, changed, sharp, ["x", "y", "z"])
    assert again == some


def test_quality_is_the_probability_of_the_label() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1, 1, 1], 50)
    given = rng.integers(0, 3, 50)
    assert label_quality(given, shares, "self_confidence") == pytest.approx(shares[np.arange(50), given])


def flip(path: Path, ids: list[int]) -> None:
    """Turn the labels of some training rows to the next."""
    turn = {"negative": "neutral", "neutral": "positive", "positive": "negative"}
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{i},{turn[line.split(',')[1]]}" if i in ids else line for i, line in enumerate(lines)))


def test_flipped_labels_are_found(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    make_guid(work / "data", n_train=90)
    flipped = [5, 20, 41, 66, 83]
    flip(work / "data" / "train.txt", flipped)
    assert run("extract") == 0
    assert run("fit", "--folds", "5", "--fusion", "concat,weighted", "--recipe", "small") == 0
    shown = capsys.readouterr().out
    assert "90 rows in 5 folds, 18 to 18 per fold, near-duplicates together" in shown
    assert "0 rows have duplicates, in 0 groups" in shown
    assert "keeps no head" in shown
    assert run("audit", "--top", "5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [name.split("-")[2] for name in found["sources"]] == ["concat", "weighted"]
    table = list(csv.DictReader((work / "audit" / "audit.csv").open(encoding="utf-8")))
    assert len(table) == found["rows"] == 90
    top = [int(row["id"]) for row in table[:8]]
    assert len(set(top) & set(flipped)) >= 4
    assert json.loads((work / "audit" / "audit.json").read_text())["rows"][0]["id"] == table[0]["id"]
    # Now the labels change: what was there no longer fits, and a named one is refused.
    flip(work / "data" / "train.txt", flipped)
    assert run("extract") == 0
    name = found["sources"][0]
    status, message = fails(capsys, "audit", name)
    assert status == 1
    assert "does not fit" in message
    assert "5 rows" in message


def test_without_a_cross_validation_one_is_run(
    work: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mmsent.cli.audit.FOLDS", 3)
    assert run("extract", "--split", "train") == 0
    capsys.readouterr()
    assert run("audit") == 0
    shown = capsys.readouterr()
    assert "running one of concat, 3 folds" in shown.err
    assert "marked" in shown.out
    kept = sorted(p.name.split("-")[2] for p in (work / "runs").iterdir())
    assert kept == ["concat"]
    assert (work / "audit" / "audit.html").is_file()
    assert run("vote") == 1  # it keeps no head
    assert "no runs" in capsys.readouterr().err
    assert run("audit", "--no-gallery", "--top", "0") == 0  # the second time it is there
    assert "running" not in capsys.readouterr().err


def test_the_page_is_safe(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    manifest = make_manifest(work / "posts", "jsonl", n_train=60)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, row in enumerate(rows):
        if i < 60:
            row["id"] = f'<b onclick="alert({i})">{i}'
            row["text"] = f"{row['text']} {NASTY}"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ("--data", str(manifest))
    assert run("extract", *where, "--encoder", "offline") == 0
    assert run("fit", *where, "--folds", "3", *QUICK) == 0
    assert run("audit", *where) == 0
    text = (work / "audit" / "audit.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert [a.get("type") for tag, a in elements.found if tag == "script"] == ["application/json", "module"]
    assert all(not name.startswith("on") for _, attributes in elements.found for name in attributes)
    posts = json.loads(text.partition('id="posts">')[2].partition("</script>")[0])["rows"]
    assert 'document.title="owned"' in posts[0]["text"]
    for tag, attributes in elements.found:
        for name in ("src", "href", "action"):
            value = attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, f"{tag} loads {value[:60]}"
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_folds_and_other_options(work: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert run("extract", "--split", "train") == 0
    for given, said in (
        (("--folds", "1"), "at least 2"),
        (("--folds", "99"), "only 40"),
        (("--folds", "3", "--tensorboard", "logs"), "does not go with --folds"),
        (("--no-group", "--group", "near"), "contradict"),
        (("--near-text", "0.9"), "go with --group near"),
        (("--group", "some"), "group"),
    ):
        status, message = fails(capsys, "fit", *given)
        assert status == 2, given
        assert said in message, given
    assert not (work / "runs").exists()
    for given, said in (
        (("--folds", "3", "--no-group"), "every row on its own"),
        (("--folds", "3", "--group", "exact"), "exact duplicates together"),
        (("--folds", "3", "--near-text", "0.99"), "0.99 of texts"),
    ):
        assert run("fit", *given, *QUICK) == 0
        assert said in capsys.readouterr().out
    assert run("fit", "--group", "near", "--near-image", "0.999", *QUICK) == 0
    stored = json.loads(next((work / "runs").glob("*/run.json")).read_text())["split"]
    assert (stored["group"], stored["near_image"], stored["near_text"]) == ("near", 0.999, STRICT)
    capsys.readouterr()
    assert run("fit", "--folds", "3", "--fusion", "all", "--json", *QUICK) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["runs"]) == 6
    assert found["vote"]["accuracy"]["mean"] > 0
    assert run("cache", "duplicates", "--near-image", "0.9") == 0
    assert "exact or near (cosine 0.9)" in capsys.readouterr().out
    assert run("cache", "duplicates", "--near-text", "0.99", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 40
    status, message = fails(capsys, "cache", "duplicates", "--near-text", "2")
    assert status == 2
    assert "less than or equal to 1" in message


def test_an_audit_beyond_the_memory(
    work: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Near-duplicates are compared in memory; what the message then names, the audit takes."""
    monkeypatch.setattr("mmsent.cli.audit.FOLDS", 2)
    assert run("extract", "--split", "train") == 0
    status, message = fails(capsys, "audit", "--memory", "1kB")
    assert status == 2
    assert "raise --memory, or use --group exact" in message
    assert run("audit", "--memory", "1kB", "--group", "exact", "--no-gallery", "--top", "0") == 0
    assert "running one of concat" in capsys.readouterr().err
    name = next((work / "runs").glob("*-k2")).name
    assert json.loads((work / "runs" / name / "folds.json").read_text())["split"]["group"] == "exact"
    assert run("audit", "--group", "exact", "--no-gallery", "--top", "0") == 0  # it is there now
    assert "running" not in capsys.readouterr().err
    for given, said in (
        (("--group", "none"), "near or exact"),
        (("--memory", "much"), "give a size such as"),
        ((name, "--group", "exact"), "leave them out where you name one"),
    ):
        status, message = fails(capsys, "audit", *given)
        assert status == 2, given
        assert said in message, given
