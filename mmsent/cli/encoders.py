"""`mmsent encoders`: the encoder presets."""

from __future__ import annotations

from typing import Any

from mmsent.cli.options import Json, Wide
from mmsent.cli.output import Layout, echo, echo_json, echo_table
from mmsent.config import PRESETS

_LAYOUT = Layout(
    left=["--encoder", "what it is", "languages", "licence", "weights here", "weights from"],
    drop=["weights from", "widths", "what it is", "licence"],
)


def encoders(wide: Wide = False, json: Json = False) -> None:
    """List the encoder presets, and whether their weights are here.

    For each: the widths of its image and text features, the size of its weights, the languages it reads, the licence
    that the weights' model cards name, whether the weights are on this machine, and where they come from. Reads the
    folders of the weights, loads no model, asks no network and writes nothing.
    """
    found = {name: _facts(name) for name in PRESETS}
    if json:
        echo_json(found)
        return
    rows = [["--encoder", "widths", "GB", "languages", "weights here", "licence", "what it is", "weights from"]]
    for name, one in found.items():
        states = list(one["here"].values())
        widths = " + ".join(map(str, one["widths"]))
        size, source = f"{one['gigabytes']:g}", ", ".join(dict.fromkeys(one["from"].values()))
        rows.append([name, widths, size, one["languages"], _here(states), one["licence"], one["summary"], source])
    echo_table(rows, _LAYOUT, wide=wide)
    echo(
        "\nWeights that are not here are downloaded at the first `mmsent extract --encoder NAME`; without a network, "
        "see `--weights`. Other pairs: open_clip:ARCH:TAG, or --image-encoder and --text-encoder."
    )
    if unknown := [name for name, preset in PRESETS.items() if not preset.measured]:
        echo(f"No result measured yet with {', '.join(unknown)}.")


def _facts(name: str) -> dict[str, Any]:
    from mmsent.encoders.availability import presence, sources

    about = PRESETS[name].model_dump(mode="json")
    return {**about, "here": presence(name), "from": sources(name)}


def _here(states: list[str]) -> str:
    from mmsent.encoders.availability import FOUND

    there = states.count(FOUND)
    if there == len(states):
        return "yes"
    odd = next((state for state in states if state not in (FOUND, "not on this machine")), None)
    return odd or (f"{there} of {len(states)}" if there else "no")
