"""What is left out, refused or bounded, and that it is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsent.config import DataSettings
from mmsent.data import check_duplicates, duplicates
from mmsent.data.check import check_dataset
from mmsent.data.dataset import load_dataset
from mmsent.data.manifests import read_manifest
from mmsent.errors import CacheError, DataError
from mmsent.features.cache import Cache, write_cache
from mmsent.features.cache.finding import find_cache, unreadable
from mmsent.report.validation import duplicates as report_duplicates
from mmsent.system.files import write_together
from tests.cli.test_cli import fails, run, work  # noqa: F401
from tests.features.cache.test_writing import attributes, made_settings
from tests.helpers.made import make_guid, make_manifest

# --- posts


def test_predict_names_a_row_that_it_leaves_out(
    work: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("extract", "--split", "train") == 0
    assert run("fit", "--epochs", "1", "--hidden", "8", "--val-size", "10") == 0
    manifest = make_manifest(work / "posts", "jsonl", n_train=2, n_test=1, size=16)
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace('"text": "', '"text": ["').replace('", "label"', '"], "label"')
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    capsys.readouterr()
    run_name = next((work / "runs").iterdir()).name
    assert run("predict", run_name, "--manifest", str(manifest)) == 0
    shown = capsys.readouterr()
    assert "posts.jsonl row 2: " in shown.err
    assert [line.split(",")[0] for line in shown.out.splitlines()] == ["id", "post 1", "post 3"]


@pytest.mark.parametrize(
    ("text", "message"), [("half \ud83d of it", "half a surrogate pair"), ("a\0b", "holds NUL characters")]
)
def test_explain_refuses_what_is_no_text(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, error = fails(capsys, "explain", "--text", text)
    assert status == 1
    assert message in error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_parquet_manifest_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "posts.parquet")
    with pytest.raises(DataError, match=r"posts\.parquet: .*not a regular file but a pipe"):
        read_manifest(tmp_path / "posts.parquet", DataSettings())


# --- too many pairs


def test_check_goes_on_where_too_many_pictures_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(make_guid(tmp_path / "posts", n_train=6, n_test=2, size=32), strict=False)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", -1)
    found = [f.message for f in check_dataset(data).findings if f.kind == "similar pictures"]
    assert found == ["too many pictures look alike to list them"]
    monkeypatch.setattr(check_duplicates, "COMPARED", 7)
    found = [f.message for f in check_dataset(data).findings if f.kind == "similar pictures"]
    assert found == ["8 pictures are too many to compare; only identical files were looked for"]


def synthetic(path: Path, rows: int = 8) -> Cache:
    """A cache of made-up rows, with the settings of test_cache."""
    settings = made_settings()
    rng = np.random.default_rng(0)
    shapes = (rows, settings.views.count + 1, settings.image.width), (rows, settings.text.width)
    blocks = [(3 + rng.random(shapes[0]), 3 + rng.random(shapes[1]), np.arange(rows) % 3)]
    return write_cache(path, settings, attributes(), rows, iter(blocks))


def test_the_report_goes_on_where_too_many_rows_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study: Any = type("Study", (), {"cache": synthetic(tmp_path / "a.h5"), "runs": []})
    assert "near-duplicates from a cosine of" in report_duplicates(study)["note"]
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 3)  # these rows are all alike
    found = report_duplicates(study)
    assert "Not compared: more than 3 pairs" in found["note"]
    assert found["table"].rows == [["same", "how", "groups"]]


# --- files


def test_unreadable_caches_are_found_by_data_set_and_encoder(tmp_path: Path) -> None:
    sound = synthetic(tmp_path / "posts.offline.00000000.h5").path
    for name in ("posts.offline.1", "posts.clip-l14-336.2", "others.offline.3", "my-posts.offline.4"):
        (tmp_path / f"{name}.h5").write_bytes(b"no HDF5")

    def named(*which: str | None) -> list[str]:
        return [path.name.removesuffix(".h5") for path in unreadable(tmp_path, *which)]

    assert sound.stem not in named()
    assert named() == ["my-posts.offline.4", "others.offline.3", "posts.clip-l14-336.2", "posts.offline.1"]
    assert named("posts") == ["posts.clip-l14-336.2", "posts.offline.1"]
    assert named("my posts") == ["my-posts.offline.4"]
    assert named("posts", "offline") == ["posts.offline.1"]
    assert named(None, "offline") == ["my-posts.offline.4", "others.offline.3", "posts.offline.1"]
    with pytest.raises(CacheError, match=r"others\.offline\.3\.h5 is damaged beyond repair, or no cache"):
        find_cache(tmp_path, data_name="others")


def test_verify_asks_which_of_several_unreadable_caches(
    work: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    (work / "cache").mkdir()
    for name in ("data.offline.1.h5", "data.offline.2.h5", "data.clip.3.h5"):
        (work / "cache" / name).write_bytes(b"no HDF5")
    status, error = fails(capsys, "cache", "verify", "--encoder", "offline")
    assert status == 1
    assert "2 caches in cache cannot be read; name one with --cache: cache/data.offline.1.h5" in error
    status, error = fails(capsys, "cache", "verify", "--encoder", "clip")
    assert "cache/data.clip.3.h5 is damaged beyond repair" in error


def test_a_folder_in_the_way_leaves_all_files_as_they_were(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.csv"
    one.write_bytes(b"old")
    two.mkdir()
    with pytest.raises(DataError, match=f"cannot write .*two.csv: {os.strerror(errno.EISDIR)}"):
        write_together({one: b"new", two: b"new"})
    assert one.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.txt", "two.csv"]
