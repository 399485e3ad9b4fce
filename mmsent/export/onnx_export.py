"""Runs as ONNX: the heads and their vote in one graph, and the encoders; each compared with torch before it is written.

Shapes: N rows, R heads, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsent.encoders.base import Encoders
from mmsent.encoders.converted import INT8
from mmsent.encoders.onnx_file import OPSET, ROWS, write_onnx
from mmsent.errors import EncoderError, MmsentError, RunError, UsageError, first_line
from mmsent.export.hub import common_facts, published, write_folder
from mmsent.export.onnx_runtime import (
    ABOUT,
    FORMAT_VERSION,
    HEADS,
    IMAGE,
    OUTPUTS,
    TEXT,
    TOKENIZER,
    Classified,
    OnnxModel,
)
from mmsent.export.parts import on_one_encoder
from mmsent.export.voting_graph import VotingHeads
from mmsent.inference.abstain import Abstention
from mmsent.inference.logits import head_probabilities, served
from mmsent.inference.predict import encode_posts, encoder_settings
from mmsent.inference.tally import Way, tally
from mmsent.system.failures import cause_of, reason
from mmsent.system.hashing import file_sha256
from mmsent.system.provenance import environment
from mmsent.training.runs import Run

TOLERANCE = 1e-5  # of probabilities, against torch
APART = 1e-4  # of embeddings, as a share of their length
_NAMED = ("labels", "tie", "soft", "inputs", "encoder", "fingerprint", "contract")  # in the metadata too
_CASES = np.array([[False, False], [True, False], [False, True], [True, True]])  # picture missing, text missing
_PROBES = [
    "a happy day",
    "",
    "Sad. Broken!   so-so…",
    "!!! #goodMood 😀 &amp; @you https://x.y/z don't",
    "今日は晴れ 情感",
    "so very long " * 200,
]


@dataclass(frozen=True)
class Exported:
    """What an export wrote. worst: the largest difference to torch in a probability; embeddings: in an embedding, as a
    share of its length, None for heads alone."""

    path: Path
    worst: float
    embeddings: float | None


def export_onnx(
    runs: Sequence[Run],
    out: Path,
    *,
    card: str,
    tie: str | None = None,
    soft: bool = False,
    abstention: Abstention | None = None,
    with_encoder: bool = False,
    weights: str | None = None,
) -> Exported:
    """Write the folder that mmsent.export.onnx_runtime reads. card: the text of README.md. weights: the encoder's local
    checkpoint, if it has moved; abstention: when the model's reader leaves a post to a person.

    Raises RunError where the runs do not fit together, a head cannot be converted to ONNX, or ONNX and torch disagree;
    EncoderError where an encoder has none; UsageError where `out` exists already. Then nothing is written.
    """
    chosen = encoder_settings(runs, weights=weights, device="cpu")
    if out.exists():
        raise UsageError(f"{out} exists already; remove it, or name another folder with --out")
    if not with_encoder and (tuned := next((run.name for run in runs if run.tune), None)):
        raise UsageError(
            f"run {tuned} tunes blocks of an encoder, so its head takes no cached features: add --with-encoder"
        )
    way = Way.of(runs[0].labels, tie, soft)
    encoders: Encoders | None = None
    if with_encoder:
        from mmsent.encoders.factory import open_encoders

        if chosen.runtime == INT8:
            raise UsageError(f"export writes no encoder of --runtime {INT8}; leave --with-encoder out")

        # The weights as they are: half precision is a property of a machine, not of a model. In torch, because another
        # runtime would compare the same export with itself.
        plain = {"precision": "fp32", "device": "cpu", "runtime": "torch"}
        encoders = open_encoders(chosen.model_copy(update=plain))
        encode_posts([], encoders, runs, chosen.normalize)  # refuses another encoder than the heads'
        runs, encoders = on_one_encoder(runs, encoders)
    heads = [run.head() for run in runs]
    found: dict[str, float] = {}

    def fill(building: Path) -> None:
        widths = {"image": heads[0].config.image_width, "text": heads[0].config.text_width}
        about: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            **common_facts(runs),
            "tie": tie,
            "soft": soft,
            **({"abstain": abstention.to_json()} if abstention else {}),
            "inputs": widths,
            "normalize": chosen.normalize,
            "heads": [_head_facts(run) for run in runs],
        }
        named = {name: about[name] for name in _NAMED}
        temperatures = {"temperatures": [run.temperature for run in runs], "heads": [run.name for run in runs]}
        _write_heads(runs, heads, widths, building / HEADS, named | temperatures, way)
        if encoders is not None:
            about["encoder_files"] = _write_encoders(encoders, chosen.normalize, building, named)
        files = [file for file in building.iterdir() if file.is_file()]
        about["files"] = {file.name: file_sha256(file) for file in sorted(files)}
        about["versions"] = environment("cpu")["versions"] | {"onnx_opset": OPSET}
        _write_about(building, about)
        found["worst"] = _compare_heads(OnnxModel.open(building), runs, way)
        if encoders is not None:
            apart, worst = _compare_encoders(OnnxModel.open(building), encoders, runs, way)
            found["embeddings"], found["worst"] = apart, max(worst, found["worst"])
        about["checked"] = {"tolerance": TOLERANCE, **found}
        _write_about(building, about)
        (building / "README.md").write_text(card, encoding="utf-8")

    path = write_folder(out, fill)
    return Exported(path, found["worst"], found.get("embeddings"))


def _write_about(folder: Path, about: Mapping[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def _head_facts(run: Run) -> dict[str, Any]:
    facts = {"name": run.name, "fusion": run.info["fit"]["fusion"], "temperature": run.temperature}
    return {**facts, "head_sha256": run.info["head_sha256"], "info": published(run)}


def _write_heads(
    runs: Sequence[Run],
    heads: Sequence[Any],
    widths: Mapping[str, int],
    file: Path,
    facts: Mapping[str, Any],
    way: Way,
) -> None:
    for run, head in zip(runs, heads, strict=True):
        if not isinstance(head, nn.Module):
            raise RunError(f"the {run.info['fit']['fusion']} head of run {run.name} cannot be converted to ONNX")
    serves = torch.from_numpy(np.stack([served(run, _CASES) for run in runs]))
    graph = VotingHeads(heads, [run.temperature for run in runs], serves, way).eval()
    missing = torch.from_numpy(_CASES[:3])
    given = (*(torch.randn(3, widths[half], dtype=torch.float32) for half in ("image", "text")), missing)
    names = ", ".join(run.name for run in runs)
    try:
        write_onnx(graph, given, ["image", "text", "missing"], OUTPUTS, file, {**facts, "kind": "heads"})
    except MmsentError:
        raise
    except Exception as error:  # the exporter's errors have no common parent
        _refuse_unwritten(error, file)
        raise RunError(f"the heads {names} cannot be converted to ONNX: {first_line(error)}") from error


def _refuse_unwritten(error: Exception, path: Path) -> None:
    """Raise RunError where the system refused to write, on a full disk for example."""
    if refused := cause_of(error):
        raise RunError(f"cannot write {path}: {reason(refused)}") from error


def _write_encoders(encoders: Encoders, normalize: bool, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    from mmsent.encoders.towers import image_tower, text_form

    picture, form = image_tower(encoders.image, normalize), text_form(encoders.text, normalize)
    size = encoders.image.card.preprocess.size
    kept = {name: facts[name] for name in ("encoder", "fingerprint", "contract")}
    length = form.length or 5
    ids, mask = torch.ones(2, length, dtype=torch.int64), torch.ones(2, length, dtype=torch.int64)
    texts = {"ids": ids} if form.length else {"ids": ids, "mask": mask}
    tokens = {} if form.length else {1: torch.export.Dim("tokens", min=2, max=encoders.text.card.max_tokens)}
    pixels = torch.randint(0, 255, (2, size, size, 3), dtype=torch.uint8)
    try:
        about = kept | {"kind": "image", "inputs": {"pixels": [size, size, 3]}}
        write_onnx(picture, (pixels,), ["pixels"], ["image"], folder / IMAGE, about)
        about = kept | {"kind": "text", "inputs": {name: [form.length or "tokens"] for name in texts}}
        write_onnx(form.tower, tuple(texts.values()), list(texts), ["text"], folder / TEXT, about, ROWS | tokens)
    except Exception as error:  # the exporter's errors have no common parent
        _refuse_unwritten(error, folder)
        raise EncoderError(
            f"the encoder {facts['encoder']} cannot be converted to ONNX ({first_line(error)}); export the heads alone"
        ) from error
    (folder / TOKENIZER).write_text(form.tokenizer, encoding="utf-8")
    cards = {half: getattr(encoders, half).card.model_dump(mode="json") for half in ("image", "text")}
    return {**cards, "cleaning": form.cleaning}


def _compare_heads(model: OnnxModel, runs: Sequence[Run], way: Way) -> float:
    """The largest difference in a probability, over made-up rows with halves missing. Raises RunError beyond 1e-5."""
    rng = np.random.default_rng(0)
    n = 256
    image = _like(runs[0], "image", model.about["inputs"]["image"], n, rng)
    text = _like(runs[0], "text", model.about["inputs"]["text"], n, rng)
    missing = _CASES[rng.choice(4, n, p=[0.7, 0.1, 0.1, 0.1])]
    worst = 0.0
    for rows in (slice(0, 1), slice(1, 8), slice(0, n)):
        found = model.classify(image[rows], text[rows], missing[rows], contract=model.contract)
        worst = max(worst, difference(found, runs, image[rows], text[rows], missing[rows], way))
    return worst


def _like(run: Run, half: str, width: int, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows (n, width) in the scale of a head's training rows, where it has kept that."""
    head: Any = run.head()
    mean, std = (getattr(head, f"{half}_{what}", None) for what in ("mean", "std"))
    drawn = rng.standard_normal((n, width)).astype(np.float32)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        drawn = drawn * std.numpy() + mean.numpy()
    return drawn


def difference(
    found: Classified,
    runs: Sequence[Run],
    image: NDArray[np.float32],
    text: NDArray[np.float32],
    missing: NDArray[np.bool_],
    way: Way,
) -> float:
    """The largest difference between ONNX's probabilities and torch's, (N, D_image) and (N, D_text) features given.

    Raises RunError where it is more than 1e-5, or another label won by more than that.
    """
    each = np.stack([head_probabilities(run, image, text, missing) for run in runs])  # (R, N, C)
    voting = np.stack([served(run, missing) for run in runs])
    wanted = tally(each, way, voting)
    mean = wanted.probabilities
    worst = float(max(np.abs(found.probabilities - mean).max(), np.abs(found.of_heads - each.swapaxes(0, 1)).max()))
    if not worst <= TOLERANCE:
        raise RunError(
            f"ONNX and torch differ by {worst:.1e} in a probability, more than {TOLERANCE:g}; nothing was written"
        )
    # A label may differ only where two are as likely as rounding can tell.
    close = (_margin(mean) <= 2 * TOLERANCE) | (_margin(each) <= 2 * TOLERANCE).any(axis=0)
    if not np.array_equal(found.voting, voting.T) or (found.labels != wanted.labels)[~close].any():
        raise RunError("ONNX and torch vote differently; nothing was written")
    return worst


def _margin(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between the two likeliest labels: (..., C) to (...,)."""
    first_two = np.sort(probabilities, axis=-1)[..., -2:]
    margin: NDArray[np.float64] = first_two[..., 1] - first_two[..., 0]
    return margin


def _compare_encoders(model: OnnxModel, encoders: Encoders, runs: Sequence[Run], way: Way) -> tuple[float, float]:
    """The largest differences in an embedding, as a share of its length, and in a probability, over made-up pictures
    and probing texts. Raises EncoderError beyond 1e-4, RunError where the probabilities differ by more than 1e-5."""
    from mmsent.features.batches import scaled

    rng = np.random.default_rng(0)
    size, n = encoders.image.card.preprocess.size, len(_PROBES)
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.float64).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)
    pixels = (coarse[:, :size, :size] + rng.normal(0, 20, (n, size, size, 3))).clip(0, 255).astype(np.uint8)
    ours, theirs = model.encoders, encoders
    pairs = []
    for half, given in (("image", pixels), ("text", _PROBES)):
        found = getattr(ours, half).encode(given)
        wanted = scaled(getattr(theirs, half).encode(given), model.about["normalize"])
        alone = np.concatenate([getattr(ours, half).encode(given[i : i + 1]) for i in range(n)])
        lengths = np.maximum(np.linalg.norm(wanted, axis=1), 1e-12)
        apart = max(float((np.linalg.norm(other - wanted, axis=1) / lengths).max()) for other in (found, alone))
        if not apart <= APART:
            raise EncoderError(
                f"the {half} encoder differs by {apart:.1e} of an embedding's length between ONNX and torch, more than "
                f"{APART:g}; nothing was written; export the heads alone"
            )
        pairs.append((found, wanted, apart))
    (image, image_wanted, first), (text, text_wanted, second) = pairs
    there = np.zeros((n, 2), np.bool_)
    seen = model.classify(image, text, there, contract=model.contract)
    return max(first, second), difference(seen, runs, image_wanted, text_wanted, there, way)
