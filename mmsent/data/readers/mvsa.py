"""MVSA as it is published: `labelResultAll.txt` has a label for the text and one for the image of each post, by one
annotator (MVSA-Single) or three (MVSA-Multiple); `data/` has `<id>.jpg` and `<id>.txt`.

One label is made of them as Xu and Mao do (MultiSentiNet, CIKM 2017): of three annotators at least two must agree on
the text, and on the image. Of text and image, the label that is not neutral counts; posts that are positive in one and
negative in the other are left out. MVSA-Single has 4,511 posts then. Others keep only the posts whose two labels are
the same, 2,592 of MVSA-Single: that is the reader `mvsa-same`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.lists import TextFile
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ImageFiles
from mmsent.data.readers.guid import scan
from mmsent.data.readers.rows import SPLIT, RowPosts

LIST = "labelResultAll.txt"
NEUTRAL = "neutral"
NO_MAJORITY, CONTRARY = "no two annotators agree", "text and image are contrary"
NOT_THE_SAME = "text and image have different labels"


def _locate(path: Path) -> Path | None:
    folder = path.parent if path.name == LIST else path
    return folder if (folder / LIST).is_file() else None


def _read(same: bool, root: Path, settings: DataSettings) -> Reading:
    left_out: Counter[str] = Counter()
    problems: list[Problem] = []
    made = RowPosts(settings, ImageFiles(root / "data", settings), LIST)
    files = scan(root / "data")
    alike = 0

    def rows() -> Iterator[tuple[str, ManifestRow]]:
        nonlocal alike
        for where, guid, pairs in _votes(root / LIST, settings):
            if not guid or not pairs or any(len(pair) != 2 for pair in pairs):
                message = "expected an id and 'text,image' labels, separated by tabs"
                problems.append(Problem("error", "malformed line", where, message))
                continue
            label, why = merged([pair[0] for pair in pairs], [pair[1] for pair in pairs], same)
            if label is None:
                left_out[why] += 1
                continue
            alike += why == ""
            yield (
                where,
                {
                    settings.id_column: guid,
                    settings.image_column: files.image(guid) or f"{guid}.*",
                    settings.text_column: root / "data" / files.texts.get(guid, f"{guid}.txt"),
                    settings.label_column: label,
                },
            )

    made.add(rows())
    told = [f"{len(made.posts)} posts, {alike} of them with the same label for text and image"]
    for why, n in left_out.items():
        problems.append(Problem("warning", "left out", LIST, f"{n} posts were left out: {why}"))
        told.append(f"left out: {n} posts, {why}")
    return made.reading((root / LIST,), told, [*problems, *files.problems()])


def _votes(path: Path, settings: DataSettings) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Where each row stands, its id, and each annotator's labels of text and image."""
    text_first = True
    for number, line in enumerate(TextFile(path, settings).lines(), 1):
        guid, *cells = line.rstrip("\r\n\t ").split("\t")
        pairs = [[label.strip() for label in cell.split(",")] for cell in cells]
        if number == 1 and guid.strip().lower() in ("id", "guid"):
            text_first = not pairs or pairs[0][0].lower() == "text"
        elif line.strip():
            yield f"{path.name}:{number}", guid.strip(), pairs if text_first else [pair[::-1] for pair in pairs]


def merged(texts: Sequence[str], images: Sequence[str], same: bool = False) -> tuple[str | None, str]:
    """The one label of a post, and why there is none or what decided; empty where text and image have the same one.

    texts, images: a label per annotator. same: text and image must have the same label.
    """
    text, image = _majority(texts), _majority(images)
    if text is None or image is None:
        return None, NO_MAJORITY
    if text == image:
        return text, ""
    if same:
        return None, NOT_THE_SAME
    if NEUTRAL in (text, image):
        return image if text == NEUTRAL else text, "one is neutral"
    return None, CONTRARY


def _majority(labels: Sequence[str]) -> str | None:
    """The label of more than half of the annotators."""
    label, n = Counter(one.lower() for one in labels).most_common(1)[0]
    return label if 2 * n > len(labels) else None


READER = Reader("mvsa", f"MVSA's folder with {LIST} and data/", SPLIT, _locate, partial(_read, False))
SAME = Reader("mvsa-same", "the posts of it whose two labels are the same", SPLIT, _locate, partial(_read, True))
