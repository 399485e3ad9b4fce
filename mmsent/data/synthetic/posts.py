"""A small synthetic data set, for a first run without any download. Pillow only, no torch.

The model behind it: a post has an image mood (down, flat, up) and a text mood (down, flat, up, praise), sampled
together from `JOINT`. The meaning of the post depends on both, `MEANING`:

| text \\ image                       | down     | flat     | up       |
|-------------------------------------|----------|----------|----------|
| down: an unhappy sentence           | negative | negative | neutral  |
| flat: a plain remark                | negative | neutral  | positive |
| up: a happy sentence                | neutral  | positive | positive |
| praise: "Just great, what I needed" | negative | negative | positive |

If one half is flat, the other one decides; opposite halves cancel out; exaggerated praise is sincere only with an up
image and ironic with any other. The label is that meaning, except that with probability `NOISE` it is one of the other
two, each equally likely. Neither half alone determines the meaning. Because the whole distribution is a table, the best
accuracy that any classifier can reach is an exact sum over it: see `best_accuracy`.

The look of an image and the wording of a text are chosen independently of this. An image of any mood is a face, the
weather or an abstract pattern; palette, position, size and shapes vary. A text is one of the mood's templates, filled
with random words. Everything depends on (seed, index) alone; the label influences neither the image nor the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from mmsent.config import DEFAULT_LABELS
from mmsent.data.dataset import LISTS
from mmsent.data.synthetic.canvas import ImageMood
from mmsent.data.synthetic.images import draw_image
from mmsent.data.synthetic.texts import TextMood, write_text
from mmsent.errors import DataError, UsageError

NOISE = 0.05  # share of labels that differ from the meaning
QUALITY = 88  # of the JPEG files
FIRST_GUID = 1001
MIN_SIZE = 32  # pixels; smaller images lose their shapes


# Percent of the posts; the columns are the image moods down, flat and up.
JOINT: dict[TextMood, tuple[int, int, int]] = {
    TextMood.down: (11, 8, 5),
    TextMood.flat: (4, 9, 4),
    TextMood.up: (6, 11, 18),
    TextMood.praise: (8, 4, 12),
}
MEANING: dict[TextMood, tuple[str, str, str]] = {
    TextMood.down: ("negative", "negative", "neutral"),
    TextMood.flat: ("negative", "neutral", "positive"),
    TextMood.up: ("neutral", "positive", "positive"),
    TextMood.praise: ("negative", "negative", "positive"),
}


class Draft(NamedTuple):
    """A post before its image and text are made."""

    image: ImageMood
    text: TextMood
    label: str


@dataclass(frozen=True)
class SyntheticDataset:
    """A synthetic data set: its folder, the labels of its test rows by guid, and the best possible accuracies."""

    root: Path
    truth: dict[str, str]
    best_accuracy: float
    best_accuracy_image: float
    best_accuracy_text: float


# --- the model


def joint() -> dict[Draft, float]:
    """P(image mood, text mood, label) of every combination; sums to 1."""
    total = sum(map(sum, JOINT.values()))
    table: dict[Draft, float] = {}
    for text, weights in JOINT.items():
        for image, weight, meaning in zip(ImageMood, weights, MEANING[text], strict=True):
            for label in DEFAULT_LABELS:
                share = 1 - NOISE if label == meaning else NOISE / (len(DEFAULT_LABELS) - 1)
                table[Draft(image, text, label)] = weight / total * share
    return table


def best_accuracy(seen: Literal["both", "image", "text"] = "both") -> float:
    """The accuracy of the best possible rule that knows the model and the moods of the halves `seen`."""
    mass: dict[tuple[str, ...], dict[str, float]] = {}
    for draft, p in joint().items():
        known = {"both": (draft.image, draft.text), "image": (draft.image,), "text": (draft.text,)}[seen]
        labels = mass.setdefault(known, dict.fromkeys(DEFAULT_LABELS, 0.0))
        labels[draft.label] += p
    return math.fsum(max(labels.values()) for labels in mass.values())


def sample(seed: int, index: int) -> Draft:
    """The moods and the label of post `index`, without its image and text."""
    pairs = [(image, text) for text in TextMood for image in ImageMood]
    weights = [weight for text in TextMood for weight in JOINT[text]]
    image, text = random_stream(seed, index, "moods").choices(pairs, weights)[0]
    label = MEANING[text][list(ImageMood).index(image)]
    noise = random_stream(seed, index, "noise")
    if noise.random() < NOISE:
        label = noise.choice([other for other in DEFAULT_LABELS if other != label])
    return Draft(image, text, label)


def random_stream(seed: int, index: int, purpose: str) -> Random:
    """A separate random generator per purpose, so that drawing more numbers for one never changes another."""
    return Random(f"mmsent drawn {seed} {index} {purpose}")


# --- the data set


def write_dataset(
    root: Path,
    *,
    n_train: int = 600,
    n_test: int = 150,
    seed: int = 0,
    size: int = 288,
    labels_path: Path | None = None,
) -> SyntheticDataset:
    """Write a synthetic data set in the guid layout; its images are (size, size) pixels.

    The labels of the test rows are returned as `truth` and, with `labels_path`, also written to that file as `guid,tag`
    lines; it must lie outside the folder. A synthetic data set that is already there is overwritten.

    Raises UsageError for counts below 1, a size below MIN_SIZE and a labels_path inside the folder; DataError if the
    folder holds files that would not be overwritten.
    """
    for name, value, least in (("n_train", n_train, 1), ("n_test", n_test, 1), ("size", size, MIN_SIZE)):
        if value < least:
            raise UsageError(f"{name}: got {value}; expected {least} or more")
    root = Path(root)
    if labels_path is not None and labels_path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"labels_path: {labels_path} lies inside the data set {root}; choose a file outside of it")
    guids = [str(FIRST_GUID + i) for i in range(n_train + n_test)]
    folder = root / "data"
    _refuse_foreign_files(root, {*LISTS.values(), "data"})
    _refuse_foreign_files(folder, {f"{guid}.{ending}" for guid in guids for ending in ("txt", "jpg")})
    folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, str] = {}
    for index, guid in enumerate(guids):
        draft = sample(seed, index)
        text = write_text(draft.text, random_stream(seed, index, "text"))
        (folder / f"{guid}.txt").write_text(text + "\n", encoding="utf-8", newline="\n")
        image = draw_image(draft.image, random_stream(seed, index, "picture"), size)
        image.save(folder / f"{guid}.jpg", quality=QUALITY)
        labels[guid] = draft.label
    truth = {guid: labels[guid] for guid in guids[n_train:]}
    # The lists come last, so that an interrupted run leaves no folder that looks like a data set.
    _write_list(root / LISTS["train"], {guid: labels[guid] for guid in guids[:n_train]})
    _write_list(root / LISTS["test"], dict.fromkeys(truth, "null"))
    if labels_path is not None:
        labels_path.parent.mkdir(parents=True, exist_ok=True)
        _write_list(labels_path, truth)
    return SyntheticDataset(root, truth, best_accuracy("both"), best_accuracy("image"), best_accuracy("text"))


def _refuse_foreign_files(folder: Path, expected: set[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; choose a new folder for the synthetic data set")
    foreign = sorted({entry.name for entry in folder.iterdir()} - expected) if folder.is_dir() else []
    if foreign:
        raise DataError(
            f"{folder} already holds other files ({len(foreign)}, such as {foreign[0]!r}); nothing was written; "
            "choose a new folder, or remove this one"
        )


def _write_list(path: Path, tags: dict[str, str]) -> None:
    lines = ["guid,tag", *(f"{guid},{tag}" for guid, tag in tags.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
