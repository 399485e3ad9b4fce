"""What every command prints with: results on standard output, notes on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmsent.errors import Interrupted


def say(text: str) -> None:
    """A line of the result, on standard output. What it cannot show, half a surrogate pair say, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """A remark, on standard error."""
    print(text, file=sys.stderr)


def say_json(value: Any) -> None:
    """The result for a program."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON's own escapes say it anywhere
        text = json.dumps(value, indent=1)
    print(text)


AGAIN = "run the same command again to go on"


@contextmanager
def resumable(kept: str, then: str = AGAIN) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an error that says what is kept and how to go on; also a decorator."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; {kept}, {then}", stop) from None
