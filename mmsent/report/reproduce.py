"""The command lines that make a report's cache and runs again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mmsent.config import (
    DEFAULT_LABELS,
    RECIPES,
    DataSettings,
    ExtractSettings,
    Group,
    SplitSettings,
    default,
    fit_settings,
)
from mmsent.report.language import say
from mmsent.report.study import Study
from mmsent.training.runs import Run


def commands(study: Study) -> tuple[list[str], str]:
    """Command lines that make this cache, these runs and this report again."""
    lines = [_extract_line(study)]
    lines += list(dict.fromkeys(_fit_line(study, run) for run in study.runs))
    data = str(study.cache.data_name)
    lines.append(shlex.join(["mmsent", "report", "--data", data, "--encoder", study.cache.encoder]))
    given = [_command(study.cache.provenance.get("command"))]
    given += list(dict.fromkeys(_command(run.info.get("command")) for run in study.runs))
    given = [line for line in given if line]
    parts = [
        say("These commands give every setting that is not a default of this version; put the path of the data "
            "set after --data.")
    ]  # fmt: skip
    fusions = [run.fusion for run in study.runs]
    if len(set(fusions)) < len(fusions):
        parts.append(say("Some runs have the same fusion: name the runs that these commands make after mmsent report."))
    if given:
        parts.append(say("The original commands were: {commands}.", commands="; ".join(given)))
    return lines, say(" ").join(parts)


def _extract_line(study: Study) -> str:
    cache = study.cache
    s, stored = cache.settings, cache.encoder_settings
    words = ["mmsent", "extract", "--data", cache.data_name, "--encoder", stored.encoder]
    for name in ("image_encoder", "text_encoder", "weights"):
        if value := getattr(stored, name):
            value = Path(value).name if name == "weights" else value
            words += [f"--{name.replace('_', '-')}", value]
    words += ["--views", str(s.views.count), "--views-seed", str(s.views.seed), "--precision", stored.precision]
    words += ["--storage", s.storage, "--text-encoding", s.text_encoding]
    words += ["--normalize"] if s.normalize else []
    words += ["--runtime", stored.runtime] if stored.runtime != "torch" else []
    for step in s.clean:
        words += ["--clean", step]
    if study.labels != list(DEFAULT_LABELS):
        words += ["--labels", ",".join(study.labels)]
    posts, usual = cache.data_settings, DataSettings()
    for name in ("id_column", "image_column", "text_column", "label_column"):
        if getattr(posts, name) != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", getattr(posts, name)]
    if posts.split_column != usual.split_column:
        words += ["--columns", f"split={posts.split_column}"]
    if posts.label_map:
        words += ["--label-map", ",".join(f"{name}={label}" for name, label in posts.label_map.items())]
    words += ["--reader", posts.reader] if posts.reader else []
    words += ["--images", Path(posts.images).name] if posts.images else []
    if (share := cache.provenance.get("max_bad")) not in (None, default(ExtractSettings, "max_bad")):
        words += ["--max-bad", f"{share:g}"]
    return shlex.join(words)


def _fit_line(study: Study, run: Run) -> str:
    words = ["mmsent", "fit", "--data", study.cache.data_name, "--fusion", run.fusion.value]
    recipe = run.info["recipe"] if run.info["recipe"] in RECIPES else "paper"
    words += ["--recipe", recipe, "--seed", str(run.fit.seed)]
    usual = fit_settings(recipe, fusion=run.fusion, seed=run.fit.seed)
    for name in type(usual).model_fields:
        value = getattr(run.fit, name)
        if value != getattr(usual, name) and value is not None:
            flag = name.replace("_", "-")
            words += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
    words += ["--val-size", f"{run.split.val_size:g}", "--split-seed", str(run.split.seed)]
    if run.split.group is Group.none:
        words += ["--no-group"]
    elif run.split.group is not default(SplitSettings, "group"):
        words += ["--group", run.split.group.value]
    for name in ("near_image", "near_text"):
        if (cosine := getattr(run.split, name)) is not None:
            words += [f"--{name.replace('_', '-')}", f"{cosine:g}"]
    return shlex.join(words)


def _command(argv: Sequence[str] | None) -> str:
    if not argv:
        return ""
    first = Path(argv[0])
    if first.name in {"mmsent", "__main__.py"} or first.suffix != ".py":
        return shlex.join(["mmsent" if first.stem in {"mmsent", "__main__"} else first.name, *argv[1:]])
    return shlex.join(["python", first.name, *argv[1:]])
