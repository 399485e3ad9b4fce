"""Tables of predictions."""

from __future__ import annotations

import csv
import io

import numpy as np

from mmsent.training.prediction_table import predictions_csv


def test_predictions_csv_by_hand() -> None:
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
    table = predictions_csv(["1", 'a,"b'], ["no", "yes"], probabilities, ["no", None])
    assert table == (
        "id,label,predicted,confidence,p_no,p_yes\n"
        "1,no,no,0.700000,0.700000,0.300000\n"
        '"a,""b",,yes,0.600000,0.400000,0.600000\n'
    )
    voted = predictions_csv(["1", "2"], ["no", "yes"], probabilities, predicted=["yes", "yes"], extra={"n": [2, 3]})
    assert list(csv.reader(io.StringIO(voted))) == [
        ["id", "predicted", "confidence", "p_no", "p_yes", "n"],
        ["1", "yes", "0.300000", "0.700000", "0.300000", "2"],
        ["2", "yes", "0.600000", "0.400000", "0.600000", "3"],
    ]
