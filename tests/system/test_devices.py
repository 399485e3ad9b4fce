from __future__ import annotations

import threading

import pytest
import torch

from mmsent.system.devices import without_tf32


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [False, True])
def test_tf32_is_off_while_a_gpu_encodes_and_comes_back(before: bool) -> None:
    kept = switches()
    torch.backends.cudnn.allow_tf32 = before
    try:
        with without_tf32("cuda:1"):
            assert switches() == (False, False)
        assert switches() == (kept[0], before)
        with without_tf32("cpu"):
            assert switches() == (kept[0], before)
    finally:
        torch.backends.cudnn.allow_tf32 = kept[1]


def test_it_comes_back_in_any_order_of_ends() -> None:
    before, inside, leave = switches(), threading.Event(), threading.Event()

    def other() -> None:
        with without_tf32("cuda"):
            inside.set()
            leave.wait(10)

    with without_tf32("cuda"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    assert switches() == (False, False)
    leave.set()
    thread.join()
    assert switches() == before
