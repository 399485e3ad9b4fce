"""Look at pairs near the bounds of near-duplicates, to choose them for a data set or an encoder.

    python scripts/near_pairs.py --data mvsa-single --cache cache/mvsa-single.offline.XXXXXXXX.h5 --out pairs.png

Prints how many pairs of different pictures lie at each Hamming distance of the perceptual hash and in each band of the
cosine, the same for texts, how often hash and cosine disagree, and text pairs from each band; draws picture pairs, the
likest below each bound and the least like above it, into --out.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmsent.config import near_cosine
from mmsent.data.dataset import load_dataset
from mmsent.data.duplicates import HASH_BITS, HASH_LIMIT, Pairs, like_hashes, like_vectors, perceptual_hash
from mmsent.data.images import is_blank, open_rgb, read_image
from mmsent.features.cache import Cache
from mmsent.system.tables import columns

BANDS = (0.85, 0.88, 0.90, 0.92, 0.95, 0.98, 0.999, 1.01)
CELL, ACROSS = 180, 4
FAR = 12  # bits up to which pairs are counted


def different(pairs: Pairs, hashes: list[bytes]) -> Pairs:
    """The pairs whose contents are not the same bytes."""
    keep = np.array([hashes[a] != hashes[b] for a, b in zip(pairs.a, pairs.b, strict=True)], bool)
    return Pairs(pairs.a[keep], pairs.b[keep], pairs.similarity[keep])


def banded(pairs: Pairs) -> str:
    counts = np.histogram(pairs.similarity, BANDS)[0]
    heads = [f"{low:g}-{min(high, 1):g}" for low, high in pairwise(BANDS)]
    return columns([heads, [str(n) for n in counts]], right=range(len(heads)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=3, help="text pairs to print of each band")
    arguments = parser.parse_args()
    cache = Cache.open(arguments.cache)
    dataset = load_dataset(arguments.data, cache.data_settings)
    posts = {(post.split, post.id): post for post in dataset.posts}
    parts = {split: cache.load(split) for split in sorted(cache.rows, reverse=True)}
    rows = [posts[split, row_id] for split, part in parts.items() for row_id in part.index.ids]
    image = np.concatenate([part.image[:, 0] for part in parts.values()])
    text = np.concatenate([part.text for part in parts.values()])
    image_hashes = [h for part in parts.values() for h in part.index.image_hashes]
    text_hashes = [h for part in parts.values() for h in part.index.text_hashes]

    opened = [open_rgb(read_image(post.image)) if post.image else None for post in rows]
    sharp = [i for i, picture in enumerate(opened) if picture is not None and not is_blank(picture)]
    found = like_hashes(np.stack([perceptual_hash(opened[i]) for i in sharp]), FAR)
    where = np.array(sharp)
    hashed = different(Pairs(where[found.a], where[found.b], found.similarity), image_hashes)
    bits = np.rint((1 - hashed.similarity) * HASH_BITS).astype(int)
    print(f"pictures by differing bits, 0 to {FAR}: {np.bincount(bits, minlength=FAR + 1).tolist()}")
    pictures = different(like_vectors(image, BANDS[0]), image_hashes)
    print(f"\npictures by cosine\n{banded(pictures)}")
    bound = near_cosine(cache.encoder, "near_image")
    by_hash = {(a, b) for a, b, n in zip(hashed.a, hashed.b, bits, strict=True) if n <= HASH_LIMIT}
    by_cosine = {(a, b) for a, b, s in zip(pictures.a, pictures.b, pictures.similarity, strict=True) if s >= bound}
    print(
        f"\nby hash alone {len(by_hash - by_cosine)}, by cosine from {bound:g} alone {len(by_cosine - by_hash)}", end=""
    )
    print(f", by both {len(by_hash & by_cosine)}")
    texts = different(like_vectors(text, BANDS[0]), text_hashes)
    print(f"\ntexts by cosine\n{banded(texts)}\n")
    rng = np.random.default_rng(0)
    for low, high in pairwise(BANDS):
        inside = np.flatnonzero((texts.similarity >= low) & (texts.similarity < high))
        for k in rng.permutation(inside)[: arguments.texts]:
            a, b = (dataset.text_of(rows[i]) for i in (texts.a[k], texts.b[k]))
            print(f"{texts.similarity[k]:.3f} {a!r}\n      {b!r}")

    # Pairs on both sides of each bound, but for the hundreds that are alike beyond doubt.
    shown = {(a, b): f"cosine {s:.3f}" for a, b, s in zip(*_sorted(pictures), strict=True) if s < 0.97}
    for a, b, n in zip(hashed.a, hashed.b, bits, strict=True):
        if 0 < n <= 10:
            shown[a, b] = f"{shown.get((a, b), '')} bits {n}".strip()
    chosen = list(shown.items())[:60]
    sheet = Image.new("RGB", (ACROSS * (2 * CELL + 12), -(-len(chosen) // ACROSS) * (CELL + 18)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, ((a, b), words) in enumerate(chosen):
        x, y = place % ACROSS * (2 * CELL + 12), place // ACROSS * (CELL + 18)
        for side, i in enumerate((a, b)):
            picture = opened[i]
            if picture is not None:
                small = picture.copy()
                small.thumbnail((CELL, CELL))
                sheet.paste(small, (x + side * CELL, y + 16))
        draw.text((x, y), f"{rows[a].id} {rows[b].id}: {words}", fill="black")
    sheet.save(arguments.out)
    print(f"\n{arguments.out}: {len(chosen)} pairs")


def _sorted(pairs: Pairs) -> tuple[list[int], list[int], list[float]]:
    order = np.argsort(-pairs.similarity, kind="stable")
    return pairs.a[order].tolist(), pairs.b[order].tolist(), pairs.similarity[order].tolist()


if __name__ == "__main__":
    main()
