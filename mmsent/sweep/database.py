"""Where a study is stored, and whether a process that takes part in it still exists."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock

from mmsent.errors import UsageError
from mmsent.system.process import host
from mmsent.system.provenance import without_passwords

BEAT = 10  # seconds between heartbeats
PAUSES = (0.5, 1.0, 2.0)  # seconds between attempts to create the tables
GRACE = 60  # seconds without a heartbeat after which a trial on another machine counts as lost


def file_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def shown_url(url: str) -> str:
    """A database's URL without its password. Raises UsageError if it is not one."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return without_passwords(make_url(url).render_as_string(hide_password=True))
    except (ArgumentError, ValueError) as error:  # the text is not repeated, because it may hold a password
        raise UsageError(
            "--storage is not a database URL; use sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error


def open_storage(url: str) -> Any:
    """The database of a study; missing tables are created. Raises SQLAlchemy's errors. With SQLite, only one process at
    a time may call it (see `claims_lock`)."""
    sqlite = url.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
    storage = _with_tables(url, options)
    if sqlite:
        from sqlalchemy import event

        def unhurried(connection: Any, _: Any) -> None:
            # With a write-ahead log no sync per commit is needed: a killed process loses nothing, a power failure only
            # the last moment. A trial writes many small records.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        event.listen(storage.engine, "connect", unhurried)
        storage.engine.dispose()  # open connections do not have these settings
    return storage


def _with_tables(url: str, options: dict[str, Any]) -> Any:
    """Optuna's storage. If several processes create the tables at the same moment, all but one fail and try again."""
    from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError

    def made() -> Any:
        return optuna.storages.RDBStorage(url, engine_kwargs=options, heartbeat_interval=BEAT, grace_period=GRACE)

    for pause in PAUSES:
        try:
            return made()
        except DatabaseError as error:
            if not isinstance(error, (IntegrityError, ProgrammingError)) and "already exists" not in str(error):
                raise
            time.sleep(pause)
    return made()


def claims_lock(url: str) -> Any:
    """The lock of a process that creates the tables or claims a trial. A database server locks the trial's row itself;
    SQLite does not, but all processes that use its file can lock a second file next to it."""
    from sqlalchemy.engine import make_url

    file = make_url(url).database
    if not url.startswith("sqlite") or not file or file == ":memory:":
        return contextlib.nullcontext()
    return FileLock(f"{file}.lock")


def owner() -> dict[str, Any]:
    """A description of this process by which others can tell whether it still exists."""
    return {"host": host(), "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str | None:
    """When a process started, in ticks since the machine did; None if the system does not tell or there is no such
    process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def is_gone(known: Mapping[str, Any]) -> bool:
    """Whether a process, as described by `owner`, is known to be gone. Never true of one on another machine."""
    if known["host"] != host():
        return False
    if known["started"] is not None:
        return bool(_started(known["process"]) != known["started"])
    try:
        os.kill(known["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
