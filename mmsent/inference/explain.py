"""Why a head gives a post its label: the target's logit is traced back through the head into the frozen encoders.

Image: Grad-CAM (Selvaraju et al. 2017) at several layers, and occlusion (Zeiler and Fergus 2014). Text, word by word:
Grad-CAM at the token embedding, integrated gradients (Sundararajan et al. 2017), and occlusion. Modality: what the
logit loses when a half gives way to the training rows' mean. Occlusion needs no gradient, so it is the measure the
others are held to.

Everything is in units of the target's logit, in fp32, on the clean view of the image. Grad-CAM alone can be of the loss
instead, as in the coursework report; it is then in units of the target's log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsent.config import Fusion
from mmsent.data.images import Pixels, open_rgb, read_image
from mmsent.data.preprocess import fit_square
from mmsent.data.text import clean_text
from mmsent.encoders.base import Encoders
from mmsent.encoders.common import scaled
from mmsent.encoders.explainable import ExplainableImageEncoder, ExplainableTextEncoder, Layer, Tokens, captured
from mmsent.errors import EncoderError, RunError, UsageError
from mmsent.features.new_posts import NewPost
from mmsent.inference.attribution import (
    METHODS,
    CamMap,
    CamOf,
    Explanation,
    Map,
    Modality,
    PictureExplanation,
    TextExplanation,
    WordScore,
)
from mmsent.inference.logits import head_probabilities, served
from mmsent.inference.predict import encode_posts, require_encoders
from mmsent.inference.tuned import baked, features_for
from mmsent.system.memory import Halving
from mmsent.training.runs import Run

__all__ = [
    "LAYERS",
    "METHODS",
    "CamMap",
    "Explanation",
    "Modality",
    "PictureExplanation",
    "TextExplanation",
    "WordScore",
    "explain",
    "grad_cam",
    "spearman",
]

HALVES = ("image", "text")
LAYERS = ("first", "middle", "late")
STEPS = 32  # of the integral
BATCH = 32  # token rows a forward pass


class _Chain:
    """One post through encoders, scaling and head. image (1, D_image) and text (1, D_text) are its scaled features;
    gone (1, 2) says which half is missing. The head works on the CPU, wherever the encoders do."""

    def __init__(self, run: Run, encoders: Encoders, pixels: Pixels | None, text: str | None) -> None:
        # isinstance, for an encoder from elsewhere may have `encode` alone
        if not isinstance(encoders.image, ExplainableImageEncoder):
            raise EncoderError(
                f"{encoders.image.card.name} cannot be differentiated, so its labels cannot be explained"
            )
        if not isinstance(encoders.text, ExplainableTextEncoder):
            raise EncoderError(f"{encoders.text.card.name} cannot be differentiated, so its labels cannot be explained")
        self.image_encoder: ExplainableImageEncoder = encoders.image
        self.text_encoder: ExplainableTextEncoder = encoders.text
        self.normalize = run.encoder_settings.normalize
        self.head = run.head().requires_grad_(False)
        self.gone = torch.tensor([[pixels is None, text is None]])
        self.image = torch.zeros(1, self.head.config.image_width, dtype=torch.float32)
        self.text = torch.zeros(1, self.head.config.text_width, dtype=torch.float32)
        self.tokens = Tokens((), (), (), 0, False)
        self.cam_of: CamOf = "logit"
        with torch.no_grad():
            if pixels is not None:
                self.x = self.image_encoder.prepared(pixels[None])
                self.image = self.of_picture(self.x)
            if text is not None:
                self.tokens = self.text_encoder.tokenize(text)
                self.text = self.of_ids(*self.text_encoder.batch([self.tokens.ids]))

    def of_picture(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, size, size) to features (B, D_image) as the head takes them."""
        return self._scaled(self.image_encoder.features(x))

    def of_ids(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask (B, L) to features (B, D_text) as the head takes them."""
        return self._scaled(self.text_encoder.features_of(ids, mask))

    def _scaled(self, features: Tensor) -> Tensor:  # batches.scaled, with a graph
        return scaled(features.float().cpu(), self.normalize)

    def objective(self, logits: Tensor, goal: int) -> Tensor:
        """What Grad-CAM differentiates, of logits (1, C): the target's logit, or minus the cross-entropy with it."""
        return logits[0, goal] if self.cam_of == "logit" else logits.log_softmax(dim=1)[0, goal]

    def logits(self, image: Tensor | None = None, text: Tensor | None = None, gone: Tensor | None = None) -> Tensor:
        """(B, C) for features that replace the post's own, or for other missing halves."""
        image, text = self.image if image is None else image, self.text if text is None else text
        n = max(len(image), len(text))
        gone = (self.gone if gone is None else gone).expand(n, 2)
        out: Tensor = self.head(image.expand(n, -1), text.expand(n, -1), gone if bool(gone.any()) else None)
        return out


@torch.inference_mode(False)
@torch.enable_grad()
def explain(
    run: Run,
    encoders: Encoders,
    post: NewPost,
    *,
    target: str | None = None,
    layers: Sequence[str] = LAYERS,
    stand_in: bool = False,
    occlude: bool = True,
    cam_of: CamOf = "logit",
) -> Explanation:
    """Explain the label that a run's head gives a post. target: the label whose logit is explained; None: the predicted
    one. layers: where Grad-CAM looks: first, middle, late (the last layer that the embedding still depends on place by
    place), or a layer's name. stand_in: use the mean of the training rows for a missing half even where the head was
    not trained for such posts; `problem` then says so. occlude: cover the picture place by place too, which takes most
    of the time; without it Grad-CAM stands unchecked. cam_of: whether Grad-CAM is of the target's logit, or of the
    cross-entropy with the target: then what lowers the loss supports it, also by lowering the other labels' logits.

    Raises RunError where the head cannot label the post or takes other features, UsageError on an unknown target or
    layer, EncoderError where an encoder has no differentiable path.
    """
    labels = run.labels
    if target is not None and target not in labels:
        raise UsageError(f"--target {target!r}: run {run.name} has the labels {', '.join(labels)}")
    if isinstance(encoders.image, ExplainableImageEncoder):  # else _Chain says what is wrong with it
        known = [layer.name for layer in encoders.image.layers()]
        if unknown := [name for name in layers if name not in {*LAYERS, *known}]:
            raise UsageError(f"--layer {unknown[0]!r}: choose from {', '.join([*LAYERS, *known])}")
    require_encoders(encoders, run, run.encoder_settings.normalize)
    run, encoders = baked(run, encoders)
    image, text, missing, problems = encode_posts([post], encoders, [run], run.encoder_settings.normalize)
    problem = problems[0]
    if not served(run, missing)[0]:
        if not stand_in or run.fusion in {Fusion.image, Fusion.text} or missing[0].all():
            one = {Fusion.image: "an image", Fusion.text: "a text"}.get(run.fusion)
            way = (
                f"give {one}"
                if one
                else "give both image and text, or explain a head that was fitted with --modality-dropout"
            )
            raise RunError(f"{post.id}: {problem}; the {run.fusion} head of run {run.name} cannot label it: {way}")
        problem += "; the mean of the training rows is used instead, which this head was not trained for"
    pixels = None
    if not missing[0, 0]:
        pixels = np.array(fit_square(open_rgb(read_image(post.image)), encoders.image.card.preprocess))
    words = None
    if post.text is not None and not missing[0, 1]:
        words = clean_text(post.text.strip(), run.data_settings.clean)
    chain = _Chain(run, encoders, pixels, words)
    probabilities = head_probabilities(run, image, text, missing)[0]
    label = labels[int(probabilities.argmax())]
    goal = labels.index(target or label)
    with torch.no_grad():
        logits = chain.logits()
        encoded = chain.logits(*map(torch.from_numpy, features_for(run, image, text)))
        losses = [logits[0, goal] - chain.logits(gone=chain.gone | half)[0, goal] for half in torch.eye(2).bool()]
    chain.cam_of = cam_of
    reads = {half: run.fusion not in {Fusion.image, Fusion.text} or run.fusion.value == half for half in HALVES}
    of_image, of_text = (float(loss) for loss in losses)
    return Explanation(
        id=post.id,
        run=run.name,
        fusion=run.fusion.value,
        label=label,
        target=labels[goal],
        logit=float(logits[0, goal]),
        probabilities={name: float(p) for name, p in zip(labels, probabilities, strict=True)},
        temperature=run.temperature if run.calibrated else None,
        difference=float((logits.softmax(dim=1) - encoded.softmax(dim=1)).abs().max()),
        modality=Modality(of_image, of_text),
        picture=None
        if pixels is None or not reads["image"]
        else _explain_picture(chain, goal, pixels, layers, occlude),
        text=_explain_text(chain, goal, words, chain.tokens) if words is not None and reads["text"] else None,
        problem=problem,
        missing=tuple(half for half, gone in zip(("picture", "text"), missing[0].tolist(), strict=True) if gone),
        cam_of=cam_of,
    )


def _explain_picture(
    chain: _Chain, goal: int, pixels: Pixels, wanted: Sequence[str], occlude: bool
) -> PictureExplanation:
    side = len(pixels)
    window = max(1, round(side / 7))
    stride = max(1, window // 2)
    losses = _occluded(chain, goal, window, stride) if occlude else None

    def on_grid(h: int, w: int) -> Map | None:
        if losses is None:
            return None
        pooled: Map = torch.nn.functional.adaptive_avg_pool2d(losses, (h, w))[0].numpy()
        return pooled

    layers = chain.image_encoder.layers()
    with captured({layer.name: layer.module for layer in layers}) as outputs:
        goal_value = chain.objective(chain.logits(image=chain.of_picture(chain.x)), goal)
    gradients = torch.autograd.grad(goal_value, [outputs[layer.name] for layer in layers], allow_unused=True)
    found = []
    for layer, slope in _chosen(layers, gradients, wanted):
        values = grad_cam(layer.map_of(outputs[layer.name]), layer.map_of(slope))
        maximum = float(values.max())
        shares = values / maximum if maximum > 0 else values
        truth = on_grid(*layer.grid)
        found.append(CamMap(layer.name, shares, maximum, spearman(shares, truth) if truth is not None else None))
    cells = -(-side // stride)
    return PictureExplanation(pixels, tuple(found), on_grid(cells, cells), window, stride)


def _occluded(chain: _Chain, goal: int, window: int, stride: int) -> Tensor:
    """(1, side, side): the mean loss of logit where a window of the mean colour covers a place."""
    from captum.attr import Occlusion

    occlusion = Occlusion(lambda x: chain.logits(image=chain.of_picture(x))[:, goal])

    def covered(size: int) -> Tensor:
        with torch.no_grad():
            losses: Tensor = occlusion.attribute(  # (1, 3, side, side), the three channels alike; 0 is the mean colour
                chain.x,
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                baselines=0,
                perturbations_per_eval=size,
            )
        return losses[0, :1].float().cpu()

    fit = Halving(
        lambda: EncoderError("the device's memory cannot hold what explains one image; free some, or use --device cpu")
    )
    return fit(covered, chain.image_encoder.batch_size)


def grad_cam(activation: Tensor, gradient: Tensor) -> Map:
    """Selvaraju et al. (2017), equations 1 and 2: both (1, C, h, w) to (h, w), not scaled."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    found: Map = (weights * activation).sum(dim=1)[0].relu().detach().float().cpu().numpy()
    return found


def _chosen(
    layers: Sequence[Layer], gradients: Sequence[Tensor | None], wanted: Sequence[str]
) -> list[tuple[Layer, Tensor]]:
    """The layers asked for, in forward order, with their gradients. A transformer that is pooled at its class token
    has no gradient at the last block's patches, so `late` is the last layer that has one."""
    slopes = {layer.name: slope for layer, slope in zip(layers, gradients, strict=True)}
    alive = [i for i, la in enumerate(layers) if (s := slopes[la.name]) is not None and bool(la.map_of(s).any())]
    late = alive[-1] if alive else len(layers) - 1
    places = {"first": 0, "middle": (late + 1) // 2, "late": late} | {la.name: i for i, la in enumerate(layers)}
    found = []
    for i in sorted({places[name] for name in wanted}):
        slope = slopes[layers[i].name]
        if slope is None:
            raise UsageError(f"--layer {layers[i].name}: the embedding does not depend on it")
        found.append((layers[i], slope))
    return found


def _explain_text(chain: _Chain, goal: int, text: str, tokens: Tokens) -> TextExplanation:
    from captum.attr import LayerIntegratedGradients

    def logit_of(ids: Tensor, mask: Tensor) -> Tensor:
        return chain.logits(text=chain.of_ids(ids, mask))[:, goal]

    encoder = chain.text_encoder
    table = encoder.embedding()
    ids, mask = encoder.batch([tokens.ids])
    with captured({"tokens": table}) as outputs:
        logits = chain.logits(text=chain.of_ids(ids, mask))
    logit = logits[0, goal]
    (cam_slope,) = torch.autograd.grad(chain.objective(logits, goal), [outputs["tokens"]], retain_graph=True)
    (slope,) = torch.autograd.grad(logit, [outputs["tokens"]])
    whole = float(logit.detach())
    activations = outputs["tokens"].detach()[0].float().cpu()  # (L, C)
    slopes = slope[0].float().cpu()
    products = slopes * activations
    cam = (cam_slope[0].float().cpu().mean(dim=0) * activations).sum(dim=1)  # (L,)
    baseline, _ = encoder.batch(
        [[i if kept else tokens.pad for i, kept in zip(tokens.ids, tokens.special, strict=True)]]
    )
    integral = LayerIntegratedGradients(logit_of, table).attribute(
        ids,
        baselines=baseline,
        additional_forward_args=(mask,),
        n_steps=STEPS,
        internal_batch_size=BATCH,
    )
    summed = integral.detach()[0].sum(dim=-1).float().cpu()  # (L,)
    with torch.no_grad():
        # Captum's own delta would encode the baseline's ids, and CLIP pools where the ids say that the text ends.
        nothing = table(baseline)
        handle = table.register_forward_hook(lambda *_: nothing)
        try:
            start = float(logit_of(ids, mask)[0])
        finally:
            handle.remove()
    rows = [[i for place, i in enumerate(tokens.ids) if place not in word.positions] for word in tokens.words]
    without: list[float] = []
    with torch.no_grad():
        for i in range(0, len(rows), BATCH):
            without += logit_of(*encoder.batch(rows[i : i + BATCH])).tolist()
    scores = []
    for word, left in zip(tokens.words, without, strict=True):
        at = list(word.positions)
        own = products[at]
        here = float(cam[at].sum()), float(own.sum()), float(own.norm()), float(summed[at].sum())
        scores.append(WordScore(word.text, *here, whole - left))
    truth = [s.occlusion for s in scores]
    correlations = {
        name: spearman([getattr(s, name) for s in scores], truth) for name in ("grad_cam", "gradient", "integrated")
    }
    return TextExplanation(
        text, tuple(scores), correlations, float(summed.sum()) - (whole - start), len(tokens.ids), tokens.cut
    )


def spearman(a: Any, b: Any) -> float | None:
    """Spearman's rank correlation of two arrays of one shape; None where either is constant or holds one value."""
    from scipy.stats import spearmanr

    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)
