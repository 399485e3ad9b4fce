from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mmsent.system.devices import without_tf32
from tests.helpers.made import make_guid
from tests.helpers.small import run


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


@pytest.mark.slow
def test_no_command_wakes_a_gpu_that_it_was_not_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def woken(*_: Any, **__: Any) -> None:
        raise AssertionError("CUDA was initialised")

    for name in ("_lazy_init", "get_device_properties", "get_device_capability", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, woken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSENT_DEVICE", "cpu")
    data = make_guid(tmp_path / "data", n_train=24, n_test=4)
    assert run("extract", "--encoder", "offline", "--split", "train") == 0
    assert run("fit", "--fusion", "vote", "--epochs", "1") == 0
    assert run("fit", "--fusion", "concat", "--folds", "2", "--epochs", "1", "--group", "none") == 0
    assert run("vote") == 0
    assert run("predict", "--text", "a happy day", "--image", str(data / "data" / "1.jpg")) == 0
    assert run("explain", "--text", "a happy day", "--image", str(data / "data" / "1.jpg")) == 0
    assert run("sweep", "--trials", "1", "--workers", "1", "--checks", "0", "--group", "none") == 0
    assert run("report", "--skip", "learning-curve", "--skip", "fused-concat", "--skip", "hidden-concat") == 0
