"""Training many heads of equal shape at once: their weights are stacked, so that a step of all is a few large products
in the place of many small ones. What a GPU wants; on a CPU it gains nothing.

Each head keeps its own seed, rate, weight decay, dropout, smoothing, class weights, views, scaling of its features and
early stopping, and none sees another: alone or beside others, and by `train_head` in fp32, it becomes the same head but
for rounding, for each head has generators of its own.

Shapes: M heads, N rows, V views, B batch, D_image and D_text widths, H hidden width, L hidden layers, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from mmsent.config import FitSettings, Fusion
from mmsent.metrics import scores
from mmsent.training.head_config import head_config
from mmsent.training.heads import Head, unit_rms
from mmsent.training.loaders import InMemory, Rows, Tensors, draw_epoch
from mmsent.training.moments import set_statistics
from mmsent.training.optimizer import one_cycle
from mmsent.training.train import Draws, Trained, deterministic, loss_tables, smoothed_loss

# What all heads of a stack have in common; everything else each has of its own.
SHARED = ("fusion", "batch_size", "hidden", "depth", "heads", "common_width", "precision")
OWN = (
    "seed",
    "lr",
    "weight_decay",
    "warmup",
    "epochs",
    "patience",
    "dropout",
    "label_smoothing",
    "balance",
    "class_weight_power",
    "rms",
    "standardize",
    "modality_dropout",
    "views",
)
FUSIONS = (Fusion.concat, Fusion.weighted, Fusion.attention, Fusion.attention_alt, Fusion.image, Fusion.text)
BETA2, EPSILON = 0.999, 1e-8  # AdamW's, as in mmsent.training.optimizer

# Told after each epoch, for each head that still trains: its place, the epoch, its best validation weighted F1 so far.
# A true answer stops that head.
OnEpoch = Callable[[int, int, float], bool]


def shape_of(settings: FitSettings) -> tuple[Any, ...] | None:
    """What heads must have in common to be stacked; None for a head that must train alone: with products in bf16, of
    another fusion, or with a setting that this module does not know."""
    usual = FitSettings()
    others = set(FitSettings.model_fields) - set(SHARED) - set(OWN)
    if any(getattr(settings, name) != getattr(usual, name) for name in others):
        return None
    if settings.fusion not in FUSIONS or settings.precision != "fp32":
        return None
    return tuple(getattr(settings, name) for name in SHARED)


def train_stack(
    train: Rows, val: Rows, wanted: Sequence[FitSettings], classes: int, on_epoch: OnEpoch | None = None
) -> list[Trained | None]:
    """Train one head a settings, all of one shape (see `shape_of`), as `train_head` does each; None for those that
    `on_epoch` stopped. Their history has epoch, train_loss and val_f1_weighted; seconds are those of the whole stack.

    train: rows in memory. Raises ValueError where the shapes differ.
    """
    if len({shape_of(settings) for settings in wanted}) != 1 or shape_of(wanted[0]) is None:
        raise ValueError("these settings do not train together")
    if not isinstance(train, InMemory) or not isinstance(val, Tensors):
        raise TypeError("a stack trains on rows in memory")
    started = time.monotonic()
    with deterministic(0, train.device):
        stack = _Stack(train, val, wanted, classes)
        while stack.places:
            stack.one_epoch()
            stack.judge(on_epoch)
        return stack.heads(time.monotonic() - started)


class _Stack:
    """Heads in training. `places`: which of the wanted heads still train, (M,) in the order of the stacked weights."""

    def __init__(self, train: InMemory, val: Tensors, wanted: Sequence[FitSettings], classes: int) -> None:
        self._rows, self._val, self._wanted, self._classes = train, val, list(wanted), classes
        self._device = torch.device(train.device)
        self.places = list(range(len(wanted)))
        heads: list[Head] = []
        self._draws: list[Draws] = []
        for settings in wanted:
            torch.default_generator.manual_seed(settings.seed)
            head = Head(head_config(settings, *train.widths, classes)).to(self._device)
            self._draws.append(Draws(settings, head, train.device))
            set_statistics(head, train)
            heads.append(head)
        self._heads = heads
        self._steps = -(-len(train) // wanted[0].batch_size)
        plain = heads[0].config.model_copy(update={"rms": False, "standardize": False, "dropout": 0.0})
        self._base = Head(plain).to("meta").eval()  # takes scaled features
        parameters, _ = stack_module_state(list(heads))
        self._now = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self._averages = {name: torch.zeros_like(p) for name, p in self._now.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in self._now.items()}
        self._best_weights = {name: p.detach().clone() for name, p in self._now.items()}  # of all that were wanted
        self._best: list[tuple[float, int, np.ndarray[Any, Any]] | None] = [None] * len(wanted)
        self._history: list[list[dict[str, Any]]] = [[] for _ in wanted]
        self._stopped: set[int] = set()
        self._epoch = self._step = 0
        self._shapes = {(s.epochs, s.warmup): list(one_cycle(1.0, s.epochs * self._steps, s.warmup)) for s in wanted}
        self._look_up()

    def _look_up(self) -> None:
        """What each head that still trains has of its own, stacked."""
        mine = [self._wanted[place] for place in self.places]
        device = self._device
        tables = zip(*(loss_tables(self._rows.labels, self._classes, s) for s in mine), strict=True)
        self._targets, self._weights = (torch.stack(each) for each in tables)  # (M, C, C), (M, C)
        self._rms = torch.tensor([s.rms for s in mine], device=device)
        self._any_rms, self._all_rms = any(s.rms for s in mine), all(s.rms for s in mine)
        self._means, self._stds, self._fills = {}, {}, {}
        for half in ("image", "text"):
            mean, std = (
                torch.stack([getattr(self._heads[p], f"{half}_{what}") for p in self.places])
                for what in ("mean", "std")
            )
            scaled = torch.tensor([s.standardize for s in mine], device=device)[:, None]
            self._means[half] = torch.where(scaled, mean, 0.0)[:, None]  # (M, 1, D): what is taken off
            self._stds[half] = torch.where(scaled, std, 1.0)[:, None]
            self._fills[half] = torch.where(scaled, 0.0, mean)[:, None]  # what stands in for a missing half
        self._decay = torch.tensor([s.weight_decay for s in mine], dtype=torch.float32, device=device)
        self._peaks = torch.tensor([s.lr for s in mine], dtype=torch.float64)

    def _scaled(self, half: str, x: Tensor) -> Tensor:
        """Features (M, n, D) as each head takes them."""
        if self._any_rms:
            flat = unit_rms(x.flatten(0, 1)).view(x.shape)
            x = flat if self._all_rms else torch.where(self._rms[:, None, None], flat, x)
        return (x - self._means[half]) / self._stds[half]

    def one_epoch(self) -> None:
        """One pass over the rows."""
        views = self._rows.image.shape[1]
        draws = [self._draws[place] for place in self.places]
        drawn = [
            draw_epoch(self._rows.labels, views, self._wanted[place], self._draws[place].rows) for place in self.places
        ]
        order, view = (torch.stack(each) for each in zip(*drawn, strict=True))  # (M, N)
        rows = self._rows.at(order)
        pictures, shown, labels = self._rows.image.flatten(0, 1), rows * views + view, self._rows.labels[order]
        self._epoch += 1
        total = torch.zeros(len(draws), dtype=torch.float32, device=self._device)
        size = self._wanted[0].batch_size
        for start in range(0, order.shape[1], size):
            part = slice(start, start + size)
            batch = (len(draws), -1)
            image = pictures.index_select(0, shown[:, part].flatten()).view(*batch, pictures.shape[1])
            text = self._rows.text.index_select(0, rows[:, part].flatten()).view(*batch, self._rows.text.shape[1])
            image, text = self._scaled("image", image), self._scaled("text", text)
            lacking = [self._rows.missing[each] if self._rows.missing is not None else None for each in order[:, part]]
            lost, kept = zip(
                *(one.batch(image.shape[1], own) for one, own in zip(draws, lacking, strict=True)), strict=True
            )
            if any(one is not None for one in lost):
                none = torch.zeros(image.shape[1], 2, dtype=torch.bool, device=self._device)
                missing = torch.stack([none if one is None else one for one in lost])
                image = torch.where(missing[..., :1], self._fills["image"], image)
                text = torch.where(missing[..., 1:], self._fills["text"], text)
            factors = torch.stack(kept) if self._heads[0].has_hidden else None
            total += self._update(image, text, factors, labels[:, part]) * image.shape[1]
        for place, loss in zip(self.places, (total / order.shape[1]).tolist(), strict=True):
            self._history[place].append({"epoch": self._epoch, "train_loss": loss})

    def _update(self, image: Tensor, text: Tensor, factors: Tensor | None, labels: Tensor) -> Tensor:
        """One step of all heads on features (M, B, D); their losses (M,)."""

        def loss(own: dict[str, Tensor], image: Tensor, text: Tensor, factors: Tensor | None, *rest: Tensor) -> Tensor:
            return smoothed_loss(functional_call(self._base, own, (image, text, None, factors)), *rest)

        inputs = self._now, image, text, factors, labels, self._targets, self._weights
        losses: Tensor = vmap(loss, in_dims=tuple(None if one is None else 0 for one in inputs))(*inputs)
        self._adamw(torch.autograd.grad(losses.sum(), list(self._now.values())))
        self._step += 1
        return losses.detach()

    @torch.no_grad()
    def _adamw(self, slopes: Sequence[Tensor]) -> None:
        """AdamW, each head at its own rate, first beta and weight decay."""
        shapes = [self._shapes[s.epochs, s.warmup][self._step] for s in (self._wanted[place] for place in self.places)]
        rate = (self._peaks * torch.tensor([r for r, _ in shapes], dtype=torch.float64)).to(self._device, torch.float32)
        betas = torch.tensor([b for _, b in shapes], dtype=torch.float64)
        bias = (1 - betas ** (self._step + 1)).to(self._device, torch.float32)
        beta = betas.to(self._device, torch.float32)
        root = (1 - BETA2 ** (self._step + 1)) ** 0.5
        for (name, weight), slope in zip(self._now.items(), slopes, strict=True):
            wide = (-1, *[1] * (weight.dim() - 1))
            average, square = self._averages[name], self._squares[name]
            weight.mul_((1 - rate * self._decay).view(wide))
            average.lerp_(slope, (1 - beta).view(wide).expand_as(slope))
            square.mul_(BETA2).addcmul_(slope, slope, value=1 - BETA2)
            step = (rate / bias).view(wide)
            weight.sub_(step * average / (square.sqrt() / root).add_(EPSILON))

    @torch.no_grad()
    def judge(self, on_epoch: OnEpoch | None) -> None:
        """Score all heads on the validation rows, keep the best weights, and let go those that are done."""
        truth = self._val.labels.cpu().numpy()
        logits = self._validate().cpu().numpy()
        better, staying = [], []
        for at, place in enumerate(self.places):
            settings, best = self._wanted[place], self._best[place]
            found = scores(truth, logits[at].argmax(axis=1), self._classes)["f1_weighted"]
            self._history[place][-1]["val_f1_weighted"] = found
            if best is None or found > best[0]:
                self._best[place] = best = (found, self._epoch, logits[at])
                better.append(at)
            done = self._epoch >= settings.epochs or self._epoch - best[1] >= settings.patience
            if on_epoch is not None and on_epoch(place, self._epoch, best[0]):
                self._stopped.add(place)
            elif not done:
                staying.append(at)
        if better:
            into = torch.tensor([self.places[at] for at in better], device=self._device)
            of = torch.tensor(better, device=self._device)
            for name, kept in self._best_weights.items():
                kept[into] = self._now[name].detach()[of]
        if len(staying) < len(self.places):
            self.places = [self.places[at] for at in staying]
            if self.places:
                left = torch.tensor(staying, device=self._device)
                self._now = {name: p.detach()[left].requires_grad_() for name, p in self._now.items()}
                self._averages = {name: p[left] for name, p in self._averages.items()}
                self._squares = {name: p[left] for name, p in self._squares.items()}
                self._look_up()

    def _validate(self) -> Tensor:
        """(M, N_val, C), heads that scale alike at a time, for they take the same features."""
        mine = [self._wanted[place] for place in self.places]
        out: list[Tensor | None] = [None] * len(mine)
        for kind in dict.fromkeys((s.rms, s.standardize) for s in mine):
            which = [at for at, s in enumerate(mine) if (s.rms, s.standardize) == kind]
            halves = {"image": self._val.image[:, 0], "text": self._val.text}
            image, text = (
                ((unit_rms(x) if kind[0] else x) - self._means[half][which[0]]) / self._stds[half][which[0]]
                for half, x in halves.items()
            )
            if self._val.missing is not None:
                image, text = (
                    torch.where(self._val.missing[:, at : at + 1], self._fills[half][which[0]], x)
                    for at, (half, x) in enumerate((("image", image), ("text", text)))
                )
            own = {name: p.detach()[which] for name, p in self._now.items()}

            def one(own: dict[str, Tensor], image: Tensor = image, text: Tensor = text) -> Tensor:
                logits: Tensor = functional_call(self._base, own, (image, text))
                return logits

            for at, logits in zip(which, vmap(one)(own), strict=True):
                out[at] = logits
        return torch.stack([one for one in out if one is not None])

    def heads(self, seconds: float) -> list[Trained | None]:
        """The heads at their best epochs, those stopped early as None."""
        found: list[Trained | None] = []
        for place, head in enumerate(self._heads):
            best = self._best[place]
            if place in self._stopped or best is None:
                found.append(None)
                continue
            weights = {name: p[place] for name, p in self._best_weights.items()}
            head.load_state_dict(head.state_dict() | weights)
            found.append(Trained(head.eval(), self._history[place], best[1], best[2], seconds))
        return found
