"""Names of mutants: a random sample of a module's, or those that survived.

    mutmut run 'mmsent.data.dataset.x_name_of*'      # generates all mutants and learns which test reaches what
    mutmut run $(python scripts/sample_mutants.py 'cache/*' --size 300)
    python scripts/sample_mutants.py 'cache/*' --size 300 --count

Reads mutants/mmsent/, which mutmut writes. The sample depends on the seed and on the mutants alone.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

WORDS = {0: "survived", 1: "killed", 33: "not reached by a test", None: "not run"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="module below mmsent, as a pattern: dataset, 'cache/*'")
    parser.add_argument("--size", type=int, help="so many at random; without it, all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", action="store_true", help="print what became of them instead of their names")
    parser.add_argument("--survived", action="store_true", help="only those that survived")
    arguments = parser.parse_args()
    files = sorted(Path("mutants/mmsent").glob(f"{arguments.module}.py.meta"))
    if not files:
        parser.error(f"no mutants of {arguments.module} in mutants/; generate them with mutmut run first")
    codes: dict[str, int | None] = {}
    for file in files:
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    names = sorted(codes)
    if arguments.size is not None:
        random.Random(arguments.seed).shuffle(names)  # so a larger sample holds the smaller ones
        names = names[: arguments.size]
    if arguments.count:
        found = Counter(WORDS.get(codes[name], "killed by the time limit") for name in names)
        print(f"{len(names)} of {len(codes)} mutants: " + ", ".join(f"{n} {word}" for word, n in found.most_common()))
        return
    print("\n".join(name for name in names if not arguments.survived or codes[name] == 0))


if __name__ == "__main__":
    main()
