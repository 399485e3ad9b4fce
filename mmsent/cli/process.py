"""The settings of the command line's process; see mmsent.process."""

from mmsent.process import tune_process

__all__ = ["tune_process"]
