"""Which further features of a text help beside the pair `offline`, by grouped cross-validation on the training rows.

    python scripts/compare_features.py --cache cache/mvsa-single.offline.XXXXXXXX.h5 --data mvsa-single

A kernel machine stands in for the heads, for it needs no tuning of rates and takes seconds: ridge regression on the
class indicators, rows weighted as the heads weight classes, with a Gaussian kernel for each source (features
standardised, rows at length 1, width by the median distance), added up with a weight each. --onnx FOLDER adds a
sentence model as model.onnx with its tokenizer.json, such as an int8 bge-small-en-v1.5. --layers adds the states of
MiniLM's inner layers, averaged over the words. --ocr reads the text in the pictures (rapidocr-onnxruntime, 0.1 s of a
core a picture) and adds its embedding and its VADER scores, or appends it to the post's text. Prints mean weighted and
macro F1 over the folds with their standard errors, and the difference in weighted F1 to the row of reference.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from mmsent.config import DataSettings, Group, SplitSettings
from mmsent.data.dataset import load_dataset
from mmsent.data.images import open_rgb, read_image
from mmsent.encoders.lexicon import LexiconEncoder
from mmsent.encoders.sentences import MINILM, SentenceEncoder
from mmsent.encoders.specs import Spec
from mmsent.features.cache import Cache
from mmsent.metrics import scores
from mmsent.training.folds import FoldPlan, plan_folds

LENGTH = 64  # tokens of an ONNX model's texts
RIDGE, POWER = 1.0, 0.3


def standardised(x: np.ndarray) -> np.ndarray:
    spread = x.std(axis=0)
    return np.clip((x - x.mean(axis=0)) / np.where(spread > 1e-6, spread, 1), -6, 6)


def gaussian(x: np.ndarray, *, unit: bool = True) -> np.ndarray:
    """(N, D) -> (N, N): the kernel, of trace N. unit: rows at length 1."""
    x = standardised(x.astype(np.float32))
    x = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9) if unit else x / np.sqrt(x.shape[1])
    squares = (x**2).sum(axis=1)
    distances = (squares[:, None] + squares - 2 * x @ x.T).clip(0)
    return np.exp(-distances / np.median(distances[::7, ::7])).astype(np.float32)


def tfidf(texts: list[str], analyzer: str, ngrams: tuple[int, int]) -> np.ndarray:
    """(N, N): linear kernel of TF-IDF. Document frequencies are taken over all rows, which no label enters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, min_df=2, sublinear_tf=True).fit_transform(texts)
    return np.asarray((rows @ rows.T).todense(), np.float32)


def style(texts: list[str]) -> np.ndarray:
    """How a text is written: length, marks, shares of capitals, digits and letters beyond ASCII."""
    counts = [[len(t), *(t.count(mark) for mark in "!?#@"), t.count("http"), len(t.split())] for t in texts]
    kinds: list[Callable[[str], bool]] = [str.isupper, str.isdigit, lambda c: ord(c) > 127]
    shares = [[sum(map(kind, t)) / max(1, len(t)) for kind in kinds] for t in texts]
    return np.hstack([np.log1p(counts), shares])


def onnx_embeddings(folder: Path, texts: list[str]) -> np.ndarray:
    """(N, D): the first token's state of a sentence model."""
    import onnxruntime
    from tokenizers import Tokenizer

    model = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding()
    order = np.argsort([len(t) for t in texts], kind="stable")
    out: np.ndarray | None = None
    for part in np.array_split(order, -(-len(order) // 32)):
        batch = tokenizer.encode_batch([texts[i] for i in part])
        ids = np.array([b.ids for b in batch], np.int64)
        given = {"input_ids": ids, "attention_mask": np.array([b.attention_mask for b in batch], np.int64)}
        names = [i.name for i in model.get_inputs()]
        first = model.run(None, {name: given.get(name, np.zeros_like(ids)) for name in names})[0][:, 0]
        out = np.zeros((len(texts), first.shape[1]), np.float32) if out is None else out
        out[part] = first
    assert out is not None
    return out


def on_rows(rows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(N, N): a kernel of the chosen rows, and 0 for all others."""
    out = np.zeros((len(rows), len(rows)), np.float32)
    out[np.ix_(rows, rows)] = kernel
    return out


def layer_means(encoder: SentenceEncoder, texts: list[str]) -> list[np.ndarray]:
    """The states of each layer, the word embeddings first: (N, D) each, averaged over a text's words."""
    import torch

    model, out = encoder.model, []
    transformer, order = model[0].auto_model, np.argsort([len(t) for t in texts], kind="stable")
    for part in np.array_split(order, -(-len(order) // 64)):
        batch = model.tokenizer(
            [texts[i] for i in part], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.inference_mode():
            states = transformer(**batch, output_hidden_states=True).hidden_states
        mask = batch["attention_mask"].unsqueeze(-1)
        out.append(torch.stack([(state * mask).sum(1) / mask.sum(1) for state in states]).numpy())
    return list(np.concatenate(out, axis=1)[:, np.argsort(order)])


def read_pictures(pictures: list[Path | str | None]) -> list[str]:
    """The text that each picture shows, as far as its recognition is surer than 0.6; pictures at 720 px at most."""
    from rapidocr_onnxruntime import RapidOCR

    engine, out = RapidOCR(use_angle_cls=False, det_limit_side_len=480, det_limit_type="max"), []
    for picture in pictures:
        upright = open_rgb(read_image(picture))
        upright.thumbnail((720, 720))
        said, _ = engine(np.ascontiguousarray(np.asarray(upright)[:, :, ::-1]), use_cls=False)
        out.append(" ".join(words for _, words, sure in said or [] if float(sure) > 0.6))
    return out


def per_fold(plan: FoldPlan, kernel: np.ndarray, classes: int) -> np.ndarray:
    """(K, 2): weighted and macro F1 of each fold."""
    labels = plan.labels
    weights = (len(labels) / (classes * np.bincount(labels, minlength=classes))) ** POWER
    targets, found = np.eye(classes, dtype=np.float32)[labels], []
    for k in range(plan.folds):
        held = plan.fold == k
        w = weights[labels[~held]].astype(np.float32)
        mean = np.average(targets[~held], axis=0, weights=w)
        system = kernel[np.ix_(~held, ~held)] + np.diag(RIDGE / w)
        solved = cho_solve(cho_factor(system, overwrite_a=True), targets[~held] - mean)
        said = (kernel[np.ix_(held, ~held)] @ solved + mean).argmax(axis=1)
        s = scores(labels[held], said, classes)
        found.append([s["f1_weighted"], s["f1_macro"]])
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--ocr", action="store_true")
    parser.add_argument("--folds", type=int, default=10)
    arguments = parser.parse_args()
    cache = Cache.open(arguments.cache)
    features = cache.load("train")
    plan = plan_folds(cache, SplitSettings(group=Group.near), arguments.folds, features=features)
    data = load_dataset(arguments.data, DataSettings())
    by_id = {post.id: data.text_of(post) for post in data.of("train")}
    texts = [by_id[i] for i in plan.ids]
    bare = [re.sub(r"https?\S+|@\w+:?|^RT\s", " ", t) for t in texts]
    image, text = features.image[plan.rows].mean(axis=1), features.text[plan.rows]
    pictures, sentences = gaussian(image), gaussian(text)
    scored = LexiconEncoder(Spec("lexicon", "vader")).encode(texts)
    vader = gaussian(scored, unit=False)
    pair = pictures + sentences
    plus = pair + 0.5 * vader
    kernels: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
        "picture alone": ("pair", lambda: 2 * pictures),
        "text alone": ("pair", lambda: 2 * sentences),
        "pair": ("pair", lambda: pair),
        "pair, product of kernels": ("pair", lambda: 2 * pictures * sentences),
        "pair + VADER": ("pair", lambda: plus),
        "pair + VADER, its own scores alone": (
            "pair + VADER",
            lambda: pair + 0.5 * gaussian(scored[:, :3], unit=False),
        ),
        "pair + VADER, words of bare text": (
            "pair + VADER",
            lambda: pair + 0.5 * gaussian(LexiconEncoder(Spec("lexicon", "vader")).encode(bare), unit=False),
        ),
        "pair + VADER + style": ("pair + VADER", lambda: plus + 0.3 * gaussian(style(texts), unit=False)),
        "pair + VADER + TF-IDF of words": ("pair + VADER", lambda: plus + 0.5 * tfidf(bare, "word", (1, 2))),
        "pair + VADER + TF-IDF of letters": ("pair + VADER", lambda: plus + 0.5 * tfidf(bare, "char_wb", (2, 5))),
    }
    if arguments.onnx:
        more = gaussian(onnx_embeddings(arguments.onnx, texts))
        third = pictures + 0.5 * vader
        kernels |= {
            f"pair + VADER, {arguments.onnx.name} for the text": ("pair + VADER", lambda: third + more),
            f"pair + VADER + {arguments.onnx.name}": ("pair + VADER", lambda: third + 0.6 * sentences + 0.6 * more),
        }
    minilm = SentenceEncoder(Spec("st", MINILM), device="cpu", precision="fp32")
    if arguments.layers:
        for layer, states in enumerate(layer_means(minilm, texts)):
            kernels[f"pair + VADER + MiniLM's layer {layer}"] = (
                "pair + VADER",
                lambda states=states: plus + 0.5 * gaussian(states),
            )
    if arguments.ocr:
        posts = {post.id: post for post in data.of("train")}
        shown = read_pictures([posts[i].image for i in plan.ids])
        some = np.array([len(words) > 8 for words in shown])
        print(f"{some.sum()} of {len(some)} pictures show more than 8 letters")
        lexicon = LexiconEncoder(Spec("lexicon", "vader"))
        kept = [words for words, on in zip(shown, some, strict=True) if on]
        meant, felt = minilm.encode(kept), lexicon.encode(kept)
        joined = [f"{t} . {words}" if words else t for t, words in zip(texts, shown, strict=True)]
        kernels |= {
            "pair + VADER + MiniLM of the picture's text": (
                "pair + VADER",
                lambda: plus + 0.5 * on_rows(some, gaussian(meant)),
            ),
            "pair + VADER + VADER of the picture's text": (
                "pair + VADER",
                lambda: plus + 0.3 * on_rows(some, gaussian(felt, unit=False)),
            ),
            "pair + VADER, the picture's text behind the post's": (
                "pair + VADER",
                lambda: pictures + gaussian(minilm.encode(joined)) + 0.5 * gaussian(lexicon.encode(joined), unit=False),
            ),
        }
    done: dict[str, np.ndarray] = {"pair": per_fold(plan, pair, len(cache.labels))}
    for name, (reference, kernel) in kernels.items():
        if name not in done:
            done[name] = per_fold(plan, kernel(), len(cache.labels))
        gain = done[name][:, 0] - done[reference][:, 0]
        shown = "" if name == reference else f"; to {reference}: {_mean(gain, signed=True)}"
        print(f"{name}: weighted F1 {_mean(done[name][:, 0])}, macro {_mean(done[name][:, 1])}{shown}", flush=True)


def _mean(values: np.ndarray, *, signed: bool = False) -> str:
    return f"{values.mean():{'+' if signed else ''}.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


if __name__ == "__main__":
    main()
