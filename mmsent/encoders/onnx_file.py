"""Torch modules as ONNX files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 20
ROWS = {0: torch.export.Dim("rows")}


def write_onnx(
    module: nn.Module,
    given: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    file: Path,
    facts: Mapping[str, Any],
    free: Mapping[int, Any] = ROWS,
) -> None:
    """Write a module as ONNX; facts go into the metadata. free: axes of any length, by default the first alone; without
    any it takes half the time."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                module,
                given,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(dict(free) for _ in given),
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces, with the folders of this machine
    for name, value in facts.items():
        program.model.metadata_props[f"mmsent.{name}"] = value if isinstance(value, str) else json.dumps(value)
    program.save(file)  # what is larger than 2 GB goes into a file beside it
