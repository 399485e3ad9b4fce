"""`--abstain` and `--sets`, which vote, predict, serve and export share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmsent.cli.options import RUN
from mmsent.errors import UsageError

if TYPE_CHECKING:
    from mmsent.inference.abstain import Abstention
    from mmsent.training.runs import Run

Abstain = Annotated[
    float | None,
    typer.Option(
        "--abstain",
        metavar="<float>",
        help="Leave unsure posts to a person, so that on average at most this share of the other labels is wrong, such "
        "as 0.05. They get 'uncertain'.",
        show_default="every post gets a label",
        rich_help_panel=RUN,
    ),
]
Sets = Annotated[
    bool,
    typer.Option(
        "--sets",
        help="With --abstain: write all labels that can be the right one, joined by |, so that at most this share of "
        "posts lacks theirs.",
        rich_help_panel=RUN,
    ),
]


def abstention(
    chosen: Sequence[Run], level: float | None, *, sets: bool, tie: str | None, soft: bool
) -> Abstention | None:
    """What the options ask for, by the validation rows of the runs that vote, voting as they will. soft: whether they
    are averaged. None where they ask for nothing. Raises UsageError where they make no sense."""
    if level is None:
        if sets:
            raise UsageError("--sets goes with --abstain, which says how many posts may lack their label")
        return None
    from mmsent.inference.abstain import Abstention
    from mmsent.inference.held_out import held_out
    from mmsent.inference.tally import Way

    return Abstention.of(held_out(chosen), chosen[0].labels, Way.of(chosen[0].labels, tie, soft), level, sets=sets)
