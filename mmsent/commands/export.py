"""The export command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find
from mmsent.commands.heads import named_runs
from mmsent.commands.say import note, resumable, say, say_json
from mmsent.errors import UsageError

FORMATS = ("onnx", "hf")


@resumable("nothing was written")
def export(
    names: Sequence[str],
    form: str,
    out: Path,
    with_encoder: bool,
    tie: str | None,
    soft: bool,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    weights: str | None,
    as_json: bool,
) -> None:
    """Write runs for other programs: ONNX, or a folder for a model hub."""
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: choose from {', '.join(FORMATS)}")
    if form == "hf":
        for flag, given in (("--with-encoder", with_encoder), ("--tie", tie), ("--soft", soft), ("--weights", weights)):
            if given:
                raise UsageError(
                    f"{flag} goes with --format onnx; a hub folder holds heads, and predict takes the rest"
                )
    from mmsent.export.hub import write_hub
    from mmsent.export.model_card import model_card
    from mmsent.inference.predict import encoder_settings
    from mmsent.inference.vote import averages, voting_runs
    from mmsent.training.runs import calibration_note

    chosen = named_runs(names, runs) if names else voting_runs(runs, find(data, cache_at, encoder))
    encoder_settings(chosen, weights=None, device=None)  # refuses runs that do not fit together
    soft = averages(chosen, soft)
    card = model_card(chosen, out.name, form, soft=soft, tie=tie)
    result: dict[str, Any] = {"out": str(out), "format": form, "runs": [str(run.path) for run in chosen]}
    if form == "hf":
        path = write_hub(chosen, out, card)
    else:
        from mmsent.export.onnx_export import TOLERANCE, export_onnx

        if with_encoder:
            note("exporting heads, picture tower and text tower, and comparing them with torch: a minute or two")
        done = export_onnx(chosen, out, card=card, tie=tie, soft=soft, with_encoder=with_encoder, weights=weights)
        path = done.path
        result |= {"worst": done.worst, "embeddings": done.embeddings, "tolerance": TOLERANCE}
    if as_json:
        say_json({**result, "out": str(path)})
        return
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        say(f"{file}  {file.stat().st_size / 1e6:.2f} MB")
    if form == "onnx":
        say(f"probabilities differ from torch by {result['worst']:.1e} at most")
    if result.get("embeddings") is not None:
        say(f"embeddings differ from torch by {result['embeddings']:.1e} of their length at most")
    say(calibration_note(chosen))
