from __future__ import annotations

import pytest

from mmsent.evaluation.agreement import agreement, fleiss_kappa, majority

ANNA = {"1": "a", "2": "b", "3": "a", "4": "b"}
BEN = {"1": "a", "2": "b", "3": "b", "4": "b", "5": "a"}
CARO = {"1": "a", "3": "c", "4": "a"}


def test_agreement_of_three_people() -> None:
    found = agreement({"ben": BEN, "anna": ANNA, "caro": CARO})
    assert found.people == ["anna", "ben", "caro"]
    assert found.posts == 3
    # anna and ben on 1 to 4: 3 of 4 alike; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2
    assert found.cohen[0] == ("anna", "ben", pytest.approx(0.5))
    assert found.conflicts == {
        "3": {"anna": "a", "ben": "b", "caro": "c"},
        "4": {"anna": "b", "ben": "b", "caro": "a"},
    }
    # 1: aaa, 3: abc, 4: bba; agreement (1 + 0 + 1/3) / 3, by chance (5/9)^2 + (3/9)^2 + (1/9)^2
    chance = (25 + 9 + 1) / 81
    assert found.fleiss == pytest.approx((4 / 9 - chance) / (1 - chance))


def test_fleiss_kappa_of_the_table_in_the_literature() -> None:
    """The worked example of Fleiss' kappa: 10 subjects, 14 raters, 5 categories, 0.210."""
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    said = [[str(c) for c, n in enumerate(row) for _ in range(n)] for row in counts]
    assert fleiss_kappa(said) == pytest.approx(0.210, abs=5e-4)


def test_what_cannot_be_said() -> None:
    alone = agreement({"anna": ANNA})
    assert (alone.cohen, alone.fleiss, alone.conflicts) == ([], None, {})
    apart = agreement({"anna": {"1": "a"}, "ben": {"2": "a"}})
    assert (apart.posts, apart.cohen, apart.fleiss) == (0, [("anna", "ben", None)], None)
    alike = agreement({"anna": {"1": "a"}, "ben": {"1": "a"}})
    assert (alike.cohen, alike.fleiss) == ([("anna", "ben", 1.0)], 1.0)
    assert agreement({}).people == []


def test_the_majority_leaves_ties_out() -> None:
    assert majority({"anna": ANNA, "ben": BEN, "caro": CARO}) == {"1": "a", "2": "b", "4": "b", "5": "a"}
