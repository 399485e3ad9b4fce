"""Two runs side by side, by hand and by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.cli.main import main
from mmsent.config import FitSettings, Fusion, SplitSettings
from mmsent.errors import RunError, UsageError
from mmsent.evaluation.compare import compare_runs, differing
from mmsent.features.cache import Cache
from mmsent.metrics import bootstrap_differences, mcnemar
from mmsent.training.fit import fit
from mmsent.training.runs import Run
from tests.inference.test_vote import LABELS, QUICK, make_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def runs(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder, half = tmp_path_factory.mktemp("runs"), SplitSettings(val_size=0.4)
    wanted = [FitSettings(**QUICK), FitSettings(**QUICK, fusion=Fusion.text, dropout=0.1)]
    one, text = fit(cache, folder, wanted, half)
    other = fit(cache, folder, wanted[:1], SplitSettings(val_size=0.4, seed=5))[0]
    return {"one": one, "text": text, "other": other}


def said(run: Run, labels: list[str]) -> Run:
    """The run, with these labels as what it says of its validation rows, surely."""
    head = "id,label,predicted,confidence,p_negative,p_neutral,p_positive\n"
    shares = {"negative": "0.8,0.1,0.1", "neutral": "0.1,0.8,0.1", "positive": "0.1,0.1,0.8"}
    truth = ["negative", "neutral", "positive", "positive"]
    rows = [f"p{i},{t},{k},0.8,{shares[k]}\n" for i, (t, k) in enumerate(zip(truth, labels, strict=True))]
    (run.path / "validation.csv").write_text(head + "".join(rows), encoding="utf-8")
    return run


def test_gaps_and_posts_by_hand(runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = said(Run(tmp_path / "a", runs["one"].info), ["negative", "neutral", "negative", "negative"])
    b = said(Run(tmp_path / "b", runs["text"].info), ["positive", "neutral", "positive", "positive"])
    found = compare_runs(a, b)
    assert (found.a, found.b, found.rows, found.others) == ("a", "b", 4, 0)
    assert [(c.id, c.label, c.a, c.b) for c in found.only_a] == [("p0", "negative", "negative", "positive")]
    assert [c.id for c in found.only_b] == ["p2", "p3"]
    assert found.p_value == pytest.approx(1.0)  # 1 against 2
    gap = found.gaps[0]
    assert (gap.measure, gap.a, gap.b, gap.difference) == ("accuracy", 0.5, 0.75, 0.25)
    assert gap.low < 0 < gap.high
    shown = {one.name: (one.a, one.b) for one in found.settings}
    assert shown["fusion"] == ("concat", "text")
    assert shown["dropout"] == (FitSettings().dropout, 0.1)
    assert "lr" not in shown
    assert json.loads(json.dumps(found.to_json()))["only_a"][0]["id"] == "p0"


def test_the_interval_of_a_difference_is_narrower_than_that_of_independent_rows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    a = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))
    b = np.where(rng.random(300) < 0.1, truth, a)  # a, with some errors mended
    found = bootstrap_differences(truth, a, b, 3)
    gain = float((b == truth).mean() - (a == truth).mean())
    low, high = found["accuracy"]
    assert 0 <= low <= gain <= high < 0.08
    differ = (b == truth).astype(int) - (a == truth)
    assert (high - low) / 3.92 == pytest.approx(differ.std() / 300**0.5, rel=0.15)
    assert bootstrap_differences(truth, a, a, 3) == dict.fromkeys(("accuracy", "f1_weighted", "f1_macro"), (0.0, 0.0))


def test_only_rows_that_both_held_out_count(runs: dict[str, Run]) -> None:
    found = compare_runs(runs["one"], runs["other"])
    shared = set(runs["one"].validation_ids()) & set(runs["other"].validation_ids())
    assert found.rows == len(shared)
    assert found.others == len(set(runs["one"].validation_ids()) ^ set(runs["other"].validation_ids())) > 0
    assert {one.name for one in found.settings} == {"split: seed"}
    assert differing(runs["one"], runs["one"]) == []


def test_what_cannot_be_compared_says_why(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is compared with itself"):
        compare_runs(runs["one"], runs["one"])
    far = tmp_path / "far"
    far.mkdir()
    apart = said(Run(far, runs["text"].info), [*LABELS, "positive"])
    with pytest.raises(RunError, match="validated on different posts"):
        compare_runs(runs["one"], apart)


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *arguments])
    shown = capsys.readouterr()
    return int(stop.value.code or 0), shown.out, shown.err


def test_the_command(cache: Cache, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(runs["one"].path), str(runs["text"].path), "--cache", str(cache.path)]
    found = compare_runs(runs["one"], runs["text"])
    code, out, _ = command(capsys, *names, "--wide")
    assert code == 0
    assert f"only a is right on {len(found.only_a)} posts, only b on {len(found.only_b)}: McNemar's exact p = " in out
    assert "split: seed" not in out
    assert any(line.split()[:3] == ["fusion", "concat", "text"] for line in out.splitlines())
    code, out, _ = command(capsys, *names, "--json")
    told: dict[str, Any] = json.loads(out)
    assert told["p_value"] == mcnemar_of(runs)
    assert all(case["text"] for case in told["only_a"] + told["only_b"])
    code, _, err = command(capsys, names[0], names[0])
    assert (code, "compared with itself" in err) == (2, True)


def mcnemar_of(runs: dict[str, Run]) -> float:
    from mmsent.inference.held_out import held_out

    rows = held_out([runs["one"], runs["text"]])
    return mcnemar(rows.truth, *rows.probabilities.argmax(axis=2)).p_value
