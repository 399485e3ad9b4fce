"""A bare folder of posts that nobody has labelled: images in it or in its `images/`, and the text of `1.jpg` in
`1.txt`, beside the image or in `texts/`. Labelled posts have a list, which another reader reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem, Split
from mmsent.data.readers import guid
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ENDINGS, ImageFiles, has_images
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts

IMAGES = ("images", "image", "img", "imgs", "pictures", "photos")
TEXTS = ("texts", "text", "txt")


def _locate(path: Path) -> Path | None:
    """The folder, if there are images and no list: neither a manifest in it nor the guid layout's list beside it."""
    if not path.is_dir() or manifests_in(path) or any((path.parent / name).is_file() for name in guid.LISTS.values()):
        return None
    return path if has_images(_below(path, IMAGES)) else None


def _below(root: Path, names: tuple[str, ...]) -> Path:
    """The first of some folders that there is, else the root."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def _read(root: Path, settings: DataSettings) -> Reading:
    images, apart = _below(root, IMAGES), _below(root, TEXTS)
    texts = {path.stem: path for folder in (apart, images) for path in _files(folder, (".txt",))}
    made = RowPosts(settings, ImageFiles(root, settings), root.name)

    def row(name: str, image: Path | None, text: Path | None) -> tuple[str, ManifestRow]:
        found = image and image.relative_to(root).as_posix()
        return name, {settings.id_column: name, settings.image_column: found, settings.text_column: text}

    found = {path.name: path for path in _files(images, ENDINGS)}
    made.add(row(name, path, texts.get(path.stem)) for name, path in found.items())
    alone = sorted(texts.keys() - {path.stem for path in found.values()})
    problems: list[Problem] = []
    if apart != root:  # in a folder of texts each is a post
        made.add(row(texts[stem].name, None, texts[stem]) for stem in alone)
    elif alone:
        message = f"{len(alone)} texts have no image beside them and were left out"
        problems.append(Problem("warning", "unlisted", texts[alone[0]].name, message))
    told = ["posts are the images of the folder, and none has a label; label them with mmsent serve --no-heads"]
    return made.reading((), told, problems)


def _files(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    names = sorted(one.name for one in os.scandir(folder) if one.is_file())
    return (folder / name for name in names if name.lower().endswith(endings))


_HOW = "a bare folder has no labels; label its posts with mmsent serve --no-heads, and save the list in it"
SPLIT: dict[Split, str] = {"train": _HOW, "test": "it needs images in the folder or in 'images/'"}
READER = Reader("folder", "a folder of images, .txt beside them or in texts/, not labelled yet", SPLIT, _locate, _read)
