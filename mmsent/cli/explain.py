"""`mmsent explain`: what in a post speaks for a label, as a page, a JSON file and a summary."""

from __future__ import annotations

import hashlib
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmsent.cli.options import READ, RUN, CamOf, Encoding, Json, Weights
from mmsent.cli.output import echo, echo_json, note, resumable
from mmsent.cli.workspace import Workspace
from mmsent.config import Fusion
from mmsent.data.text import require_text
from mmsent.errors import DataError, RunError, UsageError
from mmsent.system.tables import columns

if TYPE_CHECKING:
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.attribution import Explanation
    from mmsent.training.runs import Run


@resumable("nothing was written")
def explain(
    where: Encoding,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, by name or path.", show_default="the newest concat run")
    ] = None,
    guid: Annotated[
        str | None, typer.Option("--guid", help="A post of the data set, by its id.", rich_help_panel=READ)
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="A new post's text.", rich_help_panel=READ)] = None,
    image: Annotated[Path | None, typer.Option("--image", help="A new post's image.", rich_help_panel=READ)] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Label whose logit is explained.",
            show_default="the predicted one",
            rich_help_panel=RUN,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="<str>",
            help="Layer for Grad-CAM: first, middle, late, or a name. Repeatable.",
            show_default="first, middle and late",
            rich_help_panel=RUN,
        ),
    ] = None,
    cam_of: CamOf = "logit",
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.", rich_help_panel=RUN)] = Path(
        "explanations"
    ),
    weights: Weights = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", envvar="MMSENT_DEVICE", help="Where to compute.", show_default="auto", rich_help_panel=RUN
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what in a post's image and text speaks for a label.

    Reads a run and one post, and traces the label's logit through the head into the frozen encoders: Grad-CAM and
    occlusion on the image; Grad-CAM, integrated gradients and occlusion on the words; what each half adds.

    Writes a page (PNG) and the numbers (JSON) into --out, named after the post, the fusion and the label.
    """
    if (guid is None) == (text is None and image is None):
        raise UsageError("give a post of the data set with --guid, or a new one with --text and --image")
    if image is not None and not image.is_file():
        raise DataError(f"no image at {image}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if text is not None:
        require_text(text)
    from mmsent.encoders.factory import open_encoders
    from mmsent.inference.explain import LAYERS
    from mmsent.inference.explain import explain as run_explain
    from mmsent.inference.predict import encoder_settings
    from mmsent.report.figure_set import numbered_labels

    head = where.named_runs([run])[0] if run else newest_run(where)
    post = _post_of(where, guid, head) if guid is not None else _new_post(text, image)
    chosen = encoder_settings([head], weights=weights, device=device)
    if chosen.weights and not Path(chosen.weights).is_file():
        raise RunError(f"the run's encoder weights are no longer at {chosen.weights}; pass --weights FILE")
    found = run_explain(
        head, open_encoders(chosen), post, target=target, layers=layer or LAYERS, stand_in=True, cam_of=cam_of
    )
    facts = found.to_json()
    files = _write(found, facts, out, post.id)
    if json:
        echo_json({**facts, "files": [str(path) for path in files]})
        return
    _tell(found)
    if numbered := numbered_labels(list(found.probabilities)):
        note(numbered)
    echo(f"\nwrote {files[0]} and {files[1]}")


def _write(found: Explanation, facts: dict[str, Any], out: Path, post_id: str) -> tuple[Path, Path]:
    """The page and the numbers, both or neither."""
    from mmsent.data.lists import encoded
    from mmsent.report.figures.explanations import explanation_figure
    from mmsent.report.figures.style import png_bytes
    from mmsent.system.files import write_together

    stem = ".".join(safe_name(part) for part in (post_id, found.fusion, found.target))
    page, report = out / f"{stem}.png", out / f"{stem}.json"
    numbers = encoded(json_module.dumps(facts, ensure_ascii=False) + "\n")
    write_together({report: numbers, page: png_bytes(explanation_figure(found))})
    return page, report


def newest_run(where: Workspace) -> Run:
    """The newest concat run of a cache, else the newest of the fusions that vote. Raises RunError without either."""
    from mmsent.inference.vote import voting_runs
    from mmsent.training.runs import picked

    found = voting_runs(where.runs_at, where.cache)
    concat = found[0].fusion is Fusion.concat
    chosen = found[0] if concat else max(found, key=lambda r: (r.since, r.name))
    note(picked([chosen], f"the newest {'concat' if concat else 'voting'} run on this cache in {where.runs_at}"))
    return chosen


def safe_name(post_id: str) -> str:
    """An id as the stem of a file name: ids that hold anything but letters, digits and -_+ get a digest besides."""
    from mmsent.features.cache.finding import slug

    plain = slug(post_id)
    if plain == post_id:
        return plain
    digest = hashlib.sha256(post_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain if plain.endswith(digest) else f"{plain}-{digest}"


def _new_post(text: str | None, image: Path | None) -> NewPost:
    from mmsent.features.new_posts import NewPost

    digest = hashlib.sha256(f"{text}\0{image}".encode("utf-8", "surrogatepass")).hexdigest()
    return NewPost(f"post-{digest[:8]}", text, image)


def _post_of(where: Workspace, guid: str, run: Run) -> NewPost:
    from mmsent.data.dataset import load_dataset
    from mmsent.features.new_posts import NewPost

    source = where.source()
    dataset = load_dataset(source, run.data_settings)
    post = next((p for p in dataset.posts if p.id == guid), None)
    if post is None:
        n = len(dataset.posts)
        raise DataError(f"{source} has no post {guid!r} among its {n}; its first is {dataset.posts[0].id!r}")
    try:
        return NewPost(post.id, dataset.text_of(post), post.image)
    except DataError as error:
        note(f"{guid}: {error}")
        return NewPost(post.id, None, post.image)


def _tell(found: Explanation) -> None:
    sure = found.probabilities[found.label]
    how = f"calibrated at temperature {found.temperature:.2f}" if found.temperature is not None else "not calibrated"
    echo(f"{found.label} ({sure:.1%}, {how})")
    echo(f"explained: {found.target}, logit {found.logit:.3f}, by the {found.fusion} head of {found.run}")
    if found.problem:
        note(found.problem)
    halves = {"image": ("picture", found.modality.image), "text": ("text", found.modality.text)}
    said = [
        f"the {name} is missing"
        if half in found.missing
        else f"the {name} {_side(value)} {found.target} by {value:+.3f}"
        for name, (half, value) in halves.items()
    ]
    echo(f"{', '.join(said)} (logit, beside the mean of the training rows)")
    _tell_maps(found)
    _tell_words(found)


def _tell_maps(found: Explanation) -> None:
    if found.picture is None:
        return
    rows = [
        [f"Grad-CAM of the {found.cam_of} at", "grid", "strongest at row, column", "rank correlation with occlusion"]
    ]
    for m in found.picture.maps:
        place = f"{m.peak[0] + 1}, {m.peak[1] + 1}" if m.maximum > 0 else "nowhere"
        rows.append([m.layer, f"{m.grid[0]} x {m.grid[1]}", place, _signed(m.correlation)])
    echo("\n" + columns(rows), raw=True)


def _tell_words(found: Explanation) -> None:
    if found.text is None:
        return
    if found.text.words:
        from mmsent.inference.attribution import strongest

        rows = [["method", "words that support it most", "that oppose it most", "rank correlation with occlusion"]]
        for method, title in (
            ("grad_cam", "Grad-CAM, embedding"),
            ("integrated", "integrated gradients"),
            ("occlusion", "occlusion"),
        ):
            sides = [
                ", ".join(f"{w.word} {getattr(w, method):+.3f}" for w in strongest(found.text.words, method, sign))
                for sign in (1, -1)
            ]
            rows.append(
                [
                    title,
                    *(side or "none" for side in sides),
                    _signed(found.text.correlations[method]) if method != "occlusion" else "",
                ]
            )
        echo("\n" + columns(rows), raw=True)
    if found.text.cut:
        note(f"the text was cut at {found.text.tokens} tokens, as in encoding")


def _side(value: float) -> str:
    return "opposes" if value < 0 else "supports"


def _signed(value: float | None) -> str:
    return "none (constant)" if value is None else f"{value:+.2f}"
