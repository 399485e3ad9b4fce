"""Small made-up data sets: the colour of a picture and the words of its text go with the label."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LABELS = ("negative", "neutral", "positive")
SHARES = (0.3, 0.2, 0.5)
COLOURS = {"negative": (40, 40, 120), "neutral": (120, 120, 120), "positive": (220, 180, 60)}
WORDS = {
    "negative": ("awful", "sad", "broken", "angry", "lost"),
    "neutral": ("station", "report", "monday", "table", "update"),
    "positive": ("lovely", "happy", "great", "sunny", "win"),
}


def make_rows(n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(label, text) of n posts. Labels in exact shares (rounded) and shuffled; all texts differ, none is ASCII."""
    cuts = [round(n * share) for share in SHARES[:2]]
    labels = ["negative"] * cuts[0] + ["neutral"] * cuts[1] + ["positive"] * (n - sum(cuts))
    rows = []
    for number, place in enumerate(rng.permutation(n)):
        label = labels[place]
        words = " ".join(rng.choice(WORDS[label], 3))
        rows.append((label, f"{words} … post {number} {rng.integers(10**6):06d}"))
    return rows


def make_picture(label: str, size: int, rng: np.random.Generator) -> Image.Image:
    """A noisy picture in the colour of the label; no two are alike."""
    noise = rng.normal(0, 25, (size, size, 3))
    return Image.fromarray((np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8))


def make_guid(
    path: Path,
    n_train: int = 40,
    n_test: int = 10,
    size: int = 48,
    seed: int = 0,
    encoding: str = "utf-8",
    test_labels: bool = False,
) -> Path:
    """A data set in the guid layout at `path` (made if absent). Ids count from 1, training rows first.

    test_labels: write the true labels into test_without_label.txt instead of the word null.
    """
    rng = np.random.default_rng(seed)
    (path / "data").mkdir(parents=True, exist_ok=True)
    number = 0
    for name, n in (("train.txt", n_train), ("test_without_label.txt", n_test)):
        lines = ["guid,tag"]
        for label, text in make_rows(n, rng):
            number += 1
            shown = label if name == "train.txt" or test_labels else "null"
            lines.append(f"{number},{shown}")
            (path / "data" / f"{number}.txt").write_bytes(text.encode(encoding))
            make_picture(label, size, rng).save(path / "data" / f"{number}.jpg")
        (path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_manifest(
    path: Path,
    ending: str = "csv",
    n_train: int = 40,
    n_test: int = 10,
    size: int = 48,
    seed: int = 0,
    encoding: str = "utf-8",
) -> Path:
    """The same as one manifest, `path`/posts.`ending`, with pictures in `path`/pictures. Returns the manifest.

    Columns: id ("post 1", ...), image, text, label (empty or null for test rows), and lang, which nothing reads.
    """
    rng = np.random.default_rng(seed)
    (path / "pictures").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for labelled, n in ((True, n_train), (False, n_test)):
        for label, text in make_rows(n, rng):
            image = f"pictures/{len(rows) + 1}.png"
            make_picture(label, size, rng).save(path / image)
            shown = label if labelled else None
            rows.append({"id": f"post {len(rows) + 1}", "image": image, "text": text, "label": shown, "lang": "en"})
    manifest = path / f"posts.{ending}"
    if ending == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), manifest)
    elif ending == "jsonl":
        manifest.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(encoding))
    else:
        with manifest.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return manifest
