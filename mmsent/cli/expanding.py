"""Options from settings: a command names a settings model as its parameter, and `expand` turns the model's fields into
options, with the help, default and panel that the field carries (see mmsent.config.setting).

    def check(data: DataSettings, encoder: Annotated[EncoderSettings, Only("encoder")], json: Json = False) -> None: ...
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from mmsent.cli.options import PLACES, CacheAt, CacheEncoder, Data, NoGroup, Only, Overrides, Runs, TextFolder
from mmsent.cli.output import suggesting
from mmsent.cli.targets import require_target
from mmsent.cli.workspace import Workspace
from mmsent.config import RECIPES, OnCommandLine, SplitSettings, default, on_command_line, option_name, settings
from mmsent.errors import UsageError

Commands = Mapping[str, Callable[..., Any]]
_WORKSPACE: dict[str, tuple[str, Any, Any]] = {  # field: the option's name, its annotation, its default
    "data": ("data", Data, None),
    "cache_at": ("cache", CacheAt, Path("cache")),
    "encoder": ("encoder", CacheEncoder, None),
    "runs_at": ("runs", Runs, Path("runs")),
    "text_encoder": ("text_encoder", TextFolder, None),
}


@dataclass(frozen=True)
class _Opened:
    """A parameter opened into options: which option fills which field, and what is built of them."""

    options: list[inspect.Parameter]
    fields: dict[str, str]  # option's name -> field
    build: Callable[[dict[str, Any]], Any]


def expand(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with every parameter that is a settings model, a Workspace or Overrides opened into options."""
    opened: dict[str, _Opened] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        found = _open(parameter.annotation)
        if found is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            opened[parameter.name] = found
            parameters += found.options

    def run(context: typer.Context, **values: Any) -> Any:
        require_target(command.__name__, values)
        given = {name: _source(context, name) for name in values}
        suggesting({name: values[name] for name, how in given.items() if how == "COMMANDLINE"}, _takes)
        built = {}
        for name, one in opened.items():
            own = {option: values.pop(option) for option in one.fields}
            # A settings model is told what was given alone; the rest it knows, and its fields_set says which is which.
            built[name] = one.build({one.fields[o]: v if given[o] != "DEFAULT" else None for o, v in own.items()})
        return command(**values, **built)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    parameters.insert(0, inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _source(context: typer.Context, name: str) -> str:
    """Where an option's value comes from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (mmsent.toml) or DEFAULT."""
    source = context.get_parameter_source(name)
    return source.name if source is not None else "DEFAULT"


def _takes(command: str) -> set[str]:
    """The names of the options that a command has, for what is suggested."""
    group, _, own = command.partition(" ")
    module = import_module(f"mmsent.cli.{group}")
    return set(long_options(expand(getattr(module, own or group))))


def _open(annotation: Any) -> _Opened | None:
    """The options behind an annotation; None where it is an option itself."""
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    kind = get_args(annotation)[0] if marks else annotation
    only = next((mark.names for mark in marks if isinstance(mark, Only)), None)
    overrides = next((mark for mark in marks if isinstance(mark, Overrides)), None)
    if overrides is not None:
        return _of_model(overrides.model, only, overriding=True)
    if kind is Workspace:
        chosen = {name: one for name, one in _WORKSPACE.items() if name in (only or PLACES)}
        options = [_parameter(*one) for one in chosen.values()]
        return _Opened(options, {one[0]: name for name, one in chosen.items()}, _workspace)
    if kind is SplitSettings and only is None:
        found = _of_model(kind, only)
        options = [*found.options, _parameter("no_group", NoGroup, False)]
        return _Opened(options, found.fields | {"no_group": "no_group"}, _split)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _of_model(kind, only)
    return None


def _workspace(values: dict[str, Any]) -> Workspace:
    return Workspace(**{name: value for name, value in values.items() if value is not None})


def _of_model(model: type[BaseModel], only: tuple[str, ...] | None, *, overriding: bool = False) -> _Opened:
    options, fields = [], {}
    for name, field in model.model_fields.items():
        how = on_command_line(model, name)
        if how is None or (only is not None and name not in only):
            continue
        flag = how.flag or "--" + name.replace("_", "-")
        own = option_name(name, how)
        kind = str if _takes_commas(field) else _kind(field.annotation)
        if kind is bool and "/" not in flag and overriding:
            flag = f"{flag}/--no-{flag[2:]}"
        # A default that is told in words, or that the recipe gives, is the model's own to set.
        value = None if overriding or how.shown is not None or _is_several(field.annotation) else field.default
        option = typer.Option(
            flag,
            help=f"{field.description} ({_by_recipe(model, name, how)})" if overriding else field.description,
            show_default=how.shown
            if how.shown and not overriding
            else (value not in (None, "") and "/" in flag) or (value is not None and kind is not bool),
            metavar="<str>" if _is_several(field.annotation) else None,
            envvar=how.env,
            rich_help_panel=how.panel.value,
        )
        options.append(_parameter(own, Annotated[kind | None if value is None else kind, option], value))
        fields[own] = name

    def build(values: dict[str, Any]) -> Any:
        return {k: v for k, v in values.items() if v is not None} if overriding else settings(model, **values)

    return _Opened(options, fields, build)


def _takes_commas(field: FieldInfo) -> bool:
    """Whether one word holds several values, separated by commas."""
    return any(isinstance(mark, BeforeValidator) for mark in field.metadata)


def _by_recipe(model: type[BaseModel], name: str, how: OnCommandLine) -> str:
    own = how.shown or _shown(default(model, name))
    return "; ".join(
        [f"default: {own}", *(f"{r}: {_shown(given[name])}" for r, given in RECIPES.items() if name in given)]
    )


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


def _is_several(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _kind(annotation: Any) -> Any:
    """What the parser makes of an option's word; the settings model checks the value itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [_kind(one) for one in get_args(annotation) if one is not type(None)]
        return str if str in inner else inner[0]
    if _is_several(annotation):
        return list[str]
    if get_origin(annotation) is Literal or (isinstance(annotation, type) and issubclass(annotation, StrEnum)):
        return str
    return annotation


def _parameter(name: str, annotated: Any, value: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotated)


def _split(values: dict[str, Any]) -> SplitSettings:
    """The split that options ask for. Raises UsageError where they contradict each other."""
    no_group, group = values.pop("no_group"), values["group"]
    if no_group and group not in (None, "none"):
        raise UsageError(f"--no-group and --group {group} contradict each other; give one of them")
    return settings(SplitSettings, **(values | {"group": "none" if no_group else group}))


@dataclass(frozen=True)
class LongOption:
    """A command's option as it is typed. parameter: of the command; several: whether it may be repeated."""

    parameter: str
    several: bool


def long_options(command: Callable[..., Any]) -> dict[str, LongOption]:
    """An expanded command's options by their names without the dashes, `-` as `_`."""
    found = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, *marks = get_args(parameter.annotation) or (None,)
        option = next((mark for mark in marks if isinstance(mark, OptionInfo)), None)
        if option is not None:
            flags = [one for one in (option.default, *(option.param_decls or ())) if isinstance(one, str)]
            flag = next((one for one in flags if one.startswith("--")), parameter.name)
            name = flag.split("/")[0].removeprefix("--").replace("-", "_")
            found[name] = LongOption(parameter.name, "list[" in str(kind))
    return found
