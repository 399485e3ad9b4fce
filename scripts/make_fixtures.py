"""Write tests/fixtures/v0: small files of every kind that mmsent leaves on disk, and the numbers that belong to them.

    git clone . /opt/mmsent && git -C /opt/mmsent checkout 4505b09
    PYTHONPATH=/opt/mmsent OMP_NUM_THREADS=1 python scripts/make_fixtures.py --work /data/mmsent --out tests/fixtures/v0

It was run once, on a CPU, with the version before the package was moved into rooms (commit 4505b09). The fixtures' test
opens the files with the present version. The names of both folders stand in the files, so they are neutral ones. --work
must not exist yet; it is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import mmsent
from mmsent.cli import main

LIBRARIES = ("torch", "timm", "pillow", "vaderSentiment", "numpy", "h5py", "safetensors", "onnxruntime", "optuna")
PASSING = {"seconds", "search_seconds", "finished", "written", "machine", "versions", "code", "command", "storage"}
PASSING |= {"made_by", "figures"}
N_TRAIN, N_TEST, SIDE = 44, 9, 8
LABELS = ("negative", "neutral", "positive")
COLOURS = {"negative": (40, 40, 120), "neutral": (120, 120, 120), "positive": (220, 180, 60)}
WORDS = {
    "negative": ("awful", "sad", "broken", "angry", "lost 😢"),
    "neutral": ("station", "report", "monday", "table", "情感"),
    "positive": ("lovely", "happy", "great", "sunny", "win!!"),
}
DATA = ["--data", "posts/posts.jsonl", "--cache", "cache"]
PAIR = ["--image-encoder", "timm:test_convnext", "--text-encoder", "lexicon:vader", "--weights", "weights.safetensors"]
EXTRACT = ["extract", *DATA, *PAIR, "--device", "cpu", "--max-bad", "0.2", "--batch-size", "8", "--workers", "1"]
UNFINISHED = [*EXTRACT, "--split", "train", "--views", "2", "--storage", "float16", "--json"]
UNFINISHED[UNFINISHED.index("cache")] = "unfinished"
SMALL = ["--hidden", "8", "--common-width", "8", "--heads", "2", "--epochs", "3", "--lr", "0.01", "--batch-size", "4"]
SMALL += ["--standardize"]
FIT = ["fit", *DATA, *SMALL, "--precision", "fp32", "--device", "cpu", "--val-size", "0.4"]
HALF = ["--modality-dropout", "0.2", "--rms"]  # the committee's, which so serves half posts
SWEEP = ["sweep", *DATA, "--runs", "sweeps", "--space", "space.toml", "--sampler", "random", "--workers", "1"]
SWEEP += ["--val-size", "0.4", "--checks", "1", "--device", "cpu", "--json"]
SPACE = """\
fusion = ["concat", "text"]
lr = { low = 1e-3, high = 1e-1, log = true }
hidden = [4, 8]
depth = 1
dropout = { low = 0.1, high = 0.5 }
weight_decay = 0.01
label_smoothing = 0.1
class_weight_power = 0.3
batch_size = 8
views = true
standardize = true
rms = false
modality_dropout = 0.0
epochs = 2
precision = "fp32"
"""


def run(*arguments: str, status: int = 0) -> str:
    """Run the command line in this process. Returns its standard output."""
    sys.argv = ["mmsent", *arguments]  # which the files record
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main(list(arguments))
        except SystemExit as stopped:
            code = stopped.code or 0
    if code != status:
        raise SystemExit(f"{out.getvalue()}\n{' '.join(arguments)}: status {code}, not {status}")
    return out.getvalue()


def make_posts(folder: Path) -> None:
    """A manifest whose images and words go with the labels. Two posts lack a readable image, two texts are equal."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows, new = [], []
    for i in range(N_TRAIN + N_TEST):
        label = LABELS[i % 3] if i % 4 else LABELS[int(rng.integers(3))]
        image, text = (label if rng.random() < 0.8 else LABELS[int(rng.integers(3))] for _ in range(2))
        pixels = np.array(COLOURS[image]) + rng.normal(0, 30, (SIDE, SIDE, 3))
        file = f"images/{i + 1}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file, optimize=True)
        if i in (5, N_TRAIN + 4):
            (folder / file).write_bytes(b"no image")
        words = f"{' '.join(rng.choice(WORDS[text], 2))} … {i + 1}" if i not in (8, 9) else "the very same words"
        rows.append({"id": f"post {i + 1}", "image": file, "text": words, "label": label})
        rows[-1]["split"] = "train" if i < N_TRAIN else "test"
    for name, text, image in (("both", "a happy day :)", 2), ("text", "a sad, broken day", None), ("image", None, 3)):
        new.append({"id": name, "text": text, "image": f"images/{image}.png" if image else None})
    for name, some in (("posts.jsonl", rows), ("new.jsonl", new)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (folder / name).write_text(text, encoding="utf-8")


def stop_extraction() -> None:
    """An extraction of another cache, float16 with two views, that Ctrl-C stops after eight batches of images."""
    make = timm.create_model

    def stopping(*arguments: Any, **options: Any) -> Any:
        model, passes = make(*arguments, **options), 0

        def count(module: Any, given: Any) -> None:
            nonlocal passes
            passes += len(given[0]) == 6  # two posts, three views of each
            if passes > 8:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(count)
        return model

    with mock.patch.object(timm, "create_model", stopping):
        run(*UNFINISHED, status=130)


def cache_numbers(folder: str) -> dict[str, Any]:
    """What a cache says of itself, and per row the sums of its embeddings."""
    cache = mmsent.open_cache(folder)
    found: dict[str, Any] = {"labels": list(cache.labels), "splits": cache.splits, "contract": cache.contract}
    found |= {"fingerprint": cache.fingerprint, "widths": [cache.image_width, cache.text_width]}
    found["groups"] = cache.groups("train").tolist()
    for split in cache.splits:
        rows = cache.arrays(split, views=True, all_rows=True)
        found[split] = {
            "ids": rows.ids.tolist(),
            "target": rows.target.tolist(),
            "problems": rows.problems,
            "image_sums": rows.image.astype(np.float64).sum(axis=2).tolist(),
            "text_sums": rows.text.astype(np.float64).sum(axis=1).tolist(),
            "sha256": [hashlib.sha256(part.tobytes()).hexdigest() for part in (rows.image, rows.text)],
        }
    return found


def head_numbers(folder: Path) -> dict[str, Any]:
    """A head's scores, its logits on the test posts that are whole, and the digest of its tensors."""
    (one,) = mmsent.load(folder).runs
    rows = mmsent.open_cache("cache").arrays("test")
    with torch.no_grad():
        logits = one.head()(torch.from_numpy(rows.image), torch.from_numpy(rows.text))
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "head.safetensors").items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode() + tensor.numpy().tobytes())
    info = {name: one.info[name] for name in ("metrics", "temperature", "best_epoch")}
    return {"folder": folder.as_posix(), **info, "logits": logits.tolist(), "tensors_sha256": digest.hexdigest()}


def onnx_numbers() -> dict[str, Any]:
    """The outputs of heads.onnx on all test posts."""
    import onnxruntime

    rows = mmsent.open_cache("cache").arrays("test", all_rows=True)
    missing = np.stack([~rows.good, np.zeros(len(rows), bool)], axis=1)
    session = onnxruntime.InferenceSession("onnx/heads.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": rows.image, "text": rows.text, "missing": missing})
    return {out.name: value.tolist() for out, value in zip(session.get_outputs(), found, strict=True)}


def make(out: Path) -> None:
    """Make everything in the working folder, then copy what is kept to `out`."""
    make_posts(Path("posts"))
    weights = runpy.run_path(str(out / "weights.py"))["write_weights"](Path("weights.safetensors"))
    Path("space.toml").write_text(SPACE, encoding="utf-8")
    run(*EXTRACT, "--views", "1")
    stop_extraction()
    run(*FIT, "--fusion", "all")
    run(*FIT, "--fusion", "concat", "--splits", "2", *HALF, "--runs", "committee")
    run(*FIT, "--fusion", "concat", "--folds", "2", "--runs", "folds")
    run(*SWEEP, "--trials", "4")
    run("export", *DATA, "--format", "hf", "--out", "hub")
    folders = {json.loads((p / "run.json").read_text())["fit"]["fusion"]: p for p in sorted(Path("runs").iterdir())}
    two = [folders[name].as_posix() for name in ("concat", "attention")]
    run("export", *two, "--format", "onnx", "--out", "onnx")
    (folds,) = (path.as_posix() for path in Path("folds").iterdir())
    kept = keep(out)

    asked = ["git", "-C", str(Path(mmsent.__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    expected: dict[str, Any] = {
        "made_with": {
            "mmsent": mmsent.__version__,
            "commit": commit,
            "versions": {name: metadata.version(name) for name in LIBRARIES},
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "weights_sha256": weights,
        "cache": cache_numbers("cache"),
        "heads": {fusion: head_numbers(path) for fusion, path in folders.items()},
        "fit": [*FIT, "--fusion", "all", "--runs", "again", "--json"],
        "onnx": onnx_numbers(),
        "extract": {"arguments": UNFINISHED, "output": lasting(json.loads(run(*UNFINISHED)))},
        "commands": [],
    }
    expected["extract"]["cache"] = cache_numbers("unfinished")
    new = ["--manifest", "posts/new.jsonl", "--weights", "weights.safetensors", "--device", "cpu", "--json"]
    three = [folders[name].as_posix() for name in ("image", "text", "attention_alt")]
    asked: list[Sequence[str]] = [
        ["cache", "info", *DATA, "--json"],
        ["cache", "verify", *DATA, "--sample", "0", "--json"],
        ["cache", "duplicates", *DATA, "--json"],
        ["evaluate", *DATA, "--json"],
        ["evaluate", *DATA, "--split", "test", "--json"],
        ["vote", *DATA, "--out", "vote.txt", "--json"],
        ["vote", *three, *DATA, "--soft", "--out", "three.txt", "--json"],
        ["vote", *DATA, "--runs", "committee", "--out", "committee.txt", "--json"],
        ["vote", "hub", *DATA, "--out", "hub.txt", "--json"],
        ["predict", *DATA, *new],
        ["predict", *three, *DATA, *new],
        ["predict", *DATA, "--runs", "committee", *new],
        ["predict", "hub", *new],
        ["audit", folds, *DATA, "--runs", "folds", "--no-gallery", "--out", "audit", "--json"],
        [*SWEEP, "--trials", "5"],
    ]
    for arguments in asked:
        entry: dict[str, Any] = {"arguments": list(arguments), "output": lasting(json.loads(run(*arguments)))}
        if "--out" in arguments:
            written = Path(arguments[list(arguments).index("--out") + 1])
            files = [path for path in (written, written.with_suffix(".csv"), written / "audit.csv") if path.is_file()]
            entry["files"] = {path.as_posix(): path.read_text("utf-8") for path in files}
        expected["commands"].append(entry)
    shutil.copyfile("runs/test-openings.jsonl", kept / "runs" / "test-openings.jsonl")  # of one opening
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (kept / "expected.json").write_text(text.replace('},{"arguments"', '},\n{"arguments"') + "\n", encoding="utf-8")


def lasting(found: Any) -> Any:
    """A command's output without what another run or machine has otherwise: times, versions, absolute paths."""
    if isinstance(found, dict):
        kept = {name: lasting(value) for name, value in found.items() if name not in PASSING}
        return {name: value for name, value in kept.items() if not (isinstance(value, str) and value[:1] == "/")}
    return [lasting(value) for value in found] if isinstance(found, list) else found


def keep(out: Path) -> Path:
    """Copy what tests open, without locks, figures and model cards."""
    left = shutil.ignore_patterns("*.lock", "parallel.*", "importance.*", "README.md")
    for name in ("posts", "cache", "unfinished", "runs", "committee", "folds", "sweeps", "hub", "onnx"):
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(name, out / name, ignore=left)
    shutil.copyfile("space.toml", out / "space.toml")
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    target = chosen.out.resolve()
    chosen.work.mkdir(parents=True)
    os.chdir(chosen.work)
    with tempfile.TemporaryDirectory() as made:
        with mock.patch.object(platform, "node", return_value="host"):  # which a study records
            make(Path(made))
        with tarfile.open(target / "files.tar.gz", "w:gz") as files:
            for path in sorted(Path(made).iterdir()):
                files.add(path, path.name)
    os.chdir("/")
    shutil.rmtree(chosen.work)
