"""Settings of the process: the environment wins, and where there is no glibc nothing happens."""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmsent.system import process
from tests.helpers.made import make_guid


class Library:
    """Notes what mallopt is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> int:
        self.told.append((name, value))
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    for name in [name for name in os.environ if name.startswith("MALLOC_")] + ["GOMP_SPINCOUNT"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")  # so that it comes back after the test, whatever it was
    monkeypatch.delenv("GOMP_SPINCOUNT")
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: made)
    monkeypatch.setattr(sys, "platform", "linux")
    return made


def test_freed_memory_is_kept_and_waiting_threads_sleep(library: Library) -> None:
    process.tune_process()
    assert os.environ["GOMP_SPINCOUNT"] == "3000"
    assert {name for name, _ in library.told} == {-1, -2, -4, -8}
    assert (-4, 0) in library.told


def test_the_environment_wins(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    process.tune_process()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert library.told == []


def test_other_systems_are_left_alone(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    process.tune_process()
    assert library.told == []


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_another_c_library_is_no_error(
    library: Library, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fails)
    process.tune_process()
    assert library.told == []


def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str]) -> None:
    """A machine of 8 CPUs whose control groups say this."""
    (tmp_path / "cgroup").write_text(lines)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(process, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(process, "_LIMITS", tmp_path / "fs")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("lines", "files", "cpus"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3840000 100000\n"}, 8),
        ("0::/pod/main\n", {"pod/main/cpu.max": "max 100000\n", "pod/cpu.max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/docker/1\n3:memory:/\n",
            {"cpu/docker/1/cpu.cfs_quota_us": "200000\n", "cpu/docker/1/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_the_cpus_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str], cpus: int
) -> None:
    groups(tmp_path, monkeypatch, lines, files)
    assert process.cores() == cpus


def test_threads_stay_within_a_containers_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    groups(tmp_path, monkeypatch, "0::/\n", {"cpu.max": "200000 100000\n"})
    process.tune_process()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    process.tune_process()
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_the_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, "0::/\n", {"memory.max": "max\n"})
    whole = process.memory()
    assert whole is not None
    (tmp_path / "fs" / "memory.max").write_text("1000000\n")
    assert process.memory() == 1_000_000


def test_a_gpu_repeats_its_sums(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    process.tune_process()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    process.tune_process()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_child_that_is_forked_after_computing_computes_too() -> None:
    """Two threads of the parent stay behind; without `survive_forks` the child waits for them for ever."""
    code = """
import os, torch
from mmsent.system.process import survive_forks
survive_forks()
torch.set_num_threads(2)
layer, rows = torch.nn.Linear(1024, 1024), torch.randn(256, 1024)
layer(rows)
child = os.fork()
if not child:
    layer(rows)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout.split() == ["7", "2"]


def test_a_user_without_a_name_gets_one(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*arguments: object) -> None:
        raise KeyError("uid not found: 12345")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that it comes back after the test
    monkeypatch.setattr("pwd.getpwuid", nobody)
    process.tune_process()
    assert getpass.getuser() == f"uid{os.getuid()}"


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_behind_a_dead_proxy(tmp_path: Path) -> None:
    """As in a container that runs with a number for a user, at a site whose proxy is gone."""
    user = ["unshare", "--user", "--map-user=12345"]
    if not shutil.which("unshare") or subprocess.run([*user, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    make_guid(tmp_path / "data", 6, 0)
    hidden = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*user, sys.executable, "-m", "mmsent", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    done = run("extract", "--encoder", "offline", "--views", "0")
    assert (done.returncode, "6 rows, 6 encoded" in done.stdout) == (0, True), done.stderr
    refused = run("extract", "--encoder", "clip-l14-336")
    assert refused.returncode == 1
    assert "the proxy 127.0.0.1 (from the environment) cannot be reached" in refused.stderr
    assert "bug" not in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
