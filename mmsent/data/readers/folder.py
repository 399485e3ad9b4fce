"""A bare folder of posts that nobody has labelled: images in it or in its `images/`, and the text of `1.jpg` in
`1.txt`, beside the image or in `texts/`. Labelled posts have a list, which another reader reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmsent.config import DataSettings
from mmsent.data.manifests import ManifestRow
from mmsent.data.posts import Problem, Split
from mmsent.data.readers import guid
from mmsent.data.readers.base import Reader, Reading
from mmsent.data.readers.files import ENDINGS, ImageFiles, files_in, folders_in
from mmsent.data.readers.manifest import manifests_in
from mmsent.data.readers.rows import RowPosts

IMAGES = ("images", "image", "img", "imgs", "pictures", "photos")
TEXTS = ("texts", "text", "txt")


def _locate(path: Path) -> Path | None:
    """The folder, if there are images and no list: neither a manifest in it nor the guid layout's list beside it."""
    if not path.is_dir() or manifests_in(path) or any((path.parent / name).is_file() for name in guid.LISTS.values()):
        return None
    return path if any(_files(_below(path, IMAGES, ENDINGS), ENDINGS)) else None


def _below(root: Path, names: tuple[str, ...], endings: tuple[str, ...]) -> Path:
    """The first of some folders that holds such files, else the root; `Images` is `images`."""
    folders = {one.name.casefold(): one for one in folders_in(root)}
    return next((folders[name] for name in names if name in folders and any(_files(folders[name], endings))), root)


def _read(root: Path, settings: DataSettings) -> Reading:
    images, apart = _below(root, IMAGES, ENDINGS), _below(root, TEXTS, (".txt",))
    written = [path for folder in dict.fromkeys((apart, images)) for path in _files(folder, (".txt",))]
    texts = {path.stem: path for path in written}
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
    near = dict.fromkeys([root, *folders_in(root), *folders_in(images)])
    others = [one for folder in near if folder != images for one in _files(folder, ENDINGS)]
    left = {
        f"texts have the name of another one, of {images.name}/, and were left out": [
            path for path in written if path != texts[path.stem]
        ],
        f"images are in other folders than {images.relative_to(root.parent)}/ and were left out": others,
    }
    for message, paths in left.items():
        if paths:
            where = paths[0].relative_to(root).as_posix()
            problems.append(Problem("warning", "unlisted", where, f"{len(paths)} {message}"))
    told = ["posts are the images of the folder, and none has a label; label them with mmsent serve --no-heads"]
    return made.reading((), told, problems)


def _files(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    return (folder / name for name in files_in(folder) if name.lower().endswith(endings))


_HOW = "a bare folder has no labels; label its posts with mmsent serve --no-heads, and save the list in it"
SPLIT: dict[Split, str] = {"train": _HOW, "test": "it needs images in the folder or in 'images/'"}
READER = Reader("folder", "a folder of images, .txt beside them or in texts/, not labelled yet", SPLIT, _locate, _read)
