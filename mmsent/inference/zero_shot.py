"""Zero-shot labels: cached features against prompts for each label, in the space that the image and the text tower of
one model share. Nothing is trained.

A label is the mean of its prompts' embeddings, each scaled to length 1. A half's probabilities are the softmax over
the labels of its cosine with each of them times the model's own scale (Radford et al. 2021, "Learning Transferable
Visual Models From Natural Language Supervision", section 3.1); those of a post are the mean of its halves'.

Shapes: N rows, C classes, D width of the space that both towers share.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, field_validator

from mmsent.config import Settings, settings
from mmsent.data.vectors import unit_length
from mmsent.encoders.aligned import Aligned
from mmsent.errors import RunError, UsageError
from mmsent.features.cache import Cache, Features
from mmsent.inference.tally import Tally, Way, tally
from mmsent.system.hashing import json_sha256
from mmsent.training.halves import missing_halves

BATCH = 64
PLACE = "{}"  # where a template takes a word

IMAGE_TEMPLATES = (
    "a {} image",
    "a photo that shows something {}",
    "a photo with a {} mood",
    "a photo that makes people feel {}",
    "a {} post on social media",
)
TEXT_TEMPLATES = (
    "{}",
    "I feel {}",
    "a {} post",
    "a message with a {} mood",
    "someone writes something {} on social media",
)
WORDS = {
    "negative": ("negative", "sad", "bad", "angry", "terrible"),
    "neutral": ("neutral", "ordinary", "factual", "matter-of-fact", "everyday"),
    "positive": ("positive", "happy", "good", "joyful", "wonderful"),
}


class Halves(StrEnum):
    """What is compared with the prompts."""

    both = "both"
    image = "image"
    text = "text"


class Prompts(Settings):
    """image, text: templates for each half; labels: words for each label. Each word goes into each template."""

    image: tuple[str, ...]
    text: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]

    @field_validator("image", "text")
    @classmethod
    def _templates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(PLACE not in template for template in value):
            raise ValueError(f"needs at least one template, each with {PLACE} where the word goes")
        return value

    @classmethod
    def of(cls, labels: Sequence[str]) -> Prompts:
        """Built-in prompts; a label that is none of the usual three stands for itself."""
        words: dict[str, tuple[str, ...]] = {name: WORDS.get(name, (name.replace("_", " "),)) for name in labels}
        return cls(image=IMAGE_TEMPLATES, text=TEXT_TEMPLATES, labels=words)

    @classmethod
    def read(cls, path: Path, labels: Sequence[str]) -> Prompts:
        """Prompts from a TOML file. Raises UsageError where it cannot be read, or its labels are not these."""
        try:
            found = settings(cls, **tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"the prompts in {path} cannot be read: {error.strerror or error}") from error
        except (ValueError, UsageError) as error:
            raise UsageError(f"{path} holds no prompts: {error}") from error
        if absent := [name for name in labels if not found.labels.get(name)]:
            raise UsageError(f"{path} has no words for the label {absent[0]!r}; add some under [labels]")
        if foreign := sorted(found.labels.keys() - set(labels)):
            raise UsageError(f"{path} has words for {foreign[0]!r}; the labels here are {', '.join(labels)}")
        return found

    def toml(self) -> str:
        """The file that `read` reads."""

        def several(values: Sequence[str]) -> str:
            return "[\n" + "".join(f"  {json.dumps(value, ensure_ascii=False)},\n" for value in values) + "]"

        lines = [
            "# What mmsent zero-shot compares posts with: each word of a label in each template, in place of {}.",
            "# Edit it and run mmsent zero-shot again.",
            f"image = {several(self.image)}",
            f"text = {several(self.text)}",
            "",
            "[labels]",
            *(f"{json.dumps(name, ensure_ascii=False)} = {several(words)}" for name, words in self.labels.items()),
        ]
        return "\n".join(lines) + "\n"

    def of_label(self, templates: Sequence[str], name: str) -> list[str]:
        """All prompts of a label."""
        return [template.replace(PLACE, word) for template in templates for word in self.labels[name]]


class ZeroShot(Settings):
    """Prompts in the space of a cache's towers, ready to label features of its contract.

    labels: C names; image, text: what those halves are compared with, (C, D) each; image_columns, text_columns: (start,
    stop) of the towers' embeddings among the features; halves: which are compared; file: of the prompts.
    """

    contract: str
    labels: tuple[str, ...]
    halves: Halves
    prompts: Prompts
    file: str
    scale: float
    image_columns: tuple[int, int]
    text_columns: tuple[int, int]
    image: tuple[tuple[float, ...], ...]
    text: tuple[tuple[float, ...], ...]

    @property
    def name(self) -> str:
        """What its row in a comparison is called."""
        return "zero-shot" if self.halves is Halves.both else f"zero-shot, {self.halves}"

    def label(self, features: Features) -> Tally:
        """The labels of all N rows of a split, and their probabilities (N, C). A row that lacks a half is labelled by
        the other; one that lacks all that is compared has the label -1."""
        served = ~missing_halves(features.index.outcome).T  # (2, N)
        shares = self.shares(features.image[:, 0], features.text)
        chosen = [k for k, half in enumerate((Halves.image, Halves.text)) if self.halves in (half, Halves.both)]
        return tally(shares[chosen], Way(soft=True), served[chosen])

    def shares(self, image: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.float64]:
        """(2, N, C): the probabilities by the image and by the text, of features image (N, D_image) and text
        (N, D_text)."""
        halves = ((image, self.image_columns, self.image), (text, self.text_columns, self.text))
        return np.stack(
            [
                _softmax(self.scale * unit_length(values[:, slice(*columns)].astype(np.float64)) @ np.array(means).T)
                for values, columns, means in halves
            ]
        )

    @property
    def outdated(self) -> bool:
        """Whether the file of the prompts now holds others. A file that is gone changes nothing."""
        path = Path(self.file)
        try:
            return path.is_file() and Prompts.read(path, self.labels) != self.prompts
        except UsageError:
            return True


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return found


def encode_prompts(
    prompts: Prompts,
    pair: Aligned,
    cache: Cache,
    *,
    halves: Halves,
    file: Path,
    progress: Callable[[int], object] = lambda n: None,
) -> ZeroShot:
    """Prompts through the text tower of a cache's encoders. progress: called with the number of prompts done."""

    def mean_of(texts: Sequence[str]) -> tuple[float, ...]:
        vectors = [pair.text.encode(list(texts[k : k + BATCH])) for k in range(0, len(texts), BATCH)]
        progress(len(texts))
        mean = unit_length(np.concatenate(vectors).astype(np.float64)).mean(axis=0, keepdims=True)
        return tuple(unit_length(mean)[0].tolist())

    return ZeroShot(
        contract=cache.settings.contract,
        labels=cache.labels,
        halves=halves,
        prompts=prompts,
        file=str(file),
        scale=pair.scale,
        image_columns=pair.image_columns,
        text_columns=pair.text_columns,
        image=tuple(mean_of(prompts.of_label(prompts.image, name)) for name in cache.labels),
        text=tuple(mean_of(prompts.of_label(prompts.text, name)) for name in cache.labels),
    )


def place(folder: Path, cache: Cache) -> Path:
    """Where the encoded prompts of a cache's encoders and labels lie in a folder of runs; the prompts themselves lie
    beside them, with the suffix .toml."""
    return folder / f"zero-shot-{json_sha256([cache.settings.contract, *cache.labels])[:8]}.json"


def stored(folders: Iterable[Path], cache: Cache) -> ZeroShot | None:
    """The encoded prompts of a cache's encoders and labels in the first folder that has some. Raises RunError where
    they are damaged."""
    path = next((path for folder in folders if (path := place(folder, cache)).is_file()), None)
    if path is None:
        return None
    try:
        found = ZeroShot.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{path} cannot be read; run `mmsent zero-shot` again") from error
    if (found.contract, found.labels) != (cache.settings.contract, cache.labels):
        raise RunError(f"{path} is of other features than {cache.path}; run `mmsent zero-shot` again")
    return found
