"""The corpus of odd input: every item comes out as it says, writes nothing elsewhere, and stands in the table."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from mmsent.cli.output import echo, echo_json
from mmsent.data.dataset import load_dataset
from mmsent.data.images import open_rgb
from mmsent.data.prepare import prepare
from mmsent.errors import DataError
from mmsent.system.files import read_file
from tests.helpers.corpus import (
    ITEMS,
    Item,
    Outcome,
    Seen,
    document,
    fakes,
    guid,
    observe,
    run,
    snapshot,
    sound,
    write_list,
)
from tests.helpers.made import make_guid, make_manifest

TABLE = Path(__file__).parent.parent.parent / "docs" / "robustness.md"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Item], Seen]:
    """Each item is run once, whoever asks first."""
    known: dict[str, Seen] = {}

    def of(item: Item) -> Seen:
        if "Parquet" in item.name:
            pytest.importorskip("pyarrow")
        if item.slug not in known:
            known[item.slug] = observe(item, tmp_path_factory.mktemp("corpus") / item.slug)
        return known[item.slug]

    return of


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.kind}: {item.name}")
def test_the_outcome_is_the_stated_one(item: Item, seen: Callable[[Item], Seen]) -> None:
    found = seen(item)
    assert found.problems == ()
    assert (found.outcome, found.message) == (item.outcome, found.message)
    assert re.search(item.says, found.message, re.DOTALL), found.message
    assert found.check == (item.outcome in ("quarantined", "refused"))
    assert item.finds in ("", *found.findings)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_the_table_is_what_the_script_writes(seen: Callable[[Item], Seen]) -> None:
    """If this fails: python -m tests.helpers.corpus --write docs/robustness.md"""
    assert TABLE.read_text(encoding="utf-8") == document([(item, seen(item)) for item in ITEMS])


def test_the_corpus_holds_what_it_should() -> None:
    assert len({(item.kind, item.name) for item in ITEMS}) == len(ITEMS)
    assert {item.outcome for item in ITEMS} == set(get_args(Outcome))


def test_a_write_elsewhere_and_a_wrong_picture_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = next(i for i in ITEMS if i.name == "EXIF orientation 6")
    monkeypatch.setattr("mmsent.data.images._UPRIGHT", {})
    work = tmp_path.resolve() / "a" / "work"

    def stray(*arguments: object) -> Path:
        (work / "stray.txt").write_text("x")
        return load_dataset(*arguments)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr("mmsent.data.prepare._check_target", stray)
    found = observe(item, tmp_path.resolve() / "a")
    assert [p for p in found.problems if "away from what it should look like" in p]
    assert "changed: work/stray.txt" in found.problems


def test_a_set_with_more_bad_posts_than_the_limit_is_refused(tmp_path: Path) -> None:
    build = guid(lambda data: (data / "odd.jpg").write_bytes(b"") and None)
    (tmp_path / "in").mkdir()
    with fakes():
        status, _, words = run("extract", "--data", str(build(tmp_path / "in")), "--cache", str(tmp_path / "out"))
    assert (status, "1 of 13 train rows are bad (odd: picture file is empty), more than --max-bad 0.01" in words) == (
        1,
        True,
    )


# --- files


def test_neither_pipes_nor_devices_are_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file but a pipe, socket or device"):
            read_file(path)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    with pytest.raises(OSError, match="no such path can exist"):
        read_file(tmp_path / "a\0b")
    assert time.monotonic() - started < 5


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes; the limit is 4"):
        read_file(tmp_path / "a", 4)


# --- links


def test_only_links_out_of_the_data_set_are_named(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 4, 0)
    (tmp_path / "away").mkdir()
    for name in ("1.jpg", "2.txt"):
        (root / "data" / name).rename(tmp_path / "away" / name)
        (root / "data" / name).symlink_to(tmp_path / "away" / name)
    (root / "data" / "3.jpg").rename(root / "3.jpg")
    (root / "data" / "3.jpg").symlink_to("../3.jpg")
    (problem,) = load_dataset(root).problems
    assert (problem.severity, problem.kind, problem.where) == ("warning", "link to outside", "1")
    assert problem.message.startswith("2 files are links")


def test_a_manifest_names_links_out_too(tmp_path: Path) -> None:
    path = make_manifest(tmp_path / "in", "csv", 4, 0, size=8)
    (tmp_path / "in" / "pictures" / "2.png").rename(tmp_path / "2.png")
    (tmp_path / "in" / "pictures" / "2.png").symlink_to(tmp_path / "2.png")
    assert [(p.kind, p.where) for p in load_dataset(path).problems] == [("link to outside", "post 2")]


def test_prepare_does_not_write_through_links_in_its_folder(tmp_path: Path) -> None:
    root, out = make_guid(tmp_path / "in", 4, 0), tmp_path / "out"
    (out / "data").mkdir(parents=True)
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("train.txt", "data/1.txt", "data/2.jpg", "data/.partial", ".partial"):
        (out / name).symlink_to(tmp_path / "precious")
    before = snapshot(root)
    prepare(load_dataset(root), out, overwrite=True)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert snapshot(root) == before
    assert load_dataset(out).text_of(load_dataset(out).posts[0]) == load_dataset(root).text_of(
        load_dataset(root).posts[0]
    )


def test_prepare_leaves_out_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    root = write_list(tmp_path / "in", sound(tmp_path / "in"))
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (root / "data" / name).unlink()
    os.mkfifo(root / "data" / "1.jpg")
    (root / "data" / "2.jpg").symlink_to("/dev/zero")
    (root / "data" / "3.jpg").symlink_to("nowhere")
    done = prepare(load_dataset(root), tmp_path / "out")
    assert [(s.id, s.what) for s in done.skipped] == [("1", "picture"), ("2", "picture"), ("3", "picture")]
    assert done.pictures == 9


# --- what is printed


def test_half_a_surrogate_pair_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a \ud83d b 好")
    echo_json({"a": "\ud83d"})
    assert capsys.readouterr().out == 'a \\ud83d b 好\n{\n "a": "\\ud83d"\n}\n'


# --- texts that would take hours


def test_clip_reads_a_word_of_a_megabyte_in_no_time() -> None:
    import open_clip

    from mmsent.encoders.clip_model import TOKEN_CHARACTERS, bounded

    tokenizer = open_clip.SimpleTokenizer()
    longest = max(
        len(bytearray(map(tokenizer.byte_decoder.get, token.removesuffix("</w>"))).decode("utf-8", "replace"))
        for token in tokenizer.encoder
        if not token.startswith("<")
    )
    assert longest < TOKEN_CHARACTERS
    rng_words = "".join(chr(97 + (i * i * 7 + i // 3) % 26) for i in range(1 << 20))
    most = 77 * TOKEN_CHARACTERS
    assert len(bounded(rng_words, 77)) == most
    prose = "a sunny day, " * 400
    runs = [letter * 5000 for letter in "oO_-.!…😂"]  # their tokens hold 16 of an ASCII letter
    for text in (rng_words[:3000], prose, *runs, "a " * 4000 + "o" * 5000):
        assert tokenizer([bounded(text, 77)]).tolist() == tokenizer([text]).tolist()  # the tokens that are kept
    assert tokenizer.encode(prose) == tokenizer.encode(bounded(prose, 77))
    started = time.process_time()
    tokenizer([bounded(rng_words, 77), bounded(" ".join([rng_words[:most]] * 1000), 77)])
    assert time.process_time() - started < 20
    for short in ("", " a  b ", "x" * most):
        assert bounded(short, 77) == short


def test_an_icon_in_disguise_is_refused() -> None:
    with pytest.raises(DataError, match="not a picture"):
        open_rgb(b"\0\0\1\0\1\0" + bytes(64))
