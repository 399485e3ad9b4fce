"""Training many heads of equal shape at once: their weights are stacked, so that a step of all is a few large products
in the place of many small ones. What a GPU wants; on a CPU it gains nothing.

Each head keeps its own seed, rate, weight decay, dropout, smoothing, class weights, views, scaling of its features and
early stopping, and none sees another: alone or beside others it becomes the same head but for rounding. On a CPU it is
also, but for rounding, the head that `train_head` makes in fp32, for its random numbers are drawn in the same order; on
a GPU each head has a generator of its own.

Shapes: M heads, N rows, V views, B batch, D_image and D_text widths, H hidden width, L hidden layers, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmsent.config import FitSettings, Fusion
from mmsent.metrics import scores
from mmsent.training.heads import Head, head_config, unit_rms
from mmsent.training.loaders import Picked, Rows, Tensors, draw_epoch
from mmsent.training.train import (
    OneCycle,
    SmoothedCrossEntropy,
    Trained,
    _drop_modalities,
    _dropout_factors,
    class_weights,
    deterministic,
    set_statistics,
)

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
BETA2, EPSILON = 0.999, 1e-8  # AdamW's, as in mmsent.training.train

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


class _Member(nn.Module):
    """A head with its dropout factors given: scaled features to logits."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor, text: Tensor, factors: Tensor | None) -> Tensor:
        fused = self.head.fuse(image, text)
        if not self.head.has_hidden:
            return self.head.out(fused)  # type: ignore[no-any-return]
        layers = self.head.hidden_layers
        for at, (linear, norm) in enumerate(layers):
            fused = nn.functional.gelu(norm(linear(fused)))
            if factors is not None:
                fused = fused * factors.chunk(len(layers), dim=1)[at]
        return self.head.out(fused)  # type: ignore[no-any-return]


@dataclass
class _Draws:
    """The random numbers of one epoch of one head. order (N,): of the rows; view (N,), by row; kept (N, L·H): what
    dropout keeps, by place in the order, layer by layer; missing (N, 2), by place: halves that a row loses, None where
    none can."""

    order: Tensor
    view: Tensor | None
    kept: Tensor | None
    missing: Tensor | None


class _Dice:
    """The random numbers of one head, which go on from its initial weights."""

    def __init__(self, settings: FitSettings, labels: Tensor, views: int, hidden: int | None) -> None:
        self._settings, self._labels, self._views, self._hidden = settings, labels, views, hidden
        self._on_cpu = labels.device.type == "cpu"
        if self._on_cpu:
            self._state = torch.get_rng_state()
        else:
            self._generator = torch.Generator(labels.device).manual_seed(settings.seed)

    def epoch(self) -> _Draws:
        return self._as_train_head() if self._on_cpu else self._own()

    def _as_train_head(self) -> _Draws:
        """In the order in which mmsent.training.train draws them, from the same generator."""
        settings, n, size = self._settings, len(self._labels), self._settings.batch_size
        torch.set_rng_state(self._state)
        order, view = draw_epoch(self._labels, self._views, settings)
        factors = _dropout_factors(settings, settings.hidden * settings.depth, self._labels.device, min(size, n))
        kept, missing = [], []
        for start in range(0, n, size):
            rows = min(size, n - start)
            lost = _drop_modalities(rows, settings.modality_dropout, self._labels.device)
            kept.append(next(factors)[:rows] > 0)
            if lost is not None:
                missing.append(lost)
        self._state = torch.get_rng_state()
        return _Draws(order, view, torch.cat(kept) if self._hidden else None, torch.cat(missing) if missing else None)

    def _own(self) -> _Draws:
        settings, n, device, g = self._settings, len(self._labels), self._labels.device, self._generator
        if settings.balance == "sampler":
            inverse = 1.0 / torch.bincount(self._labels).clamp(min=1).to(torch.float64)
            order = torch.multinomial(inverse[self._labels], n, replacement=True, generator=g)
        else:
            order = torch.randperm(n, generator=g, device=device)
        view = kept = missing = None
        if settings.views and self._views > 1:
            view = torch.randint(self._views, (n,), generator=g, device=device)
        if self._hidden:
            kept = torch.rand(n, self._hidden, generator=g, device=device) >= settings.dropout
        if settings.modality_dropout:
            dropped, which = (torch.rand(n, generator=g, device=device) for _ in range(2))
            lost = dropped < settings.modality_dropout
            missing = torch.stack([lost & (which < 0.5), lost & (which >= 0.5)], dim=1)
        return _Draws(order, view, kept, missing)


def train_stack(
    train: Rows, val: Tensors, wanted: Sequence[FitSettings], classes: int, on_epoch: OnEpoch | None = None
) -> list[Trained | None]:
    """Train one head a settings, all of one shape (see `shape_of`), as `train_head` does each; None for those that
    `on_epoch` stopped. Their history has epoch, train_loss and val_f1_weighted; seconds are those of the whole stack.

    train: rows in memory, `Tensors` or `Picked`. Raises ValueError where the shapes differ.
    """
    if len({shape_of(settings) for settings in wanted}) != 1 or shape_of(wanted[0]) is None:
        raise ValueError("these settings do not train together")
    if not isinstance(train, (Tensors, Picked)):
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

    def __init__(self, train: Tensors | Picked, val: Tensors, wanted: Sequence[FitSettings], classes: int) -> None:
        self._rows, self._val, self._wanted, self._classes = train, val, list(wanted), classes
        self._device = torch.device(train.device)
        self.places = list(range(len(wanted)))
        heads: list[Head] = []
        self._dice: list[_Dice] = []
        moments: dict[bool, Head] = {}
        for settings in wanted:
            torch.manual_seed(settings.seed)
            head = Head(head_config(settings, *train.widths, classes)).to(self._device)
            hidden = settings.hidden * settings.depth if head.has_hidden else None
            self._dice.append(_Dice(settings, train.labels, train.image.shape[1], hidden))
            known = moments.get(settings.rms)
            if known is None:  # of these rows, scaled like that; the same for all heads
                set_statistics(head, train)
                moments[settings.rms] = head
            else:
                for half in ("image", "text"):
                    head.set_moments(half, getattr(known, f"{half}_mean"), getattr(known, f"{half}_std"))
            heads.append(head)
        self._heads = heads
        self._steps = -(-len(train) // wanted[0].batch_size)
        # Training mode, so that attention takes the path that has gradients and can be stacked; it has no dropout.
        self._base = _Member(Head(heads[0].config)).to("meta").train()
        parameters, _ = stack_module_state([_Member(head) for head in heads])
        self._now = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        self._averages = {name: torch.zeros_like(p) for name, p in self._now.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in self._now.items()}
        self._best_weights = {name: p.detach().clone() for name, p in self._now.items()}  # of all that were wanted
        self._best: list[tuple[float, int, np.ndarray[Any, Any]] | None] = [None] * len(wanted)
        self._history: list[list[dict[str, Any]]] = [[] for _ in wanted]
        self._stopped: set[int] = set()
        self._epoch = self._step = 0
        self._shapes = {
            (s.epochs, s.warmup): [
                OneCycle(1.0, s.epochs * self._steps, s.warmup).at(k) for k in range(s.epochs * self._steps)
            ]
            for s in wanted
        }
        self._look_up()

    def _look_up(self) -> None:
        """What each head that still trains has of its own, stacked."""
        mine = [self._wanted[place] for place in self.places]
        device = self._device
        tables, weights = [], []
        every = torch.arange(self._classes, device=device)
        for s in mine:
            w = torch.ones(self._classes, device=device)
            if s.balance == "weights":
                w = class_weights(self._rows.labels, self._classes, s.class_weight_power).to(device)
            tables.append(SmoothedCrossEntropy(w, s.label_smoothing).targets(every)[0])
            weights.append(w)
        self._tables, self._weights = torch.stack(tables), torch.stack(weights)  # (M, C, C), (M, C)
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
        # A dropped unit is one in 256 parts on a CPU, as in mmsent.training.train.
        rate = [min(255, round(256 * s.dropout)) / 256 if device.type == "cpu" else s.dropout for s in mine]
        self._gain = torch.tensor([1 / (1 - p) for p in rate], device=device)[:, None, None]
        self._decay = torch.tensor([s.weight_decay for s in mine], device=device)
        self._peaks = torch.tensor([s.lr for s in mine], dtype=torch.float64)

    def _scaled(self, half: str, x: Tensor) -> Tensor:
        """Features (M, n, D) as each head takes them."""
        if self._any_rms:
            flat = unit_rms(x.flatten(0, 1)).view(x.shape)
            x = flat if self._all_rms else torch.where(self._rms[:, None, None], flat, x)
        return (x - self._means[half]) / self._stds[half]

    def one_epoch(self) -> None:
        """One pass over the rows."""
        draws = [self._dice[place].epoch() for place in self.places]
        order = torch.stack([d.order for d in draws])  # (M, N)
        places = self._rows.places if isinstance(self._rows, Picked) else None
        views = self._rows.image.shape[1]
        pictures = self._rows.image.flatten(0, 1)
        rows = order if places is None else places[order]
        shown = rows * views
        for at, d in enumerate(draws):
            if d.view is not None:
                shown[at] += d.view[d.order]
        labels = self._rows.labels[order]
        kept = torch.stack([d.kept for d in draws if d.kept is not None]) if draws[0].kept is not None else None
        missing = None
        if any(d.missing is not None for d in draws):
            none = torch.zeros(order.shape[1], 2, dtype=torch.bool, device=self._device)
            missing = torch.stack([none if d.missing is None else d.missing for d in draws])
        self._epoch += 1
        total = torch.zeros(len(draws), device=self._device)
        size = self._wanted[0].batch_size
        for start in range(0, order.shape[1], size):
            part = slice(start, start + size)
            batch = (len(draws), -1)
            image = pictures.index_select(0, shown[:, part].flatten()).view(*batch, pictures.shape[1])
            text = self._rows.text.index_select(0, rows[:, part].flatten()).view(*batch, self._rows.text.shape[1])
            image, text = self._scaled("image", image), self._scaled("text", text)
            if missing is not None:
                image = torch.where(missing[:, part, :1], self._fills["image"], image)
                text = torch.where(missing[:, part, 1:], self._fills["text"], text)
            factors = kept[:, part] * self._gain if kept is not None else None
            losses = self._update(image, text, factors, labels[:, part])
            total += losses * labels[:, part].shape[1]
        for place, loss in zip(self.places, (total / order.shape[1]).tolist(), strict=True):
            self._history[place].append({"epoch": self._epoch, "train_loss": loss})

    def _update(self, image: Tensor, text: Tensor, factors: Tensor | None, labels: Tensor) -> Tensor:
        """One step of all heads; their losses (M,)."""
        member = torch.arange(len(labels), device=self._device)[:, None]
        targets, totals = self._tables[member, labels], self._weights[member, labels].sum(dim=1)  # (M, B, C), (M,)
        logits = self._logits(self._now, image, text, factors)
        losses = -(targets * logits.log_softmax(dim=2)).sum(dim=(1, 2)) / totals
        slopes = torch.autograd.grad(losses.sum(), list(self._now.values()))
        self._adamw(slopes)
        self._step += 1
        return losses.detach()

    def _logits(self, weights: dict[str, Tensor], image: Tensor, text: Tensor, factors: Tensor | None) -> Tensor:
        """(M, B, C) of features (M, B, D)."""

        def one(own: dict[str, Tensor], image: Tensor, text: Tensor, factors: Tensor | None) -> Tensor:
            out: Tensor = functional_call(self._base, own, (image, text, factors))
            return out

        with sdpa_kernel(SDPBackend.MATH):  # of two tokens; the fused kernels cannot all be stacked
            out: Tensor = vmap(one, in_dims=(0, 0, 0, None if factors is None else 0))(weights, image, text, factors)
        return out

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
            own = {name: p.detach()[which] for name, p in self._now.items()}

            def one(own: dict[str, Tensor], image: Tensor = image, text: Tensor = text) -> Tensor:
                logits: Tensor = functional_call(self._base, own, (image, text, None))
                return logits

            with sdpa_kernel(SDPBackend.MATH):
                found = vmap(one)(own)
            for at, logits in zip(which, found, strict=True):
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
            weights = {name.removeprefix("head."): p[place] for name, p in self._best_weights.items()}
            head.load_state_dict(head.state_dict() | weights)
            found.append(Trained(head.eval(), self._history[place], best[1], best[2], seconds))
        return found
