"""How a setting is declared: once, with its description, bounds, default, and how the command line shows it.

`settings(Model, ...)` turns pydantic's report into one `UsageError` that lists all problems at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmsent.errors import UsageError


class Panel(StrEnum):
    """The groups in which a command's options are listed."""

    reading = "What to read"
    encoding = "How to encode"
    training = "What to train"
    head = "The head and its training"
    scaling = "Scaling and views"
    splitting = "Which rows validate"
    running = "How to run"


@dataclass(frozen=True)
class OnCommandLine:
    """How a setting appears on the command line.

    flag: its long option, `--` and the field's name without it; of a switch, also `--yes/--no`. shown: the default in
    words, where the value itself says too little. panel: the group it is listed in. env: an environment variable that
    sets it.
    """

    flag: str | None = None
    shown: str | None = None
    panel: Panel = Panel.reading
    env: str | None = None


def setting(value: Any, what: str, on: OnCommandLine | None = None, **bounds: Any) -> Any:
    """A field of a settings model: its default, what it is in words, its bounds, and how the command line shows it.

    This is the one place where a setting is described: options, `--help`, the estimator's parameters, the sweep's space
    and the reference read it from here. on: None where no command takes the setting.
    """
    extra: Any = {"on": on}
    return Field(value, description=what, json_schema_extra=extra, **bounds)


def on_command_line(model: type[BaseModel], name: str) -> OnCommandLine | None:
    """How a field appears on the command line; None where it does not."""
    extra = model.model_fields[name].json_schema_extra
    found = extra.get("on") if isinstance(extra, dict) else None
    return found if isinstance(found, OnCommandLine) else None


def option_name(name: str, on: OnCommandLine) -> str:
    """What a field is called as an option, without the dashes: `views_seed` for `--views-seed`."""
    return (on.flag or name).split("/")[0].removeprefix("--").replace("-", "_")


READ, ENCODE, TRAIN, HEAD, SCALE, SPLIT, RUN = (OnCommandLine(panel=panel) for panel in Panel)


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # built at first use: help needs none


Model = TypeVar("Model", bound=BaseModel)


def settings(model: type[Model], **values: Any) -> Model:
    """Build a settings model, leaving out values that are None; all problems come in one UsageError."""
    given = {k: v for k, v in values.items() if v is not None}
    try:
        return model(**given)
    except ValidationError as error:
        raise UsageError("; ".join(map(_problem, error.errors()))) from error


def _problem(error: Any) -> str:
    """One of pydantic's problems: which setting, what was given and why not. One of several settings together names
    them itself."""
    why = error["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, error["loc"]))
    return f"{where}: got {error['input']!r}; {why}" if where else why


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for a name that is not known, or nothing where none is like it."""
    like = get_close_matches(name, sorted(known), 1)
    return f"; did you mean {like[0]!r}?" if like else ""


def by_option(values: Mapping[str, Any], *models: type[BaseModel]) -> list[Any]:
    """Settings models from values that are named as the command line's options are, without the dashes. Raises
    UsageError on a name that none of them has, with all names that there are."""
    names = {
        option_name(name, on): (model, name)
        for model in models
        for name in model.model_fields
        if (on := on_command_line(model, name)) is not None
    }
    if unknown := sorted(values.keys() - names.keys()):
        like = nearest(unknown[0], names)
        raise UsageError(f"unknown setting {unknown[0]!r}{like}; settings are {', '.join(sorted(names))}")
    given: dict[type[BaseModel], dict[str, Any]] = {model: {} for model in models}
    for option, value in values.items():
        model, name = names[option]
        given[model][name] = value
    return [settings(model, **own) for model, own in given.items()]


def default(model: type[BaseModel], name: str) -> Any:
    """The default of one setting, for a command line or a document to show."""
    return model.model_fields[name].default
