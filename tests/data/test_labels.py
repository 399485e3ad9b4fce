"""Labels in the spellings that data sets have."""

from __future__ import annotations

import pytest

from mmsent.config import DataSettings
from mmsent.data.labels import label_of


def test_labels_lose_blanks_and_case_and_none_has_many_names() -> None:
    plain = DataSettings()
    assert [label_of(x, plain) for x in ("positive ", " neutral", "POSITIVE")] == ["positive", "neutral", "positive"]
    assert {label_of(x, plain) for x in (None, "", " ", "NA", "N/A", "null", "NaN", "None ", "#N/A")} == {None}
    assert label_of("na", DataSettings(labels=("na", "yes"))) == "na"


@pytest.mark.parametrize(
    ("labels", "mapped", "cells"),
    [
        (("0", "1"), {}, {"1": "1", "1.0": "1", "0.0": "0", "True": "1", "false": "0", "1.5": "1.5"}),
        (("false", "true"), {}, {"True": "true", "FALSE": "false", "1": "1"}),
        (("no", "yes"), {"0": "no", "1": "yes"}, {"1.0": "yes", "False": "no", "YES": "yes"}),
        (("no", "yes"), {"true": "yes", "no": "yes"}, {"True": "yes", "no": "yes", "False": "False"}),
        (("us", "US"), {}, {"us": "us", "US": "US", "Us": "Us"}),  # nobody knows which
    ],
)
def test_a_label_that_is_spelled_otherwise(
    labels: tuple[str, ...], mapped: dict[str, str], cells: dict[str, str]
) -> None:
    settings = DataSettings(labels=labels, label_map=mapped)
    assert {cell: label_of(cell, settings) for cell in cells} == cells
