"""Manifests as people have them: each is written around the same six posts, read, and compared with what was meant.

    python -m tests.helpers.odd_manifests --write docs/reference/odd-manifests.md   reads all and writes the table

Outcomes: *read*, every id, text, label and image is as it was meant; *read, and said*, it is not, or it was not plain,
and a warning or note says so; *refused*, an error says what to mend. *lost* is none: something differs without a word.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mmsent.config import DataSettings
from mmsent.data.check import check_dataset
from mmsent.data.check_report import Finding
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.errors import MmsentError
from tests.helpers.corpus import cell, encoded, shown
from tests.helpers.made import make_picture

Outcome = Literal["read", "read, and said", "refused"]
Row = tuple[str, str, str, str]  # id, image, text, label
Write = Callable[[Path], Path]

HEAD = ("id", "image", "text", "label")
LABELS = ("negative", "neutral", "positive")
TEXTS = ("What a day", "They cancelled the trip", "The shop closes at eight", "Déjà vu", "We won, again", "Rain")
POSTS: list[Row] = [(str(k), f"{k}.jpg", text, LABELS[k % 3]) for k, text in enumerate(TEXTS, 1)]
PLAIN = {"class of one row", "class without rows"}  # findings about six posts, not about their manifest


@dataclass(frozen=True)
class Item:
    """One manifest. build: writes it into a folder and returns what --data takes; meant: its posts, as a human reads
    them; settings: as options give them, shown in options; files: names of images, by the post's number."""

    name: str
    outcome: Outcome
    build: Write
    meant: tuple[Row, ...]
    options: str
    settings: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What became of a manifest. outcome: that of an item, or lost."""

    outcome: str
    message: str


ITEMS: list[Item] = []


def add(
    name: str,
    outcome: Outcome,
    content: str | bytes | Write,
    *,
    file: str = "posts.csv",
    meant: Sequence[Row] = POSTS,
    files: dict[str, str] | None = None,
    options: str = "",
    **settings: Any,
) -> None:
    """Put a manifest into the list. content: what the file holds, or what writes it."""

    def write(folder: Path) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        assert isinstance(raw, bytes)
        (folder / file).write_bytes(raw)
        return folder / file

    build = content if callable(content) else write
    ITEMS.append(Item(name, outcome, build, tuple(meant), options, settings, files or {}))


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = HEAD, delimiter: str = ",", end: str = "\n") -> str:
    """Delimited text; a cell is quoted where it holds the delimiter or a line break."""

    def quoted(value: str) -> str:
        return f'"{value}"' if delimiter in value or "\n" in value else value

    return "".join(delimiter.join(map(quoted, row)) + end for row in (head, *rows))


def changed(place: int, values: Sequence[str]) -> list[Row]:
    """The posts with other values in a column, as many as there are."""
    rows = [list(row) for row in POSTS]
    for row, value in zip(rows, values, strict=False):
        row[place] = value
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def named(pattern: str) -> list[Row]:
    """The posts with their images called otherwise. pattern: with {} for the number."""
    return changed(1, [pattern.format(k) for k in range(1, 7)])


def objects(rows: Sequence[Row] = POSTS) -> list[dict[str, str]]:
    return [dict(zip(HEAD, row, strict=True)) for row in rows]


def lines(rows: Sequence[Row] = POSTS) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects(rows))


# --- delimiters and quotes

CSV = table(POSTS)
TSV = table(POSTS, delimiter="\t")
QUOTES = ['She said "well done" to me', '"Oh no" they said', 'A 5" screen', 'Nothing "to" see', "We won, again", "Rain"]
QUOTED = changed(2, QUOTES)

add("cells between commas", "read", CSV)
add("`;` between cells", "read, and said", table(POSTS, delimiter=";"))
add("tabs in a .csv", "read, and said", TSV)
add("`,` in a .tsv", "read, and said", CSV, file="posts.tsv")
add("`|` between cells", "read, and said", table(POSTS, delimiter="|"))
add("a first line `sep=;`", "read", "sep=;\n" + table(POSTS, delimiter=";"))
add("a first line `sep=|`", "read", "sep=|\n" + table(POSTS, delimiter="|"))
add("a blank behind each comma, before a quoted cell too", "refused", table(POSTS).replace(",", ", "))
add("every cell in quotes", "read", "".join('"' + '","'.join(row) + '"\n' for row in (HEAD, *POSTS)))
add(
    "quotes escaped by backslashes",
    "read, and said",
    "".join(",".join('"' + value.replace('"', '\\"') + '"' for value in row) + "\n" for row in (HEAD, *QUOTED)),
    meant=QUOTED,
)
add("quotes in texts of a TSV", "read, and said", table(QUOTED, delimiter="\t"), file="posts.tsv", meant=QUOTED)
OPEN = changed(2, ['"What a day', "They cancelled the trip", 'The shop closes at eight"'])
add("a quote that opens in one row and closes in another", "read, and said", table(OPEN), meant=OPEN)
LINES = changed(2, ["What\na day"])
add("a line break in a quoted cell", "read", table(LINES), meant=LINES)
add("a delimiter at the end of each row", "read", CSV.replace("\n", ",\n"))
add("a delimiter at the end of each row but the first", "read", CSV.replace("\n", ",\n").replace(",\n", "\n", 1))
add("a row with a cell too many", "refused", CSV.replace("2.jpg", "2.jpg,x"))
add("a row with a cell too few", "refused", CSV.replace("2.jpg,", ""))
add("a text with a comma that is not quoted", "refused", CSV.replace('"', ""))

# --- lines and encodings


add("UTF-8 with a byte order mark", "read", CSV.encode("utf-8-sig"))
add("UTF-16, as Excel's Unicode text", "read", TSV.encode("utf-16"), file="posts.tsv")
add("UTF-16 without a byte order mark", "refused", CSV.encode("utf-16-le"))
add("UTF-16 without a byte order mark", "read", CSV.encode("utf-16-le"), text_encoding="utf-16-le",
    options="--text-encoding utf-16-le")  # fmt: skip
add("Windows-1252, two letters of it beyond ASCII", "read, and said", CSV.encode("cp1252"),
    meant=changed(2, [*TEXTS[:3], "Dйjа vu"]))  # fmt: skip
add("Windows-1252, two letters of it beyond ASCII", "read", CSV.encode("cp1252"), options="--text-encoding cp1252",
    text_encoding="cp1252")  # fmt: skip
add("an Excel file called .csv", "refused", b"PK\x03\x04" + bytes(60))
add("CR LF at some ends of lines", "read", CSV.replace("\n", "\r\n", 3))
add("CR alone at the ends of lines", "read", CSV.replace("\n", "\r"))
add("blank lines between rows, and rows of commas", "read", CSV.replace("3,3.jpg", "\n,,,\n3,3.jpg") + ",,,\n")
add("lines of comments", "refused", "# collected in May\n" + CSV)
add("a line of comment between rows", "refused", CSV.replace("3,3.jpg", "# from here on by Ann\n3,3.jpg"))
add("an empty file", "refused", "")
add("blank lines alone", "refused", "\n\n\n")
add("a header alone", "refused", table([]))
add("no header", "refused", CSV.partition("\n")[2])
add("a web page called .csv", "refused", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
add("gzip, called .csv.gz", "refused", gzip.compress(CSV.encode(), mtime=0), file="posts.csv.gz")
add("gzip, called .csv", "refused", gzip.compress(CSV.encode(), mtime=0))
add("a table called .txt", "refused", CSV, file="posts.txt")

# --- columns

OWN = ("tweet_id", "img_path", "tweet", "sentiment")
COLUMNS = {"id_column": OWN[0], "image_column": OWN[1], "text_column": OWN[2], "label_column": OWN[3]}
add("another order of columns", "read", table([row[::-1] for row in POSTS], HEAD[::-1]))
add("columns that nothing needs", "read", table([(*row, "en") for row in POSTS], (*HEAD, "lang")))
add("names of columns with blanks, in capitals", "read, and said", table(POSTS, ("ID", " Image", "Text ", "LABEL")))
add("columns under other names", "refused", table(POSTS, OWN))
add(
    "columns under other names",
    "read",
    table(POSTS, OWN),
    options="--columns id=tweet_id,image=img_path,text=tweet,label=sentiment",
    **COLUMNS,
)
add("a slip of the pen: `lable`", "read, and said", table(POSTS, (*HEAD[:3], "lable")), meant=changed(3, [""] * 6))
add("two columns `text`", "refused", table([(*row, row[2]) for row in POSTS], (*HEAD, "text")))
add("`Text` beside `text`", "read, and said", table([(*row, row[2].upper()) for row in POSTS], (*HEAD, "Text")))
add("`Unnamed: 0` before the others, as pandas writes it", "read",
    table([("0", *row) for row in POSTS], ("Unnamed: 0", *HEAD)))  # fmt: skip
add("`Unnamed: 0` for `id`", "refused", table(POSTS, ("Unnamed: 0", *HEAD[1:])))
add("a first column without a name", "read", table([("0", *row) for row in POSTS], ("", *HEAD)))
add(
    "`Unnamed: 0` for `id`",
    "read",
    table(POSTS, ("Unnamed: 0", *HEAD[1:])),
    options='--columns "id=Unnamed: 0"',
    id_column="Unnamed: 0",
)
BY_IMAGE = [(b, b, c, d) for _, b, c, d in POSTS]
add(
    "no column of ids",
    "read",
    table([row[1:] for row in POSTS], HEAD[1:]),
    options="--columns id=image",
    id_column="image",
    meant=BY_IMAGE,
)
add("no column of ids", "refused", table([row[1:] for row in POSTS], HEAD[1:]))
NO_IMAGE, NO_TEXT = changed(1, [""] * 6), changed(2, [""] * 6)
add(
    "no column of images",
    "read, and said",
    table([(a, c, d) for a, _, c, d in POSTS], ("id", "text", "label")),
    meant=NO_IMAGE,
)
add(
    "no column of texts",
    "read, and said",
    table([(a, b, d) for a, b, _, d in POSTS], ("id", "image", "label")),
    meant=NO_TEXT,
)
add("neither images nor texts", "refused", table([(a, d) for a, *_, d in POSTS], ("id", "label")))
NO_LABEL = changed(3, [""] * 6)
add("no column of labels", "read", table([row[:3] for row in POSTS], HEAD[:3]), meant=NO_LABEL)

# --- ids and texts

FRACTIONS, ROUNDED = changed(0, [f"{k}.0" for k in range(1, 7)]), changed(0, [f"1.2{k}E+18" for k in range(1, 7)])
add("ids 1.0, 2.0, …", "read, and said", table(FRACTIONS), meant=FRACTIONS)
add("ids 1.21E+18, …", "read, and said", table(ROUNDED), meant=ROUNDED)
add("ids rounded to the same", "refused", table(changed(0, ["1.2E+18"] * 6)))
add('ids `="0001"`, against Excel', "read", table(changed(0, [f'="000{k}"' for k in range(1, 7)])),
    meant=changed(0, [f"000{k}" for k in range(1, 7)]))  # fmt: skip
add("an id twice", "refused", table([*POSTS[:5], ("1", "6.jpg", "Rain", "neutral")]))
add("an empty id", "refused", table(changed(0, [""])))
for word in ("\\N", "NULL", "nan"):
    add(f"a text `{word}`", "read, and said", table(changed(2, [word])), meant=changed(2, [word]))
add("an empty text", "read, and said", table(changed(2, [""])), meant=changed(2, [""]))

# --- labels and splits

add("labels in capitals, with blanks", "read, and said", table(changed(3, ["Neutral", "POSITIVE ", " negative"])))
add("labels 0, 1, 2", "refused", table(changed(3, list("120120"))))
add(
    "labels 0, 1, 2",
    "read, and said",
    table(changed(3, list("120120"))),
    options='--label-map "0=negative,1=neutral,2=positive"',
    label_map=dict(zip("012", LABELS, strict=True)),
)
FLAGS, BITS = ["True", "FALSE", "true"] * 2, changed(3, list("101101"))
add("labels true and false", "refused", table(changed(3, FLAGS)))
add("labels true and false", "read, and said", table(changed(3, FLAGS)), options="--labels 0,1", meant=BITS,
    labels=("0", "1"))  # fmt: skip
add("labels 1.0 and 0.0", "read, and said", table(changed(3, ["1.0", "0.0", "1.0"] * 2)), options="--labels 0,1",
    meant=BITS, labels=("0", "1"))  # fmt: skip
add("a label of another set", "refused", table(changed(3, ["very positive"])))
add(
    "a label of another set",
    "read, and said",
    table(changed(3, ["neutral", "very positive"])),
    options='--label-map "very positive=positive"',
    label_map={"very positive": "positive"},
)
TAIL = changed(3, ["neutral", "positive", "negative", "", "null", "N/A"])
add(
    "rows without a label, `null` and `N/A`",
    "read",
    table(TAIL),
    meant=changed(3, [*(r[3] for r in TAIL[:3]), "", "", ""]),
)
SPLITS = [
    (*row, split) for row, split in zip(POSTS, ("train", "Train", "dev", "validation", "val", "training"), strict=True)
]
add("splits train, dev, validation, val", "read, and said", table(SPLITS, (*HEAD, "split")))
add("a split `holdout`", "refused", table([*(row[:5] for row in SPLITS[:5]), (*POSTS[5], "holdout")], (*HEAD, "split")))

# --- images

ACCENT = {str(k): f"caf\u00e9 {k}.jpg" for k in range(1, 7)}
PHOTOS = {str(k): f"photos/{k}.jpg" for k in range(1, 7)}
AWAY = table(named("C:\\Users\\Ann\\photos\\{}.jpg"))
add(
    "Windows paths",
    "read, and said",
    table(named("photos\\{}.jpg")),
    files=PHOTOS,
)
add("Windows paths of another machine", "refused", AWAY)
add("Windows paths of another machine", "read, and said", AWAY, options="--images photos",
    files=PHOTOS, images="photos")  # fmt: skip
add("percent-encoded names", "read, and said", table(named("caf%C3%A9%20{}.jpg")), files=ACCENT)
add(
    "names in NFD, files in NFC",
    "read, and said",
    table(named(unicodedata.normalize("NFD", "caf\u00e9 {}.jpg"))),
    files=ACCENT,
)
add("files called .JPG", "read, and said", CSV, files={str(k): f"{k}.JPG" for k in range(1, 7)})
add("names without an ending", "read, and said", table(named("{}")))
add("names without an ending, two files each", "refused", table(named("{}")),
    files={str(k): f"{k}.jpg {k}.png" for k in range(1, 7)})  # fmt: skip
add("files called .jfif", "read", table(named("{}.jfif")), files={str(k): f"{k}.jfif" for k in range(1, 7)})
add("addresses `/data/upload/…` of Label Studio", "read", table(named("/data/upload/3/1a2b3c4d-{}.jpg")))
add("addresses `?d=…` of Label Studio", "read", table(named("/data/local-files/?d=photos/{}.jpg")),
    files=PHOTOS)  # fmt: skip
add("`file://` URLs", "read, and said", lambda folder: _written(folder, table(named(f"file://{folder}/{{}}.jpg"))))
add("`https://` URLs", "refused", table(named("https://example.org/{}.jpg")))
add("images in another folder", "refused", CSV, files=PHOTOS)
add("images in another folder", "read, and said", CSV, options="--images photos", images="photos",
    files=PHOTOS)  # fmt: skip
add("an empty cell for an image", "read, and said", table(changed(1, [""])), meant=changed(1, [""]))

# --- JSON

add("JSON: an array", "read", json.dumps(objects()), file="posts.json")
add("JSONL", "read", lines(), file="posts.jsonl")
add("JSONL called .json", "read", lines(), file="posts.json")
add("an array called .jsonl", "read", json.dumps(objects(), indent=1), file="posts.jsonl")
add("JSONL with a line that broke off", "refused", lines()[:-20] + "\n", file="posts.jsonl")
add("an array that broke off", "refused", json.dumps(objects())[:-20], file="posts.json")
BY_COLUMN = {name: {str(k): row[i] for k, row in enumerate(POSTS)} for i, name in enumerate(HEAD)}
add("JSON: columns, as pandas writes it", "refused", json.dumps(BY_COLUMN), file="posts.json")
add("JSON: an object around the array", "refused", json.dumps({"data": objects()}), file="posts.json")
add("JSONL, ids and labels as numbers", "read", "".join(
    json.dumps({"id": int(a), "image": b, "text": c, "label": int(d)}) + "\n" for a, b, c, d in BITS),
    file="posts.jsonl", meant=BITS, options="--labels 0,1", labels=("0", "1"))  # fmt: skip
add("JSONL where one object says `Text`", "refused", lines().replace('"text"', '"Text"', 1), file="posts.jsonl")
add("JSONL, a text that is a list", "refused", lines().replace('"Rain"', '["Rain"]'), file="posts.jsonl")
add(
    "JSONL, `null` for a text",
    "read, and said",
    lines().replace('"Rain"', "null"),
    file="posts.jsonl",
    meant=changed(2, [*TEXTS[:5], ""]),
)


def _written(folder: Path, text: str) -> Path:
    (folder / "posts.csv").write_text(text, encoding="utf-8")
    return folder / "posts.csv"


# --- what becomes of them


@functools.cache
def _image(k: int) -> bytes:
    return encoded(make_picture(LABELS[k % 3], 40, np.random.default_rng(k)))


def observe(item: Item, folder: Path) -> Seen:
    """Write an item's manifest and images into a folder, read them and check them."""
    folder.mkdir(parents=True)
    for k in range(1, 7):
        for name in item.files.get(str(k), f"{k}.jpg").split(" " if item.name.endswith("each") else "\0"):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(_image(k))
    path = item.build(folder)
    with contextlib.chdir(folder):
        settings = DataSettings(**item.settings)
    try:
        dataset = load_dataset(path, settings, strict=False)
        report = check_dataset(dataset, workers=1)
    except MmsentError as error:
        return Seen("refused", shown(str(error), folder))
    findings = [one for one in report.findings if one.kind not in PLAIN]
    told = [one for one in report.told if one.startswith(("labels:", "images:"))]
    words = shown(". ".join([*map(_words, findings), *told]).replace(f"{folder} ", "/ "), folder)
    if report.exit_status():
        return Seen("refused", words)
    if not _as_meant(dataset, item, folder):
        return Seen("lost", words)
    return Seen("read, and said" if findings or told else "read", words)


def _words(one: Finding) -> str:
    kind = f"{one.kind}: " if one.kind.startswith("posts with") else ""
    return f"{kind}{one.message}{f' ({one.examples[0]})' if one.examples and one.severity != 'note' else ''}"


def _as_meant(dataset: Dataset, item: Item, folder: Path) -> bool:
    """Whether every post has the id, text, label and image that were meant."""
    for k, (post, row) in enumerate(zip(dataset.posts, item.meant, strict=True), 1):
        image = folder / item.files.get(str(k), f"{k}.jpg") if row[1] else None
        found = (post.id, post.image, dataset.text_of(post) if row[2] else post.text or "", post.label or "")
        if found != (row[0], image, row[2], row[3]):
            return False
    return len(dataset.posts) == len(item.meant)


INTRO = """# Odd manifests

Written by `python -m tests.helpers.odd_manifests --write docs/reference/odd-manifests.md`, which writes the same six
posts in each of these ways, reads them, and compares every id, text, label and image; a test does the same.

- **read**: all is as it was meant.
- **read, and said**: all is as the last column says, which `mmsent check` and `extract` say too.
- **refused**: nothing is encoded; the last column is the message.

What to add: [posts as you have them](../how-to/foreign-data.md). Broken images, texts and files:
[odd and hostile input](../robustness.md).

"""


def document(seen: Sequence[tuple[Item, Seen]]) -> str:
    """docs/reference/odd-manifests.md."""
    rows = ["| manifest | options | outcome | message |", "|---|---|---|---|"]
    for item, one in seen:
        options = f"`{item.options}`" if item.options else ""
        rows.append(f"| {cell(item.name)} | {options} | {one.outcome} | {cell(one.message, 400)} |")
    counts = ", ".join(f"{sum(one.outcome == o for _, one in seen)} {o}" for o in get_args(Outcome))
    return INTRO + "\n".join(rows) + f"\n\n{len(seen)} manifests: {counts}.\n"


def observe_all(folder: Path) -> list[tuple[Item, Seen]]:
    """Read every manifest, each in a folder of its own."""
    return [(item, observe(item, folder / str(k))) for k, item in enumerate(ITEMS)]


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--write", type=Path, metavar="FILE", required=True)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as place:
        every = observe_all(Path(place).resolve())
    given.write.write_text(document(every), encoding="utf-8")
    for item, one in every:
        if one.outcome != item.outcome:
            print(f"{item.name}: {one.outcome}, not {item.outcome}; {one.message}")
