"""The architecture of a head, drawn from the head itself (report, Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mmsent.config import Fusion
from mmsent.report.figures.style import (
    GREY,
    IMAGE_COLOUR,
    INK,
    ORANGE,
    SKY,
    TEXT_COLOUR,
    in_style,
    label_text,
    new_figure,
    printable,
)

if TYPE_CHECKING:
    from torch import nn

    from mmsent.encoders.base import Card
    from mmsent.training.heads import Head


MOST, LINE = 14, 0.105  # labels in the last box; the height of a line in one


@dataclass(frozen=True)
class Block:
    """One box: its title, lines of detail, and how many parameters it trains."""

    title: str
    details: tuple[str, ...] = ()
    parameters: int = 0


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def fusion_block(head: Head) -> Block:
    """The fusion of a head as a box, from its own modules."""
    config = head.config
    wide = f"{config.fused_width}-d"
    match config.fusion:
        case Fusion.concat:
            return Block("concatenate", (f"{config.image_width} + {config.text_width}", f"= {wide}"))
        case Fusion.weighted:
            a, b = head.weight_logits.detach().softmax(dim=0).tolist()
            weights = (f"{a:.3f} × image", f"+ {b:.3f} × text")
            return Block("weighted sum", (*weights, wide), head.weight_logits.numel())
        case Fusion.attention | Fusion.attention_alt:
            heads = (f"{head.attention.num_heads} heads, 2 tokens",)
            return Block("self-attention", (*heads, f"mean, {wide}"), _count(head.attention))
        case Fusion.image:
            return Block("image only", (wide,))
        case _:
            return Block("text only", (wide,))


def classifier_blocks(head: Head) -> list[Block]:
    """The classifier's layers as boxes, in order."""

    def linear(layer: nn.Linear) -> Block:
        return Block("linear", (f"{layer.in_features} → {layer.out_features}",), _count(layer))

    if head.config.fusion is Fusion.attention_alt:
        return [linear(head.out)]
    blocks = []
    for layer, norm in head.hidden_layers:
        blocks += [linear(layer), Block("norm + GELU", ("LayerNorm",), _count(norm))]
        blocks.append(Block("dropout", (f"p = {head.drop.p:g}",)))
    return [*blocks, linear(head.out)]


def _preparation(head: Head, half: str) -> list[Block]:
    config, found = head.config, []
    steps = [name for name, on in (("unit RMS", config.rms), ("standardise", config.standardize)) if on]
    if steps:
        found.append(Block(" + ".join(steps), ("per row" if steps == ["unit RMS"] else "training rows",)))
    if config.projects:
        layer = head.project_image if half == "image" else head.project_text
        found.append(Block("linear", (f"{layer.in_features} → {layer.out_features}",), _count(layer)))
    return found


@in_style
def architecture_figure(head: Head, image: Card, text: Card, labels: Sequence[str], name: str) -> Figure:
    """Figure 1: from image and text to the classes; frozen boxes are grey, trained ones coloured with their number of
    parameters."""
    half = {"image": _preparation(head, "image"), "text": _preparation(head, "text")}
    after = [fusion_block(head), *classifier_blocks(head)]
    used = {
        "image": head.config.fusion is not Fusion.text,
        "text": head.config.fusion is not Fusion.image,
    }
    lanes = 2 + max(len(half["image"]), len(half["text"]))
    columns = lanes + len(after) + 1
    fig = new_figure(1.42 * columns, 3.6)
    ax = fig.subplots()
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(-1.15, 1.3)
    ax.axis("off")
    width = 0.84

    def box(x: float, y: float, block: Block, colour: str, *, frozen: bool = False, dim: bool = False) -> None:
        alpha = 0.3 if dim else 1.0
        lines = [*block.details, *([f"{block.parameters:,} param."] if block.parameters else [])]
        height = max(0.72, 0.42 + LINE * len(lines))
        patch = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.06",
            facecolor="#EDEDED" if frozen else _tint(colour),
            edgecolor=GREY if frozen else colour,
            linestyle="--" if frozen else "-",
            lw=1.3,
            alpha=alpha,
        )
        ax.add_patch(patch)
        ax.text(
            x, y + height / 2 - 0.16, block.title, ha="center", va="center", fontsize=8.5, weight="bold", alpha=alpha
        )
        ax.text(x, y - 0.1, "\n".join(lines), ha="center", va="center", fontsize=7.6, alpha=alpha, linespacing=1.35)

    def arrow(x0: float, y0: float, x1: float, y1: float, *, dim: bool = False) -> None:
        style = {"arrowstyle": "-|>", "color": INK, "lw": 1, "alpha": 0.25 if dim else 1, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x1 - width / 2 - 0.02, y1), (x0 + width / 2 + 0.02, y0), arrowprops=style)

    for side, card, y, colour in (("image", image, 0.62, IMAGE_COLOUR), ("text", text, -0.62, TEXT_COLOUR)):
        dim = not used[side]
        what = "image" if side == "image" else "text"
        size = getattr(getattr(card, "preprocess", None), "size", None)
        shape = f"{size} × {size} RGB" if size else f"≤ {getattr(card, 'max_tokens', 0)} tokens"
        box(0, y, Block(what, (shape,)), colour, dim=dim)
        encoder = Block(f"{what} encoder", (_short(card.name), f"{card.width}-d, frozen"))
        box(1, y, encoder, colour, frozen=True, dim=dim)
        arrow(0, y, 1, y, dim=dim)
        at = 1
        for block in half[side]:
            box(at + 1, y, block, colour if block.parameters else GREY, frozen=not block.parameters, dim=dim)
            arrow(at, y, at + 1, y, dim=dim)
            at += 1
        arrow(at, y, lanes, 0.12 if side == "image" else -0.12, dim=dim)
    for i, block in enumerate(after):
        colour = ORANGE if i == 0 else SKY
        box(lanes + i, 0, block, colour if block.parameters or i == 0 else GREY, frozen=not block.parameters and i > 0)
        arrow(lanes + i, 0, lanes + i + 1, 0)
    shown = [label_text(label, 14) for label in labels[: MOST - 1 if len(labels) > MOST else MOST]]
    rest = [f"and {len(labels) - len(shown)} more"] if len(labels) > len(shown) else []
    box(columns - 1, 0, Block(f"{len(labels)} classes", (*shown, *rest)), INK)
    trained = _count(head)
    ax.text(
        (columns - 1) / 2,
        -1.12,
        f"{trained:,} trained parameters; dashed grey boxes are frozen or have none",
        ha="center",
        va="bottom",
        fontsize=9,
    )
    fig.suptitle(f"Architecture of {label_text(name)}")
    return fig


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 20 else name[:19] + "…"


def _tint(colour: str) -> tuple[float, float, float]:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.82 + 0.18 * r, 0.82 + 0.18 * g, 0.82 + 0.18 * b
