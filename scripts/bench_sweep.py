"""How long a sweep takes, beside Optuna over the loop that people use.

    python scripts/bench_sweep.py --cache cache/mvsa-single.offline.XXXXXXXX.h5     # 200 trials; the loop on 16 of them
    python scripts/bench_sweep.py --cache FILE --full                               # the loop on every trial
    python scripts/bench_sweep.py --short                                           # made-up features, for CI

Ours: `mmsent sweep` over concat, weighted and attention on one validation split, from its start to its last trial,
worker processes and database included. The usual way: Optuna's `study.optimize` over the same trials, each with a
TensorDataset and a DataLoader, torch's own modules, AdamW, OneCycleLR, CrossEntropyLoss and scikit-learn's F1 after
each epoch, as many threads as torch takes, and the early stopping of the same settings, but nothing pruned. Scaling and
the epoch's views are done on whole arrays before its loop starts. Unless --full is given, the loop runs on a random
sample of the trials, and its time is that of the sample times the number of trials over the sample's size; the printed
error is of that sampling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from bench_common import machine, table
from make_synthetic_cache import make
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mmsent.config import FitSettings, SplitSettings, recipe_for
from mmsent.features.cache import Cache
from mmsent.sweep.database import file_url
from mmsent.sweep.finish import Progress
from mmsent.sweep.search import sweep
from mmsent.sweep.settings import SweepSettings
from mmsent.sweep.space import make_space
from mmsent.system.process import cores
from mmsent.training.loaders import Tensors
from mmsent.training.sides import sides

CLASSES = 3


class UsualHead(nn.Module):
    """The three voting heads from torch's own modules."""

    def __init__(self, settings: FitSettings, widths: tuple[int, int]) -> None:
        super().__init__()
        self.fusion = settings.fusion.value
        common = settings.common_width or 512
        width = sum(widths) if self.fusion == "concat" else common
        if self.fusion != "concat":
            self.image, self.text = nn.Linear(widths[0], common), nn.Linear(widths[1], common)
        if self.fusion == "weighted":
            self.shares = nn.Parameter(torch.zeros(2))
        if self.fusion == "attention":
            self.attention = nn.MultiheadAttention(common, settings.heads, batch_first=True)
        layers: list[nn.Module] = []
        for k in range(settings.depth):
            layers += [nn.Linear(settings.hidden if k else width, settings.hidden), nn.LayerNorm(settings.hidden)]
            layers += [nn.GELU(), nn.Dropout(settings.dropout)]
        self.classify = nn.Sequential(*layers, nn.Linear(settings.hidden, CLASSES))

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        if self.fusion == "concat":
            return self.classify(torch.cat([image, text], dim=1))
        image, text = self.image(image), self.text(text)
        if self.fusion == "weighted":
            shares = self.shares.softmax(dim=0)
            return self.classify(shares[0] * image + shares[1] * text)
        pair = torch.stack([image, text], dim=1)
        return self.classify(self.attention(pair, pair, pair, need_weights=False)[0].mean(dim=1))


def usual_loop(train: Tensors, val: Tensors, settings: FitSettings) -> tuple[float, int]:
    """One trial: the best validation weighted F1 and the epochs trained."""
    torch.manual_seed(settings.seed)
    halves = [[train.image, val.image], [train.text, val.text]]
    for half in halves:
        if settings.rms:
            half[:] = [x / x.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6) for x in half]
        if settings.standardize:
            seen = half[0][:, 0] if half[0].dim() == 3 else half[0]
            mean, std = seen.mean(dim=0), seen.std(dim=0).clamp(min=1e-6)
            half[:] = [(x - mean) / std for x in half]
    (pictures, val_pictures), (texts, val_texts) = halves
    n, views = pictures.shape[:2]
    weights = (n / (CLASSES * torch.bincount(train.labels, minlength=CLASSES))) ** settings.class_weight_power
    criterion = nn.CrossEntropyLoss(weights / weights.mean(), label_smoothing=settings.label_smoothing)
    model = UsualHead(settings, train.widths)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = -(-n // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, epochs=settings.epochs, steps_per_epoch=steps, pct_start=settings.warmup
    )
    held = DataLoader(TensorDataset(val_pictures[:, 0], val_texts), batch_size=settings.batch_size)
    best, at, epoch = 0.0, 0, 0
    for epoch in range(1, settings.epochs + 1):
        view = torch.randint(views, (n,)) if settings.views else torch.zeros(n, dtype=torch.int64)
        data = TensorDataset(pictures[torch.arange(n), view], texts, train.labels)
        model.train()
        for image, text, labels in DataLoader(data, batch_size=settings.batch_size, shuffle=True):
            if settings.modality_dropout:
                lost = torch.rand(len(labels), 1) < settings.modality_dropout
                first = torch.rand(len(labels), 1) < 0.5
                image, text = image * ~(lost & first), text * ~(lost & ~first)
            loss = criterion(model(image, text), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            guessed = torch.cat([model(image, text).argmax(dim=1) for image, text in held])
        found = float(f1_score(val.labels, guessed, average="weighted"))
        if found > best:
            best, at = found, epoch
        elif epoch - at >= settings.patience:
            break
    return best, epoch


def usual_way(
    train: Tensors, val: Tensors, space: Any, trials: list[dict[str, Any]]
) -> tuple[list[float], list[int], float]:
    """Optuna over the usual loop on these trials: seconds and epochs of each, and the best F1."""
    distributions = space.distributions()
    seconds: list[float] = []
    epochs: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        started = time.perf_counter()
        params = {}
        for name, kind in distributions.items():
            if isinstance(kind, optuna.distributions.CategoricalDistribution):
                params[name] = trial.suggest_categorical(name, kind.choices)
            else:
                params[name] = trial.suggest_float(name, kind.low, kind.high, log=kind.log)
        found, trained = usual_loop(train, val, space.settings(params))
        seconds.append(time.perf_counter() - started)
        epochs.append(trained)
        return found

    study = optuna.create_study(direction="maximize")
    for one in trials:
        study.enqueue_trial(one["params"])
    study.optimize(objective, n_trials=len(trials))
    return seconds, epochs, float(study.best_value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="cache file; without one, made-up features of the same size")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--sample", type=int, default=16, help="trials that the usual loop is measured on")
    parser.add_argument("--full", action="store_true", help="the usual loop on every trial")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--runs", type=Path, help="keep our sweep in this folder of runs, which must not have one")
    parser.add_argument("--no-prune", action="store_true", help="ours unpruned too")
    parser.add_argument("--short", action="store_true", help="few trials on few rows")
    given = parser.parse_args()
    if given.short:
        given.trials, given.sample = 8, 2
    machine()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.cache is None:
            shape = (400, 64, 32) if given.short else (4000, 1280, 384)
            cache = make(work / "synthetic.h5", *shape, signal=0.05)
        else:
            cache = Cache.open(given.cache)
        space = make_space(recipe_for(cache.encoder), seed=0)
        options = SweepSettings(trials=given.trials, workers=given.workers, prune=not given.no_prune)
        ended = [0.0]

        def watch(progress: Progress) -> None:
            if progress.what == "searching":
                ended[0] = time.perf_counter()

        started = time.perf_counter()
        done = sweep(cache, given.runs or work / "runs", space, SplitSettings(), options, watch=watch)
        whole, ours = time.perf_counter() - started, ended[0] - started
        study = optuna.load_study(study_name="sweep", storage=file_url(done.path / "study.db"))
        counted = [t for t in study.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED")]
        assert len(counted) == len(done.trials) == given.trials
        rng = np.random.default_rng(0)
        count = len(done.trials) if given.full else min(given.sample, len(done.trials))
        chosen = [done.trials[i] for i in rng.permutation(len(done.trials))[:count]]
        given_rows = sides(cache, SplitSettings(), device="cpu")
        assert isinstance(given_rows.train, Tensors)
        assert isinstance(given_rows.val, Tensors)
        seconds, epochs, best = usual_way(given_rows.train, given_rows.val, space, chosen)
    scale = given.trials / count
    theirs = sum(seconds) * scale
    error = float(np.std(seconds, ddof=1)) * given.trials / count**0.5 if 1 < count < given.trials else 0.0
    how = f"measured on {count} of them and scaled" if count < given.trials else "all measured"
    sizes = f"{len(given_rows.train)} + {len(given_rows.val)}"
    print(f"\n{given.trials} trials over concat, weighted, attention; {sizes} rows")
    trained = sum(one["epochs"] for one in done.trials)
    rows = [["", "seconds", "mmsent / this", "epochs trained", "best weighted F1"]]
    rows.append(
        [f"mmsent sweep, {given.workers} workers", f"{ours:.1f}", "1.00", f"{trained:.0f}", f"{done.best['score']:.3f}"]
    )
    shown = f"{theirs:.0f}" + (f" ± {error:.0f}" if error else "")
    rows.append(
        [f"Optuna over a DataLoader loop, {torch.get_num_threads()} threads ({how})", shown, f"{ours / theirs:.3f}",
         f"{sum(epochs) * scale:.0f}", f"{best:.3f}" if given.full else ""]
    )  # fmt: skip
    print(table(rows))
    stopped = len(done.trials) - len(done.finished)
    print(f"{stopped} of our trials were stopped early; with the check on other splits and the refits: {whole:.1f} s")
    print(f"ratio: {ours / theirs:.3f}; the goal is 0.08 at most")


if __name__ == "__main__":
    main()
