"""The parts of the reference that are made from the code when the site is built, so that they cannot fall behind it.

A page of docs/reference/ holds a comment such as `<!-- made from the code: commands -->`; on GitHub it is invisible, on
the site the tables stand in its place. Files of the repository's root that the pages link to (SECURITY.md and others)
become pages under project/, so that links to them are checked like all others.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_MARK = re.compile(r"^<!-- made from the code: (\w+) -->$", re.MULTILINE)


def commands() -> str:
    """Every command: its usage, what it does, its arguments and options, as `--help` has them."""
    import typer.main

    from mmsent.cli.app import whole_program

    root: Any = typer.main.get_command(whole_program())
    return "\n".join(_command(root, "mmsent", None))


def _command(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    if parent is not None:
        yield f"## {name}\n"
    parts = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        kind = "argument" if parameter.param_type_name == "argument" else "option"
        if record is None and kind == "argument":
            record = (parameter.name, getattr(parameter, "help", None) or "")
        if record is not None:
            parts.setdefault(kind, []).append(record)
    usage = name
    if hasattr(command, "list_commands"):
        usage += " COMMAND"
    usage += "".join(f" [{record[0].strip('[].').upper()}]..." for record in parts.get("argument", []))
    yield f"```\n{usage} [OPTIONS]\n```\n" if parent is not None else "## Options of every command\n"
    yield _prose(command.help or "")
    for kind, records in parts.items():
        yield f"| {kind} | what it does |\n|---|---|"
        for left, right in records:
            yield f"| {_code(_short(left))} | {_cell(_words(right))} |"
        yield ""
    if hasattr(command, "list_commands"):
        for child in command.list_commands(context):
            yield from _command(command.get_command(context, child), f"{name} {child}", context)


def _short(left: str) -> str:
    """An option's name, without types that its help spells out anyway."""
    return re.sub(r" <(?:list\[)?(?:str\]?|[^<>]*\|[^<>]*)>", "", left)


def _words(text: str) -> str:
    """An option's help, with its default and environment variable as sentences."""
    words, _, extra = text.partition("  [")
    for piece in extra.rstrip("]").split("; "):
        name, _, value = piece.partition(": ")
        if name == "default":
            value = value.removeprefix("(").removesuffix(")") if value.startswith("(") else value
            words += f" Default: {value}."
        elif name == "env var":
            words += f" Environment: {value}."
        elif piece == "required":
            words += " Required."
        elif piece:
            words += f" Allowed: {piece}."
    return words


def settings() -> str:
    """Every settings model, recipe and encoder preset of mmsent.config."""
    from mmsent import config

    out = []
    base = config.Settings
    for model in vars(config).values():
        if not (isinstance(model, type) and issubclass(model, base) and model is not base):
            continue
        if model.__name__ in ("Preset", "Committee"):
            continue
        out.append(f"## {model.__name__}\n\n{_prose(model.__doc__ or '')}")
        out.append("| setting | default | allowed | what it does |\n|---|---|---|---|")
        for name, field in model.model_fields.items():
            bounds = ", ".join(filter(None, map(_bound, field.metadata)))
            allowed = ", ".join(filter(None, [_type(field.annotation), bounds]))
            default = "none" if field.default is None else _value(field.default)
            words = _cell(field.description or "")
            out.append(f"| `{name}` | {_code(default)} | {_cell(allowed)} | {words} |")
        out.append("")
    out.append("## Recipes\n\nWhat each recipe sets apart from the defaults of `FitSettings`.\n")
    out.append("| recipe | settings | heads |\n|---|---|---|")
    for name, values in config.RECIPES.items():
        changed = ", ".join(f"`{k}` {_value(v)}" for k, v in values.items()) or "the defaults"
        team = config.COMMITTEES.get(name)
        heads = "one for each fusion named"
        if team:
            heads = f"{', '.join(f.value for f in team.fusions)}, each on {team.splits} validation splits"
        out.append(f"| `{name}` | {changed} | {heads} |")
    out.append("\n## Encoder presets\n")
    out.append(
        "| `--encoder` | what it is | image | text | widths | size | languages | licence of the weights | recipe | "
        "near-duplicates from a cosine of | results |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, preset in config.PRESETS.items():
        cells = [f"`{name}`", preset.summary, f"`{preset.image}`", f"`{preset.text}`"]
        cells += [" + ".join(map(str, preset.widths)), f"{preset.gigabytes:g} GB", preset.languages, preset.licence]
        cells += [f"`{preset.recipe}`", f"{preset.near_image} (images), {preset.near_text} (texts)"]
        cells.append("[measured](../results.md)" if preset.measured else "no result measured yet")
        out.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(out)


def _bound(constraint: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name)]
    return ", ".join(found)


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(str(member.value) for member in annotation)
    arguments = getattr(annotation, "__args__", ())
    if arguments and not any(isinstance(a, type) or hasattr(a, "__args__") for a in arguments):
        return ", ".join(map(str, arguments))  # a Literal
    if isinstance(annotation, type) and not arguments:
        return {"int": "whole number", "float": "number", "bool": "yes or no", "str": "text"}.get(
            annotation.__name__, ""
        )
    pieces = [_type(a) for a in arguments if a not in (type(None), ...)]
    return ", ".join(dict.fromkeys(filter(None, pieces)))


def _value(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(_value, value)) or "none"
    return str(value)


def python() -> str:
    """The public Python API: every name of mmsent.__all__, from its docstring."""
    import mmsent

    functions, classes = [], []
    for name in mmsent.__all__:
        value = getattr(mmsent, name)
        if isinstance(value, type):
            classes.append(name)
        elif callable(value):
            functions.append(name)
    out = ["## Functions\n", *(f"```{{eval-rst}}\n.. autofunction:: mmsent.{name}\n```\n" for name in functions)]
    out.append("## Classes\n")
    for name in classes:
        options = "   :members:\n" if not issubclass(getattr(mmsent, name), BaseException) else ""
        if name == "FusionClassifier":  # what scikit-learn adds is documented there
            options += "   :exclude-members: set_fit_request, set_score_request\n"
        out.append(f"```{{eval-rst}}\n.. autoclass:: mmsent.{name}\n{options}```\n")
    return "\n".join(out)


def _prose(text: str) -> str:
    lines = [line.strip() for line in text.replace("\b", "").strip().splitlines()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return re.sub(r"(?<!`)(--[a-z][a-z-]*)", r"`\1`", text) if "`" not in text else text


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


MAKERS: dict[str, Callable[[], str]] = {"commands": commands, "settings": settings, "python": python}


def _read(app: Any, page: str, source: list[str]) -> None:
    text = _MARK.sub(lambda found: MAKERS[found.group(1)](), source[0])
    up = "../" * page.count("/")
    for name in OUTSIDE:
        text = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}", f"]({up}project/{name}", text)
    source[0] = text


def _made(app: Any, *rest: Any) -> list[str]:
    """Pages with parts made from the code are read again at every build."""
    pages = (Path(app.srcdir) / "reference").glob("*.md")
    return [f"reference/{page.stem}" for page in pages if _MARK.search(page.read_text(encoding="utf-8"))]


def _copy_outside(app: Any) -> None:
    """Pages under project/ from the files of the root, their links turned round."""
    folder = Path(app.srcdir) / "project"
    folder.mkdir(exist_ok=True)
    for name in OUTSIDE:
        text = (ROOT / name).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](../")
        file = folder / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings hold Markdown's code marks and NumPy's sections; reStructuredText wants other marks."""
    text = "\n".join(lines)
    text = re.sub(r"(?<![`:])`([^`\n]+)`(?!`)", r"``\1``", text)
    text = re.sub(r"(?<![\\`])\*(?=\w)", r"\\*", text)
    text = re.sub(r"(?<![`\w.])(\w*[a-z]_)(?![`\w])", r"``\1``", text)  # names such as classes_
    out: list[str] = []
    section = False
    for line in text.split("\n"):
        if re.fullmatch(r"-{3,}", line) and out and out[-1]:
            title, section = out.pop(), True
            out += [f".. rubric:: {title}", ""]
        elif section and line and not line[0].isspace():
            out.append("- " + line)
        elif section and line:
            out.append("  " + line.strip())
        else:
            out.append(line)
    lines[:] = out


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("builder-inited", _copy_outside)
    app.connect("env-get-outdated", _made)
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True}
