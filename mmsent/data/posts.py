"""Posts, and a compact sequence of them: about a hundred bytes per post, instead of kilobytes for objects and paths."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, overload

from mmsent.system.files import is_file
from mmsent.system.packed import Strings

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
_NONE, _ITSELF, _FILE = range(3)  # how a post's text is stored


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding about a data set. Errors stop extraction; warnings and notes do not. post: the id, where one is meant
    whose row is kept."""

    severity: Literal["error", "warning", "note"]
    kind: str
    where: str
    message: str
    post: str | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One post. image: the file where it should be, a URL or a name of `containers`, or None if none is named; text:
    the text itself, the file where it should be, or None."""

    id: str
    split: Split
    label: str | None
    image: Path | str | None
    text: str | Path | None

    @property
    def has_image(self) -> bool:
        """Whether there is an image file; a URL is taken at its word."""
        return isinstance(self.image, str) or (self.image is not None and is_file(self.image))


class Posts(Sequence[Post]):
    """Posts in list order, each created on access. folder: where most of their files are."""

    def __init__(self, folder: Path, posts: Iterable[Post] = ()) -> None:
        self._folder, self._inside = folder, str(folder / "_").removesuffix("_")  # with the system's own separator
        self.ids = Strings()
        self._images, self._texts = Strings(), Strings()
        self._kinds, self._splits, self._labels = array("b"), array("b"), array("i")
        self._numbers: dict[str, int] = {}  # label -> its number here
        self._names: list[str] = []  # the other way round
        for post in posts:
            self.append(post)

    def append(self, post: Post) -> None:
        """Add one at the end."""
        self.ids.append(post.id)
        self._splits.append(SPLITS.index(post.split))
        self._labels.append(-1 if post.label is None else self._number(post.label))
        self._images.append(self._short(post.image) if isinstance(post.image, PurePath) else post.image)
        file = isinstance(post.text, PurePath)
        self._kinds.append(_NONE if post.text is None else _FILE if file else _ITSELF)
        self._texts.append(self._short(post.text) if isinstance(post.text, PurePath) else post.text)

    def _number(self, label: str) -> int:
        if label not in self._numbers:
            self._numbers[label] = len(self._names)
            self._names.append(label)
        return self._numbers[label]

    def _short(self, path: PurePath) -> str:
        short = str(path).removeprefix(self._inside)
        if self._folder / short != path:
            raise ValueError(f"{path} lies neither below {self._folder} nor at an absolute path")
        return short

    def without_test_labels(self) -> Posts:
        """The same posts; those of the test split have no label."""
        out = Posts(self._folder)
        out.__dict__.update(self.__dict__)
        test = SPLITS.index("test")
        out._labels = array("i", [-1 if s == test else k for s, k in zip(self._splits, self._labels, strict=True)])
        return out

    def of(self, split: Split) -> Sequence[Post]:
        """The posts of one split."""
        wanted = SPLITS.index(split)
        return _Some(self, array("q", [i for i, s in enumerate(self._splits) if s == wanted]))

    @property
    def splits(self) -> list[Split]:
        """The splits that hold at least one post."""
        return [split for i, split in enumerate(SPLITS) if i in self._splits]

    def __len__(self) -> int:
        return len(self._kinds)

    def _at(self, i: int) -> Post:
        label, text, image = self._labels[i], self._texts.get(i), self._images.get(i)
        return Post(
            self.ids[i],
            SPLITS[self._splits[i]],
            None if label < 0 else self._names[label],
            image if image is None or "://" in image else self._folder / image,  # no path has two slashes
            self._folder / text if text is not None and self._kinds[i] == _FILE else text,
        )

    @overload
    def __getitem__(self, i: int) -> Post: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Post]: ...
    def __getitem__(self, i: int | slice) -> Post | Sequence[Post]:
        found = range(len(self))[i]
        return self._at(found) if isinstance(found, int) else _Some(self, array("q", found))

    def __iter__(self) -> Iterator[Post]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Post.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


class _Some(Sequence[Post]):
    """Some of many posts, by their positions."""

    def __init__(self, posts: Posts, positions: array[int]) -> None:
        self._posts, self._positions = posts, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, i: int) -> Post: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Post]: ...
    def __getitem__(self, i: int | slice) -> Post | Sequence[Post]:
        if isinstance(i, slice):
            return _Some(self._posts, self._positions[i])
        return self._posts[self._positions[i]]

    def __iter__(self) -> Iterator[Post]:
        return map(self._posts.__getitem__, self._positions)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Post.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]
