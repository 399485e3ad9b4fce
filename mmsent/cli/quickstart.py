"""`mmsent quickstart`: the whole way on a small data set that is drawn, with no data and no network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import RUN, Json, Wide
from mmsent.cli.output import SCORES, echo, echo_json, echo_table, note, resumable
from mmsent.config import EncoderSettings, ExtractSettings, Fusion, SplitSettings, ViewSettings, fit_settings, settings
from mmsent.system.tables import columns

if TYPE_CHECKING:
    from mmsent.data.synthetic.posts import SyntheticDataset
    from mmsent.evaluation.evaluate import Evaluation
    from mmsent.inference.vote import Vote

ENCODER = "offline"
RECIPE = "small"


@resumable("what was encoded and fitted is kept")
def quickstart(
    folder: Annotated[Path, typer.Option("--folder", help="Where to work.", rich_help_panel=RUN)] = Path("quickstart"),
    posts: Annotated[
        int,
        typer.Option("--posts", metavar="<int>", min=60, help="Number of training posts to draw.", rich_help_panel=RUN),
    ] = 600,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="<int>", min=0, help="Seed of the drawing and of the heads.", rich_help_panel=RUN
        ),
    ] = 0,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """See everything work, with no data and no network.

    Draws a small data set of posts, encodes it with the offline encoders, trains all six heads, votes on the test posts
    and says what it did and where the results are. Reads nothing, writes into --folder.
    """
    if not json:
        note(f"drawing {posts} posts, encoding them, fitting six heads and voting; one to two minutes on two cores")
    done = run_quickstart(folder, n_train=posts, n_test=max(30, posts // 4), seed=seed)
    if json:
        echo_json(
            {
                "folder": str(folder),
                "best_accuracy": done.drawn.best_accuracy,
                "validation": [e.to_json() for e in done.validation],
                "test": done.test,
                "seconds": done.seconds,
                "predictions": str(done.out),
            }
        )
        return
    _tell(done, folder, posts, wide=wide)


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart did, and where it is. test: scores of the vote on the test posts."""

    drawn: SyntheticDataset
    cache: Path
    runs: list[Path]
    validation: list[Evaluation]
    vote: Vote
    out: Path
    test: dict[str, Any]
    seconds: dict[str, float]


def run_quickstart(folder: Path, *, n_train: int = 600, n_test: int = 150, seed: int = 0, views: int = 1) -> Quickstart:
    """Go the whole way in `folder` (data/, cache/, runs/, predictions.txt). Raises DataError on a foreign data/."""
    import numpy as np

    from mmsent.data.dataset import load_dataset
    from mmsent.data.synthetic.posts import write_dataset
    from mmsent.evaluation.evaluate import evaluate_validation
    from mmsent.features.extract import extract
    from mmsent.inference.vote import vote_split, voting_runs, write_vote
    from mmsent.metrics import scores
    from mmsent.training.fit import Training, fit

    seconds: dict[str, float] = {}
    clock = time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.monotonic()
        seconds[name] = round(now - clock, 1)
        clock = now

    drawn = write_dataset(folder / "data", n_train=n_train, n_test=n_test, seed=seed)
    lap("draw")
    dataset = load_dataset(folder / "data")
    cache = extract(
        dataset,
        ["train", "test"],
        folder / "cache",
        encoder=EncoderSettings(encoder=ENCODER),
        views=settings(ViewSettings, count=views),
        options=ExtractSettings(),
    ).cache
    lap("extract")
    wanted = [fit_settings(RECIPE, fusion=fusion, seed=seed) for fusion in Fusion]
    features = cache.load("train")
    runs = fit(
        cache, folder / "runs", wanted, settings(SplitSettings, val_size=0.2), Training(RECIPE), features=features
    )
    validation = evaluate_validation(runs, cache, features)
    lap("fit")
    vote = vote_split(voting_runs(folder / "runs", cache), cache, "test")
    out, _ = write_vote(vote, folder / "predictions.txt", dataset.forms["test"])
    labels = list(cache.labels)
    truth = np.array([labels.index(drawn.truth[row_id]) for row_id in vote.ids])
    found = scores(truth, np.array([labels.index(label) for label in vote.predicted]), len(labels))
    lap("vote")
    return Quickstart(drawn, cache.path, [r.path for r in runs], validation, vote, out, found, seconds)


def _tell(done: Quickstart, folder: Path, posts: int, *, wide: bool) -> None:
    from mmsent.evaluation.evaluate import comparison

    drawn, found = done.drawn, f"--cache {done.cache} --runs {folder / 'runs'}"
    echo(f"Next: mmsent serve {found} --data {folder / 'data'}", raw=True)
    echo("opens a page on which you can label posts of your own; `make demo` does the same.\n")
    echo(f"{posts} drawn posts to learn from, {len(drawn.truth)} to label. On average nobody can do better than")
    echo(
        f"{drawn.best_accuracy:.1%} accuracy here; from the image alone {drawn.best_accuracy_image:.1%}, "
        f"from the text alone {drawn.best_accuracy_text:.1%}.\n"
    )
    echo("Validation, six heads and their vote:")
    echo_table(comparison(done.validation, done.vote.labels), SCORES, wide=wide)
    echo(f"\nThe vote of concat, weighted and attention on the test posts: accuracy {done.test['accuracy']:.1%},")
    echo(f"weighted F1 {done.test['f1_weighted']:.3f}.\n")
    echo(
        columns(
            [
                ["posts", str(folder / "data"), "look at data/*.jpg and *.txt"],
                ["features", str(done.cache), f"mmsent cache info --cache {done.cache}"],
                ["heads", str(folder / "runs"), f"mmsent evaluate {found}"],
                ["labels", str(done.out), "one line per test post; probabilities in predictions.csv"],
                ["report", "report/", f"mmsent report {found}"],
            ]
        ),
        raw=True,
    )
    times = ", ".join(f"{name} {value} s" for name, value in done.seconds.items())
    echo(f"\n{times}. Try it on a post of your own:")
    image = folder / "data" / "data" / f"{done.vote.ids[0]}.jpg"
    echo(f'  mmsent predict {found} --text "What a day!" --image {image}', raw=True)
