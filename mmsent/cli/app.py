"""All commands of the program, in the groups that `mmsent --help` shows.

Defaults are those of the settings models. A `mmsent.toml` in the working folder and environment variables can set
them: command line, then environment, then file, then default.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsent.cli import cache
from mmsent.cli.audit import audit
from mmsent.cli.check import check
from mmsent.cli.env import env
from mmsent.cli.evaluate import evaluate
from mmsent.cli.explain import explain
from mmsent.cli.export import export
from mmsent.cli.extract import extract
from mmsent.cli.fit import fit
from mmsent.cli.options import expand
from mmsent.cli.predict import predict
from mmsent.cli.prepare import prepare
from mmsent.cli.quickstart import quickstart
from mmsent.cli.replay import replay
from mmsent.cli.report import report
from mmsent.cli.serve import serve
from mmsent.cli.sweep import sweep
from mmsent.cli.toml import toml_defaults
from mmsent.cli.vote import vote
from mmsent.version import __version__

TOML = "mmsent.toml"
PANELS = {
    "Start here": (quickstart, check, extract, fit, vote),
    "Use the heads": (predict, serve, export),
    "Look closer": (evaluate, report, explain, audit, replay),
    "Search and maintain": (sweep, prepare, env),
}

app = typer.Typer(
    name="mmsent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sentiment of posts, each an image and a text: frozen encoders once, then fusion heads in a second.",
    epilog="Three commands on your data: mmsent extract --split train, mmsent fit --fusion weighted, mmsent vote. "
    "No data at hand: mmsent quickstart. Defaults can stand in mmsent.toml.",
)
cache_app = typer.Typer(no_args_is_help=True, help=(cache.__doc__ or "").partition(": ")[2].capitalize())


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mmsent {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    context.default_map = toml_defaults(Path(TOML), COMMANDS, CACHE_COMMANDS)


def _add(group: typer.Typer, command: Callable[..., Any], panel: str | None) -> Callable[..., Any]:
    expanded = expand(command)
    group.command(command.__name__, help=_paragraphs(command.__doc__ or ""), rich_help_panel=panel)(expanded)
    return expanded


def _paragraphs(text: str) -> str:
    """A docstring with every paragraph on one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


COMMANDS = {one.__name__: _add(app, one, panel) for panel, commands in PANELS.items() for one in commands}
CACHE_COMMANDS = {one.__name__: _add(cache_app, one, None) for one in cache.COMMANDS}
app.add_typer(cache_app, name="cache", rich_help_panel="Search and maintain")
