"""`mmsent correct`: labels that people gave, into a data set's list."""

from __future__ import annotations

import json as _json
from pathlib import Path
from typing import Annotated

import typer

from mmsent.cli.options import RUN, Data, Json
from mmsent.cli.output import echo, echo_json
from mmsent.cli.workspace import DATA
from mmsent.config import DataSettings
from mmsent.errors import DataError
from mmsent.evaluation.agreement import Agreement, agreement, majority


def correct(
    files: Annotated[
        list[Path], typer.Argument(metavar="LABELS", help="Files of labels that a page saved.", show_default=False)
    ],
    how: DataSettings,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write.", show_default="corrected- and the list's name", rich_help_panel=RUN
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a data set's list with the labels that people gave.

    Reads the files that the page of an audit or a report saved, and writes the list or manifest with these labels and
    nothing else changed; the old one stays. Where several people labelled, says how far they agree (Cohen's and Fleiss'
    kappa) and takes the label that most of them gave; where there is none, the old one stays.
    """
    from mmsent.data.corrections import corrected_list
    from mmsent.data.dataset import load_dataset
    from mmsent.system.files import write_bytes

    people: dict[str, dict[str, str]] = {}
    for path in files:
        name, labels = _labels(path)
        people.setdefault(name, {}).update(labels)
    dataset = load_dataset(data or DATA, how)
    name, _, raw = corrected_list(dataset, majority(people))
    target = write_bytes(out or Path(f"corrected-{name}"), raw)
    before = {post.id: post.label for post in dataset.posts}
    changed = sum(label != before[name] for name, label in majority(people).items())
    found = agreement(people)
    if json:
        echo_json({"path": str(target), "changed": changed, **vars(found)})
        return
    if len(people) > 1:
        echo(_in_words(found))
    echo(
        f"{target}: {changed} labels changed; put it in the place of {name}, "
        "then run mmsent extract (it reads only the labels) and mmsent fit"
    )


def _labels(path: Path) -> tuple[str, dict[str, str]]:
    """Whose labels a file holds, and the labels by post id. Raises DataError where it is no such file."""
    try:
        given = _json.loads(path.read_text(encoding="utf-8"))
        labels = given["labels"]
        if not all(isinstance(one, str) for one in labels.values()):
            raise ValueError("a label is no text")
        return str(given["annotator"] or path.stem), labels
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no labels ({error!r}); name the labels.json that the page of an audit or a report saved"
        ) from error


def _in_words(found: Agreement) -> str:
    def number(kappa: float | None) -> str:
        return "no post in common" if kappa is None else f"{kappa:.2f}"

    pairs = ", ".join(f"{a} and {b} {number(kappa)}" for a, b, kappa in found.cohen)
    fleiss = f"; all, on {found.posts} posts, {number(found.fleiss)}" if len(found.people) > 2 else ""
    return f"{len(found.conflicts)} posts got several labels. Agreement (kappa): {pairs}{fleiss}"
