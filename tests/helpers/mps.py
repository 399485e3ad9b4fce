"""An Apple GPU where there is none: torch's operations on the CPU, where whatever comes from the pretended device keeps
to it and may not be float64, which that device does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmsent.training.loaders import Tensors


class Pretended(TorchDispatchMode):
    """Results of what is on the device are on the device."""

    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, Any] = {}  # storages on the device, kept alive so that no address comes twice

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Say that a tensor is on the device."""
        if tensor.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        self._there[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        there = any(one.numel() and one.untyped_storage().data_ptr() in self._there for one in given)
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found) if there else ():
            if isinstance(one, torch.Tensor):
                self.put(one)
        return found


class _Asked(TorchFunctionMode):
    """`.to("mps")`, `.cpu()` and `device="mps"`, which torch refuses where there is no such device."""

    def __init__(self, device: Pretended) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = [str(one) for one in (*args, *kwargs.values()) if isinstance(one, (str, torch.device))]
        if func is torch.Tensor.cpu or (func is torch.Tensor.to and "cpu" in devices):
            return torch.from_numpy(args[0].detach().numpy().copy())
        # nn.Module.to asks _parse_to, and then moves each parameter
        if "mps" not in devices or func is torch.device or getattr(func, "__name__", "") == "_parse_to":
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda one: "cpu" if _is_mps(one) else one, (args, kwargs))
        return self._device.put(func(*args, **kwargs).clone())


def _is_mps(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) and str(value) == "mps"


@dataclass(frozen=True)
class MpsRows(Tensors):
    """Rows that say they lie on an Apple GPU."""

    @property
    def device(self) -> str:
        return "mps"


@contextmanager
def pretended_mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    """Within it, `.to("mps")` and `device="mps"` work, and what is there cannot be float64."""
    real = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": real())
    with Pretended() as device, _Asked(device):
        yield device
