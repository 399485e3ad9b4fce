"""Everything that a GPU should be measured for, in one run of at most eight minutes, as Markdown rows.

    python scripts/bench_gpu.py            # on a machine with a CUDA device; exits with 1 where a check fails
    python scripts/bench_gpu.py --dry      # the whole of it on a CPU with tiny models, for CI: its figures mean nothing

It needs torch, the package and what it imports, no data and no network: images and features are drawn, CLIP's weights
are random. What cannot run here (a library that is not installed, too little time left) is listed with its reason and
no figure. The rate that shares refer to is that of this device's own bf16 matrix products.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_common import machine, product_rate, table
from PIL import Image

from mmsent.config import EncoderSettings, ExtractSettings, FitSettings, Fusion, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.encoders.factory import open_encoders
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.system.devices import half_precision_for
from mmsent.training.loaders import Tensors, to_tensors
from mmsent.training.stacked import train_stack
from mmsent.training.train import Trained, train_head

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 8.0
CLASSES = 3
TINY = {  # an open_clip architecture that a CPU runs in no time
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    arch: str
    flop: float  # of one image through the tower
    posts: int
    posts_with_views: int
    texts: int
    side: int  # of the drawn images
    rows: int
    width: int
    epochs: int
    trials: int
    alone: int  # trials that are trained one after the other, and scaled up
    tuned: int  # texts whose blocks are tuned


REAL = Size("ViT-L-14-336-quickgelu", 382e9, 1024, 256, 2048, 640, 3500, 768, 10, 1000, 24, 2000)
DRY = Size("bench-tiny", 1e6, 6, 3, 8, 48, 60, 8, 2, 6, 2, 12)


@dataclass
class Report:
    """What was found. rows: what and how much; checks: what, found, wanted, passed; skipped: what and why."""

    device: str
    size: Size
    ends: float
    rows: list[list[str]] = field(default_factory=list)
    checks: list[tuple[str, str, str, bool]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def row(self, what: str, found: str) -> None:
        self.rows.append([what, found])
        print(f"  {what}: {found}", flush=True)

    def check(self, what: str, found: str, wanted: str, passed: bool) -> None:
        self.checks.append((what, found, wanted, passed))
        print(f"  {what}: {found}, wanted {wanted}: {'passed' if passed else 'FAILED'}", flush=True)

    def part(self, name: str, measure: Callable[[Report], None]) -> None:
        """Measure a part, and its peak memory; an error or too little time costs its rows alone."""
        if time.monotonic() > self.ends:
            self.skipped.append((name, "the time was up"))
            return
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        try:
            measure(self)
        except Exception as error:
            self.skipped.append((name, f"{type(error).__name__}: {error}".splitlines()[0][:200]))
            return
        if self.device != "cpu":
            self.row(f"{name}, peak memory of the device", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB")

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds until the device is done."""
        self._wait()
        started = time.perf_counter()
        found = work()
        self._wait()
        return time.perf_counter() - started, found

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def cosine(a: Any, b: Any) -> float:
    """The smallest cosine of corresponding rows."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@contextlib.contextmanager
def small_memory(device: str, spare: int) -> Iterator[None]:
    """A device on which `spare` bytes more than now can be taken, and no more."""
    if device == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + spare) / whole))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


# --- encoding


class Clip:
    """CLIP with random weights, and drawn posts."""

    def __init__(self, size: Size, folder: Path) -> None:
        import open_clip

        if size.arch == DRY.arch:
            import json

            (folder / f"{size.arch}.json").write_text(json.dumps(TINY), encoding="utf-8")
            open_clip.add_model_config(folder)
        torch.manual_seed(0)
        self.weights = folder / "weights.pt"
        torch.save(open_clip.create_model(size.arch).state_dict(), self.weights)
        self.size, self.folder = size, folder
        rng = np.random.default_rng(0)
        self._lines = []
        (folder / "posts").mkdir()
        for i in range(size.posts):
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((size.side, size.side * 3 // 4), Image.Resampling.BICUBIC)
            image.save(folder / "posts" / f"{i}.jpg", quality=90)
            label = ("negative", "neutral", "positive")[i % CLASSES]
            self._lines.append(f"{i},images that were drawn and a text of some length number {i},{i}.jpg,{label}")

    def data(self, posts: int) -> Path:
        """A list of the first posts."""
        listed = self.folder / "posts" / f"first-{posts}.csv"
        listed.write_text("\n".join(["id,text,image,label", *self._lines[:posts]]) + "\n", encoding="utf-8")
        return listed

    def opened(self, device: str, precision: str) -> Any:
        """The encoders on a device."""
        chosen = EncoderSettings(
            encoder=f"open_clip:{self.size.arch}", weights=str(self.weights), device=device, precision=precision
        )
        return chosen, open_encoders(chosen)


def encoding(clip: Clip) -> Callable[[Report], None]:
    """Images per second with their decoding, texts per second, and whether the embeddings are right."""

    def measure(report: Report) -> None:
        size, device = report.size, report.device
        precision = half_precision_for(device)
        chosen, pair = clip.opened(device, precision)
        side = pair.image.card.preprocess.size
        pixels = np.random.default_rng(1).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
        mine = [pair.image.encode(pixels), pair.text.encode(["a text", "and another one"])]  # loads the model
        again = pair.image.encode(pixels)
        rate = product_rate(577 * 16, 1024, 4096, "bfloat16", device, 0.2 if device == "cpu" else 2.0)
        report.row("matrix products, bf16", f"{rate / 1e12:.1f} TFLOP/s")
        for views, posts in ((0, size.posts), (4, size.posts_with_views)):
            dataset = load_dataset(clip.data(posts))
            with tempfile.TemporaryDirectory() as folder:
                seconds, _ = report.timed(
                    lambda folder=folder, dataset=dataset, views=views: extract(
                        dataset, ["train"], Path(folder), encoder=chosen, views=ViewSettings(count=views),
                        options=ExtractSettings(), engine=LocalEngine(pair), show=False,
                    )
                )  # fmt: skip
            name = f"CLIP {size.arch}, {precision}, K = {views}, with decoding"
            report.row(name, f"{posts / seconds:.1f} posts/s, {posts * (views + 1) / seconds:.1f} images/s")
            report.row(f"{name}: share of bf16", f"{posts * (views + 1) / seconds * size.flop / rate:.3f}")
        texts = [f"images that were drawn and a text of some length number {i}" for i in range(size.texts)]
        batches = [texts[i : i + 256] for i in range(0, len(texts), 256)]
        seconds, _ = report.timed(lambda: [pair.text.encode(batch) for batch in batches])
        report.row(f"CLIP {size.arch}, {precision}, texts", f"{len(texts) / seconds:.0f} texts/s")
        _, plain = clip.opened("cpu", "fp32")
        theirs = [plain.image.encode(pixels), plain.text.encode(["a text", "and another one"])]
        least = 0.9999 if precision == "fp32" else 0.999
        for half, a, b in zip(("images", "texts"), mine, theirs, strict=True):
            found = cosine(a, b)
            report.check(f"cosine to fp32 on the CPU, {half}", f"{found:.6f}", f"at least {least}", found >= least)
        same = np.array_equal(mine[0], again)
        report.check("the same images again", "the same bytes" if same else "other bytes", "the same bytes", same)
        many = np.repeat(pixels, 16, axis=0)
        whole = pair.image.encode(many)
        with small_memory(device, 1 << 28):
            halved = pair.image.encode(many)
        found = cosine(whole, halved)
        report.check("cosine of 128 images within 256 MiB to those without", f"{found:.6f}", ">= 0.999", found >= 0.999)

    return measure


# --- training


def drawn_rows(n: int, width: int, seed: int, device: str) -> Tensors:
    """Rows in which each half tells part of the label."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, n, p=(0.3, 0.1, 0.6))
    labels[:CLASSES] = range(CLASSES)
    means = np.random.default_rng(99).standard_normal((2, CLASSES, width)).astype(np.float32) * 0.05
    image, text = (rng.standard_normal((n, width), np.float32) + m[labels] for m in means)
    found = to_tensors(image[:, None], text, labels.astype(np.int64), device)
    assert isinstance(found, Tensors)
    return found


def weights_of(trained: Trained) -> list[Any]:
    """A trained head's weights."""
    return [value.cpu() for value in trained.head.state_dict().values()]


def fits(report: Report) -> None:
    """Milliseconds per fit for each fusion; the same seed gives the same bytes, also where memory is short."""
    size = report.size
    train, val = (drawn_rows(n, size.width, seed, report.device) for seed, n in enumerate((size.rows, 500)))
    for fusion in Fusion:
        settings = FitSettings(fusion=fusion, epochs=size.epochs, patience=size.epochs)
        first = train_head(train, val, settings, CLASSES)  # also warms up
        seconds, again = report.timed(lambda settings=settings: train_head(train, val, settings, CLASSES))
        report.row(f"fit, {fusion}, {size.epochs} epochs of {size.rows} rows", f"{1000 * seconds:.0f} ms")
        pairs = zip(weights_of(first), weights_of(again), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs)
        report.check(f"{fusion}, the same seed", "the same bytes" if same else "other bytes", "the same bytes", same)


def trials(report: Report) -> None:
    """Many trials in stacks beside the same one after the other."""
    size = report.size
    train, val = (drawn_rows(n, size.width, seed, report.device) for seed, n in enumerate((size.rows, 500)))
    wanted = [
        FitSettings(epochs=size.epochs, patience=size.epochs, seed=k, lr=1e-4 * (1 + k % 9), precision="fp32")
        for k in range(size.trials)
    ]
    train_stack(train, val, wanted[:2], CLASSES)  # warms up
    stacks = [wanted[i : i + 64] for i in range(0, len(wanted), 64)]
    stacked, found = report.timed(lambda: [one for stack in stacks for one in train_stack(train, val, stack, CLASSES)])
    single, alone = report.timed(lambda: [train_head(train, val, one, CLASSES) for one in wanted[: size.alone]])
    one_by_one = single / size.alone * size.trials
    report.row(f"{size.trials} trials of concat in stacks of 64", f"{stacked:.1f} s")
    report.row(f"the same one after the other ({size.alone} measured, scaled)", f"{one_by_one:.1f} s")
    report.row("one after the other / stacked", f"{one_by_one / stacked:.1f}")
    apart = max(
        float(np.abs(a.val_logits - b.val_logits).max()) for a, b in zip(found, alone, strict=False) if a is not None
    )
    report.check(
        "logits of stacked and single heads, largest difference", f"{apart:.1e}", "at most 0.05", apart <= 0.05
    )


def tuning(report: Report) -> None:
    """Seconds per epoch of `--tune text:2` from stored states."""
    from mmsent.encoders.blocks import last_blocks, states_of
    from mmsent.features.cache.states import ragged
    from mmsent.training.tuning import TunedRows

    size, device = report.size, report.device
    text = open_encoders(EncoderSettings(encoder="offline", device=device, precision="fp32")).text
    texts = [f"words that were drawn, some more of them and a number {i}" for i in range(size.tuned)]
    states = ragged(states_of(text, 2, texts))
    module = last_blocks(text, 2).module().to(device)
    labels = np.arange(size.tuned, dtype=np.int64) % CLASSES
    image = np.random.default_rng(0).standard_normal((size.tuned, 1, 64)).astype(np.float32)
    half = np.zeros((size.tuned, text.card.width), np.float32)
    cut = size.tuned * 3 // 4
    train, val = (
        TunedRows(to_tensors(image[at], half[at], labels[at], device), states, np.arange(size.tuned)[at], module)
        for at in (slice(cut), slice(cut, None))
    )
    epochs = 2
    settings = FitSettings(tune="text:2", epochs=epochs, patience=epochs, batch_size=32)
    seconds, _ = report.timed(lambda: train_head(train, val, settings, CLASSES))
    report.row(f"--tune text:2, {cut} + {size.tuned - cut} texts", f"{seconds / epochs:.2f} s per epoch")


def tests(report: Report) -> None:
    """The tests that are marked gpu."""
    if report.device == "cpu":
        raise RuntimeError("they need a CUDA device")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests", "-p", "no:cacheprovider"],
        cwd=ROOT, capture_output=True, text=True, timeout=max(10.0, report.ends - time.monotonic()), check=False,
    )  # fmt: skip
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    report.check("pytest -m gpu", last, "all pass", done.returncode == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", "--short", action="store_true", help="on a CPU with tiny models")
    given = parser.parse_args()
    if not given.dry and not torch.cuda.is_available():
        print("no CUDA device here, so nothing was measured; --dry runs the script on a CPU")
        return
    machine()
    report = Report("cpu" if given.dry else "cuda", DRY if given.dry else REAL, time.monotonic() + 60 * MINUTES)
    with tempfile.TemporaryDirectory() as folder:
        report.part("encoding", lambda report: encoding(Clip(report.size, Path(folder)))(report))
        for name, measure in (("fits", fits), ("trials", trials), ("tuning", tuning), ("tests", tests)):
            report.part(name, measure)
    if given.dry:
        print("\ndry run on a CPU with tiny models: these figures say nothing about a GPU")
    print(f"\n{table([['what', 'found'], *report.rows])}\n")
    told = [[what, found, wanted, "yes" if passed else "NO"] for what, found, wanted, passed in report.checks]
    print(table([["check", "found", "wanted", "passed"], *told]))
    for name, why in report.skipped:
        print(f"not run: {name} ({why})")
    wrong = [what for what, _, _, passed in report.checks if not passed]
    unexpected = [name for name, _ in report.skipped if name != "tests"] if given.dry else []
    if wrong or unexpected:
        raise SystemExit(f"failed: {', '.join(wrong + unexpected)}")


if __name__ == "__main__":
    main()
