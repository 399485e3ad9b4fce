"""A data set on its way through the command line, from --data to a cache, with the fake encoders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmsent.cli.main import main
from mmsent.features.cache import Cache
from tests.helpers.fake import fake_encoders


class Commands:
    """Runs commands on a data set; its cache is one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def run(self, status: int, *words: str | Path) -> str:
        """A command that ends with this status; what it printed, without lines' ends that a terminal adds."""
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        found = self._capsys.readouterr()
        assert (end.value.code or 0) == status, found.out + found.err
        return found.out + found.err if status else found.out

    def extract(self, data: Path, *options: str | Path) -> tuple[Cache, dict[str, Any]]:
        """The cache of a data set, and what `extract --json` says of it."""
        words = ("extract", "--data", data, "--cache", self.folder, "--views", "1", "--json", *options)
        facts = json.loads(self.run(0, *words))
        return Cache.open(Path(facts["cache"])), facts

    def label(self, data: Path, cache: Cache) -> None:
        """The rest of the way: a head is fitted, and labels every post of the test split, or of the training split
        where there is none."""
        where = ("--data", data, "--cache", cache.path)
        self.run(0, "fit", *where, "--recipe", "paper", "--fusion", "concat", "--epochs", "1")
        split = "test" if "test" in cache.rows else "train"
        self.run(0, "vote", *where, "--split", split, "--out", self.folder.parent / "labels.txt")
        with (self.folder.parent / "labels.csv").open(encoding="utf-8", newline="") as file:
            found = {row["id"]: row["predicted"] for row in csv.DictReader(file)}
        assert list(found) == cache.index(split).ids
        assert set(found.values()) <= set(cache.labels)

    def check(self, data: Path, *options: str | Path, status: int = 0) -> dict[str, Any]:
        """What `check --json` says of a data set."""
        said = self.run(status, "check", "--data", data, "--no-tokens", "--json", *options)
        found: dict[str, Any] = json.loads(said[said.index("{") : said.rindex("}") + 1])
        return found


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    monkeypatch.setattr("mmsent.features.extract.open_encoders", lambda settings: fake_encoders())
    monkeypatch.chdir(tmp_path)
    return Commands(tmp_path / "cache", capsys)
