"""`mmsent compare`: two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import RUN, Json, Only, Wide
from mmsent.cli.output import Layout, echo, echo_json, echo_table, note
from mmsent.cli.workspace import Workspace
from mmsent.errors import DataError, MmsentError, UsageError

if TYPE_CHECKING:
    from mmsent.evaluation.compare import Case, Comparison
    from mmsent.training.runs import Run

_SETTINGS = Layout(left=["setting", "a", "b"])
_CASES = Layout(left=["right", "id", "label", "a", "b", "text"], drop=["text"])
TEXT = 60  # characters of a text in the table


def compare(
    where: Annotated[Workspace, Only("data", "cache_at", "encoder", "runs_at")],
    a: Annotated[str, typer.Argument(metavar="A", help="A run, by name or path.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    top: Annotated[
        int, typer.Option("--top", metavar="<int>", min=0, help="Posts to print of each run.", rich_help_panel=RUN)
    ] = 10,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Compare two runs: settings, scores, and the posts that only one of them has right.

    Reads what the runs keep of their validation posts, and the posts' texts where they are at hand. Prints the settings
    that differ, the gap of the scores with its 95% bootstrap interval over the posts that both validated on, and
    McNemar's exact test. Writes nothing. `mmsent serve A B` shows the same posts with their images at /compare.
    """
    from mmsent.evaluation.compare import compare_runs

    one, other = _single(where, a), _single(where, b)
    found = compare_runs(one, other)
    texts = _texts(where, found, len(found.only_a) + len(found.only_b) if json else top)
    if json:
        told = found.to_json()
        for side in ("only_a", "only_b"):
            told[side] = [case | {"text": texts.get(case["id"])} for case in told[side]]
        echo_json(told)
        return
    _tell(found, texts, top, wide=wide)


def _single(where: Workspace, name: str) -> Run:
    runs = where.named_runs([name])
    if len(runs) != 1:
        raise UsageError(f"{name} holds {len(runs)} runs; name one of {', '.join(run.name for run in runs[:9])}")
    return runs[0]


def _texts(where: Workspace, found: Comparison, most: int) -> dict[str, str]:
    """The texts of the posts that are shown; none where the data set is not at hand."""
    wanted = {case.id for case in [*found.only_a[:most], *found.only_b[:most]]}
    try:
        dataset, why = where.dataset_if_there() if wanted else (None, "")
    except MmsentError as error:
        if where.data is not None:
            raise
        dataset, why = None, str(error)
    if dataset is None:
        if why:
            note(f"texts are not shown: {why}")
        return {}
    texts = {}
    for post in dataset.posts:
        if post.id in wanted:
            try:
                texts[post.id] = dataset.text_of(post)
            except DataError:
                continue
    return texts


def _tell(found: Comparison, texts: dict[str, str], top: int, *, wide: bool) -> None:
    echo(f"a: {found.a}\nb: {found.b}")
    if found.settings:
        rows = [[one.name, _plain(one.a), _plain(one.b)] for one in found.settings]
        echo_table([["setting", "a", "b"], *rows], _SETTINGS, wide=wide)
    else:
        echo("no setting differs")
    echo("")
    scores = [["score", "a", "b", "b - a", "95% interval"]]
    for gap in found.gaps:
        numbers = [f"{gap.a:.3f}", f"{gap.b:.3f}", f"{gap.difference:+.3f}"]
        scores.append(
            [gap.measure.replace("_", " ").replace("f1", "F1"), *numbers, f"{gap.low:+.3f} to {gap.high:+.3f}"]
        )
    echo_table(scores, Layout(left=["score"]), wide=wide)
    others = f"; {found.others} posts that only one held out are left out" if found.others else ""
    echo(f"on the {found.rows} posts that both validated on{others}")
    n_a, n_b = len(found.only_a), len(found.only_b)
    p = f"{found.p_value:.4f}" if found.p_value >= 1e-4 else "<0.0001"
    beyond = "beyond chance" if found.p_value < 0.05 else "no more than chance explains"
    echo(f"only a is right on {n_a} posts, only b on {n_b}: McNemar's exact p = {p}, {beyond}")
    cases = [["right", "id", "label", "a", "b", "text"]]
    cases += [_row("a", case, texts) for case in found.only_a[:top]]
    cases += [_row("b", case, texts) for case in found.only_b[:top]]
    if len(cases) > 1:
        echo("")
        echo_table(cases, _CASES, wide=wide)


def _row(right: str, case: Case, texts: dict[str, str]) -> list[str]:
    text = " ".join(texts.get(case.id, "").split())
    return [right, case.id, case.label, case.a, case.b, text if len(text) <= TEXT else text[: TEXT - 1] + "…"]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        "–" if value is None or value == [] else ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"
    )
