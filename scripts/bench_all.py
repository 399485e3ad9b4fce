"""All benchmarks, one after the other, into one page for this kind of machine.

    python scripts/bench_all.py            # about an hour; writes docs/results/benchmarks-PROCESSOR.md
    python scripts/bench_all.py --short    # small forms of all, for CI; writes nothing

Give the machine nothing else to do meanwhile. The page replaces an earlier one of the same kind of processor and stands
beside those of others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench_common import kind_of_processor, processor

NAMES = ("startup", "fit", "runtimes", "extract", "scale", "tune", "serve", "ray", "sweep", "gpu")
FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], help="of these alone; nothing is written then")
    given = parser.parse_args()
    page = [f"# Benchmarks on {processor()}", f"Instructions: {kind_of_processor()}."]
    for name in given.names or NAMES:
        command = [sys.executable, str(FOLDER / f"bench_{name}.py"), *(["--short"] if given.short else [])]
        print(f"--- {name}", flush=True)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            print(line, end="", flush=True)
            lines += [] if line.startswith("  ") else [line.rstrip()]  # single rounds
        if running.wait():
            raise SystemExit(f"bench_{name}.py failed")
        page += [f"## {name}", "\n".join(lines)]
    if not (given.short or given.names):
        kind = f"{processor()}-{kind_of_processor()}".lower()
        slug = "-".join("".join(c if c.isalnum() else " " for c in kind).split())
        file = FOLDER.parent / "docs" / "results" / f"benchmarks-{slug}.md"
        file.write_text("\n\n".join(page) + "\n", encoding="utf-8")
        print(f"\n{file}")


if __name__ == "__main__":
    main()
