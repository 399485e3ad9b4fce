"""The UTF-8 copy: the same posts, and an original that nobody touched."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest

from mmsent.cli.main import main
from mmsent.config import Clean, DataSettings
from mmsent.data.dataset import Dataset, load_dataset
from mmsent.data.manifests import read_manifest
from mmsent.data.prepare import prepare
from mmsent.errors import DataError, UsageError
from tests.helpers.made import make_guid, make_manifest


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder: its hash and its time of change."""
    return {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def contents(data: Dataset) -> list[tuple[str, str, str | None, bytes, str]]:
    return [(p.id, p.split, p.label, p.image.read_bytes() if p.image else b"", data.text_of(p)) for p in data.posts]


def test_guid_copy(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 20, 5, encoding="gb18030", test_labels=True)
    (root / "data" / "99.txt").write_text("in no list")
    (root / "data" / "2.jpg").rename(root / "data" / "2.JPEG")
    before = snapshot(root)
    source = load_dataset(root)
    done: list[int] = []
    result = prepare(source, tmp_path / "out", progress=done.append)
    assert (result.path, result.texts, result.pictures, result.skipped) == (tmp_path / "out", 25, 25, ())
    assert result.decoding.encoding == "gb18030"
    assert sum(done) == 25
    assert snapshot(root) == before

    copy = load_dataset(tmp_path / "out")
    assert (copy.decoding.encoding, copy.problems) == ("utf-8", ())
    assert contents(copy) == contents(source)
    assert (tmp_path / "out" / "test_without_label.txt").read_bytes() == (root / "test_without_label.txt").read_bytes()
    assert not os.path.samefile(root / "data" / "1.jpg", tmp_path / "out" / "data" / "1.jpg")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 50  # no temporary file, nothing unlisted


def test_lists_become_utf8_and_keep_their_form(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 2, 0)
    (root / "train.txt").write_bytes("1,好\r\n2,坏\r\n".encode("gb18030"))
    (root / "test_without_label.txt").unlink()
    prepare(load_dataset(root, DataSettings(labels=("好", "坏"))), tmp_path / "out")
    assert (tmp_path / "out" / "train.txt").read_bytes() == "1,好\r\n2,坏\r\n".encode()
    assert not (tmp_path / "out" / "test_without_label.txt").exists()


def test_texts_are_stripped_cleaned_and_without_mark(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 4, 0)
    (root / "data" / "1.txt").write_bytes("  see http://t.co/1 好\r\n".encode("utf-8-sig"))
    prepare(load_dataset(root, DataSettings(clean=(Clean.links,))), tmp_path / "out")
    assert (tmp_path / "out" / "data" / "1.txt").read_bytes() == "see 好".encode()


def test_rows_without_usable_parts_stay_in_the_list(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 6, 0)
    (root / "data" / "2.txt").write_bytes(b"\xff\xfe\x00")
    (root / "data" / "3.txt").unlink()
    (root / "data" / "4.jpg").unlink()
    result = prepare(load_dataset(root), tmp_path / "out")
    assert [(s.id, s.what) for s in result.skipped] == [("2", "text"), ("3", "text"), ("4", "picture")]
    assert result.skipped[0].reason.startswith("text is not utf-16: 'utf-16-le' codec can't decode")
    assert [s.reason for s in result.skipped[1:]] == [f"no file {root / 'data' / name}" for name in ("3.txt", "4.*")]
    assert (result.texts, result.pictures) == (4, 5)
    copy = load_dataset(tmp_path / "out")
    assert [p.id for p in copy.posts if not (tmp_path / "out" / "data" / f"{p.id}.txt").exists()] == ["2", "3"]
    assert len(copy.posts) == 6


def test_overwriting(tmp_path: Path) -> None:
    root, out = make_guid(tmp_path / "in", 6, 2), tmp_path / "out"
    prepare(load_dataset(root), out)
    with pytest.raises(UsageError, match="out is not empty; choose a new folder, or pass --overwrite"):
        prepare(load_dataset(root), out)
    (out / "notes.md").write_text("mine")
    (out / "data" / "1.png").write_bytes(b"stale, and of higher rank than webp")
    (root / "data" / "1.jpg").rename(root / "data" / "1.webp")
    (root / "data" / "2.txt").unlink()
    (root / "data" / "3.txt").write_text("new words")
    prepare(load_dataset(root), out, overwrite=True)
    copy = load_dataset(out)
    assert copy.posts[0].image == out / "data" / "1.webp"
    assert not (out / "data" / "2.txt").exists()
    assert copy.text_of(copy.posts[2]) == "new words"
    assert (out / "notes.md").read_text() == "mine"


def test_overwriting_a_link_leaves_its_target(tmp_path: Path) -> None:
    root, out = make_guid(tmp_path / "in", 4, 0), tmp_path / "out"
    (out / "data").mkdir(parents=True)
    os.link(root / "data" / "1.txt", out / "data" / "1.txt")
    (out / "data" / ".partial").symlink_to(root / "data" / "2.txt")
    before = snapshot(root)
    prepare(load_dataset(root, DataSettings(clean=(Clean.links,))), out, overwrite=True)
    assert snapshot(root) == before


@pytest.mark.parametrize("where", ["in", "in/copy", "in/data", ".", "link", "linked"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_is_refused(tmp_path: Path, where: str, overwrite: bool) -> None:
    root = make_guid(tmp_path / "in", 4, 0)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data").symlink_to(root / "data", target_is_directory=True)
    before = snapshot(root)
    with pytest.raises(UsageError, match="is, contains or is inside the data set"):
        prepare(load_dataset(root), tmp_path / where, overwrite=overwrite)
    assert snapshot(root) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="is not a folder"):
        prepare(load_dataset(make_guid(tmp_path / "in", 4, 0)), tmp_path / "out", overwrite=True)


def test_a_broken_off_copy_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = make_guid(tmp_path / "in", 6, 0), tmp_path / "out"
    source = load_dataset(root)
    prepare(source, out)
    monkeypatch.setattr("shutil.copyfile", mock.Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(DataError, match=r"the picture of 1 cannot be copied: .*Input/output error"):
        prepare(source, out, overwrite=True)
    with pytest.raises(DataError, match="is not a data set"):
        load_dataset(out)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_manifest_copy(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    encoding = "utf-8" if ending == "parquet" else "gb18030"
    manifest = make_manifest(tmp_path / "in", ending, 10, 3, size=8, encoding=encoding)
    before = snapshot(tmp_path / "in")
    source = load_dataset(manifest)
    result = prepare(source, tmp_path / "out")
    assert snapshot(tmp_path / "in") == before
    assert (result.path, result.texts, result.pictures) == (tmp_path / "out" / f"posts.{ending}", 13, 13)
    copy = load_dataset(result.path)
    assert contents(copy) == contents(source)
    assert copy.decoding.encoding == "utf-8"
    rows, _ = read_manifest(result.path, DataSettings())
    assert list(rows[0]) == ["id", "image", "text", "label", "lang"]
    assert rows[0]["lang"] == "en"
    assert rows[12]["image"] == "data/000013-post-13.png"


def test_manifest_with_hard_rows(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    make_manifest(folder, "jsonl", 4, 0, size=8)
    (folder / "posts.jsonl").unlink()
    far = tmp_path / "elsewhere.PNG"
    far.write_bytes((folder / "pictures" / "3.png").read_bytes())
    rows = [
        '{"id": "../../x/../y", "image": "pictures/1.png", "text": " a\\nb ", "label": "neutral", "score": 1.5}',
        '{"id": "b", "image": "pictures/1.png", "text": null, "label": "neutral", "score": null}',
        '{"id": "c", "image": "data/000001-x-y.png", "text": "half \\ud800", "label": "neutral"}',
        f'{{"id": "d", "image": "{far}", "text": "&amp;", "label": "positive"}}',
        '{"id": "e", "text": "no picture", "label": "positive"}',
    ]
    (folder / "posts.jsonl").write_text("\n".join(rows))
    source = load_dataset(folder / "posts.jsonl")
    result = prepare(source, tmp_path / "out")
    assert [(s.id, s.what) for s in result.skipped] == [("b", "text"), ("c", "picture"), ("e", "picture")]
    assert "no file" in result.skipped[1].reason
    assert (result.texts, result.pictures) == (4, 2)  # one picture that two rows share
    written, _ = read_manifest(result.path, DataSettings())
    assert [row.get("image") for row in written] == [
        "data/000001-x-y.png",
        "data/000001-x-y.png",
        None,  # had it been kept, it would now name the picture of another row
        "data/000004-d.png",
        None,
    ]
    assert written[0] == {
        "id": "../../x/../y",
        "image": "data/000001-x-y.png",
        "text": "a\nb",
        "label": "neutral",
        "score": 1.5,
    }
    assert written[2]["text"] == "half \ud800"
    assert "image" not in written[4]
    assert sorted(p.name for p in (tmp_path / "out" / "data").iterdir()) == ["000001-x-y.png", "000004-d.png"]


def test_manifest_texts_are_cleaned_and_other_types_kept(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "in").mkdir()
    table = pyarrow.table({"id": [1, 2], "text": ["see http://t.co/1 ", None], "label": ["neutral", "neutral"]})
    parquet.write_table(table, tmp_path / "in" / "m.parquet")
    result = prepare(load_dataset(tmp_path / "in", DataSettings(clean=(Clean.links,))), tmp_path / "out")
    copied = parquet.read_table(result.path)
    assert copied.schema.equals(table.schema)
    assert copied.to_pydict() == {"id": [1, 2], "text": ["see", None], "label": ["neutral", "neutral"]}


@pytest.mark.parametrize("where", ["in", "in/copy", ".", "pictures"])
def test_the_manifests_folder_and_its_pictures_are_refused(tmp_path: Path, where: str) -> None:
    manifest = make_manifest(tmp_path / "in", "csv", 4, 0, size=8)
    (tmp_path / "in" / "pictures").rename(tmp_path / "pictures")
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("pictures/", "../pictures/"), encoding="utf-8")
    with pytest.raises(UsageError, match="is, contains or is inside"):
        prepare(load_dataset(manifest), tmp_path / where, overwrite=True)


@pytest.mark.slow
@pytest.mark.mvsa
def test_mvsa_copy(mvsa: Path, tmp_path: Path) -> None:
    source = load_dataset(mvsa)
    result = prepare(source, tmp_path / "copy")
    assert (result.texts, result.pictures, result.skipped) == (4511, 4511, ())
    copy = load_dataset(tmp_path / "copy")
    assert (copy.decoding.encoding, copy.decoding.why) == ("utf-8", "decodes all 4511 texts")
    assert contents(copy) == contents(source)


def test_posts_that_are_held_out_are_test_posts_of_the_copy(tmp_path: Path) -> None:
    root = make_guid(tmp_path / "in", 12, 3, size=8)
    labels = {post.id: post.label for post in load_dataset(root).of("train")}
    prepare(load_dataset(root), tmp_path / "out", held_out=["2", "7"])
    copy = load_dataset(tmp_path / "out", with_test_labels=True)
    assert [p.id for p in copy.of("train")] == [i for i in labels if i not in ("2", "7")]
    assert [(p.id, p.label) for p in copy.of("test")] == [
        *((str(i), None) for i in (13, 14, 15)),
        ("2", labels["2"]),
        ("7", labels["7"]),
    ]
    assert {p.label for p in load_dataset(tmp_path / "out").of("test")} == {None}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_rows_that_are_held_out_are_test_rows_of_the_copy(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = make_manifest(tmp_path / "in", ending if ending != "json" else "jsonl", 10, 2, size=8)
    path = path.rename(path.with_suffix(f".{ending}"))
    source = load_dataset(path)
    result = prepare(source, tmp_path / "out", held_out=["post 3"])
    copy = load_dataset(result.path, with_test_labels=True)
    assert [(p.id, p.label) for p in copy.of("test")] == [
        ("post 3", source.posts[2].label),
        ("post 11", None),
        ("post 12", None),
    ]
    assert [copy.text_of(p) for p in copy.posts] == [source.text_of(p) for p in source.posts]


def test_the_command_holds_out_whole_groups_of_every_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_guid(tmp_path / "in", 40, 0, size=24)
    for copy in ("2", "3"):
        (root / "data" / f"{copy}.txt").write_bytes((root / "data" / "1.txt").read_bytes())
    for seed in range(3):
        out = tmp_path / f"out{seed}"
        with pytest.raises(SystemExit) as stop:
            main(["prepare", "--data", str(root), "--out", str(out), "--holdout", "0.25", "--holdout-seed", str(seed)])
        assert not stop.value.code
        assert "10 labelled posts are test posts there" in capsys.readouterr().out
        held = load_dataset(out, with_test_labels=True).of("test")
        assert {p.label for p in held} == {"negative", "neutral", "positive"}
        assert len({p.id for p in held} & {"1", "2", "3"}) in (0, 3)
