"""No cell of a table that mmsent writes is a formula, and every one can be read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsent.system.safe_csv import csv_text, escape, plain
from mmsent.training.prediction_table import predictions_csv
from mmsent.training.runs import Run

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "=HYPERLINK('x')", "-x", "'=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_texts(text: str) -> None:
    assert escape(text) == "'" + text
    assert plain(escape(text)) == text


@pytest.mark.parametrize("value", ["", "a=1", "-5", "+3.25", "-1e-7", "-", "+", "'quoted'", "2-1", "好", -5, 0.5, None])
def test_all_else_stays_as_it_is(value: object) -> None:
    assert escape(value) is value
    if isinstance(value, str):
        assert plain(value) == value


@given(st.text())
def test_what_was_escaped_can_be_read_back(text: str) -> None:
    assert plain(escape(text)) == text
    number = text.strip().lstrip("+-").replace(".", "", 1).replace("e", "", 1).replace("-", "").isdigit()
    assert escape(text)[:1] not in set("=@\t\r") or len(text) == 1
    assert escape(text)[:1] not in set("+-") or number or len(text) == 1


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2)))
def test_rows_survive_csv(rows: list[list[str]]) -> None:
    read = csv.reader(io.StringIO(csv_text(rows), newline=""))
    assert [[plain(cell) for cell in row] for row in read] == rows


def test_tables_of_predictions_are_escaped() -> None:
    ids, probabilities = ["=cmd|' /C calc'!A0", "-5", "b"], np.array([[0.75, 0.25]] * 3)
    text = predictions_csv(
        ids, ["=a", "b"], probabilities, ["@x", None, "b"], extra={"+run": ["=a"] * 3, "n": [-1, 2, 3]}
    )
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == ["id", "label", "predicted", "confidence", "p_=a", "p_b", "'+run", "n"]
    assert rows[0] == ["'=cmd|' /C calc'!A0", "'@x", "'=a", "0.750000", "0.750000", "0.250000", "'=a", "-1"]
    assert [row[0] for row in rows] == ["'=cmd|' /C calc'!A0", "-5", "b"]
    assert rows[1][1] == ""


def test_a_run_reads_its_own_ids_back(tmp_path: Path) -> None:
    ids = [*FORMULAS, "-5", "'quoted'", "好", "a,b"]
    (tmp_path / "validation.csv").write_text(predictions_csv(ids, ["a", "b"], np.full((len(ids), 2), 0.5)), newline="")
    assert Run(tmp_path, {}).validation_ids() == ids
