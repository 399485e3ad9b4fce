"""Exported models without torch: onnxruntime, tokenizers and Pillow label posts or cached features.

    from mmsent.export.onnx_runtime import OnnxModel
    from mmsent.features.new_posts import NewPost

    model = OnnxModel.open("export")
    model.predict([NewPost("1", "a happy day", Path("1.jpg"))])

A folder of `mmsent export --format onnx` holds

    mmsent.json     labels, heads, how they vote, what their features are, and the files' SHA-256
    heads.onnx      image (N, D_image), text (N, D_text), missing (N, 2) -> the vote (see Classified)
    image.onnx      with --with-encoder: pixels (N, H, H, 3), resized and cropped bytes, -> image
    text.onnx       with --with-encoder: ids (N, L), and mask (N, L) where the tower takes one, -> text
    tokenizer.json  with --with-encoder: for the tokenizers library, cutting and padding included

Shapes: N rows, R heads, C classes, H side of the input picture, L tokens.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from mmsent.data.images import Pixels
from mmsent.encoders.base import Embeddings, Encoders, ImageCard, TextCard
from mmsent.encoders.clip_model import bounded, shortened
from mmsent.errors import RunError, UsageError
from mmsent.features.batches import blocks
from mmsent.features.new_posts import NewPost
from mmsent.inference.abstain import Abstention
from mmsent.inference.predict import Prediction, abstaining, encode_posts
from mmsent.system.files import open_file
from mmsent.system.records import require_format
from mmsent.training.runs import Run

ABOUT, HEADS, IMAGE, TEXT, TOKENIZER = "mmsent.json", "heads.onnx", "image.onnx", "text.onnx", "tokenizer.json"
FORMAT_VERSION = 1
ROWS = 4096  # features classified at a time
_NEEDS = "needs its packages: pip install onnxruntime tokenizers"


def session(path: Path, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU. Raises UsageError without onnxruntime, RunError where the file is not a
    model."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(f"an exported model {_NEEDS}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no public parent
        raise RunError(f"{path} cannot be loaded ({str(error).splitlines()[0]}); export it again") from error


@dataclass(frozen=True)
class Classified:
    """The answers of the heads for N rows. labels (N,) int64 indices, -1 where no head can label the row; probabilities
    (N, C) float32, the mean of the calibrated ones of the heads that vote; agreeing (N,) int64: how many heads chose
    that label; of_heads (N, R, C): each head's; voting (N, R) bool: which heads can label which rows."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    agreeing: NDArray[np.int64]
    of_heads: NDArray[np.float32]
    voting: NDArray[np.bool_]


class OnnxImageEncoder:
    """The picture tower, as mmsent.encoders has them."""

    batch_size = 16

    def __init__(self, card: ImageCard, run: Any) -> None:
        self.card, self._session = card, run

    def encode(self, pixels: Pixels) -> Embeddings:
        """(B, size, size, 3) bytes to (B, D_image)."""
        out: Embeddings = self._session.run(None, {"pixels": pixels})[0]
        return out


class OnnxTextEncoder:
    """The text tower and its tokenizer, as mmsent.encoders has them."""

    def __init__(self, card: TextCard, run: Any, tokenizer: Any, cleaning: str) -> None:
        self.card, self._session, self._tokenizer = card, run, tokenizer
        self._clean = _cleaning(cleaning, card.max_tokens)
        self._inputs = {given.name for given in run.get_inputs()}

    def lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text before any cut, special tokens included."""
        return [len(one.ids) for one in self._uncut.encode_batch(list(map(self._clean, texts)))]

    @cached_property
    def _uncut(self) -> Any:
        other = type(self._tokenizer).from_str(self._tokenizer.to_str())
        other.encode_special_tokens = True
        other.no_truncation()
        other.no_padding()
        return other

    def tokens(self, texts: list[str]) -> dict[str, NDArray[np.int64]]:
        """ids and mask (B, L), cut and padded."""
        found = self._tokenizer.encode_batch(list(map(self._clean, texts)))
        ids, mask = [one.ids for one in found], [one.attention_mask for one in found]
        return {"ids": np.array(ids, np.int64), "mask": np.array(mask, np.int64)}

    def encode(self, texts: list[str]) -> Embeddings:
        """B texts to (B, D_text)."""
        tokens = self.tokens(texts)
        out: Embeddings = self._session.run(None, {name: tokens[name] for name in self._inputs})[0]
        return out


def _cleaning(name: str, max_tokens: int) -> Callable[[str], str]:
    """What a text goes through before its tokenizer: nothing, or what open_clip's own tokenizer does."""
    if name == "none":
        return str
    if name != "clip":
        raise RunError(f"unknown text cleaning {name!r}; upgrade mmsent to read this folder")
    try:
        import ftfy
    except ImportError as error:
        raise UsageError("texts for CLIP need ftfy: pip install ftfy") from error

    def clean(text: str) -> str:
        plain = html.unescape(html.unescape(ftfy.fix_text(shortened(text))))
        return bounded(" ".join(plain.split()).lower(), max_tokens)

    return clean


@dataclass(frozen=True)
class OnnxModel:
    """An exported model: what its mmsent.json says, and the heads' session."""

    path: Path
    about: dict[str, Any]
    heads: Any
    threads: int | None = None

    @classmethod
    def open(cls, folder: str | Path, threads: int | None = None) -> Self:
        """Open a folder that `mmsent export --format onnx` wrote. threads: of each session; None: onnxruntime's choice.

        Raises RunError where it is not one, was changed, or was written by a newer mmsent.
        """
        path = Path(folder)
        try:
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            require_format(about, FORMAT_VERSION, path)
            if HEADS not in about["files"]:
                raise RunError(f"{path / ABOUT} has no checksum of {HEADS}; export it again")
            for name, digest in about["files"].items():
                if Path(name).name != name:
                    raise RunError(f"{path / ABOUT} names a file {name!r} outside of its folder")
                with open_file(path / name) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
                        raise RunError(f"{path / name} is not the file that was exported; export it again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is not an exported model ({error}); `mmsent export --format onnx` makes one"
            ) from error
        return cls(path, about, session(path / HEADS, threads), threads)

    @property
    def labels(self) -> list[str]:
        """The label set, in the order of the probabilities."""
        return list(self.about["labels"])

    @property
    def contract(self) -> str:
        """The digest of the features that the heads take; see mmsent.features.cache.fingerprint."""
        return str(self.about["contract"])

    @property
    def abstention(self) -> Abstention | None:
        """When `predict` leaves a post to a person; None: never."""
        told = self.about.get("abstain")
        return None if told is None else Abstention.from_json(told)

    @cached_property
    def runs(self) -> list[Run]:
        """The heads' runs, without their weights."""
        return [Run(self.path / run["name"], run["info"]) for run in self.about["heads"]]

    @cached_property
    def encoders(self) -> Encoders:
        """The two towers. Raises UsageError where the folder was exported without them."""
        encoder = self.about.get("encoder_files")
        if encoder is None:
            raise UsageError(
                f"{self.path} holds only the heads, which take features; export it again with --with-encoder"
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UsageError(f"an exported text encoder {_NEEDS}") from error
        tokenizer = Tokenizer.from_file(str(self.path / TOKENIZER))
        tokenizer.encode_special_tokens = True  # in a post they are text
        image = OnnxImageEncoder(ImageCard.model_validate(encoder["image"]), session(self.path / IMAGE, self.threads))
        text = OnnxTextEncoder(
            TextCard.model_validate(encoder["text"]),
            session(self.path / TEXT, self.threads),
            tokenizer,
            encoder["cleaning"],
        )
        return Encoders(image, text)

    def classify(
        self,
        image: NDArray[np.float32],
        text: NDArray[np.float32],
        missing: NDArray[np.bool_] | None = None,
        *,
        contract: str,
    ) -> Classified:
        """Label features: image (N, D_image), text (N, D_text), missing (N, 2) bool, which halves are not there.

        contract: of the encoder that made the features, such as `Cache.open(path).settings.contract`. Raises RunError
        where it is not the heads', or the shapes do not fit.
        """
        self.runs[0].require(contract, "what was given", "other features")
        widths = self.about["inputs"]
        if (image.ndim, text.ndim, len(text)) != (2, 2, len(image)) or (image.shape[1], text.shape[1]) != (
            widths["image"],
            widths["text"],
        ):
            raise RunError(
                f"the heads take (N, {widths['image']}) and (N, {widths['text']}); got {image.shape} and {text.shape}"
            )
        gone = np.zeros((len(image), 2), np.bool_) if missing is None else np.asarray(missing, np.bool_)
        if gone.shape != (len(image), 2):
            raise RunError(f"missing must have the shape ({len(image)}, 2); got {gone.shape}")
        parts = []
        for rows in blocks(max(1, len(image)), ROWS):
            part = slice(rows.start, rows.stop)
            given = {"image": image[part], "text": text[part]}
            halves = {name: np.ascontiguousarray(half, np.float32) for name, half in given.items()}
            parts.append(self.heads.run(list(OUTPUTS), {**halves, "missing": gone[part]}))
        return Classified(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def predict(self, posts: Sequence[NewPost]) -> list[Prediction]:
        """Label posts, as mmsent.inference.predict does. Raises UsageError where the folder holds no encoders."""
        image, text, missing, problems = encode_posts(posts, self.encoders, self.runs, self.about["normalize"])
        found = self.classify(image, cast(Any, text), missing, contract=self.contract)  # none of its heads tunes blocks
        names, heads = self.labels, [run["name"] for run in self.about["heads"]]
        out = []
        for i, post in enumerate(posts):
            choices = {
                name: names[int(found.of_heads[i, r].argmax())] for r, name in enumerate(heads) if found.voting[i, r]
            }
            if not choices:
                out.append(Prediction(post.id, None, {}, {}, 0, f"{problems[i]}; these heads need both image and text"))
                continue
            shares = dict(zip(names, found.probabilities[i].astype(float).tolist(), strict=True))
            label = names[int(found.labels[i])]
            out.append(Prediction(post.id, label, shares, choices, int(found.agreeing[i]), problems[i]))
        return abstaining(out, self.abstention)


OUTPUTS = ("label", "probabilities", "agreeing", "head_probabilities", "voting")
