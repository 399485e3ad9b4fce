"""Memory and time at scale: extraction of many generated posts, and a fit on a cache larger than its memory limit.

    python scripts/bench_scale.py extract                   # 100,000 posts beside 5,000: peak memory
    python scripts/bench_scale.py fit --rows 10000000       # from disk under --memory 2GB, beside 2,000,000 in memory
    python scripts/bench_scale.py --short                   # both, small, for CI

Extraction decodes real JPEGs (200 drawn ones, used again and again) and writes a real cache; only the encoder is a stub
of matching widths. Each measurement is a process of its own; peak memory is what the kernel reports of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_common import machine, table

HERE = Path(__file__).parent

EXTRACT = """
import json, sys, time
from pathlib import Path
import numpy as np
from mmsent.system.process import tune_process
tune_process()
from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.encoders.base import Encoders, ImageCard, TextCard
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
from mmsent.data.preprocess import Preprocess

manifest, out = Path(sys.argv[1]), Path(sys.argv[2])
common = dict(library="stub", name="stub", weights_sha256="0" * 64, precision="fp32", libraries={})
how = Preprocess(size=224, resize_to=224, mean=(0.5,) * 3, std=(0.5,) * 3)

class Image:
    card, batch_size = ImageCard(width=768, preprocess=how, **common), 16
    def encode(self, pixels):
        return np.repeat(pixels[:, ::7, ::7].reshape(len(pixels), -1)[:, :96].astype(np.float32), 8, axis=1)

class Text:
    card = TextCard(width=768, max_tokens=77, **common)
    def lengths(self, texts): return [len(t.split()) for t in texts]
    def encode(self, texts):
        return np.stack([np.full(768, len(t), np.float32) for t in texts])

started = time.monotonic()
dataset = load_dataset(manifest)
result = extract(dataset, dataset.splits, out, encoder=EncoderSettings(), views=ViewSettings(count=0),
                 options=ExtractSettings(), engine=LocalEngine(Encoders(Image(), Text())), show=False)
sys.path.insert(0, sys.argv[3])
from bench_common import peak_bytes
peak = peak_bytes()
print(json.dumps({"peak": peak, "seconds": time.monotonic() - started, "rows": sum(result.rows.values())}))
"""

FIT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from mmsent.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as stopped:
    assert not stopped.code, stopped.code
from bench_common import peak_bytes
print(json.dumps({"peak": peak_bytes()}))
"""


def run(code: str, *arguments: str) -> dict[str, float]:
    """Run code in a fresh Python; the numbers on its last line."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def generate(folder: Path, n: int) -> Path:
    """A manifest of n posts over 200 drawn pictures; all texts differ."""
    from mmsent.data.synthetic.posts import write_dataset

    drawn = folder / "drawn"
    if not drawn.exists():
        write_dataset(drawn, n_train=180, n_test=20, seed=0)
    pictures = sorted(path.name for path in (drawn / "data").glob("*.jpg"))
    manifest = drawn / "data" / f"posts-{n}.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for i in range(n):
            label = ("negative", "neutral", "positive")[i % 3]
            row = {"id": f"p{i}", "image": pictures[i % len(pictures)], "text": f"post {i} of {n}", "label": label}
            file.write(json.dumps(row) + "\n")
    return manifest


def bench_extract(folder: Path, few: int, many: int) -> None:
    """Peak memory of a large extraction beside that of a small one."""
    rows = [["posts", "peak memory, MB", "seconds", "posts/s", "peak / that of the first"]]
    first = 0.0
    for n in (few, many):
        found = run(EXTRACT, str(generate(folder, n)), str(folder / f"cache-{n}"), str(HERE))
        first = first or found["peak"]
        times = [f"{found['seconds']:.0f}", f"{found['rows'] / found['seconds']:.0f}", f"{found['peak'] / first:.2f}"]
        rows.append([f"{n:,}", f"{found['peak'] / 1e6:.0f}", *times])
    print(table(rows))


def bench_fit(folder: Path, small: int, large: int, memory: str, epochs: int) -> None:
    """A fit from disk beside one in memory: peak memory and time a row."""
    from make_synthetic_cache import make

    rows = [["rows", "", "peak memory, GB", "seconds of training", "microseconds a row and epoch", "weighted F1"]]
    times = []
    for n, limit in ((small, "1TB"), (small, "1MB"), (large, memory)):
        path = folder / f"synthetic-{n}.h5"
        if not path.exists():
            make(path, n, 128, 128)
        runs = folder / f"runs-{n}-{limit}"
        arguments = ["--recipe", "paper", "--epochs", str(epochs), "--patience", str(epochs), "--lr", "1e-3"]
        found = run(FIT, str(HERE), "fit", "--cache", str(path), "--runs", str(runs), "--memory", limit, *arguments)
        # A folder that is kept may hold older runs.
        newest = max(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
        info = json.loads(newest.read_text(encoding="utf-8"))
        each = info["seconds"] / (info["rows"]["train"] * epochs) * 1e6
        times.append(each)
        how = "in memory" if limit == "1TB" else f"from disk, --memory {limit}"
        numbers = [f"{found['peak'] / 1e9:.2f}", f"{info['seconds']:.0f}", f"{each:.1f}"]
        rows.append([f"{n:,}", how, *numbers, f"{info['metrics']['f1_weighted']:.4f}"])
    print(table(rows))
    print(f"time a row: {times[-1] / times[0]:.2f} x that of the fit in memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=("extract", "fit", "both"), default="both")
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to keep what is generated; a temporary one without it")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    few, small = 5000, 2_000_000
    if given.short:
        given.posts, given.rows, given.memory, few, small = 400, 40_000, "8MB", 100, 10_000
    machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if given.kind in ("extract", "both"):
            bench_extract(folder, few, given.posts)
        if given.kind in ("fit", "both"):
            bench_fit(folder, small, given.rows, given.memory, given.epochs)


if __name__ == "__main__":
    main()
