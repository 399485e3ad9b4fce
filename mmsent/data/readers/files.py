"""Where the image files are that rows name, and in how many rows they were found in which way."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from mmsent.config import DataSettings
from mmsent.data.posts import Post
from mmsent.system.files import from_here, is_file, protocol

# Of the formats that are read; the bytes decide which one it is.
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jfif", "jpe", "avif", "heic", "heif")
ENDINGS = tuple(f".{ending}" for ending in IMAGE_ENDINGS)
BY_PATH, BY_NAME = "by the path", "by the name alone"
OTHER_FORM, NO_ENDING = "in another case or Unicode form", "by the name without its ending"
_SEVERAL, _NONE = "not found, as several files have the name", "not found"
# Not of a data set: hidden files, and what systems keep on a disk of their own, which often nobody else may open.
_HIDDEN = (".", "__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before a name

Names = dict[str, list[Path]]  # files and folders by their loose names, and images without their endings too


def is_label_studio(written: str) -> bool:
    """Whether a cell is an image's address in Label Studio: `/data/upload/…` or `/data/local-files/?d=…`."""
    path = urlsplit(written.strip()).path if "/data/" in written else ""
    return "/data/upload/" in path or "/data/local-files" in path


def usual_spellings(written: str) -> list[str]:
    """The paths that a cell may mean, the likeliest first: itself, or what an address in Label Studio stands for."""
    if not is_label_studio(written):
        return [written]
    parts = urlsplit(written.strip())
    if "/data/local-files" in parts.path:
        return parse_qs(parts.query).get("d", [written])
    below = unquote(parts.path.partition("/data/")[2])
    folder, _, name = below.rpartition("/")
    plain = _UPLOAD.sub("", name)
    return list(dict.fromkeys([below, below.removeprefix("upload/"), name, f"{folder}/{plain}", plain]))


class ImageFiles:
    """Finds images below a folder, and below --images where that is given.

    deep: a name alone is enough, wherever below the folder its file lies; below --images it always is, and so it is for
    addresses in Label Studio. spellings: the paths that a cell may mean, the likeliest first.
    """

    def __init__(
        self,
        folder: Path,
        settings: DataSettings,
        *,
        deep: bool = False,
        spellings: Callable[[str], list[str]] = usual_spellings,
    ) -> None:
        self.folder = folder
        self.spellings = spellings
        self._other = Path(settings.images) if settings.images else None
        self._deep = deep
        self._ways: Counter[str] = Counter()
        self._listed: dict[Path, Names] = {}

    def find(self, written: str) -> Path:
        """The file that a cell means. Where there is none, the path where it was looked for first."""
        names = self.spellings(written)
        found, way = self._found(names, self._deep or is_label_studio(written))
        self._ways[way] += 1
        return found or self.folder / next(iter(ways(names[0]))).strip()

    def _found(self, names: Sequence[str], deep: bool) -> tuple[Path | None, str]:
        for folder in (self.folder, *([self._other] if self._other else [])):
            for name in names:
                for path, way in ways(name).items():
                    if is_file(folder / path):
                        return folder / path, way if folder == self.folder else f"below {folder}"
        for folder in (self.folder, *([self._other] if self._other else [])):
            for path in dict.fromkeys(path for name in names for path in ways(name)):
                if (alike := self._alike(folder, path))[1] != _NONE:
                    return alike
        for tree in [*([self._below] if deep else []), *([self._below_other] if self._other else [])]:
            for name in names:
                last = _last(name)
                if (alone := _chosen(last, tree.get(_loose(last), [])))[1] != _NONE:
                    return alone[0], BY_NAME if alone[0] else alone[1]
        return None, _NONE

    def _alike(self, folder: Path, path: str) -> tuple[Path | None, str]:
        """The one file whose path differs by case, Unicode's form or the missing ending."""
        *parents, last = PurePosixPath(path.replace("\\", "/")).parts or [""]
        for part in parents:
            if not os.path.isdir(folder / part):
                found = [one for one in self._in(folder).get(_loose(part), []) if one.name != part and one.is_dir()]
                if len(found) != 1:
                    return None, _NONE
                part = found[0].name
            folder = folder / part
        return _chosen(last, self._in(folder).get(_loose(last), []))

    def _in(self, folder: Path) -> Names:
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):
                names = []
            self._listed[folder] = _by_name(folder / name for name in names)
        return self._listed[folder]

    @cached_property
    def _below(self) -> Names:
        return _by_name(_files_below(self.folder))

    @cached_property
    def _below_other(self) -> Names:
        return _by_name(_files_below(self._other)) if self._other else {}

    def told(self) -> list[str]:
        """How images were found, where some were not where the rows say, or could have been."""
        if not self._ways.keys() - {BY_PATH} and not self._deep and self._other is None:
            return []
        return [f"images: {', '.join(f'{n} {way}' for way, n in self._ways.items())}"] if self._ways else []


def ways(written: str) -> dict[str, str]:
    """The paths that what is written may mean, the likeliest first, and in which way each is read."""
    plain = written.strip()
    found = {written: BY_PATH, plain: BY_PATH}
    if protocol(plain) == "file":
        from urllib.request import url2pathname  # takes a while to import

        plain = url2pathname(urlsplit(plain).path)
        found = {plain: "from a file:// URL"}
    slashes = plain.replace("\\", "/")
    found.setdefault(slashes, "with backslashes as separators")
    found.setdefault(unquote(plain), "with percent-encoding undone")
    found.setdefault(unquote(slashes), "with percent-encoding undone")
    return found


def _loose(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _by_name(paths: Iterable[Path]) -> Names:
    found: Names = defaultdict(list)
    for path in paths:
        found[_loose(path.name)].append(path)
        if path.suffix.lower().removeprefix(".") in IMAGE_ENDINGS:
            found[_loose(path.stem)].append(path)
    found.default_factory = None  # type: ignore[attr-defined]
    return found


def _files_below(folder: Path) -> Iterable[Path]:
    return (Path(where, name) for where, _, names in os.walk(folder) for name in names)


def _chosen(name: str, candidates: Sequence[Path]) -> tuple[Path | None, str]:
    """The one of some files that a name means, and by what; None where there is none, or several."""
    files = [path for path in candidates if is_file(path)]
    same = [path for path in files if path.name == name]
    alike = same or [path for path in files if _loose(path.name) == _loose(name)]
    found = alike or files
    if len(found) != 1:
        return None, _SEVERAL if found else _NONE
    return found[0], OTHER_FORM if alike else NO_ENDING


def _last(name: str) -> str:
    return unquote(name).strip().replace("\\", "/").rpartition("/")[2]


def files_in(folder: Path) -> list[str]:
    """The names of a folder's own files, sorted; links to nowhere too, so that somebody is told of them. Without hidden
    ones, such as the `._1.jpg` that macOS puts beside `1.jpg`."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if not one.name.startswith(_HIDDEN) and not one.is_dir())


def has_images(folder: Path) -> bool:
    """Whether a folder itself holds an image, by the endings."""
    return any(name.lower().endswith(ENDINGS) for name in files_in(folder))


def folders_in(folder: Path) -> list[Path]:
    """A folder's own folders, sorted, without hidden ones such as `.ipynb_checkpoints`."""
    with os.scandir(folder) as entries:
        return sorted(folder / one.name for one in entries if not one.name.startswith(_HIDDEN) and one.is_dir())


def walked(root: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """A folder and all below it that are not hidden. Links are followed, but for those to a folder that they are in;
    above: the folders, without links, that this one is in."""
    yield root
    real = root.resolve()
    above |= {real, *real.parents}
    for folder in folders_in(root):
        if folder.resolve() not in above:
            yield from walked(folder, above)


def holds(folder: Path) -> str:
    """What a folder holds, in a few words."""
    entries = sorted(folder.iterdir())
    folders = [one.name for one in entries if one.is_dir()]
    files = [one for one in entries if not one.is_dir()]
    kinds = Counter(one.suffix.lower() or "no ending" for one in files)
    words = [f"{n} {kind}" for kind, n in kinds.most_common(4)]
    if words:
        kind = kinds.most_common(1)[0][0]
        words[0] += f" ({next(one.name for one in files if kind == (one.suffix.lower() or 'no ending'))})"
    if folders:
        shown = ", ".join(f"{name}/" for name in folders[:4])
        words.insert(0, f"{len(folders)} folders ({shown}{', …' if folders[4:] else ''})")
    return ", ".join(words) or "nothing"


def missing_images(posts: Sequence[Post], root: Path) -> str:
    """Where most of the posts have no image: one path that was tried, and what is there instead; else nothing. root: of
    the data set."""
    named = [post.image for post in posts if post.image is not None]
    if 2 * len(named) < len(posts):
        return "most rows name no image; --columns image=NAME says which column does"
    missing = [image for image in named if isinstance(image, Path) and not is_file(image)]
    if 2 * len(missing) <= len(posts):
        return ""
    home = root if root.is_dir() else root.parent
    tried = missing[0]
    folder = next((one for one in tried.parents if one.is_dir() and one.is_relative_to(home)), home)
    return from_here(
        f"most images are not where the rows say: there is no {tried}, and {folder} holds {holds(folder)}; "
        "--images DIR looks in another folder too"
    )
