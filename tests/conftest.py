from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from mmsent.system.files import passing_folder

pytest_plugins = ["tests.helpers.small", "tests.helpers.browser"]

# Hub libraries may not ask a network during tests; they read this when they are imported.
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Threads that spin while they wait make small steps many times slower beside another busy process.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def pytest_configure(config: pytest.Config) -> None:
    """What tests, and browsers and programs that they start, put into the folder for temporary files goes into one that
    is removed at the end, or by the next session where this one is killed. Workers of pytest-xdist use their parent's.
    Left as they are: tmp_path, which pytest removes unless a test fails, and Ray, whose sockets need short paths."""
    if hasattr(config, "workerinput"):
        return
    usual, until_the_end = tempfile.gettempdir(), contextlib.ExitStack()
    ours = until_the_end.enter_context(passing_folder(Path(usual), "mmsent-tests-"))
    ours.chmod(0o711)  # a server may run as another user, in a folder in it
    os.environ["TMPDIR"], tempfile.tempdir = str(ours), None
    for name in ("PYTEST_DEBUG_TEMPROOT", "RAY_TMPDIR"):
        os.environ.setdefault(name, usual)
    config.add_cleanup(until_the_end.close)


@pytest.fixture(scope="session")
def mvsa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked mvsa-single folder; MMSENT_MVSA names the archive, or a folder already unpacked."""
    named = os.environ.get("MMSENT_MVSA")
    if not named:
        if os.environ.get("MMSENT_REQUIRE_MVSA"):
            pytest.fail("MMSENT_REQUIRE_MVSA is set, but MMSENT_MVSA is not")
        pytest.skip("MMSENT_MVSA is not set: it names mvsa-single.tar or the unpacked folder")
    path = Path(named)
    if path.is_dir():
        return path
    if not path.is_file():
        pytest.fail(f"MMSENT_MVSA={named} does not exist")
    folder = tmp_path_factory.mktemp("mvsa")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / "mvsa-single"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own settings have no say in tests."""
    for name in ("MMSENT_DATA", "MMSENT_CACHE", "MMSENT_RUNS", "MMSENT_ENCODER", "MMSENT_DEVICE", "MMSENT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
