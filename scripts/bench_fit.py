"""How long one fit takes, beside the loops that people use and beside what its matrix products alone need.

    python scripts/bench_fit.py                    # 3,500 + 500 rows of 768 + 768, ten epochs, five rounds
    python scripts/bench_fit.py --short            # a few seconds, for CI

All train the same concat head (1536 -> 256 -> LayerNorm -> GELU -> dropout -> 3) on the same rows for the same epochs:
mmsent's train_head; DataLoader over a TensorDataset with AdamW and OneCycleLR; the same loop over slices of the
tensors; scikit-learn's MLPClassifier of equal width, batch and epochs. The rounds alternate; ratios are of medians over
rounds, all in this one process.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from bench_common import machine, table
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmsent.config import FitSettings
from mmsent.training.loaders import Tensors
from mmsent.training.train import precision_for, train_head

HIDDEN, BATCH, CLASSES = 256, 64, 3


def make_rows(n: int, width: int, seed: int) -> Tensors:
    """Rows in which each half tells part of the label."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, n, p=(0.3, 0.1, 0.6))
    means = np.random.default_rng(99).standard_normal((2, CLASSES, width)).astype(np.float32) * 0.05
    image, text = (rng.standard_normal((n, width), np.float32) + m[labels] for m in means)
    return Tensors(torch.from_numpy(image)[:, None], torch.from_numpy(text), torch.from_numpy(labels))


def ours(train: Tensors, val: Tensors, epochs: int) -> float:
    """mmsent; returns the best validation weighted F1."""
    settings = FitSettings(epochs=epochs, patience=epochs, lr=1e-3)
    return max(record["val_f1_weighted"] for record in train_head(train, val, settings, CLASSES).history)


Batches = Callable[[], Iterable[Sequence[torch.Tensor]]]


def of_loader(rows: Sequence[torch.Tensor], shuffle: bool) -> Batches:
    """Batches of a TensorDataset by a DataLoader, as in most repositories."""
    loader = DataLoader(TensorDataset(*rows), batch_size=BATCH, shuffle=shuffle)
    return lambda: loader


def of_slices(rows: Sequence[torch.Tensor], shuffle: bool) -> Batches:
    """Batches by slicing the tensors themselves; rows that are not shuffled come at once."""
    n = len(rows[0])
    if not shuffle:
        return lambda: [rows]
    return lambda: ([one[at] for one in rows] for at in torch.randperm(n).split(BATCH))


def plain_loop(train: Tensors, val: Tensors, epochs: int, batches: Callable[..., Batches] = of_loader) -> float:
    """The loop of most repositories: AdamW, OneCycleLR, scikit-learn's F1 each epoch."""
    torch.manual_seed(0)
    width = sum(train.widths)
    model = nn.Sequential(
        nn.Linear(width, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU(), nn.Dropout(0.5), nn.Linear(HIDDEN, CLASSES)
    )
    seen = batches((train.image[:, 0], train.text, train.labels), shuffle=True)
    held = batches((val.image[:, 0], val.text, val.labels), shuffle=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, epochs=epochs, steps_per_epoch=-(-len(train) // BATCH)
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    best = 0.0
    for _ in range(epochs):
        model.train()
        for image, text, labels in seen():
            loss = criterion(model(torch.cat([image, text], dim=1)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        guessed = []
        with torch.no_grad():
            for image, text, _ in held():
                guessed.append(model(torch.cat([image, text], dim=1)).argmax(dim=1))
        best = max(best, float(f1_score(val.labels, torch.cat(guessed), average="weighted")))
    return best


def scikit_learn(train: Tensors, val: Tensors, epochs: int) -> float:
    """MLPClassifier of equal width, batch and number of epochs."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    x, y = torch.cat([train.image[:, 0], train.text], dim=1).numpy(), train.labels.numpy()
    model = MLPClassifier(
        (HIDDEN,),
        batch_size=BATCH,
        max_iter=epochs,
        n_iter_no_change=epochs + 1,
        learning_rate_init=1e-3,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    guessed = model.predict(torch.cat([val.image[:, 0], val.text], dim=1).numpy())
    return float(f1_score(val.labels, guessed, average="weighted"))


def products(train: Tensors, val: Tensors, epochs: int, dtype: torch.dtype = torch.float32) -> float:
    """Only the matrix products of one fit, at their own shapes: forward and weight gradient of both layers each step,
    the small layer's input gradient, and the validation rows each epoch. dtype: of the large layer's in training; the
    rest is fp32, as in mmsent. Returns their number of FLOP."""
    width, steps = sum(train.widths), -(-len(train) // BATCH)
    h, w2, out = torch.randn(BATCH, HIDDEN), torch.randn(CLASSES, HIDDEN), torch.randn(BATCH, CLASSES)
    w1 = torch.randn(HIDDEN, width)
    x, large, slope = (t.to(dtype) for t in (torch.randn(BATCH, width), w1, h))
    xv, hv = torch.randn(len(val), width), torch.randn(len(val), HIDDEN)
    with torch.no_grad():
        for _ in range(epochs):
            for _ in range(steps):
                x @ large.T, slope.T @ x, h @ w2.T, out.T @ h, out @ w2
            xv @ w1.T, hv @ w2.T
    small = 2 * HIDDEN * CLASSES
    return float(epochs * (steps * BATCH * (4 * HIDDEN * width + 3 * small) + len(val) * (2 * HIDDEN * width + small)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=3500)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--short", action="store_true", help="one round on few rows")
    given = parser.parse_args()
    if given.short:
        given.rounds, given.rows, given.epochs = 1, 500, 2
    machine()
    train, val = make_rows(given.rows, given.width, 0), make_rows(500, given.width, 1)
    mine = f"mmsent, {precision_for('cpu')}"
    runners: dict[str, Callable[[Tensors, Tensors, int], float]] = {
        mine: ours,
        "DataLoader loop, fp32": plain_loop,
        "loop over tensors, fp32": functools.partial(plain_loop, batches=of_slices),
        "MLPClassifier, fp32": scikit_learn,
        "matrix products alone, fp32": products,
    }
    if precision_for("cpu") == "bf16":
        runners["matrix products alone, bf16"] = lambda *given: products(*given, torch.bfloat16)
    for run in runners.values():
        run(train, val, 1)  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    told: dict[str, float] = {}
    for _ in range(given.rounds):
        for name, run in runners.items():
            started = time.perf_counter()
            told[name] = run(train, val, given.epochs)
            seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rate = told["matrix products alone, fp32"] / middle["matrix products alone, fp32"] / 1e9
    print(
        f"\none fit of {given.rows} x ({given.width} + {given.width}), {given.epochs} epochs; median of {given.rounds}"
    )
    rows = [["", "seconds", "mmsent / this", "best weighted F1"]]
    for name, value in middle.items():
        f1 = "" if name.startswith("matrix products") else f"{told[name]:.3f}"
        rows.append([name, f"{value:.3f}", f"{middle[mine] / value:.2f}", f1])
    print(table(rows))
    print(f"matrix products: {rate:.0f} GFLOP/s in fp32 at these shapes")


if __name__ == "__main__":
    main()
