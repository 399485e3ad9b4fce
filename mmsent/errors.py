"""Every error that mmsent raises on purpose. The command line prints the message and exits; programs can catch them."""


class MmsentError(Exception):
    """Something that the caller can mend. The message says what was found, what was expected, and what to do next."""

    exit_status = 1


class UsageError(MmsentError):
    """The request itself does not make sense: an unknown name, a value out of range, options that clash."""

    exit_status = 2


class InputError(UsageError, ValueError):
    """Arrays or parameters that an estimator cannot take; a ValueError too, for that is what scikit-learn expects."""


class Interrupted(MmsentError):
    """Ctrl-C or SIGTERM: the message says what is kept and how to go on."""

    exit_status = 130  # the command line: 143 after SIGTERM


class MachineError(MmsentError):
    """The machine does not give what is needed: memory, disk space, open files, or the right to a file."""


class DataError(MmsentError):
    """The data set is missing, malformed, or holds labels outside the declared set."""


class EncoderError(MmsentError):
    """An encoder or its weights cannot be had, or do not fit the architecture."""


class CacheError(MmsentError):
    """A cache is missing, incomplete, damaged, locked, or was made with other settings."""


class CacheShutError(CacheError):
    """A cache that may be whole cannot be read now: another process holds it, or rights or limits forbid it."""


class RunError(MmsentError):
    """A run folder is missing or damaged, or its head does not fit the features it is given."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
