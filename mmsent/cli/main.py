"""The program: its signals, errors and exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from mmsent.cli.app import program
from mmsent.cli.output import completed
from mmsent.errors import Interrupted, MmsentError
from mmsent.system.failures import machine_error
from mmsent.system.process import tune_process
from mmsent.system.words import singular

_stopped_by: list[int] = []  # signals that came


def _stop(number: int, frame: object) -> None:
    """Unwind from wherever the program is, so that what is finished is kept and the rest leaves nothing behind."""
    _stopped_by.append(number)
    raise KeyboardInterrupt


def _once_more(lost: Any) -> None:
    """In a weak reference's callback, a finalizer and a callback from C, Python drops what a signal raised; then the
    signal comes again a moment later."""
    if _stopped_by and lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt):
        timer = threading.Timer(0.02, _send, [_stopped_by.pop()])
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _send(number: int) -> None:
    """A signal to the main thread, whose waiting it ends."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _open_streams() -> None:
    """Standard streams that were closed, as batch systems do, lead nowhere; what an encoding lacks is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # in this order each gets its own number, which no other file may have
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit. Library errors become one line and a status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("MMSENT_DEBUG"))
    given = [argument for argument in given if argument != "--debug"]
    if arguments is None:
        sys.unraisablehook = _once_more
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
            signal.signal(signal.SIGINT, _stop)
        _open_streams()
    tune_process()
    try:
        program(given)(given, prog_name="mmsent")
    except SystemExit:
        if _stopped_by:  # between commands, where the parser makes a status of its own of it
            raise SystemExit(128 + _stopped_by[0]) from None
        raise
    except KeyboardInterrupt:
        raise SystemExit(128 + (_stopped_by or [signal.SIGINT])[0]) from None
    except MmsentError as error:
        if debug:
            traceback.print_exc()
        print(f"mmsent: {singular(completed(str(error)))}", file=sys.stderr)
        stopped = isinstance(error, Interrupted) and bool(_stopped_by)
        raise SystemExit(128 + _stopped_by[0] if stopped else error.exit_status) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: nothing is left to say
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        if told := machine_error(error):
            print(f"mmsent: {told}", file=sys.stderr)
            raise SystemExit(told.exit_status) from None
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"mmsent: unexpected {what}; this is a bug, --debug shows where", file=sys.stderr)
        raise SystemExit(1) from None
