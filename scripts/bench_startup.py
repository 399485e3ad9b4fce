"""What a command costs before it computes anything: seconds on a few posts, beside another commit's.

    git worktree add /tmp/before COMMIT
    python scripts/bench_startup.py --before /tmp/before          # in turn, 10 rounds each, medians
    python scripts/bench_startup.py --short

It runs each command on the small data set, cache and runs of tests/fixtures, in a process of its own; `predict`, which
encodes one new post, on drawn posts and runs that this commit makes. Processor seconds are those of the process and its
threads.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from bench_common import machine, table

from mmsent.cli.quickstart import run_quickstart

ROOT = Path(__file__).resolve().parents[1]
OURS = "--data posts/posts.jsonl --cache cache"
DRAWN = "--data drawn/data --cache drawn/cache --runs drawn/runs"
COMMANDS = {
    "vote": f"vote {OURS}",
    "evaluate": f"evaluate {OURS}",
    "check --no-tokens": "check --data posts/posts.jsonl --no-tokens",
    "cache ls": "cache ls --cache cache",
    "cache info": f"cache info {OURS}",
    "cache repair": f"cache repair {OURS}",
    "cache duplicates": f"cache duplicates {OURS}",
    "--help": "--help",
    "predict": f"predict {DRAWN} --text day --image drawn/data/data/1001.jpg",
}


def run(command: str, code: Path, folder: Path) -> tuple[float, float]:
    """Seconds, and processor seconds, of one command with the package in a folder."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    kept = folder / "kept" / str(code).lstrip("/")  # converted encoders, which the first round makes
    environment = os.environ | {"PYTHONPATH": str(code), "XDG_CACHE_HOME": str(kept)}
    done = subprocess.run(
        [sys.executable, "-m", "mmsent", *command.split()], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != int(command.startswith("check")):  # which finds something to say
        raise SystemExit(f"mmsent {command}: {done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="working tree of another commit")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--short", action="store_true", help="one round of two commands")
    given = parser.parse_args()
    machine()
    chosen = dict(list(COMMANDS.items())[:2]) if given.short else COMMANDS
    sides = [*([given.before.resolve()] if given.before else []), ROOT]
    found: dict[tuple[str, Path], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(ROOT / "tests/fixtures/v0/files.tar.gz") as files:
        files.extractall(folder, filter="data")
        if "predict" in chosen:
            with contextlib.redirect_stdout(sys.stderr):
                run_quickstart(Path(folder) / "drawn", n_train=90, n_test=30, seed=0)
        for turn in range(-1, 1 if given.short else given.rounds):
            for name, command in chosen.items():
                for side in sides[:: 1 if turn % 2 else -1]:
                    spent = run(command, side, Path(folder))
                    if turn >= 0:  # the first round fills the disk's cache
                        found.setdefault((name, side), []).append(spent)
    words = ["before", "now"][-len(sides) :]
    rows = [["command", *(f"{what}, {word}" for what in ("seconds", "processor seconds") for word in words)]]
    for name in chosen:
        medians = [
            f"{statistics.median(spent[at] for spent in found[name, side]):.2f}" for at in (0, 1) for side in sides
        ]
        rows.append([f"`mmsent {name}`", *medians])
    print(table(rows))


if __name__ == "__main__":
    main()
