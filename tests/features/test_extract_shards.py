"""20,000 posts in 20 WebDataset shards: flat memory, a real kill, and the numbers of the same posts in a manifest."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsent.features.cache import Cache
from tests.helpers.made import LABELS, WORDS

SHARD, SHARDS = 1000, 20
N = SHARD * SHARDS
SIDE = 40  # 5 kB per image, 98 MB in all: memory that grows by what images take shows
KILLED_AT = 12_000
GROWTH = 20 << 20  # bytes for ten times the posts: 11 MB were seen; even their pixels at 16 x 16 would be 14 MB more


def posts() -> Iterator[tuple[str, bytes, str, str]]:
    """Ids, images, texts and labels; no two are alike."""
    rng = np.random.default_rng(0)
    for number in range(N):
        label = LABELS[number % 3]
        file = io.BytesIO()
        noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(file, "PNG", compress_level=0)
        yield f"{number:06d}", file.getvalue(), f"{' '.join(rng.choice(WORDS[label], 3))} {number}", label


def write(folder: Path) -> None:
    """The posts as shards in all/, the first tenth of them also in some/, and as a manifest, same.csv, with files."""
    (folder / "images").mkdir()
    (folder / "some").mkdir()
    (folder / "all").mkdir()
    rows = [["id", "image", "text", "label"]]
    found = posts()
    for shard in range(SHARDS):
        path = folder / "all" / f"train-{shard:06d}.tar"
        with tarfile.open(path, "w") as file:
            for _ in range(SHARD):
                key, image, text, label = next(found)
                for ending, raw in (("png", image), ("txt", text.encode()), ("cls", label.encode())):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(raw)
                    file.addfile(member, io.BytesIO(raw))
                (folder / "images" / f"{key}.png").write_bytes(image)
                rows.append([key, f"images/{key}.png", text, label])
        if shard < SHARDS // 10:
            (folder / "some" / path.name).hardlink_to(path)
    with (folder / "same.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows(rows)


def extract(folder: Path, data: str, kill_after: int = 0) -> tuple[int, dict[str, int]]:
    """The largest resident size in bytes, and the rows that were encoded, by split."""
    peak = folder / "peak"
    given = ["--data", str(folder / data), "--cache", str(folder / f"{data}-cache"), "--views", "0", "--json"]
    module = [sys.executable, "-m", "tests.helpers.fake_extract", str(peak), str(kill_after)]
    command = [*module, "extract", *given, "--batch-size", "64", "--workers", "2"]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if kill_after else 0), done.stderr
    encoded: dict[str, int] = {} if kill_after else json.loads(done.stdout)["encoded"]
    return int(peak.read_text()), encoded


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_thousand_posts_in_shards(tmp_path: Path) -> None:
    write(tmp_path)
    small, encoded = extract(tmp_path, "some")
    assert encoded == {"train": N // 10}

    until_killed, _ = extract(tmp_path, "all", KILLED_AT)
    assert not list((tmp_path / "all-cache").glob("*.h5"))
    resumed, encoded = extract(tmp_path, "all")
    assert N - KILLED_AT <= encoded["train"] < N - SHARD  # what was committed before the kill is not encoded again

    manifest, encoded = extract(tmp_path, "same.csv")
    assert encoded == {"train": N}
    for large in (until_killed, resumed, manifest):
        assert large - small < GROWTH

    one, other = (Cache.open(next((tmp_path / f"{data}-cache").glob("*.h5"))) for data in ("all", "same.csv"))
    index, same = one.index("train"), other.index("train")
    assert index.ids == same.ids == [f"{number:06d}" for number in range(N)]
    assert index.labels.tolist() == same.labels.tolist()
    assert index.good.all()
    rows = range(N)
    for mine, its in zip(one.embeddings("train", rows), other.embeddings("train", rows), strict=True):
        assert mine.any()
        assert mine.tobytes() == its.tobytes()
