"""How well the word scores of `mmsent explain` agree with occlusion: mean rank correlation over the first posts.

    python scripts/compare_explanations.py --data mvsa-single --posts 25

Takes the newest concat run of the data set's cache; the training rows' mean stands in for the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mmsent.cli.explain import newest_run
from mmsent.cli.workspace import Workspace
from mmsent.data.dataset import load_dataset
from mmsent.encoders.factory import open_encoders
from mmsent.features.new_posts import NewPost
from mmsent.inference.explain import explain
from mmsent.inference.predict import encoder_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--posts", type=int, default=25)
    parser.add_argument("--target", default="positive")
    given = parser.parse_args()
    run = newest_run(Workspace(given.data, given.cache, None, given.runs))
    encoders = open_encoders(encoder_settings([run], weights=None, device=None))
    dataset = load_dataset(given.data, run.data_settings)
    found: dict[str, list[float]] = {}
    for post in dataset.of("train")[: given.posts]:
        told = explain(run, encoders, NewPost(post.id, dataset.text_of(post), None), target=given.target, stand_in=True)
        for method, value in (told.text.correlations if told.text else {}).items():
            found.setdefault(method, []).extend([value] if value is not None else [])
    print(f"{run.name}: mean Spearman correlation with occlusion over {given.posts} texts, for {given.target}")
    for method, values in found.items():
        print(f"  {method:12} {np.mean(values):+.2f}  ({len(values)} texts where it is defined)")


if __name__ == "__main__":
    main()
