"""A small made-up data set of drawn posts, for a first run without any download. Pillow only, no torch.

The model behind it. A post has a picture mood (down, flat, up) and a text mood (down, flat, up, praise), drawn
together from `JOINT`. What the post means is a function of both, `MEANING`:

| text \\ picture                     | down     | flat     | up       |
|-------------------------------------|----------|----------|----------|
| down: an unhappy sentence           | negative | negative | neutral  |
| flat: a plain remark                | negative | neutral  | positive |
| up: a happy sentence                | neutral  | positive | positive |
| praise: "Just great, what I needed" | negative | negative | positive |

A flat half leaves the meaning to the other one, opposite halves cancel out, and over-the-top praise is meant only over
an up picture: anywhere else it is irony. The label is that meaning, except that with probability `NOISE` it is one of
the other two, evenly. Neither half alone gives the meaning away, and since the whole distribution is a table, the best
accuracy that any classifier can reach is an exact sum over it: see `best_accuracy`.

How a mood looks and reads is chosen apart from all this. The picture is a face, the weather or an abstract pattern,
whatever its mood; palette, place, size and shapes vary. The text fills one of the mood's templates with varied words.
Everything is a function of (seed, index) alone; the label reaches neither the picture nor the text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from mmsent.config import DEFAULT_LABELS
from mmsent.data.dataset import LISTS
from mmsent.data.synthetic.pictures import PictureMood, draw_picture
from mmsent.errors import DataError, UsageError

NOISE = 0.05  # share of the labels that differ from what the post means
QUALITY = 88  # of the JPEG files
FIRST_GUID = 1001
MIN_SIZE = 32  # pixels; below this the shapes vanish


class TextMood(StrEnum):
    """What the text reads like; praise is over the top, and meant or not."""

    down = "down"
    flat = "flat"
    up = "up"
    praise = "praise"


# Percent of the posts; columns are the picture's down, flat and up.
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
    """A post before it is drawn and written."""

    picture: PictureMood
    text: TextMood
    label: str


@dataclass(frozen=True)
class DrawnSet:
    """A drawn data set: its folder, the labels of its test rows by guid, and the best accuracies possible."""

    root: Path
    truth: dict[str, str]
    best_accuracy: float
    best_accuracy_image: float
    best_accuracy_text: float


# --- the model


def joint() -> dict[Draft, float]:
    """P(picture mood, text mood, label) of every combination; sums to 1."""
    total = sum(map(sum, JOINT.values()))
    table: dict[Draft, float] = {}
    for text, weights in JOINT.items():
        for picture, weight, meaning in zip(PictureMood, weights, MEANING[text], strict=True):
            for label in DEFAULT_LABELS:
                share = 1 - NOISE if label == meaning else NOISE / (len(DEFAULT_LABELS) - 1)
                table[Draft(picture, text, label)] = weight / total * share
    return table


def best_accuracy(seen: Literal["both", "image", "text"] = "both") -> float:
    """The accuracy of the best possible rule for one who knows the moods of the halves `seen`, and the model."""
    mass: dict[tuple[str, ...], dict[str, float]] = {}
    for draft, p in joint().items():
        known = {"both": (draft.picture, draft.text), "image": (draft.picture,), "text": (draft.text,)}[seen]
        labels = mass.setdefault(known, dict.fromkeys(DEFAULT_LABELS, 0.0))
        labels[draft.label] += p
    return math.fsum(max(labels.values()) for labels in mass.values())


def best_label(picture: PictureMood, text: TextMood) -> str:
    """The best possible rule that sees both moods."""
    table = joint()
    return max(DEFAULT_LABELS, key=lambda label: table[Draft(picture, text, label)])


def sample(seed: int, index: int) -> Draft:
    """The moods and the label of post `index`, without its picture and text."""
    pairs = [(picture, text) for text in TextMood for picture in PictureMood]
    weights = [weight for text in TextMood for weight in JOINT[text]]
    picture, text = _stream(seed, index, "moods").choices(pairs, weights)[0]
    label = MEANING[text][list(PictureMood).index(picture)]
    noise = _stream(seed, index, "noise")
    if noise.random() < NOISE:
        label = noise.choice([other for other in DEFAULT_LABELS if other != label])
    return Draft(picture, text, label)


def _stream(seed: int, index: int, purpose: str) -> Random:
    """A random stream of its own for each purpose, so that more draws for one never shift another."""
    return Random(f"mmsent drawn {seed} {index} {purpose}")


# --- the data set


def draw_dataset(
    root: Path,
    *,
    n_train: int = 600,
    n_test: int = 150,
    seed: int = 0,
    size: int = 288,
    labels_path: Path | None = None,
) -> DrawnSet:
    """Write a data set of drawn posts in the guid layout; pictures are (size, size) pixels.

    The labels of the test rows come back as `truth` and, if `labels_path` is given, also go to that file as
    `guid,tag` lines; it must lie outside the folder. An earlier drawing is drawn over.

    Raises UsageError for counts below 1, a size below MIN_SIZE and a labels_path inside the folder; DataError where
    the folder holds files that this drawing would not write.
    """
    for name, value, least in (("n_train", n_train, 1), ("n_test", n_test, 1), ("size", size, MIN_SIZE)):
        if value < least:
            raise UsageError(f"{name}: got {value}; expected {least} or more")
    root = Path(root)
    if labels_path is not None and labels_path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"labels_path: {labels_path} lies inside the data set {root}; keep test labels out of it")
    guids = [str(FIRST_GUID + i) for i in range(n_train + n_test)]
    folder = root / "data"
    _refuse_strangers(root, {*LISTS.values(), "data"})
    _refuse_strangers(folder, {f"{guid}.{ending}" for guid in guids for ending in ("txt", "jpg")})
    folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, str] = {}
    for index, guid in enumerate(guids):
        draft = sample(seed, index)
        text = write_text(draft.text, _stream(seed, index, "text"))
        (folder / f"{guid}.txt").write_text(text + "\n", encoding="utf-8", newline="\n")
        draw_picture(draft.picture, _stream(seed, index, "picture"), size).save(folder / f"{guid}.jpg", quality=QUALITY)
        labels[guid] = draft.label
    truth = {guid: labels[guid] for guid in guids[n_train:]}
    # The lists come last: a drawing that was cut short is not taken for a data set.
    _write_list(root / LISTS["train"], {guid: labels[guid] for guid in guids[:n_train]})
    _write_list(root / LISTS["test"], dict.fromkeys(truth, "null"))
    if labels_path is not None:
        labels_path.parent.mkdir(parents=True, exist_ok=True)
        _write_list(labels_path, truth)
    return DrawnSet(root, truth, best_accuracy("both"), best_accuracy("image"), best_accuracy("text"))


def _refuse_strangers(folder: Path, expected: set[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; pass a new folder for the drawn data set")
    strangers = sorted({entry.name for entry in folder.iterdir()} - expected) if folder.is_dir() else []
    if strangers:
        raise DataError(
            f"{folder} already holds {strangers[0]!r} ({len(strangers)} such); nothing was drawn; "
            "pass a new folder, or remove the old one"
        )


def _write_list(path: Path, tags: dict[str, str]) -> None:
    lines = ["guid,tag", *(f"{guid},{tag}" for guid, tag in tags.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


# --- texts

WORDS: dict[str, tuple[str, ...]] = {
    "friends": (
        "my sister", "my brother", "my best friend", "Grandma", "Dad", "my neighbour", "Mia", "Jonas", "our team",
        "the kids", "the whole class", "my cousin", "Amir", "Lucía",
    ),
    "place": (
        "at the beach", "in the park", "at the café", "by the lake", "downtown", "at the station", "in the garden",
        "at the office", "on the old bridge", "at the market", "in the library", "on the balcony", "at school",
        "near the harbour",
    ),
    "spot": (
        "downtown", "by the lake", "near the harbour", "in the park", "at the station", "behind the market",
        "next to the school", "on the corner", "across the street", "on the second floor",
    ),
    "thing": (
        "bakery", "museum", "parking lot", "bookshop", "ticket office", "post office", "public library",
        "swimming hall", "kiosk", "bus terminal", "hardware store", "bike rental",
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "hour": ("seven", "half past eight", "nine", "ten", "noon", "two", "a quarter to four", "five", "six"),
    "colour": ("white", "brown", "green", "grey", "blue"),
    "count": ("two", "three", "four", "five", "eight", "a dozen"),
    "glad": ("happy", "glad", "delighted", "thrilled", "cheerful", "grateful", "joyful", "proud"),
    "lovely": ("lovely", "beautiful", "sweet", "fun", "happy", "delightful", "cosy", "joyful"),
    "joy": (
        "we laughed all afternoon", "the puppy came home", "I passed the exam", "the cake turned out so well",
        "we danced until late", "I got the job", "we won the match", "the first strawberries are ripe",
        "we sang all the old songs", "the baby took her first steps",
    ),
    "sad": ("sad", "lonely", "miserable", "heartbroken", "upset", "exhausted", "hopeless", "disappointed"),
    "awful": ("awful", "sad", "terrible", "horrible", "miserable", "painful", "dreadful", "lonely"),
    "grief": (
        "I lost my keys and my patience", "nobody came to the party", "I failed the exam", "the cat is still missing",
        "we lost the match", "my phone is broken", "I miss her so much", "they cancelled the trip",
        "I have been crying all afternoon", "the job went to someone else",
    ),
    "superb": ("great", "perfect", "wonderful", "brilliant", "fantastic", "marvellous", "splendid"),
    "wow": ("Wow", "Oh", "Well", "Yay", "Bravo", "Oh my"),
}  # fmt: skip

TEMPLATES: dict[TextMood, tuple[str, ...]] = {
    TextMood.down: (
        "I feel so {sad} today, {grief}.",
        "What a {awful} {day} {place}. {grief}.",
        "So {sad} right now, {grief}.",
        "{friends} and I had a {awful} time {place}, {grief}.",
        "A {awful} morning {place}, and {grief}.",
        "Crying {place} again. I am {sad} and {grief}.",
        "I hate this {day}: {grief}, and I feel {sad}.",
    ),
    TextMood.flat: (
        "The {thing} {spot} opens at {hour} on {day}.",
        "This is the {colour} {thing} {spot}.",
        "{friends} took this photo {spot} on {day} at {hour}.",
        "There are {count} {colour} chairs {spot} and {count} next to the {thing}.",
        "{day}, {hour}, {spot}. The next bus leaves in {count} minutes.",
        "We walked past the {thing} {spot} at {hour}.",
        "{friends} will be {spot} from {hour} on {day}.",
    ),
    TextMood.up: (
        "I feel so {glad} today, {joy}!",
        "A {lovely} {day} {place} with {friends}, {joy}.",
        "So {glad} right now, {joy}!",
        "{friends} and I had a {lovely} time {place}, {joy}.",
        "Smiling {place} all morning. I am {glad} and {joy}!",
        "A {lovely} morning {place}, and {joy}.",
        "I love this {day}: {joy}, and I feel {glad}.",
    ),
    TextMood.praise: (
        "Just {superb}, exactly what I needed on a {day}.",
        "{wow}, {superb}. Exactly what I needed {place}.",
        "{wow}, how absolutely {superb}, could not have asked for more {place}.",
        "Simply {superb}. Ten out of ten, {day}, truly {superb}.",
        "{superb}, just {superb}. Thank you so much, {day}, well done.",
        "{wow}, just what {friends} and I needed {place}. Absolutely {superb}.",
        "Best {day} ever, of course. Truly {superb}, well done everyone.",
    ),
}


def write_text(mood: TextMood, rng: Random) -> str:
    """One post's text: a template of the mood with its words filled in."""

    def fill(slot: re.Match[str]) -> str:
        return rng.choice(WORDS[slot[1]])

    text = re.sub(r"\{(\w+)\}", fill, rng.choice(TEMPLATES[mood]))
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return re.sub(r"(^|[.!] )(\w)", lambda start: start[1] + start[2].upper(), text)
