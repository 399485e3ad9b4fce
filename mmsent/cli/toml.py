"""Defaults from mmsent.toml: top-level keys for every command that has the option, tables for one command."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from mmsent.cli.expanding import Commands, LongOption, long_options
from mmsent.config import nearest
from mmsent.errors import UsageError


def toml_defaults(path: Path, functions: Commands, cache_functions: Commands) -> dict[str, Any]:
    """Defaults from mmsent.toml: top-level keys for every command that has the option, tables for one command."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    options = {name: long_options(function) for name, function in functions.items()}
    cache_options = {name: long_options(function) for name, function in cache_functions.items()}
    options["cache"] = dict(one for known in cache_options.values() for one in known.items())  # they share one table
    shared = {k.replace("-", "_"): v for k, v in given.items() if not isinstance(v, dict)}
    tables = {
        name: {k.replace("-", "_"): v for k, v in own.items()} for name, own in given.items() if isinstance(own, dict)
    }
    for name, table in {"": shared, **tables}.items():
        if name and name not in options:
            raise UsageError(f"{path}: no command {name!r} for the table [{name}]{nearest(name, options)}")
        known = options[name].keys() if name else set().union(*options.values())
        if unknown := sorted(table.keys() - known):
            where = f"[{name}]" if name else "it"
            key = unknown[0].replace("_", "-")
            like = nearest(key, [one.replace("_", "-") for one in known])
            raise UsageError(f"{path}: {where} has an unknown setting {key!r}{like}; settings are the long options")

    def chosen(name: str, known: dict[str, LongOption]) -> dict[str, Any]:
        values = {k: v for k, v in (shared | tables.get(name, {})).items() if k in known}
        # One value of an option that may be repeated may stand alone.
        return {
            known[k].parameter: [v] if known[k].several and not isinstance(v, list) else v for k, v in values.items()
        }

    out: dict[str, Any] = {name: chosen(name, known) for name, known in options.items()}
    out["cache"] = {sub: chosen("cache", known) for sub, known in cache_options.items()}
    return out
