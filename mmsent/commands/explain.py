"""The command explain: one post, one head, into a page, a JSON file and a summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsent.commands.features import find, source_of
from mmsent.commands.heads import named_runs
from mmsent.commands.say import note, resumable, say, say_json
from mmsent.config import Fusion
from mmsent.data.text import require_text
from mmsent.errors import DataError, RunError, UsageError
from mmsent.system.tables import columns

TOP = 5  # words a method that the summary shows


@resumable("nothing was written")
def explain(
    name: str | None,
    guid: str | None,
    image: Path | None,
    text: str | None,
    target: str | None,
    layers: Sequence[str] | None,
    out: Path,
    weights: str | None,
    device: str | None,
    data: Path | None,
    cache_at: Path,
    encoder: str | None,
    runs: Path,
    as_json: bool,
) -> None:
    """Explain what a head says of a post of the data set, or of one from the command line."""
    if (guid is None) == (text is None and image is None):
        raise UsageError("give a post of the data set with --guid, or a new one with --text and --image")
    if image is not None and not image.is_file():
        raise DataError(f"no picture at {image}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if text is not None:
        require_text(text)
    from mmsent.data.lists import encoded
    from mmsent.encoders.factory import open_encoders
    from mmsent.features.new_posts import NewPost
    from mmsent.inference.explain import LAYERS
    from mmsent.inference.explain import explain as run_explain
    from mmsent.inference.predict import encoder_settings
    from mmsent.report.figures.explanations import explanation_figure
    from mmsent.report.figures.style import png_bytes
    from mmsent.system.files import write_together

    run = named_runs([name], runs)[0] if name else newest_run(runs, find(data, cache_at, encoder))
    if guid is not None:
        source = data if data is not None else source_of(find(data, cache_at, encoder), data)
        post = _post_of(source, guid, run)
    else:
        said = hashlib.sha256(f"{text}\0{image}".encode("utf-8", "surrogatepass")).hexdigest()
        post = NewPost(f"post-{said[:8]}", text, image)
    chosen = encoder_settings([run], weights=weights, device=device)
    if chosen.weights and not Path(chosen.weights).is_file():
        raise RunError(f"the run's encoder weights are no longer at {chosen.weights}; pass --weights FILE")
    found = run_explain(run, open_encoders(chosen), post, target=target, layers=layers or LAYERS, stand_in=True)
    stem = ".".join(safe_name(part) for part in (post.id, found.fusion, found.target))
    report, page = out / f"{stem}.json", out / f"{stem}.png"
    facts = found.to_json()
    numbers = encoded(json.dumps(facts, ensure_ascii=False) + "\n")
    write_together({report: numbers, page: png_bytes(explanation_figure(found))})
    if as_json:
        say_json({**facts, "files": [str(page), str(report)]})
        return
    _summary(found)
    say(f"\nwrote {page} and {report}")


def newest_run(runs: Path, cache: Any) -> Any:
    """The newest concat run of a cache, else the newest of the fusions that vote. Raises RunError without either."""
    from mmsent.inference.vote import voting_runs

    found = voting_runs(runs, cache)
    return found[0] if found[0].fusion is Fusion.concat else max(found, key=lambda r: (r.info["finished"], r.name))


def safe_name(post_id: str) -> str:
    """An id as the stem of a file name: ids that hold anything but letters, digits and -_+ get a digest besides."""
    from mmsent.features.cache.finding import slug

    plain = slug(post_id)
    if plain == post_id:
        return plain
    digest = hashlib.sha256(post_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain if plain.endswith(digest) else f"{plain}-{digest}"


def _post_of(source: Path, guid: str, run: Any) -> Any:
    from mmsent.data.dataset import load_dataset
    from mmsent.features.new_posts import NewPost

    dataset = load_dataset(source, run.data_settings)
    post = next((p for p in dataset.posts if p.id == guid), None)
    if post is None:
        n = len(dataset.posts)
        raise DataError(f"{source} lists no post {guid!r} among its {n}; its first is {dataset.posts[0].id!r}")
    try:
        return NewPost(post.id, dataset.text_of(post), post.image)
    except DataError as error:
        note(f"{guid}: {error}")
        return NewPost(post.id, None, post.image)


def _summary(found: Any) -> None:
    sure = found.probabilities[found.label]
    how = f"calibrated at temperature {found.temperature:.2f}" if found.temperature is not None else "not calibrated"
    say(f"{found.label} ({sure:.1%}, {how})")
    say(f"explained: {found.target}, logit {found.logit:.3f}, by the {found.fusion} head of {found.run}")
    if found.problem:
        note(found.problem)
    from mmsent.report.figures.explanations import half_shares

    halves = found.modality
    image, text = 0 - halves.image, 0 - halves.text
    without = f"(without the picture the logit changes by {image:+.3f}, without the text by {text:+.3f})"
    if halves.image_share is None:
        say(f"neither half matters {without}")
    else:
        say(f"{', '.join(half_shares(halves.image_share, found.missing))} {without}")
    if found.picture is not None:
        rows = [["Grad-CAM at", "grid", "strongest at row, column", "rank correlation with occlusion"]]
        for m in found.picture.maps:
            place = f"{m.peak[0] + 1}, {m.peak[1] + 1}" if m.maximum > 0 else "nowhere"
            rows.append([m.layer, f"{m.grid[0]} x {m.grid[1]}", place, _signed(m.correlation)])
        say("\n" + columns(rows))
    if found.text is not None and found.text.words:
        rows = [["words, by", "those that speak most for it", "rank correlation with occlusion"]]
        for method, title in (
            ("grad_cam", "Grad-CAM, embedding"),
            ("integrated", "integrated gradients"),
            ("occlusion", "occlusion"),
        ):
            best = found.text.ranked(method)[:TOP]
            shown = ", ".join(f"{w.word} {getattr(w, method):+.3f}" for w in best)
            rows.append([title, shown, _signed(found.text.correlations[method]) if method != "occlusion" else ""])
        say("\n" + columns(rows))
    if found.text is not None and found.text.cut:
        note(f"the text was cut at {found.text.tokens} tokens, as in encoding")


def _signed(value: float | None) -> str:
    return "none (constant)" if value is None else f"{value:+.2f}"
