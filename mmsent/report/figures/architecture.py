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
    WIDE,
    in_style,
    label_text,
    new_figure,
    printable,
)
from mmsent.report.language import say

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
            return Block(say("concatenate"), (f"{config.image_width} + {config.text_width}", f"= {wide}"))
        case Fusion.weighted:
            a, b = head.weight_logits.detach().softmax(dim=0).tolist()
            weights = (f"{a:.3f} × {say('image')}", f"+ {b:.3f} × {say('text')}")
            return Block(say("weighted sum"), (*weights, wide), head.weight_logits.numel())
        case Fusion.attention | Fusion.attention_alt:
            heads = (say("{n} heads, 2 tokens", n=head.attention.num_heads),)
            return Block(say("self-attention"), (*heads, say("mean, {wide}", wide=wide)), _count(head.attention))
        case Fusion.image:
            return Block(say("image only"), (wide,))
        case _:
            return Block(say("text only"), (wide,))


def classifier_blocks(head: Head) -> list[Block]:
    """The classifier's layers as boxes, in order."""

    def linear(layer: nn.Linear) -> Block:
        return Block(say("linear"), (f"{layer.in_features} → {layer.out_features}",), _count(layer))

    if head.config.fusion is Fusion.attention_alt:
        return [linear(head.out)]
    blocks = [
        Block(
            say("hidden layer"),
            (f"{layer.in_features} → {layer.out_features}", "LayerNorm, GELU", say("dropout {p:g}", p=head.drop.p)),
            _count(layer, norm),
        )
        for layer, norm in head.hidden_layers
    ]
    return [*blocks, linear(head.out)]


def _preparation(head: Head, half: str) -> tuple[list[str], list[Block]]:
    """What is done to the embeddings of a half: lines on what learns nothing, and boxes for what learns."""
    config = head.config
    steps = [say(name) for name, on in (("unit RMS", config.rms), ("standardise", config.standardize)) if on]
    found = []
    if config.projects:
        layer = head.project_image if half == "image" else head.project_text
        found.append(Block(say("linear"), (f"{layer.in_features} → {layer.out_features}",), _count(layer)))
    return steps, found


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
    lanes = 2 + max(len(boxes) for _, boxes in half.values())
    columns = lanes + len(after) + 1
    fig = new_figure(WIDE, 3.6)
    ax = fig.subplots()
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(-1.35, 1.25)
    ax.axis("off")
    width = 0.86

    def box(x: float, y: float, block: Block, colour: str, *, frozen: bool = False, dim: bool = False) -> None:
        alpha = 0.3 if dim else 1.0
        lines = [*block.details, *([say("{n:,} param.", n=block.parameters)] if block.parameters else [])]
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
        ax.text(x, y + height / 2 - 0.16, block.title, ha="center", va="center", fontsize=9, weight="bold", alpha=alpha)
        ax.text(x, y - 0.1, "\n".join(lines), ha="center", va="center", fontsize=8, alpha=alpha, linespacing=1.35)

    def arrow(x0: float, y0: float, x1: float, y1: float, *, dim: bool = False) -> None:
        style = {"arrowstyle": "-|>", "color": INK, "lw": 1, "alpha": 0.25 if dim else 1, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x1 - width / 2 - 0.02, y1), (x0 + width / 2 + 0.02, y0), arrowprops=style)

    for side, card, y, colour in (("image", image, 0.62, IMAGE_COLOUR), ("text", text, -0.62, TEXT_COLOUR)):
        dim = not used[side]
        what = say("image") if side == "image" else say("text")
        size = getattr(getattr(card, "preprocess", None), "size", None)
        shape = f"{size} × {size} RGB" if size else say("≤ {n} tokens", n=getattr(card, "max_tokens", 0))
        box(0, y, Block(what, (shape,)), colour, dim=dim)
        encoder = Block(
            say("{what} encoder", what=what), (_short(card.name), say("{n}-d, frozen", n=card.width), *half[side][0])
        )
        box(1, y, encoder, colour, frozen=True, dim=dim)
        arrow(0, y, 1, y, dim=dim)
        at = 1
        for block in half[side][1]:
            box(at + 1, y, block, colour, dim=dim)
            arrow(at, y, at + 1, y, dim=dim)
            at += 1
        arrow(at, y, lanes, 0.12 if side == "image" else -0.12, dim=dim)
    for i, block in enumerate(after):
        colour = ORANGE if i == 0 else SKY
        box(lanes + i, 0, block, colour if block.parameters or i == 0 else GREY, frozen=not block.parameters and i > 0)
        arrow(lanes + i, 0, lanes + i + 1, 0)
    shown = [label_text(label, 14) for label in labels[: MOST - 1 if len(labels) > MOST else MOST]]
    rest = [say("and {n} more", n=len(labels) - len(shown))] if len(labels) > len(shown) else []
    box(columns - 1, 0, Block(say("{n} classes", n=len(labels)), (*shown, *rest)), INK)
    trained = _count(head)
    ax.text(
        (columns - 1) / 2,
        -1.32,
        say("{n:,} trained parameters; dashed grey boxes are frozen or have none", n=trained),
        ha="center",
        va="bottom",
        fontsize=9,
    )
    fig.suptitle(say("Architecture of {name}", name=label_text(name)))
    return fig


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 17 else name[:16] + "…"


def _tint(colour: str) -> tuple[float, float, float]:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.82 + 0.18 * r, 0.82 + 0.18 * g, 0.82 + 0.18 * b
