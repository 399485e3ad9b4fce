"""The env command's options."""

from __future__ import annotations

from pathlib import Path

from mmsent.cli.options import CacheAt, Json, Runs


def env(cache: CacheAt = Path("cache"), runs: Runs = Path("runs"), json: Json = False) -> None:
    """Print what a bug report needs.

    Versions, processor, devices, threads, which encoders' weights are on this machine, and the folders of caches and
    runs. Loads no model, asks no network, writes nothing; your home folder is shown as ~.
    """
    from mmsent import commands

    commands.env(cache, runs, json)
