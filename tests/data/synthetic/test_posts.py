"""The synthetic data set: its model and the exact bounds, its bytes, and what must not leak."""

import hashlib
import math
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mmsent.config import DEFAULT_LABELS
from mmsent.data.dataset import load_dataset
from mmsent.data.images import is_blank, open_rgb
from mmsent.data.synthetic import posts as synthetic
from mmsent.data.synthetic.canvas import ImageMood
from mmsent.data.synthetic.images import draw_image
from mmsent.data.synthetic.posts import best_accuracy, joint, random_stream, sample, write_dataset
from mmsent.data.synthetic.texts import TextMood, write_text
from mmsent.errors import DataError, UsageError


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> synthetic.SyntheticDataset:
    return write_dataset(tmp_path_factory.mktemp("drawn") / "set", n_train=40, n_test=12, seed=3, size=96)


def test_loads_with_the_right_counts(small: synthetic.SyntheticDataset) -> None:
    data = load_dataset(small.root)
    assert (len(data.of("train")), len(data.of("test"))) == (40, 12)
    assert not data.problems
    assert data.decoding.encoding == "utf-8"
    assert all(post.label in DEFAULT_LABELS for post in data.of("train"))
    assert [post.id for post in data.of("test")] == list(small.truth)
    for post in data.posts:
        assert post.image is not None
        picture = open_rgb(post.image.read_bytes())
        assert picture.size == (96, 96)
        assert not is_blank(picture)
        assert isinstance(post.text, Path)
        assert len(post.text.read_text(encoding="utf-8").split()) >= 4


def test_the_same_seed_gives_the_same_bytes(small: synthetic.SyntheticDataset, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "again", n_train=40, n_test=12, seed=3, size=96)
    assert _hashes(again.root) == _hashes(small.root)
    assert again.truth == small.truth
    write_dataset(tmp_path / "again", n_train=40, n_test=12, seed=3, size=96)  # drawn over
    assert _hashes(again.root) == _hashes(small.root)


def test_another_seed_gives_other_posts(small: synthetic.SyntheticDataset, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", n_train=40, n_test=12, seed=4, size=96)
    ours, theirs = _hashes(small.root), _hashes(other.root)
    assert ours.keys() == theirs.keys()
    pictures = [name for name in ours if name.endswith(".jpg")]
    assert all(ours[name] != theirs[name] for name in pictures)
    assert sum(ours[f"data/{i}.txt"] != theirs[f"data/{i}.txt"] for i in range(1001, 1053)) > 45


def test_a_post_does_not_depend_on_the_counts(small: synthetic.SyntheticDataset, tmp_path: Path) -> None:
    fewer = write_dataset(tmp_path / "fewer", n_train=5, n_test=2, seed=3, size=96)
    ours, theirs = _hashes(small.root), _hashes(fewer.root)
    assert all(theirs[name] == ours[name] for name in theirs if name.startswith("data/"))


def test_the_joint_distribution_is_one_and_unbalanced() -> None:
    table = joint()
    assert math.fsum(table.values()) == pytest.approx(1, abs=1e-12)
    share = {label: sum(p for draft, p in table.items() if draft.label == label) for label in DEFAULT_LABELS}
    # JOINT's cells: 35, 20 and 45 percent. Noise takes 5 % of each label and gives it half of the others' loss.
    by_hand = {"negative": 0.35 * 0.95 + 0.65 * 0.025, "neutral": 0.20 * 0.95 + 0.8 * 0.025}
    assert share == pytest.approx(by_hand | {"positive": 0.45 * 0.95 + 0.55 * 0.025})


def test_bounds_agree_with_the_hand_computed_ones() -> None:
    # Both halves: the meaning, right unless noise struck. One half: the heaviest meaning of each column or row of
    # JOINT (23 + 12 + 34 and 19 + 9 + 29 + 12), plus the noise that happens to fall on it.
    assert best_accuracy("both") == pytest.approx(0.95)
    assert best_accuracy("image") == pytest.approx(0.69 * 0.95 + 0.31 * 0.025)
    assert best_accuracy("text") == pytest.approx(0.69 * 0.95 + 0.31 * 0.025)
    assert max(best_accuracy("image"), best_accuracy("text")) < best_accuracy("both")


def best_label(image: ImageMood, text: TextMood) -> str:
    """The best possible rule that sees both moods."""
    likelihood = {d.label: p for d, p in joint().items() if (d.image, d.text) == (image, text)}
    return max(DEFAULT_LABELS, key=lambda label: likelihood[label])


def test_samples_reach_the_bounds() -> None:
    n = 20_000
    drafts = [sample(1, i) for i in range(n)]
    both = sum(best_label(d.image, d.text) == d.label for d in drafts) / n
    assert abs(both - best_accuracy("both")) < 3 * math.sqrt(0.95 * 0.05 / n)
    for half in ("image", "text"):
        counts = Counter((getattr(d, half), d.label) for d in drafts)
        moods = {mood for mood, _ in counts}
        hits = sum(max(counts[mood, label] for label in DEFAULT_LABELS) for mood in moods) / n
        bound = best_accuracy(half)  # type: ignore[arg-type]
        assert abs(hits - bound) < 3 * math.sqrt(bound * (1 - bound) / n)


def test_irony_hangs_on_the_picture() -> None:
    meanings = [best_label(picture, TextMood.praise) for picture in ImageMood]
    assert meanings == ["negative", "negative", "positive"]


def test_test_labels_stay_outside_the_folder(small: synthetic.SyntheticDataset, tmp_path: Path) -> None:
    lines = (small.root / "test_without_label.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["guid,tag", *(f"{guid},null" for guid in small.truth)]
    assert {path.name for path in small.root.iterdir()} == {"data", "train.txt", "test_without_label.txt"}
    train = (small.root / "train.txt").read_text(encoding="utf-8")
    assert not any(guid in train for guid in small.truth)
    for path in (small.root / "data").glob("*.txt"):
        assert not any(label in path.read_text(encoding="utf-8").lower() for label in DEFAULT_LABELS)
    for path in (small.root / "data").glob("*.jpg"):
        with Image.open(path) as picture:
            assert not picture.getexif()
            assert "comment" not in picture.info


def test_labels_reach_neither_pictures_nor_texts(
    small: synthetic.SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "NOISE", 1.0)  # other labels, same moods
    other = write_dataset(tmp_path / "set", n_train=40, n_test=12, seed=3, size=96)
    assert other.truth != small.truth
    ours, theirs = _hashes(small.root), _hashes(other.root)
    assert {name for name in ours if ours[name] != theirs[name]} == {"train.txt"}


def test_labels_path(tmp_path: Path) -> None:
    root, labels = tmp_path / "set", tmp_path / "kept" / "answers.csv"
    made = write_dataset(root, n_train=3, n_test=2, size=48, labels_path=labels)
    assert labels.read_text(encoding="utf-8").splitlines() == ["guid,tag", *(f"{g},{t}" for g, t in made.truth.items())]
    with pytest.raises(UsageError, match="inside the data set"):
        write_dataset(root, n_train=3, n_test=2, size=48, labels_path=root / "test_labels.csv")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holiday\.jpg"):
        write_dataset(tmp_path, n_train=2, n_test=1, size=48)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    write_dataset(tmp_path / "more", n_train=4, n_test=1, size=48)
    with pytest.raises(DataError, match=r"1004"):  # left from a larger drawing
        write_dataset(tmp_path / "more", n_train=2, n_test=1, size=48)


@pytest.mark.parametrize("bad", [{"n_train": 0}, {"n_test": 0}, {"size": 8}])
def test_bad_counts_are_refused(bad: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        write_dataset(tmp_path / "set", **bad)


@pytest.mark.parametrize("mood", TextMood)
def test_every_template_fills(mood: TextMood) -> None:
    texts = {write_text(mood, random_stream(0, i, "text")) for i in range(300)}
    assert len(texts) > 100
    assert not any("{" in text or " a a" in text or not text[0].isupper() for text in texts)


@pytest.mark.parametrize("mood", ImageMood)
def test_brightness_follows_the_picture_mood(mood: ImageMood) -> None:
    pictures = [draw_image(mood, random_stream(0, i, "picture"), 64) for i in range(40)]
    levels = [picture.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) for picture in pictures]
    colours = [picture.convert("HSV").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))[1] for picture in pictures]
    low, high = {"down": (0, 115), "flat": (115, 215), "up": (140, 256)}[mood]
    assert all(low <= level < high for level in levels)
    assert (sum(colours) / len(colours) > 70) == (mood != "flat")
