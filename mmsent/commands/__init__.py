"""What the commands do: find what they need, call one function, print. No argument parsing here (see mmsent.cli).

Every function takes plain values; None means "not given". Heavy imports happen inside the functions.
"""

from mmsent.commands.data import check, prepare
from mmsent.commands.env import env
from mmsent.commands.explain import explain
from mmsent.commands.export import export
from mmsent.commands.features import (
    cache_explain,
    cache_export,
    cache_info,
    cache_ls,
    cache_repair,
    cache_verify,
    extract,
)
from mmsent.commands.heads import evaluate, fit, predict, quickstart, vote
from mmsent.commands.replay import replay
from mmsent.commands.report import report
from mmsent.commands.selection import audit, cache_duplicates, fit_folds
from mmsent.commands.serve import serve
from mmsent.commands.sweep import sweep

__all__ = [
    "audit",
    "cache_duplicates",
    "cache_explain",
    "cache_export",
    "cache_info",
    "cache_ls",
    "cache_repair",
    "cache_verify",
    "check",
    "env",
    "evaluate",
    "explain",
    "export",
    "extract",
    "fit",
    "fit_folds",
    "predict",
    "prepare",
    "quickstart",
    "replay",
    "report",
    "serve",
    "sweep",
    "vote",
]
