"""Defaults from mmsent.toml: top-level keys for every command that has the option, tables for one command."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mmsent.cli.options import Commands, names_of
from mmsent.errors import UsageError


def toml_defaults(path: Path, functions: Commands, cache_functions: Commands) -> dict[str, Any]:
    """Defaults from mmsent.toml: top-level keys for every command that has the option, tables for one command."""
    try:
        with path.open("rb") as file:
            given = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    options = {name: names_of(function) for name, function in functions.items()}
    cache_options = {name: names_of(function) for name, function in cache_functions.items()}
    options["cache"] = set().union(*cache_options.values())  # they share one table
    shared = {k.replace("-", "_"): v for k, v in given.items() if not isinstance(v, dict)}
    tables = {
        name: {k.replace("-", "_"): v for k, v in own.items()} for name, own in given.items() if isinstance(own, dict)
    }
    for name, table in {"": shared, **tables}.items():
        if name and name not in options:
            raise UsageError(f"{path}: no command {name!r} for the table [{name}]")
        known = options[name] if name else set().union(*options.values())
        if unknown := sorted(table.keys() - known):
            where = f"[{name}]" if name else "it"
            raise UsageError(f"{path}: {where} has an unknown setting {unknown[0]!r}; settings are the long options")

    def chosen(name: str, known: set[str]) -> dict[str, Any]:
        return {k: v for k, v in (shared | tables.get(name, {})).items() if k in known}

    out: dict[str, Any] = {name: chosen(name, known) for name, known in options.items()}
    out["cache"] = {sub: chosen("cache", known) for sub, known in cache_options.items()}
    return out
