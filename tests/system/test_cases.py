"""Small scripts, each of which showed a fault once, run as they are; cases/NAME.toml says what each must print now.

The scripts are kept beside the project; MMSENT_CASES names their folder. A table has `seen` and `never`: regular
expressions over everything that the script printed (`.` spans no line). `needs` names a command, `root`, or `shared`
for root with a Python that other users may read. `before` is Python code that runs as each Python of the script starts;
`first`, shell commands that run before it in its folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = os.environ.get("MMSENT_CASES", "")
EXPECTED = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("cases/*")
}
SCRIPTS = sorted(path for path in Path(FOLDER or "absent").glob("[0-9]*") if path.suffix in (".py", ".sh"))
NEVER = ["this is a bug", "Traceback"]  # whatever the case
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="MMSENT_CASES is not set: it names the folder of the scripts"),
]


def test_every_script_has_its_outcome() -> None:
    assert {path.stem for path in SCRIPTS} == EXPECTED.keys()


def _has(needs: str) -> bool:
    if needs not in ("root", "shared"):
        return shutil.which(needs) is not None
    python = Path(sys.executable).resolve()
    return os.geteuid() == 0 and (needs == "root" or all(one.stat().st_mode & 0o001 for one in python.parents))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, as some scripts become one, with a path short enough for Ray."""
    with tempfile.TemporaryDirectory(dir=os.environ["RAY_TMPDIR"]) as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_case(script: Path, folder: Path) -> None:
    expected = EXPECTED[script.stem]
    if (needs := expected.get("needs")) and not _has(needs):
        pytest.skip(f"the script needs {needs}")
    program = Path(sys.executable).with_name("mmsent")
    environment = os.environ | {"M": str(program), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    environment.pop("RAY_TMPDIR", None)
    if before := expected.get("before"):
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(before)
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{folder / 'site'}"
    if first := expected.get("first"):
        path = f"{program.parent}{os.pathsep}{environment['PATH']}"
        subprocess.run(["bash", "-ec", first], cwd=folder, env=environment | {"PATH": path}, timeout=300, check=True)
    start = ["bash", str(script)] if script.suffix == ".sh" else [sys.executable, str(script)]
    run = subprocess.run(
        start, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False
    )
    said = run.stdout.decode("utf-8", errors="replace")
    for words in expected["seen"]:
        assert re.search(words, said, re.MULTILINE), f"{words!r} is not in:\n{said}"
    for words in [*expected.get("never", []), *NEVER]:
        assert not re.search(words, said, re.MULTILINE), f"{words!r} is in:\n{said}"
