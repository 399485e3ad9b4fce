"""Every error that mmsent raises on purpose. The command line prints the message and exits; programs can catch them."""


class MmsentError(Exception):
    """Something that the caller can mend. The message says what was found, what was expected, and what to do next."""

    exit_status = 1


class UsageError(MmsentError):
    """The request itself does not make sense: an unknown name, a value out of range, options that clash."""

    exit_status = 2


class Interrupted(MmsentError):
    """Ctrl-C, where what was finished is kept and the same command goes on."""

    exit_status = 130


class DataError(MmsentError):
    """The data set is missing, malformed, or holds labels outside the declared set."""


class EncoderError(MmsentError):
    """An encoder or its weights cannot be had, or do not fit the architecture."""


class CacheError(MmsentError):
    """A cache is missing, incomplete, damaged, locked, or was made with other settings."""


class RunError(MmsentError):
    """A run folder is missing or damaged, or its head does not fit the features it is given."""
