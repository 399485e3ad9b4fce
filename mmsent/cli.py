"""The command line: parse, call one function of mmsent.commands, print. Heavy imports happen inside the commands.

Defaults are those of the settings models. A `mmsent.toml` in the working folder and environment variables can set
them: command line, then environment, then file, then default.
"""

from __future__ import annotations

import os
import signal
import sys
import tomllib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import mmsent
from mmsent import config
from mmsent.config import (
    PRESETS,
    RECIPES,
    Clean,
    DataSettings,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    SplitSettings,
    ViewSettings,
    default,
    settings,
)
from mmsent.errors import MmsentError, UsageError

TOML = "mmsent.toml"

app = typer.Typer(
    name="mmsent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sentiment of posts, a picture and a text each: frozen encoders once, then fusion heads in a second.",
    epilog="Three commands on your data: mmsent extract --split train, mmsent fit --fusion weighted, mmsent vote. "
    "No data at hand: mmsent quickstart. Defaults can stand in mmsent.toml.",
)
cache_app = typer.Typer(no_args_is_help=True, help="List, inspect, verify, explain and export feature caches.")
app.add_typer(cache_app, name="cache")


def _paper(name: str, what: str) -> Any:
    """A fit option whose default comes from the recipe."""
    values = {recipe: given.get(name, default(FitSettings, name)) for recipe, given in RECIPES.items()}
    shown = ", ".join(f"{recipe}: {value}" for recipe, value in values.items())
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if isinstance(default(FitSettings, name), bool) else [flag]
    return typer.Option(*names, help=f"{what} [{shown}]", show_default=False)


Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="MMSENT_DATA", help="Data set: a folder or a manifest.", show_default="data/"),
]
CacheAt = Annotated[
    Path, typer.Option("--cache", envvar="MMSENT_CACHE", help="Folder of the caches; to read, also one cache file.")
]
Runs = Annotated[Path, typer.Option("--runs", envvar="MMSENT_RUNS", help="Folder of the runs.")]
RunNames = Annotated[list[str] | None, typer.Argument(help="Runs, by name or path.", show_default="the newest")]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder", envvar="MMSENT_ENCODER", help=f"Encoder pair: {', '.join(PRESETS)}, or open_clip:ARCH[:TAG]."
    ),
]
EncoderFilter = Annotated[
    str | None,
    typer.Option("--encoder", envvar="MMSENT_ENCODER", help="Encoder of the cache.", show_default="the one there is"),
]
ImageEncoder = Annotated[
    str | None, typer.Option("--image-encoder", help="Image encoder alone: timm:NAME, open_clip:ARCH[:TAG].")
]
TextEncoder = Annotated[
    str | None, typer.Option("--text-encoder", help="Text encoder alone: sentence-transformers:NAME, open_clip:...")
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Local checkpoint of the open_clip (or timm) model; asks no network.")
]
Device = Annotated[str, typer.Option("--device", envvar="MMSENT_DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
Normalize = Annotated[bool, typer.Option("--normalize/--raw", help="L2-normalise the embeddings, or keep them raw.")]
Labels = Annotated[
    str | None,
    typer.Option("--labels", help="The label set, comma-separated.", show_default=",".join(config.DEFAULT_LABELS)),
]
TextEncoding = Annotated[
    str | None,
    typer.Option("--text-encoding", help="Codec of all texts.", show_default="decided once for the data set"),
]
CleanSteps = Annotated[
    list[Clean] | None, typer.Option("--clean", help="Clean texts before encoding; repeat for several steps.")
]
IdColumn = Annotated[str, typer.Option("--id-column", help="Manifest column of the ids.")]
ImageColumn = Annotated[str, typer.Option("--image-column", help="Manifest column of the picture paths.")]
TextColumn = Annotated[str, typer.Option("--text-column", help="Manifest column of the texts.")]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Manifest column of the labels.")]
Views = Annotated[int, typer.Option("--views", help="K augmented views of each picture beside the clean one.")]
ViewsSeed = Annotated[int, typer.Option("--views-seed", help="Seed of the views.")]
Storage = Annotated[str, typer.Option("--storage", help="float32 or float16 in the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Tie = Annotated[
    str | None,
    typer.Option("--tie", help="Label where no majority is, or 'soft'.", show_default="neutral, else soft"),
]
Soft = Annotated[bool, typer.Option("--soft", help="Average the heads' probabilities instead of counting votes.")]

_ID, _IMAGE = default(DataSettings, "id_column"), default(DataSettings, "image_column")
_TEXT, _LABEL = default(DataSettings, "text_column"), default(DataSettings, "label_column")
_ENCODER, _DEVICE = default(EncoderSettings, "encoder"), default(EncoderSettings, "device")
_PRECISION, _STORAGE = default(EncoderSettings, "precision"), default(ExtractSettings, "storage")
_NORMALIZE = default(EncoderSettings, "normalize")
_VIEWS, _VIEWS_SEED = default(ViewSettings, "count"), default(ViewSettings, "seed")


def _data_settings(
    labels: str | None,
    text_encoding: str | None = None,
    clean: Sequence[Clean] | None = None,
    id_column: str = _ID,
    image_column: str = _IMAGE,
    text_column: str = _TEXT,
    label_column: str = _LABEL,
) -> DataSettings:
    return settings(
        DataSettings,
        labels=tuple(part.strip() for part in labels.split(",")) if labels is not None else None,
        text_encoding=text_encoding,
        clean=tuple(clean) if clean else None,
        id_column=id_column,
        image_column=image_column,
        text_column=text_column,
        label_column=label_column,
    )


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mmsent {mmsent.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    context.default_map = _toml_defaults(Path(TOML))


def _toml_defaults(path: Path) -> dict[str, Any]:
    """Defaults from mmsent.toml: top-level keys for every command that has the option, tables for one command."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            given = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    commands = {name: _parameters(function) for name, function in COMMANDS.items()}
    cache_commands = {name: _parameters(function) for name, function in CACHE_COMMANDS.items()}
    commands["cache"] = set().union(*cache_commands.values())  # they share one table
    shared = {k.replace("-", "_"): v for k, v in given.items() if not isinstance(v, dict)}
    tables = {
        name: {k.replace("-", "_"): v for k, v in own.items()} for name, own in given.items() if name not in shared
    }
    for name, table in {"": shared, **tables}.items():
        if name and name not in commands:
            raise UsageError(f"{path}: no command {name!r} for the table [{name}]")
        known = commands[name] if name else set().union(*commands.values())
        if unknown := sorted(table.keys() - known):
            where = f"[{name}]" if name else "it"
            raise UsageError(f"{path}: {where} has an unknown setting {unknown[0]!r}; settings are the long options")

    def chosen(name: str, known: set[str]) -> dict[str, Any]:
        return {k: v for k, v in (shared | tables.get(name, {})).items() if k in known}

    out: dict[str, Any] = {name: chosen(name, known) for name, known in commands.items()}
    out["cache"] = {sub: chosen("cache", known) for sub, known in cache_commands.items()}
    return out


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(function.__annotations__) - {"return"}


@app.command()
def prepare(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the copy into; never the data set's own.")],
    data: Data = None,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    id_column: IdColumn = _ID,
    image_column: ImageColumn = _IMAGE,
    text_column: TextColumn = _TEXT,
    label_column: LabelColumn = _LABEL,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    json: Json = False,
) -> None:
    """Write a UTF-8 copy of a data set.

    Reads the data set, decides one text encoding for all of it and writes texts as UTF-8 with pictures byte for byte
    into --out. The original is never touched.
    """
    from mmsent import commands

    chosen = _data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column)
    commands.prepare(data or Path("data"), chosen, out, overwrite, json)


@app.command()
def check(
    data: Data = None,
    encoder: Encoder = _ENCODER,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    id_column: IdColumn = _ID,
    image_column: ImageColumn = _IMAGE,
    text_column: TextColumn = _TEXT,
    label_column: LabelColumn = _LABEL,
    tokens: Annotated[bool, typer.Option(help="Count tokens with the encoder's tokenizer.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    json: Json = False,
) -> None:
    """Look a data set over before extraction.

    Reads every text and picture, writes nothing. Prints missing halves, broken or odd pictures, unknown labels,
    duplicates, class balance and text lengths. Exit status 1 on errors (with --strict also on warnings).
    """
    from mmsent import commands

    chosen = _data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column)
    pair = settings(EncoderSettings, encoder=encoder)
    raise typer.Exit(commands.check(data or Path("data"), chosen, pair, tokens, strict, json))


@app.command()
def extract(
    split: Annotated[str, typer.Option("--split", help="train, test or all.")] = "all",
    data: Data = None,
    encoder: Encoder = _ENCODER,
    image_encoder: ImageEncoder = None,
    text_encoder: TextEncoder = None,
    weights: Weights = None,
    views: Views = _VIEWS,
    views_seed: ViewsSeed = _VIEWS_SEED,
    cache: CacheAt = Path("cache"),
    device: Device = _DEVICE,
    precision: Precision = _PRECISION,
    normalize: Normalize = _NORMALIZE,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    id_column: IdColumn = _ID,
    image_column: ImageColumn = _IMAGE,
    text_column: TextColumn = _TEXT,
    label_column: LabelColumn = _LABEL,
    max_bad: Annotated[float, typer.Option("--max-bad", help="Share of rows that may be quarantined.")] = default(
        ExtractSettings, "max_bad"
    ),
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Pictures a forward pass.", show_default="by the device")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that decode pictures.", show_default="one a core, up to 8")
    ] = None,
    storage: Storage = _STORAGE,
    json: Json = False,
) -> None:
    """Encode a data set into a feature cache.

    Reads posts from --data, writes one HDF5 file into --cache. Stop it anywhere and run it again: only rows that are
    missing or changed are encoded.
    """
    from mmsent import commands

    chosen = _data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column)
    pair = settings(
        EncoderSettings,
        encoder=encoder,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        weights=weights,
        device=device,
        precision=precision,
        normalize=normalize,
    )
    augmented = settings(ViewSettings, count=views, seed=views_seed)
    options = settings(ExtractSettings, batch_size=batch_size, workers=workers, max_bad=max_bad, storage=storage)
    commands.extract(data or Path("data"), chosen, split, cache, pair, augmented, options, json)


@app.command()
def fit(
    fusion: Annotated[
        list[str] | None,
        typer.Option("--fusion", help=f"{', '.join(config.Fusion)}, or all; repeatable.", show_default="concat"),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help=f"auto (the encoder pair's own), {', '.join(RECIPES)}.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of initial weights, shuffling, dropout and views.")
    ] = default(FitSettings, "seed"),
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    val_size: Annotated[float, typer.Option("--val-size", help="Validation rows: a share or a number.")] = default(
        SplitSettings, "val_size"
    ),
    split_seed: Annotated[int, typer.Option("--split-seed", help="Seed of the validation split.")] = default(
        SplitSettings, "seed"
    ),
    group: Annotated[
        bool, typer.Option("--group/--no-group", help="Keep exact duplicates on one side of the split.")
    ] = default(SplitSettings, "group"),
    lr: Annotated[float | None, _paper("lr", "Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, _paper("weight_decay", "AdamW's weight decay.")] = None,
    warmup: Annotated[float | None, _paper("warmup", "Share of the steps before the peak.")] = None,
    epochs: Annotated[int | None, _paper("epochs", "At most so many epochs.")] = None,
    patience: Annotated[int | None, _paper("patience", "Stop after so many epochs without a better F1.")] = None,
    batch_size: Annotated[int | None, _paper("batch_size", "Rows a step.")] = None,
    hidden: Annotated[int | None, _paper("hidden", "Width of the hidden layer.")] = None,
    dropout: Annotated[float | None, _paper("dropout", "Dropout before the last layer.")] = None,
    label_smoothing: Annotated[float | None, _paper("label_smoothing", "Label smoothing.")] = None,
    balance: Annotated[str | None, _paper("balance", "weights, sampler or none.")] = None,
    class_weight_power: Annotated[
        float | None, _paper("class_weight_power", "Class weights (N / (C count)) to this power.")
    ] = None,
    heads: Annotated[int | None, _paper("heads", "Attention heads.")] = None,
    common_width: Annotated[
        int | None,
        typer.Option("--common-width", help="Width both halves are projected to.", show_default="if unequal: 512"),
    ] = None,
    standardize: Annotated[bool | None, _paper("standardize", "Standardise features by the training rows.")] = None,
    modality_dropout: Annotated[
        float | None, _paper("modality_dropout", "Share of rows that lose one half, so that heads serve half posts.")
    ] = None,
    views: Annotated[bool | None, _paper("views", "Draw one augmented view per picture and epoch.")] = None,
    device: Device = _DEVICE,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Also write the history as TensorBoard logs into this folder.")
    ] = None,
    json: Json = False,
) -> None:
    """Train fusion heads on a cache.

    Reads the cache of the data set, writes one run folder a head into --runs (settings, weights, history, validation
    predictions) and prints how the heads compare on the validation rows.
    """
    from mmsent import commands

    overrides = {
        "seed": seed,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "hidden": hidden,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "balance": balance,
        "class_weight_power": class_weight_power,
        "heads": heads,
        "common_width": common_width,
        "standardize": standardize,
        "modality_dropout": modality_dropout,
        "views": views,
    }
    held = settings(SplitSettings, val_size=val_size, seed=split_seed, group=group)
    commands.fit(fusion, recipe, overrides, held, data, cache, encoder, runs, device, tensorboard, json)


@app.command()
def evaluate(
    run: RunNames = None,
    split: Annotated[
        str, typer.Option("--split", help="val: each run's validation rows; test: labelled test rows.")
    ] = "val",
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Score runs, side by side with their vote.

    Reads runs and the cache, writes nothing. --split test opens the data set's test labels, where it has any.
    """
    from mmsent import commands

    commands.evaluate(run or (), split, data, cache, encoder, runs, json)


@app.command()
def vote(
    run: RunNames = None,
    split: Annotated[str, typer.Option("--split", help="test or train.")] = "test",
    out: Annotated[Path, typer.Option("--out", help="File to write the labels to.")] = Path("predictions.txt"),
    tie: Tie = None,
    soft: Soft = False,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    device: Annotated[
        str | None, typer.Option("--device", help="Device to encode a missing split on.", show_default="the cache's")
    ] = None,
    json: Json = False,
) -> None:
    """Label the test posts with the majority of several heads.

    Reads the newest concat, weighted and attention runs of the cache (or the runs named); encodes the split first if
    the cache lacks it. Writes the labels to --out in the form of the test list, and a table with probabilities beside
    it. Where all heads disagree, the label is neutral.
    """
    from mmsent import commands

    commands.vote(run or (), split, out, tie, soft, data, cache, encoder, runs, device, json)


@app.command()
def predict(
    run: RunNames = None,
    text: Annotated[str | None, typer.Option("--text", help="The post's text.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="The post's picture.")] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="CSV, TSV, JSONL or Parquet of new posts.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV to write; standard output without it.")] = None,
    tie: Tie = None,
    soft: Soft = False,
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    runs: Runs = Path("runs"),
    weights: Weights = None,
    device: Device = _DEVICE,
    text_encoding: TextEncoding = None,
    id_column: IdColumn = _ID,
    image_column: ImageColumn = _IMAGE,
    text_column: TextColumn = _TEXT,
    json: Json = False,
) -> None:
    """Label new posts.

    Reads a text and a picture from the command line, or many from --manifest, encodes them as the runs' cache was
    encoded and lets the newest concat, weighted and attention runs (or the runs named) vote. Writes to --out.
    """
    from mmsent import commands

    chosen = _data_settings(None, text_encoding, None, id_column, image_column, text_column)
    commands.predict(
        run or (), text, image, manifest, chosen, out, tie, soft, data, cache, encoder, runs, weights, device, json
    )


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option("--folder", help="Where to work.")] = Path("quickstart"),
    posts: Annotated[int, typer.Option("--posts", min=60, help="Training posts to draw.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawing and the heads.")] = 0,
    json: Json = False,
) -> None:
    """See everything work, with no data and no network.

    Draws a small data set of posts into --folder, encodes it with the offline encoders, trains all six heads, votes on
    the test posts and says what it did and where the results lie.
    """
    from mmsent import commands

    commands.quickstart(folder, posts, seed, json)


@cache_app.command("ls")
def cache_ls(cache: CacheAt = Path("cache"), json: Json = False) -> None:
    """List caches. Reads the folder --cache, writes nothing."""
    from mmsent import commands

    commands.cache_ls(cache, json)


@cache_app.command("info")
def cache_info(
    data: Data = None, encoder: EncoderFilter = None, cache: CacheAt = Path("cache"), json: Json = False
) -> None:
    """Show all that a cache says of itself. Reads its settings, outcomes and provenance, writes nothing."""
    from mmsent import commands

    commands.cache_info(data, cache, encoder, json)


@cache_app.command("verify")
def cache_verify(
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
    sample: Annotated[int, typer.Option("--sample", min=0, help="Rows to encode again.")] = 16,
    json: Json = False,
) -> None:
    """Check that a cache is whole and true. Reads every row's checksum and encodes a sample again; writes nothing."""
    from mmsent import commands

    raise typer.Exit(commands.cache_verify(data, cache, encoder, sample, json))


@cache_app.command("explain")
def cache_explain(
    data: Data = None,
    encoder: Encoder = _ENCODER,
    image_encoder: ImageEncoder = None,
    text_encoder: TextEncoder = None,
    weights: Weights = None,
    views: Views = _VIEWS,
    views_seed: ViewsSeed = _VIEWS_SEED,
    cache: CacheAt = Path("cache"),
    device: Device = _DEVICE,
    precision: Precision = _PRECISION,
    normalize: Normalize = _NORMALIZE,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    storage: Storage = _STORAGE,
    json: Json = False,
) -> None:
    """Say why a cache does or does not serve these settings. Takes extract's options, reads, writes nothing."""
    from mmsent import commands

    pair = settings(
        EncoderSettings,
        encoder=encoder,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        weights=weights,
        device=device,
        precision=precision,
        normalize=normalize,
    )
    augmented = settings(ViewSettings, count=views, seed=views_seed)
    chosen = _data_settings(labels, text_encoding, clean)
    commands.cache_explain(data or Path("data"), chosen, cache, pair, augmented, storage, json)


@cache_app.command("export")
def cache_export(
    out: Annotated[Path, typer.Option("--out", help="File to write: .npz or .parquet.")],
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    data: Data = None,
    encoder: EncoderFilter = None,
    cache: CacheAt = Path("cache"),
) -> None:
    """Write a split of a cache for other programs. Reads the cache, writes --out (NumPy's npz or Parquet)."""
    from mmsent import commands

    commands.cache_export(data, cache, encoder, split, out)


COMMANDS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (prepare, check, extract, fit, evaluate, vote, predict, quickstart)
}
CACHE_COMMANDS: dict[str, Callable[..., Any]] = {
    f.__name__.removeprefix("cache_"): f for f in (cache_ls, cache_info, cache_verify, cache_explain, cache_export)
}


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # unwinds, so that an extraction commits what it has


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit. Library errors become one line and a status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("MMSENT_DEBUG"))
    given = [argument for argument in given if argument != "--debug"]
    if arguments is None:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        app(given, prog_name="mmsent")
    except MmsentError as error:
        if debug:
            traceback.print_exc()
        print(f"mmsent: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        print("mmsent: interrupted; run the same command again to go on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: nothing is left to say
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"mmsent: unexpected {what}; this is a bug, --debug shows where", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
