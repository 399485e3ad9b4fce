"""The command line: parse, call one function of mmsent.commands, print. Heavy imports happen inside the commands.

Defaults are those of the settings models. A `mmsent.toml` in the working folder and environment variables can set
them: command line, then environment, then file, then default.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsent import config
from mmsent.cli import cache as cache_commands
from mmsent.cli.audit import audit
from mmsent.cli.env import env
from mmsent.cli.explain import explain
from mmsent.cli.export import export
from mmsent.cli.options import (
    DEVICE,
    ENCODER,
    ENGINE,
    ID,
    IMAGE,
    LABEL,
    NORMALIZE,
    PRECISION,
    STORAGE,
    TEXT,
    VIEWS,
    VIEWS_SEED,
    Actors,
    Address,
    CacheAt,
    CleanSteps,
    Data,
    Device,
    Encoder,
    EncoderFilter,
    EngineName,
    Group,
    IdColumn,
    ImageColumn,
    ImageEncoder,
    Json,
    LabelColumn,
    Labels,
    NearImage,
    NearText,
    NoGroup,
    Normalize,
    Precision,
    Remote,
    RunNames,
    Runs,
    Soft,
    Storage,
    TextColumn,
    TextEncoder,
    TextEncoding,
    Tie,
    Views,
    ViewsSeed,
    Wait,
    Weights,
    data_settings,
    from_recipe,
    split_settings,
)
from mmsent.cli.replay import replay
from mmsent.cli.report import report
from mmsent.cli.serve import serve
from mmsent.cli.sweep import sweep
from mmsent.cli.toml import toml_defaults
from mmsent.config import (
    COMMITTEES,
    RECIPES,
    EncoderSettings,
    ExtractSettings,
    FitSettings,
    SplitSettings,
    ViewSettings,
    default,
    settings,
)
from mmsent.errors import MmsentError, Terminated, UsageError
from mmsent.system.process import tune_process
from mmsent.version import __version__

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
app.add_typer(cache_commands.app, name="cache")


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


@app.command()
def prepare(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the copy into; never the data set's own.")],
    data: Data = None,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    remote: Remote = None,
    id_column: IdColumn = ID,
    image_column: ImageColumn = IMAGE,
    text_column: TextColumn = TEXT,
    label_column: LabelColumn = LABEL,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    json: Json = False,
) -> None:
    """Write a UTF-8 copy of a data set.

    Reads the data set, decides one text encoding for all of it and writes texts as UTF-8 with pictures byte for byte
    into --out. The original is never touched.
    """
    from mmsent import commands

    chosen = data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column, remote)
    commands.prepare(data or Path("data"), chosen, out, overwrite, json)


@app.command()
def check(
    data: Data = None,
    encoder: Encoder = ENCODER,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    remote: Remote = None,
    id_column: IdColumn = ID,
    image_column: ImageColumn = IMAGE,
    text_column: TextColumn = TEXT,
    label_column: LabelColumn = LABEL,
    tokens: Annotated[bool, typer.Option(help="Count tokens with the encoder's tokenizer.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    json: Json = False,
) -> None:
    """Look a data set over before extraction.

    Reads every text and picture, writes nothing. Prints missing halves, broken or odd pictures, unknown labels,
    duplicates, class balance and text lengths. Exit status 1 on errors (with --strict also on warnings).
    """
    from mmsent import commands

    chosen = data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column, remote)
    pair = settings(EncoderSettings, encoder=encoder)
    raise typer.Exit(commands.check(data or Path("data"), chosen, pair, tokens, strict, json))


@app.command()
def extract(
    split: Annotated[str, typer.Option("--split", help="train, test or all.")] = "all",
    data: Data = None,
    encoder: Encoder = ENCODER,
    image_encoder: ImageEncoder = None,
    text_encoder: TextEncoder = None,
    weights: Weights = None,
    views: Views = VIEWS,
    views_seed: ViewsSeed = VIEWS_SEED,
    cache: CacheAt = Path("cache"),
    device: Device = DEVICE,
    precision: Precision = PRECISION,
    normalize: Normalize = NORMALIZE,
    labels: Labels = None,
    text_encoding: TextEncoding = None,
    clean: CleanSteps = None,
    remote: Remote = None,
    id_column: IdColumn = ID,
    image_column: ImageColumn = IMAGE,
    text_column: TextColumn = TEXT,
    label_column: LabelColumn = LABEL,
    max_bad: Annotated[float, typer.Option("--max-bad", help="Share of rows that may be quarantined.")] = default(
        ExtractSettings, "max_bad"
    ),
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Pictures a forward pass.", show_default="by the device")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that decode pictures.", show_default="one a core, up to 8")
    ] = None,
    storage: Storage = STORAGE,
    engine: EngineName = ENGINE,
    address: Address = None,
    actors: Actors = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Encode a data set into a feature cache.

    Reads posts from --data, writes one HDF5 file into --cache. Stop it anywhere and run it again: only rows that are
    missing or changed are encoded. --engine ray encodes on a Ray cluster, into the same cache.
    """
    from mmsent import commands

    chosen = data_settings(labels, text_encoding, clean, id_column, image_column, text_column, label_column, remote)
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
    options = settings(
        ExtractSettings,
        batch_size=batch_size,
        workers=workers,
        max_bad=max_bad,
        storage=storage,
        wait=wait,
        engine=engine,
        address=address,
        actors=actors,
    )
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
    folds: Annotated[
        int | None,
        typer.Option("--folds", help="Cross-validate with so many folds instead of training one head."),
    ] = None,
    splits: Annotated[
        int | None,
        typer.Option(
            "--splits",
            help="Fit a committee: every head on so many validation splits, to be averaged by the vote.",
            show_default="; ".join(f"{name}: {one.splits}" for name, one in COMMITTEES.items()),
        ),
    ] = None,
    group: Group = None,
    no_group: NoGroup = False,
    near_image: NearImage = None,
    near_text: NearText = None,
    lr: Annotated[float | None, from_recipe("lr", "Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, from_recipe("weight_decay", "AdamW's weight decay.")] = None,
    warmup: Annotated[float | None, from_recipe("warmup", "Share of the steps before the peak.")] = None,
    epochs: Annotated[int | None, from_recipe("epochs", "At most so many epochs.")] = None,
    patience: Annotated[int | None, from_recipe("patience", "Stop after so many epochs without a better F1.")] = None,
    batch_size: Annotated[int | None, from_recipe("batch_size", "Rows a step.")] = None,
    hidden: Annotated[int | None, from_recipe("hidden", "Width of the hidden layers.")] = None,
    depth: Annotated[int | None, from_recipe("depth", "Hidden layers; attention_alt has none.")] = None,
    dropout: Annotated[float | None, from_recipe("dropout", "Dropout after each hidden layer.")] = None,
    label_smoothing: Annotated[float | None, from_recipe("label_smoothing", "Label smoothing.")] = None,
    balance: Annotated[str | None, from_recipe("balance", "weights, sampler or none.")] = None,
    class_weight_power: Annotated[
        float | None, from_recipe("class_weight_power", "Class weights (N / (C count)) to this power.")
    ] = None,
    heads: Annotated[int | None, from_recipe("heads", "Attention heads.")] = None,
    common_width: Annotated[
        int | None,
        typer.Option("--common-width", help="Width both halves are projected to.", show_default="if unequal: 512"),
    ] = None,
    rms: Annotated[bool | None, from_recipe("rms", "Scale each half of each row to root mean square 1.")] = None,
    standardize: Annotated[
        bool | None, from_recipe("standardize", "Standardise features by the training rows.")
    ] = None,
    modality_dropout: Annotated[
        float | None,
        from_recipe("modality_dropout", "Share of rows that lose one half, so that heads serve half posts."),
    ] = None,
    views: Annotated[bool | None, from_recipe("views", "Draw one augmented view per picture and epoch.")] = None,
    precision: Annotated[
        str,
        typer.Option("--precision", help="Of training's matrix products: auto (bf16 where native), fp32, bf16."),
    ] = default(FitSettings, "precision"),
    device: Device = DEVICE,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            help="Embeddings that take more, such as 2GB, stay on disk.",
            show_default="half of the machine's",
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Also write the history as TensorBoard logs into this folder.")
    ] = None,
    json: Json = False,
) -> None:
    """Train fusion heads on a cache.

    Reads the cache of the data set, writes one run folder a head into --runs (settings, weights, history, validation
    predictions) and prints how the heads compare on the validation rows. With --folds it trains a head a fold, writes
    out-of-fold predictions and their scores instead, and leaves no head. With --recipe best or --splits it fits a
    committee: concat, weighted and attention (or the fusions named) on several validation splits.
    """
    from mmsent import commands

    overrides = {
        "seed": seed,
        "precision": precision,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "hidden": hidden,
        "depth": depth,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "balance": balance,
        "class_weight_power": class_weight_power,
        "heads": heads,
        "common_width": common_width,
        "rms": rms,
        "standardize": standardize,
        "modality_dropout": modality_dropout,
        "views": views,
    }
    held = split_settings(val_size, split_seed, group, no_group, near_image, near_text, folded=folds is not None)
    if folds is not None:
        if tensorboard:
            raise UsageError("--tensorboard shows one head's training; it does not go with --folds")
        if splits is not None:
            raise UsageError("--folds cross-validates one head a fusion; it does not go with --splits")
        commands.fit_folds(fusion, recipe, overrides, held, folds, data, cache, encoder, runs, device, memory, json)
        return
    if tensorboard and (splits is not None or recipe in COMMITTEES):
        raise UsageError("--tensorboard shows one head's training; it does not go with a committee")
    commands.fit(fusion, recipe, overrides, held, splits, data, cache, encoder, runs, device, memory, tensorboard, json)


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
    """Score runs, side by side with their vote, and test which differences are more than chance.

    Reads runs and the cache. Prints scores with a 95% bootstrap interval of the weighted F1, how well
    the calibrated probabilities fit (NLL, ECE), and McNemar's exact test for each two runs and each run against the
    vote. --split test opens the data set's test labels, where it has any, and writes that into a log beside the runs.
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
    twins: Annotated[
        bool, typer.Option("--twins", help="Average, and lean on the labels of near-duplicates in the training posts.")
    ] = False,
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
    it. Where all heads disagree, the label is neutral. A committee (see `mmsent fit --help`) is averaged instead.
    """
    from mmsent import commands

    commands.vote(run or (), split, out, tie, soft, twins, data, cache, encoder, runs, device, json)


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
    device: Device = DEVICE,
    text_encoding: TextEncoding = None,
    id_column: IdColumn = ID,
    image_column: ImageColumn = IMAGE,
    text_column: TextColumn = TEXT,
    json: Json = False,
) -> None:
    """Label new posts.

    Reads a text and a picture from the command line, or many from --manifest, encodes them as the runs' cache was
    encoded and lets the newest concat, weighted and attention runs (or the runs named) vote. Writes to --out.
    """
    from mmsent import commands

    chosen = data_settings(None, text_encoding, None, id_column, image_column, text_column)
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

    Draws a small data set of posts, encodes it with the offline encoders, trains all six heads, votes on the test posts
    and says what it did and where the results lie. Reads nothing, writes into --folder.
    """
    from mmsent import commands

    commands.quickstart(folder, posts, seed, json)


app.command()(audit)
app.command()(explain)
app.command()(export)
app.command()(report)
app.command()(replay)
app.command()(serve)
app.command()(env)
app.command()(sweep)

COMMANDS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        *(prepare, check, extract, fit, sweep, evaluate, audit, vote, predict),
        *(explain, export, report, replay, serve, env, quickstart),
    )
}
CACHE_COMMANDS: dict[str, Callable[..., Any]] = {
    name: getattr(cache_commands, f"cache_{name}")
    for name in ("ls", "info", "verify", "repair", "explain", "export", "duplicates")
}


_stopped_by: list[int] = []  # signals that came


def _stop(number: int, frame: object) -> None:
    """Unwind from wherever the program is, so that what is finished is kept and the rest leaves nothing behind."""
    _stopped_by.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _once_more(lost: Any) -> None:
    """In a weak reference's callback, a finalizer and a callback from C, Python drops what a signal raised; then the
    signal comes again a moment later."""
    if _stopped_by and lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt):
        timer = threading.Timer(0.02, _send, [_stopped_by.pop()])
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _send(number: int) -> None:
    """A signal to the main thread, whose waiting it ends."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit. Library errors become one line and a status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("MMSENT_DEBUG"))
    given = [argument for argument in given if argument != "--debug"]
    if arguments is None:
        sys.unraisablehook = _once_more
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
            signal.signal(signal.SIGINT, _stop)
    tune_process()
    try:
        app(given, prog_name="mmsent")
    except SystemExit:
        if _stopped_by:  # between commands, where the parser makes a status of its own of it
            raise SystemExit(128 + _stopped_by[0]) from None
        raise
    except KeyboardInterrupt:
        raise SystemExit(128 + (_stopped_by or [signal.SIGINT])[0]) from None
    except MmsentError as error:
        if debug:
            traceback.print_exc()
        print(f"mmsent: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: nothing is left to say
        raise SystemExit(1) from None
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f" {error.filename}" if error.filename else ""
        print(f"mmsent: cannot use{where}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"mmsent: unexpected {what}; this is a bug, --debug shows where", file=sys.stderr)
        raise SystemExit(1) from None
