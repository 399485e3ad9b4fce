"""All commands of the program, in the groups that `mmsent --help` shows.

A command's file, and the settings models with it, is imported only when that command is called, for that takes longer
than all else that `mmsent --help` does. Defaults are those of the settings models. A `mmsent.toml` in the working
folder and environment variables can set them: command line, then environment, then file, then default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsent.version import __version__

TOML = "mmsent.toml"
PANELS = {  # every command with the first sentence of its help
    "Start here": {
        "quickstart": "See everything work, with no data and no network.",
        "check": "Look a data set over before you encode it.",
        "extract": "Encode a data set into a feature cache.",
        "fit": "Train fusion heads on a cache.",
        "vote": "Label the test posts with the majority of several heads.",
    },
    "Use the heads": {
        "predict": "Label new posts.",
        "serve": "Label posts over HTTP, with a page to try them on.",
        "export": "Write heads for other programs: as ONNX, or as a folder for a model hub.",
    },
    "Look closer": {
        "evaluate": "Score runs, side by side with their vote, and test which differences are more than chance.",
        "compare": "Compare two runs: settings, scores, and the posts that only one of them has right.",
        "report": "Show what runs learned: every figure, and one page.",
        "zero-shot": "Label posts by prompts for each label, without training.",
        "explain": "Show what in a post's image and text speaks for a label.",
        "audit": "List training labels that are likely wrong, worst first.",
        "correct": "Write a data set's list with the labels that people gave.",
        "replay": "Fit runs again from what they recorded, and compare.",
    },
    "Search and maintain": {
        "sweep": "Try many settings, keep the best.",
        "prepare": "Write a UTF-8 copy of a data set.",
        "encoders": "List the encoder presets, and whether their weights are here.",
        "env": "Print what a bug report needs.",
        "cache": "List, inspect, verify, repair, explain and export feature caches, and find duplicates in them.",
    },
}
OVERVIEW = {name: line for panel in PANELS.values() for name, line in panel.items()}


def program(arguments: Sequence[str]) -> typer.Typer:
    """The program with the command that the arguments name; of the others it knows the name and what they are for."""
    wanted = next((one for one in arguments if not one.startswith("-")), "")
    return _program([wanted] if wanted in OVERVIEW else [])


def whole_program() -> typer.Typer:
    """The program with every command loaded."""
    return _program(list(OVERVIEW))


def commands() -> dict[str, Callable[..., Any]]:
    """Every command by its name, but those of `mmsent cache`, with its settings opened into options."""
    return {name: _load(name) for name in OVERVIEW if name != "cache"}


def cache_commands() -> dict[str, Callable[..., Any]]:
    """The same of `mmsent cache`."""
    from mmsent.cli import cache
    from mmsent.cli.expanding import expand

    return {one.__name__: expand(one) for one in cache.COMMANDS}


def _program(loaded: list[str]) -> typer.Typer:
    app = typer.Typer(
        name="mmsent",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Sentiment of posts, each an image and a text: frozen encoders once, then fusion heads in a second.",
        epilog="Three commands on your data: mmsent extract, mmsent fit --fusion vote, mmsent vote. "
        "No data at hand: mmsent quickstart. Defaults can stand in mmsent.toml.",
    )
    app.callback()(_options)
    for panel, lines in PANELS.items():
        for name, line in lines.items():
            if name not in loaded:
                app.command(name, help=line, rich_help_panel=panel)(_listed)
            elif name == "cache":
                group = typer.Typer(no_args_is_help=True, help=line)
                for own, command in cache_commands().items():
                    _add(group, own, command, None)
                app.add_typer(group, name=name, rich_help_panel=panel)
            else:
                _add(app, name, _load(name), panel)
    return app


def _listed() -> None:
    """A command that is only named."""


def _load(name: str) -> Callable[..., Any]:
    from mmsent.cli.expanding import expand

    python = name.replace("-", "_")
    return expand(getattr(import_module(f"mmsent.cli.{python}"), python))


def _add(group: typer.Typer, name: str, command: Callable[..., Any], panel: str | None) -> None:
    group.command(name, help=_paragraphs(command.__doc__ or ""), rich_help_panel=panel)(command)


def _paragraphs(text: str) -> str:
    """A docstring with every paragraph on one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mmsent {__version__}")
        raise typer.Exit


def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if (path := Path(TOML)).is_file():
        from mmsent.cli.toml import toml_defaults

        context.default_map = toml_defaults(path, commands(), cache_commands())
