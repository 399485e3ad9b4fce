"""How extraction on Ray scales, and what the one process that collects and writes can take.

    python scripts/bench_ray.py actors                 # 1, 2, 4 and 8 actors with an encoder that sleeps
    python scripts/bench_ray.py writer                 # units, journal and cache file without any encoder: rows/s
    python scripts/bench_ray.py read --data mvsa-single    # the list, and every file for its hash
    python scripts/bench_ray.py memory                 # what the driver holds of each post
    python scripts/bench_ray.py cost --core 21.5       # what 100 million posts take at given rates
    python scripts/bench_ray.py --short                # actors and writer, small, for CI

`actors`: the encoder takes a fixed time a batch and no processor, so that the cores of one machine do not limit eight
actors. Posts are drawn, their pictures small, and each actor gets the same number of them. The clock runs from the
moment when every actor has encoded its first batch until the last row is journalled; rows before it do not count.
`writer`: 768 + 768 wide rows, as CLIP ViT-L/14 gives them. `memory`: a process opens a manifest, keeps all rows and
makes every unit of work, once for a tenth of the posts and once for all; what the peak grows by a post. `cost` measures
nothing: it multiplies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_common import machine, table

BATCH = 16  # pictures
SIZE = 64  # pixels
TEXT = "some words as they stand in a post, with a #tag or two and a link http://t.co/abcdefgh"


def sleeper(seconds: float, log: str) -> Callable[[Any], Any]:
    """Makes encoders that sleep `seconds` a batch of pictures; each process notes in `log` when its first is done."""

    batch, size = BATCH, SIZE  # workers get what a function closes over, not this file's globals

    def opened(_: Any) -> Any:
        import numpy as np

        from mmsent.data.preprocess import Preprocess
        from mmsent.encoders.base import Encoders, ImageCard, TextCard

        common: dict[str, Any] = {"library": "stub", "name": "stub", "weights_sha256": "0" * 64, "precision": "fp32"}
        common["libraries"] = {}
        how = Preprocess(size=size, resize_to=size, mean=(0.5,) * 3, std=(0.5,) * 3)

        class Image:
            card, batch_size = ImageCard(width=768, preprocess=how, **common), batch
            first = True

            def encode(self, pixels: Any) -> Any:
                time.sleep(seconds)
                if self.first:
                    self.first = False
                    with open(log, "a") as file:
                        file.write(f"{time.time()}\n")
                return np.resize(pixels.reshape(len(pixels), -1), (len(pixels), 768)).astype(np.float32)

        class Text:
            card = TextCard(width=768, max_tokens=77, **common)

            def lengths(self, texts: list[str]) -> list[int]:
                return [len(t.split()) for t in texts]

            def encode(self, texts: list[str]) -> Any:
                return np.stack([np.full(768, len(t), np.float32) for t in texts])

        return Encoders(Image(), Text())

    return opened


def draw(folder: Path, n: int, text: str = "post") -> Path:
    """A manifest of n posts over 50 drawn pictures."""
    from mmsent.data.synthetic.posts import write_dataset

    if not (folder / "drawn").exists():
        write_dataset(folder / "drawn", n_train=60, n_test=6, seed=0)
    pictures = sorted((folder / "drawn" / "data").glob("*.jpg"))[:50]
    small = folder / "small"
    small.mkdir(exist_ok=True)
    from PIL import Image

    for path in pictures:
        Image.open(path).resize((SIZE, SIZE)).save(small / path.name)
    manifest = small / f"posts-{n}.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for i in range(n):
            row = {"id": f"p{i}", "image": pictures[i % 50].name, "text": f"{text} {i}", "label": "neutral"}
            file.write(json.dumps(row) + "\n")
    return manifest


def rate(folder: Path, actors: int, posts: int, seconds: float) -> tuple[float, float]:
    """Posts a second once all actors work, and seconds of the whole, starting the cluster included."""
    from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
    from mmsent.data.dataset import load_dataset
    from mmsent.features.extract import extract
    from mmsent.features.ray_engine import RayEngine

    dataset = load_dataset(draw(folder, posts))
    log = folder / f"first-{actors}"
    arrived: list[tuple[float, int]] = []

    class Timed(RayEngine):
        def entries(self, *given: Any) -> Any:
            for split, half, entries in super().entries(*given):
                if half == "image":
                    arrived.append((time.time(), len(entries)))
                yield split, half, entries

    started = time.time()
    with Timed(None, actors, 1, sleeper(seconds, str(log))) as engine:
        extract(
            dataset,
            dataset.splits,
            folder / f"cache-{actors}",
            encoder=EncoderSettings(device="cpu"),
            views=ViewSettings(count=0),
            options=ExtractSettings(),
            engine=engine,
            show=False,
        )
    whole = time.time() - started
    firsts = [float(line) for line in log.read_text().split()]
    if len(firsts) != actors:
        raise SystemExit(f"{len(firsts)} of {actors} actors got work; take more posts")
    counted = sum(n for at, n in arrived if at > max(firsts))
    return counted / (arrived[-1][0] - max(firsts)), whole


def bench_actors(folder: Path, sizes: list[int], posts: int, seconds: float) -> None:
    """Rates and efficiency, each to that of one actor."""
    rows = [["actors", "posts", "posts/s", "efficiency", "seconds with the start of the cluster"]]
    one = 0.0
    for actors in sizes:
        found, whole = rate(folder, actors, actors * posts, seconds)
        one = one or found / actors
        rows.append([str(actors), f"{actors * posts:,}", f"{found:.1f}", f"{found / one / actors:.2f}", f"{whole:.0f}"])
    print(f"an encoder that sleeps {seconds} s a batch of {BATCH}: at most {BATCH / seconds:.0f} posts/s an actor")
    print(table(rows))


def bench_writer(folder: Path, n: int, views: int) -> None:
    """Time and space of each step that the driver takes for every row."""
    import numpy as np

    from mmsent.config import ViewSettings
    from mmsent.data.dataset import Post
    from mmsent.data.preprocess import Preprocess
    from mmsent.encoders.base import ImageCard, TextCard
    from mmsent.features import units
    from mmsent.features.cache import Row, pour
    from mmsent.features.cache.fingerprint import FeatureSettings
    from mmsent.features.cache.journal import Entry, Half, Journal
    from mmsent.features.engine import Work

    common: dict[str, Any] = {"library": "stub", "name": "stub", "weights_sha256": "0" * 64, "precision": "fp32"}
    how = Preprocess(size=336, resize_to=336, mean=(0.5,) * 3, std=(0.5,) * 3)
    settings = FeatureSettings(
        image=ImageCard(width=768, preprocess=how, libraries={}, **common),
        text=TextCard(width=768, max_tokens=77, libraries={}, **common),
        normalize=False,
        views=ViewSettings(count=views),
        views_version=1,
        clean=(),
        text_encoding="utf-8",
        storage="float32",
    )
    posts = [Post(f"post-{i}", "train", "neutral", Path(f"/data/{i % 1000:03}/{i}.jpg"), f"text {i}") for i in range(n)]
    rows = [Row(p.id, 1, i.to_bytes(32, "big"), (i + n).to_bytes(32, "big")) for i, p in enumerate(posts)]
    block = 256 // (views + 1)
    path = folder / f"writer-{views}.h5"
    journal = Journal(path.with_name(path.name + ".journal"), {"fingerprint": "", "batch_size": 256})
    took = dict.fromkeys(("hand out units", "take results", "journal", "pour"), 0.0)
    vectors = np.random.default_rng(0).standard_normal((block * units.UNIT_BLOCKS, views + 1, 768)).astype(np.float32)
    work = Work("train", posts, rows, range(n), range(n))
    started = time.perf_counter()
    for unit in units.units_of([work], block):
        unit.dumps()
        took["hand out units"] += time.perf_counter() - started
        half: Half = unit.half
        made = []
        for i in range(len(unit.posts)):
            row = rows[unit.start + i]
            vector = vectors[i % len(vectors)]
            made.append(
                Entry(row.id, row.image_hash, vector)
                if half == "image"
                else Entry(row.id, row.text_hash, vector[0], "", 9)
            )
        about, data = units.packed(made)
        told = json.dumps(about)
        started = time.perf_counter()
        entries = units.unpacked(json.loads(told), data, "float32")
        took["take results"] += time.perf_counter() - started
        started = time.perf_counter()
        journal.put("train", half, entries)
        took["journal"] += time.perf_counter() - started
        started = time.perf_counter()
    journal.commit()
    beside = journal.path.stat().st_size
    started = time.perf_counter()
    attributes = {"labels": ["a", "b"], "data_name": "writer", "encoder": "stub", "provenance": {}}
    pour(path, journal, settings, {"train": rows}, attributes, None)
    took["pour"] = time.perf_counter() - started
    journal.close()
    took["collect: these three"] = sum(took[name] for name in ("hand out units", "take results", "journal"))
    took["pour"] = took.pop("pour")  # last
    out = [["step", "rows/s", "MB/s"]]
    size = 4 * 768 * (views + 2)
    out += [[name, f"{n / s:,.0f}", f"{n * size / s / 1e6:,.0f}"] for name, s in took.items()]
    print(f"{n:,} rows, K = {views}: {size / 1e3:.1f} kB of embeddings a row")
    print(table(out))
    print(f"bytes a row: cache {path.stat().st_size / n:,.0f}, journal {beside / n:,.0f}")


def bench_read(data: Path) -> None:
    """How fast the driver opens a list and reads all files of it; the second time, from the system's memory."""
    from mmsent.data.dataset import load_dataset
    from mmsent.features.batches import read_rows

    rows = [["step", "posts/s", "MB/s"]]
    for _ in range(2):
        started = time.perf_counter()
        dataset = load_dataset(data)
        loaded = time.perf_counter() - started
        started = time.perf_counter()
        read_rows(dataset, dataset.posts, min(8, os.cpu_count() or 1))
        read = time.perf_counter() - started
    n = len(dataset.posts)
    size = sum(p.image.stat().st_size for p in dataset.posts if isinstance(p.image, Path))
    rows += [["open the list", f"{n / loaded:,.0f}", ""], ["read", f"{n / read:,.0f}", f"{size / read / 1e6:,.0f}"]]
    print(f"{n:,} posts, {size / n / 1e3:.0f} kB a picture")
    print(table(rows))


HOLD = """
import json, sys
import numpy as np
from pathlib import Path
from mmsent.features.batches import block_rows
from mmsent.features.cache import Row, RowTable
from mmsent.data.dataset import load_dataset
from mmsent.features.engine import Work
from mmsent.features.units import units_of
sys.path.insert(0, sys.argv[2])
from bench_common import peak_bytes
posts = load_dataset(Path(sys.argv[1])).posts.of("train")
rows = RowTable.of(Row(p.id, 1, i.to_bytes(32, "big"), i.to_bytes(32, "little")) for i, p in enumerate(posts))
every = np.ones(len(posts), bool)
sent = sum(len(unit.dumps()) for unit in units_of([Work("train", posts, rows, every, every)], block_rows(256, 1)))
print(json.dumps({"peak": peak_bytes(), "sent": sent}))
"""


def bench_memory(folder: Path, n: int) -> None:
    """Bytes a post that the driver holds, and that its units of work take on their way."""
    import subprocess

    found = []
    for count in (n // 10, n):
        words = [sys.executable, "-c", HOLD, str(draw(folder, count, TEXT)), str(Path(__file__).parent)]
        found.append(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    grown = [(found[1][name] - found[0][name]) / (n - n // 10) for name in ("peak", "sent")]
    print(f"{n:,} posts, a text of {len(TEXT)} letters each")
    print(table([["bytes a post", ""], ["the driver's memory", f"{grown[0]:,.0f}"], ["units", f"{grown[1]:,.0f}"]]))


def cost(posts: int, views: int, core: float | None, gpu: float | None, given: dict[str, float]) -> None:
    """Hours, bytes and memory of many posts. core: posts a second and core, gpu: pictures a second and GPU; given: rows
    a second of the driver's steps, bytes a row, and bytes of memory a row of the driver."""
    rows = [["of", "for", "at"]]
    if core:
        rows.append([f"{posts / core / 3600:,.0f} core hours", "encoding on processors", f"{core} posts/s a core"])
    if gpu:
        hours = posts * (views + 1) / gpu / 3600
        rows.append([f"{hours:,.0f} GPU hours", f"{views + 1} views", f"{gpu:,.0f} pictures/s a GPU (as given)"])
    steps = [name for name in ("read", "collect", "pour") if name in given]
    rows += [[f"{posts / given[name] / 3600:,.1f} hours", name, f"{given[name]:,.0f} rows/s"] for name in steps]
    for name in ("cache", "journal"):
        if name in given:
            rows.append([f"{posts * given[name] / 1e12:,.2f} TB", name, f"{given[name]:,.0f} bytes a row"])
    if "memory" in given:
        rows.append([f"{posts * given['memory'] / 1e9:,.0f} GB", "memory", f"{given['memory']:,.0f} bytes a row"])
    print(f"{posts:,} posts, K = {views}")
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kind", nargs="?", choices=("actors", "writer", "both", "read", "memory", "cost"), default="both"
    )
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--posts", type=int, default=1280, help="an actor")
    parser.add_argument("--seconds", type=float, default=0.4, help="that the encoder sleeps a batch")
    parser.add_argument("--rows", type=int, default=200_000, help="of the writer, or of memory")
    parser.add_argument("--views", type=int, default=0, help="K of the writer, or of cost")
    parser.add_argument("--data", type=Path, help="of read")
    parser.add_argument("--cost-posts", type=int, default=100_000_000)
    parser.add_argument("--core", type=float, help="posts a second and core")
    parser.add_argument("--gpu", type=float, help="pictures a second and GPU")
    for name in ("read", "collect", "pour"):
        parser.add_argument(f"--{name}", type=float, help="rows a second")
    for name in ("cache", "journal"):
        parser.add_argument(f"--{name}", type=float, help="bytes a row")
    parser.add_argument("--memory", type=float, help="bytes of the driver's memory a row")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.kind == "cost":
        kept = {name: value for name, value in vars(given).items() if isinstance(value, float)}
        cost(given.cost_posts, given.views, given.core, given.gpu, kept)
        return
    if given.short:
        given.actors, given.posts, given.seconds, given.rows = [1, 2], 320, 0.05, 2000
    if given.kind == "read":
        machine()
        bench_read(given.data)
        return
    if given.kind == "memory":
        machine()
        with tempfile.TemporaryDirectory() as temporary:
            bench_memory(Path(temporary), given.rows)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    machine()
    with tempfile.TemporaryDirectory() as temporary:
        if given.kind in ("actors", "both"):
            bench_actors(Path(temporary), given.actors, given.posts, given.seconds)
        if given.kind in ("writer", "both"):
            bench_writer(Path(temporary), given.rows, given.views)


if __name__ == "__main__":
    sys.exit(main())
