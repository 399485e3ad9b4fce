from __future__ import annotations

from typing import Any

import pytest

from mmsent.features.extraction_record import mixture

CPU: dict[str, Any] = {"machine": {"device": "cpu"}}
GPU: dict[str, Any] = {"machine": {"device": "cuda", "gpu": "H200", "tf32": False}}
OLD: dict[str, Any] = {"machine": {"device": "cuda", "gpu": "H200"}}  # of the version before, which left TF32 on


@pytest.mark.parametrize("made_by", [[], [CPU], [CPU, CPU], [{}, GPU], [{"machine": {}}, CPU], [GPU, GPU]])
def test_one_kind_of_device(made_by: list[dict[str, Any]]) -> None:
    assert mixture(made_by) == ""


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        ([CPU, GPU], "encoded on cpu before and on cuda (H200) now"),
        ([OLD, GPU], "encoded on cuda (H200, convolutions in TF32) before and on cuda (H200) now"),
        ([GPU, CPU, GPU], "encoded on cpu before and on cuda (H200) now"),
    ],
)
def test_a_mixture_is_told(made_by: list[dict[str, Any]], said: str) -> None:
    assert said in mixture(made_by)
