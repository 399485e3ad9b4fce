"""Tuning the last blocks of a text encoder from stored states, beside fine-tuning the same blocks over the raw texts.

    python scripts/bench_tune.py --cache cache/mvsa-single.offline-tuned.XXXXXXXX.h5 --epochs 3
    python scripts/bench_tune.py --short    # 96 drawn texts, one epoch, for CI

The plain side is what people write with sentence-transformers: a DataLoader over the texts, the tokenizer's padding,
the whole encoder in the forward pass with all but its last blocks frozen, torch.optim.AdamW with two groups, fp32. Our
side is `mmsent fit --tune`: in fp32 and, where the processor multiplies it natively, in bf16. Both get the same rows,
head, class weights, batch size, rates and epochs, and validate after each epoch. Every side runs in a process of its
own, one after the other, `--rounds` times in turn; a ratio is one of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from bench_common import machine, peak_bytes, table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmsent.config import EncoderSettings, FitSettings, SplitSettings, fit_settings
from mmsent.data.dataset import load_dataset
from mmsent.data.synthetic.texts import TextMood, write_text
from mmsent.encoders.blocks import last_blocks, states_of
from mmsent.encoders.factory import open_encoders
from mmsent.features.cache import Cache
from mmsent.features.cache.states import load_states, ragged
from mmsent.metrics import scores
from mmsent.system.devices import cpu_multiplies_bf16
from mmsent.training.head_config import head_config
from mmsent.training.heads import Head
from mmsent.training.loaders import to_tensors
from mmsent.training.sides import split_rows
from mmsent.training.train import loss_tables, smoothed_loss, train_head
from mmsent.training.tuning import TunedRows

COUNT, CLASSES = 2, 3


class Posts:
    """Rows for both sides: image (N, D_image), text (N, 384), labels (N,), the texts, and the two sides of a split."""

    def __init__(self, cache: Path | None) -> None:
        self.encoder = open_encoders(EncoderSettings(encoder="offline", device="cpu", precision="fp32")).text
        self.blocks = last_blocks(self.encoder, COUNT)
        if cache is None:
            self.texts = [write_text(list(TextMood)[i % CLASSES], Random(i)) for i in range(96)]
            self.labels = np.arange(96) % CLASSES
            self.image = np.random.default_rng(0).normal(size=(96, 1280)).astype(np.float32)
            self.states = ragged(states_of(self.encoder, COUNT, self.texts))
            self.train, self.val = np.arange(64), np.arange(64, 96)
        else:
            opened = Cache.open(cache)
            found = opened.load("train")
            data = load_dataset(Path(opened.provenance["data"]), opened.data_settings)
            texts = {post.id: data.text_of(post) for post in data.of("train")}
            self.texts = [texts[row_id] for row_id in found.index.ids]
            self.labels, self.image = found.index.labels, found.image[:, 0]
            self.states = load_states(opened, "train", f"text:{COUNT}")
            cut = split_rows(found.index, SplitSettings(), found)
            self.train, self.val = cut.train, cut.val
        self.text = np.zeros((len(self.texts), self.encoder.card.width), np.float32)  # replaced by what blocks make


def ours(posts: Posts, settings: FitSettings) -> tuple[float, float]:
    """Seconds and the best validation weighted F1 of `train_head` on stored states."""
    started, module = time.perf_counter(), posts.blocks.module()
    train, val = (
        TunedRows(
            to_tensors(posts.image[rows, None], posts.text[rows], posts.labels[rows], "cpu"), posts.states, rows, module
        )
        for rows in (posts.train, posts.val)
    )
    trained = train_head(train, val, settings, CLASSES)
    return time.perf_counter() - started, max(epoch["val_f1_weighted"] for epoch in trained.history)


def plain(posts: Posts, settings: FitSettings) -> tuple[float, float]:
    """The same of a loop over the raw texts."""
    torch.manual_seed(settings.seed)
    started = time.perf_counter()
    model: Any = posts.encoder.fp32_model  # type: ignore[attr-defined]
    model.requires_grad_(False)
    last = model[0].auto_model.encoder.layer[-COUNT:]
    last.requires_grad_(True)
    head = Head(head_config(settings, posts.image.shape[1], posts.text.shape[1], CLASSES))
    image, labels = torch.from_numpy(posts.image), torch.from_numpy(posts.labels)
    tables = loss_tables(labels[posts.train], CLASSES, settings)
    groups = [
        {"params": head.parameters(), "lr": settings.lr, "max_lr": settings.lr},
        {"params": last.parameters(), "lr": settings.tune_lr, "max_lr": settings.tune_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    loader = DataLoader(posts.train.tolist(), settings.batch_size, shuffle=True)
    rates = [settings.lr, settings.tune_lr]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=settings.epochs * len(loader))
    parameters = [*head.parameters(), *last.parameters()]

    def features(rows: list[int]) -> Tensor:
        found: Tensor = model(model.preprocess([posts.texts[i] for i in rows]))["sentence_embedding"]
        return found

    best = 0.0
    for _ in range(settings.epochs):
        head.train(), last.train()
        for rows in loader:
            logits = head(image[rows], features(rows.tolist()))
            loss = smoothed_loss(logits, labels[rows], *tables)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        head.eval(), last.eval()
        with torch.no_grad():
            parts = [posts.val[at : at + 128].tolist() for at in range(0, len(posts.val), 128)]
            said = torch.cat([head(image[rows], features(rows)) for rows in parts]).argmax(dim=1).numpy()
        best = max(best, scores(posts.labels[posts.val], said, CLASSES)["f1_weighted"])
    return time.perf_counter() - started, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="an offline cache with states of text:2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--side", choices=["plain", "fp32", "bf16"], help="this side alone, as JSON")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.epochs = arguments.rounds = 1
    if arguments.side:
        same = {"epochs": arguments.epochs, "patience": arguments.epochs, "fusion": "concat"}
        precision = "fp32" if arguments.side == "plain" else arguments.side
        settings = fit_settings("tuned", **same, precision=precision)
        posts = Posts(None if arguments.short else arguments.cache)
        before = peak_bytes()
        seconds, f1 = (plain if arguments.side == "plain" else ours)(posts, settings)
        print(json.dumps({"seconds": seconds, "f1": f1, "bytes": peak_bytes(), "before": before}))
        return
    if not arguments.short and arguments.cache is None:
        parser.error("name a cache with --cache, or use --short")
    sides = ["plain", "fp32", *(["bf16"] if cpu_multiplies_bf16() else [])]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            words = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    machine()
    rows = [["side", "s per epoch", "to the plain loop", "weighted F1 of the best epoch", "peak memory, GB"]]
    base = statistics.median(one["seconds"] for one in found["plain"])
    for side, values in found.items():
        seconds = statistics.median(one["seconds"] for one in values)
        f1 = [one["f1"] for one in values]
        rows.append(
            [
                {"plain": "plain loop over raw texts, fp32"}.get(side, f"mmsent, {side}"),
                f"{seconds / arguments.epochs:.1f}",
                f"{seconds / base:.2f}",
                f"{statistics.mean(f1):.3f}",
                f"{max(one['bytes'] for one in values) / 1e9:.2f}",
            ]
        )
    print(table(rows))


if __name__ == "__main__":
    main()
