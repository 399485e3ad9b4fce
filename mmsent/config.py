"""Settings: one frozen, validated model per stage, and the named recipes and encoder presets.

Every default lives here once; the command line shows these values. `settings(Model, ...)` turns pydantic's
report into one `UsageError` that lists all problems at once. JSON round trip: `model_dump` / `model_validate`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from mmsent.errors import UsageError

DEFAULT_LABELS = ("negative", "neutral", "positive")
TEXT_ENCODINGS = ("utf-8", "gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")


TUNE = r"^((image|text):[1-9][0-9]*)?$"  # `text:2`: the last two blocks of the text encoder; empty: none


class Fusion(StrEnum):
    """The six heads of the report: four fusions and the two ablations."""

    concat = "concat"
    weighted = "weighted"
    attention = "attention"
    attention_alt = "attention_alt"
    image = "image"
    text = "text"


class Group(StrEnum):
    """Which rows stay on one side of a split: none, exact duplicates of a picture or a text, or near ones too."""

    none = "none"
    exact = "exact"
    near = "near"


VOTING_FUSIONS = (Fusion.concat, Fusion.weighted, Fusion.attention)


class Clean(StrEnum):
    """Steps of the optional text cleaning, applied in this order."""

    links = "links"
    mentions = "mentions"
    retweet = "retweet"
    hashtags = "hashtags"
    emoji = "emoji"


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


_READ, _ENCODE, _TRAIN, _HEAD, _SCALE, _SPLIT, _RUN = (OnCommandLine(panel=panel) for panel in Panel)


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # built at first use: help needs none


def _several(value: Any) -> Any:
    """`a,b` as (a, b)."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """`a=b,c=d` as {a: b, c: d}. Raises ValueError on a part that is no pair, and a name that stands twice."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for part in filter(str.strip, value.split(",")):
        name, meant = (one.strip() for one in part.rpartition("=")[::2])
        if not (name and meant):
            raise ValueError(f"{part.strip()!r} is no pair; write NAME=VALUE, separated by commas")
        if found.setdefault(name, meant) != meant:
            raise ValueError(f"{name!r} stands twice")
    return found


READER_NAMES = (
    "guid",
    "mvsa",
    "mvsa-same",
    "memotion",
    "hateful-memes",
    "imagefolder",
    "label-studio",
    "argilla",
    "hf-parquet",
    "excel",
    "webdataset",
    "split-files",
    "manifest",
    "folder",
)
Pairs = BeforeValidator(_pairs)
ColumnName = Literal["id", "image", "text", "label", "split"]


class DataSettings(Settings):
    """How a data set is read. `columns` is a short way to set the five columns, in which its pairs end up."""

    labels: Annotated[tuple[str, ...], BeforeValidator(_several)] = setting(
        DEFAULT_LABELS, "The label set, separated by commas.", OnCommandLine(shown=",".join(DEFAULT_LABELS))
    )
    text_encoding: str | None = setting(
        None,
        "Encoding of all texts; utf-8+cp1252 for a mixture of two.",
        OnCommandLine(shown="decided once for the data set"),
    )
    encodings: tuple[str, ...] = setting(TEXT_ENCODINGS, "Encodings to try, in this order.")
    clean: tuple[Clean, ...] = setting(
        (), f"Clean texts before encoding: {', '.join(Clean)}. Repeat it for several steps.", _READ
    )
    remote: tuple[str, ...] = setting(
        (), "Protocol of image URLs in a manifest that may be fetched, such as s3 or https. Repeatable.", _READ
    )
    reader: str | None = setting(
        None, f"Reader of the data set: {', '.join(READER_NAMES)}.", OnCommandLine(shown="the one that recognises it")
    )
    columns: Annotated[dict[ColumnName, str], Pairs] = setting(
        {},
        "Columns by what they hold: text=tweet,image=img_path; also id, label and split.",
        OnCommandLine(shown="none"),
    )
    label_map: Annotated[dict[str, str], Pairs] = setting(
        {},
        "Labels by what the data set calls them: good=positive, or several with commas.",
        OnCommandLine(shown="none"),
    )
    images: str | None = setting(None, "Folder in which images that the data set names are looked for too.", _READ)
    id_column: str = setting("id", "Manifest column with the ids.", _READ)
    image_column: str = setting("image", "Manifest column with the image paths.", _READ)
    text_column: str = setting("text", "Manifest column with the texts.", _READ)
    label_column: str = setting("label", "Manifest column with the labels.", _READ)
    split_column: str = setting("split", "Manifest column that says train or test.")

    @model_validator(mode="before")
    @classmethod
    def _columns(cls, values: Any) -> Any:
        try:
            pairs = _pairs(values.get("columns") or {})
        except ValueError:
            return values  # the field's own validator says it
        if not pairs.keys() <= set(get_args(ColumnName)):
            return values
        named = {f"{what}_column": name for what, name in pairs.items()}
        for field, name in named.items():
            if values.get(field) not in (None, name):
                what = field.removesuffix("_column")
                raise ValueError(f"--columns {what}={name} and --{what}-column {values[field]} contradict each other")
        return {name: value for name, value in values.items() if name != "columns"} | named

    @model_validator(mode="after")
    def _label_map(self) -> DataSettings:
        for name, label in self.label_map.items():
            if label not in self.labels:
                raise ValueError(f"--label-map {name}={label}: {label!r} is not one of {', '.join(self.labels)}")
        return self

    @field_validator("images")
    @classmethod
    def _images(cls, value: str | None) -> str | None:
        return os.path.abspath(value) if value else None  # other commands read it from where they are

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) != len(value) or any(not v.strip() for v in value):
            raise ValueError("needs at least two different, non-empty labels")
        return value

    @field_validator("clean")
    @classmethod
    def _clean(cls, value: tuple[Clean, ...]) -> tuple[Clean, ...]:
        return tuple(step for step in Clean if step in value)  # always in the order of application

    @field_validator("remote")
    @classmethod
    def _remote(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in value)


class Preset(Settings):
    """A named encoder pair, the recipe that suits its features, and the cosines from which pictures and texts are
    near-duplicates. Those of `offline` were chosen by looking at pairs (docs/notes.md); the default, for all other
    encoders, was not, and is on the strict side.

    tokens: the text blocks whose input is stored; widths: of the image and the text features; gigabytes: size of the
    weights; languages: of the texts; licence: of the weights, as their model cards have it; measured: whether results
    of it stand in docs/results.md."""

    image: str
    text: str
    recipe: str = "paper"
    near_image: float = 0.95
    near_text: float = 0.95
    tokens: str = ""
    widths: tuple[int, int]
    gigabytes: float
    languages: str = "English"
    licence: str
    measured: bool = False
    summary: str


_CLIP = "open_clip:ViT-L-14-336-quickgelu:openai"
PRESETS: dict[str, Preset] = {
    "clip-l14-336": Preset(
        image=_CLIP,
        text=_CLIP,
        widths=(768, 768),
        gigabytes=1.7,
        licence="Apache-2.0",
        summary="CLIP ViT-L/14@336px by OpenAI",
    ),
    "clip-l14-336+twitter": Preset(
        image=_CLIP,
        text=f"{_CLIP}+sentence-transformers:cardiffnlp/twitter-roberta-base-sentiment-latest",
        widths=(768, 1536),
        gigabytes=2.2,
        licence="Apache-2.0, CC-BY-4.0 (unchecked)",
        summary="the same, its texts also read by a RoBERTa that was trained on the sentiment of posts",
    ),
    "siglip2": Preset(
        image="open_clip:ViT-L-16-SigLIP2-384:webli",
        text="open_clip:ViT-L-16-SigLIP2-384:webli",
        widths=(1024, 1024),
        gigabytes=3.5,
        languages="many",
        licence="Apache-2.0",
        summary="SigLIP 2 ViT-L/16@384px by Google",
    ),
    "multilingual": Preset(
        image="timm:vit_base_patch16_siglip_256.v2_webli",
        text="sentence-transformers:paraphrase-multilingual-mpnet-base-v2",
        widths=(768, 768),
        gigabytes=1.5,
        languages="more than 50",
        licence="Apache-2.0",
        summary="the image tower of SigLIP 2 ViT-B/16@256px, and a multilingual sentence encoder",
    ),
    "small": Preset(
        image="open_clip:MobileCLIP2-S2:dfndr2b",
        text="open_clip:MobileCLIP2-S2:dfndr2b",
        widths=(512, 512),
        gigabytes=0.4,
        licence="Apple AMLR (research only)",
        summary="MobileCLIP2-S2 by Apple, for laptops",
    ),
    "offline": Preset(
        image="efficientnet-lite2",
        text="minilm-l6",
        recipe="offline",
        near_image=0.90,
        near_text=0.90,
        widths=(1280, 384),
        gigabytes=0.1,
        licence="Apache-2.0",
        measured=True,
        summary="EfficientNet-Lite2 and all-MiniLM-L6-v2",
    ),
    "offline-plus": Preset(
        image="efficientnet-lite2",
        text="minilm-l6+lexicon:vader",
        recipe="offline",
        near_image=0.90,
        widths=(1280, 391),
        gigabytes=0.1,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="the pair `offline`, its texts also scored by the lexicon VADER",
    ),
    "offline-tuned": Preset(
        image="efficientnet-lite2",
        text="minilm-l6+lexicon:vader",
        recipe="tuned",
        near_image=0.90,
        tokens="text:2",
        widths=(1280, 391),
        gigabytes=0.1,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="the pair `offline-plus`, and what enters the last two blocks of MiniLM, for heads that tune them",
    ),
    "mpnet-tuned": Preset(
        image="efficientnet-lite2",
        text="sentence-transformers:all-mpnet-base-v2+lexicon:vader",
        recipe="tuned",
        near_image=0.90,
        tokens="text:2",
        widths=(1280, 775),
        gigabytes=0.5,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="as `offline-tuned` with all-mpnet-base-v2, which is four times as large as MiniLM",
    ),
}


def tuned_blocks(tune: str) -> tuple[str, int]:
    """The half and the number of blocks that `text:2` means; of an empty one ("", 0)."""
    return tune.partition(":")[0], int(tune.partition(":")[2] or 0)


class EncoderSettings(Settings):
    """Which frozen encoders make the features. Specs read `library:name[:tag]`; see mmsent.encoders."""

    encoder: str = setting(
        "clip-l14-336",
        f"Encoder pair: {', '.join(PRESETS)}, or open_clip:ARCH[:TAG].",
        OnCommandLine(panel=Panel.encoding, env="MMSENT_ENCODER"),
    )
    image_encoder: str | None = setting(None, "Image encoder alone: timm:NAME or open_clip:ARCH[:TAG].", _ENCODE)
    text_encoder: str | None = setting(
        None, "Text encoder alone: sentence-transformers:NAME or open_clip:ARCH[:TAG].", _ENCODE
    )
    text_folder: str | None = setting(None, "Where own folders of the text encoder lie; no part of what it is.")
    weights: str | None = setting(None, "Local checkpoint of the open_clip or timm model; needs no network.", _ENCODE)
    normalize: bool = setting(
        False,
        "Scale embeddings to length 1, or keep them raw.",
        OnCommandLine("--normalize/--raw", None, Panel.encoding),
    )
    device: Literal["auto", "cpu", "cuda", "mps"] | str = setting(
        "auto", "auto, cpu, cuda, cuda:1 or mps.", OnCommandLine(panel=Panel.running, env="MMSENT_DEVICE")
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto", "auto, fp32, bf16 or fp16.", _RUN)
    runtime: Literal["auto", "torch", "onnxruntime", "openvino", "openvino-int8"] = setting(
        "auto",
        "What computes image features: torch; on a CPU onnxruntime or openvino, or openvino-int8, faster and "
        "less exact.",
        _RUN,
    )


class ViewSettings(Settings):
    """The K augmented views of each image (report, section 2). View 0 is always the clean image.

    Angles in degrees, translation as a fraction of the side, colour strengths as in torchvision's ColorJitter.
    """

    count: int = setting(
        4,
        "Augmented views per image, besides the clean one.",
        OnCommandLine("--views", None, Panel.encoding),
        ge=0,
        le=64,
    )
    seed: int = setting(0, "Seed of the views.", OnCommandLine("--views-seed", None, Panel.encoding), ge=0)
    rotation: float = setting(15.0, "Largest rotation.", ge=0, le=180)
    flip: float = setting(0.5, "Probability of a horizontal flip.", ge=0, le=1)
    translate: float = setting(0.1, "Largest translation.", ge=0, le=0.5)
    scale: tuple[float, float] = setting((0.9, 1.1), "Range of the scale.")
    shear: float = setting(5.0, "Largest shear.", ge=0, le=45)
    brightness: float = setting(0.2, "Change of brightness.", ge=0, le=1)
    contrast: float = setting(0.2, "Change of contrast.", ge=0, le=1)
    saturation: float = setting(0.2, "Change of saturation.", ge=0, le=1)
    hue: float = setting(0.05, "Change of hue.", ge=0, le=0.5)

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("needs 0 < low <= high")
        return value


class ExtractSettings(Settings):
    """How extraction runs; nothing here changes the numbers beyond the last bits."""

    batch_size: int | None = setting(
        None, "Images per forward pass.", OnCommandLine(shown="chosen for the device", panel=Panel.running), ge=1
    )
    workers: int | None = setting(
        None, "Threads that decode images.", OnCommandLine(shown="one per core, at most 8", panel=Panel.running), ge=1
    )
    max_bad: float = setting(0.01, "Share of the rows that may be quarantined.", _RUN, ge=0, le=1)
    storage: Literal["float32", "float16"] = setting("float32", "float32 or float16 in the cache.", _ENCODE)
    tokens: str | None = setting(
        None,
        "Also store what enters the last blocks of an encoder, as in text:2 or image:1, for --tune of `mmsent fit`.",
        OnCommandLine(shown="the preset's", panel=Panel.encoding),
        pattern=TUNE,
    )
    wait: bool = setting(
        False,
        "Wait for another extraction that holds the cache, instead of refusing.",
        OnCommandLine("--wait", None, Panel.running),
    )
    engine: Literal["local", "ray"] = setting(
        "local", "local: this process. ray: actors on a Ray cluster (needs the extra `ray`).", _RUN
    )
    address: str | None = setting(
        None,
        "Ray cluster: HOST:PORT or auto.",
        OnCommandLine(shown="RAY_ADDRESS, or a cluster of this machine", panel=Panel.running),
    )
    actors: int | None = setting(
        None,
        "Encoder pairs on the Ray cluster.",
        OnCommandLine(shown="one per GPU or per CPU slot", panel=Panel.running),
        ge=1,
    )


# From this share of training posts that lack one half on, heads are trained with this modality dropout by default.
HALF_POSTS, HALF_DROPOUT = 0.01, 0.2


class SplitSettings(Settings):
    """The validation split, cut from the training rows (report: 500 of 4,000, stratified)."""

    val_size: float = setting(0.125, "Validation rows: a share below 1, or a number.", _SPLIT, gt=0)
    seed: int = setting(
        0, "Seed of the validation split or of the folds.", OnCommandLine("--split-seed", None, Panel.splitting), ge=0
    )
    group: Group = setting(
        Group.exact,
        "Rows that stay together: exact duplicates, near-duplicates, or none.",
        OnCommandLine(shown="exact; with --folds near", panel=Panel.splitting),
    )
    near_image: float | None = setting(
        None,
        "Cosine from which images are near-duplicates.",
        OnCommandLine(shown="the encoder's", panel=Panel.splitting),
        gt=0,
        le=1,
    )
    near_text: float | None = setting(
        None,
        "Cosine from which texts are near-duplicates.",
        OnCommandLine(shown="the encoder's", panel=Panel.splitting),
        gt=0,
        le=1,
    )

    @field_validator("group", mode="before")
    @classmethod
    def _group(cls, value: Any) -> Any:
        if isinstance(value, bool):  # as runs of earlier versions have it
            return Group.exact if value else Group.none
        return value


class FitSettings(Settings):
    """One head and its training. The defaults are the report's recipe (section 2)."""

    fusion: Fusion = setting(Fusion.concat, "How image and text features are joined.")
    seed: int = setting(0, "Seed of the initial weights, shuffling, dropout and views.", _TRAIN, ge=0, lt=2**63)
    lr: float = setting(1e-4, "Peak learning rate.", _HEAD, gt=0)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", _HEAD, ge=0)
    warmup: float = setting(0.3, "Share of the steps before the peak learning rate.", _HEAD, gt=0, lt=1)
    epochs: int = setting(10, "Largest number of epochs.", _HEAD, ge=1)
    patience: int = setting(2, "Epochs without a better validation weighted F1 before training stops.", _HEAD, ge=1)
    batch_size: int = setting(64, "Rows per step.", _HEAD, ge=1)
    hidden: int = setting(256, "Width of the hidden layers.", _HEAD, ge=1)
    depth: int = setting(1, "Number of hidden layers; attention_alt has none.", _HEAD, ge=1, le=16)
    dropout: float = setting(0.5, "Dropout after each hidden layer.", _HEAD, ge=0, lt=1)
    label_smoothing: float = setting(0.1, "Label smoothing.", _HEAD, ge=0, lt=1)
    balance: Literal["weights", "sampler", "none"] = setting(
        "weights", "What evens out unequal classes: weights, sampler or none.", _HEAD
    )
    class_weight_power: float = setting(
        0.3, "Class weights are (N / (C count)) to this power, scaled to sum to C.", _HEAD, ge=0
    )
    heads: int = setting(8, "Attention heads.", _HEAD, ge=1)
    common_width: int | None = setting(
        None,
        "Width that both halves are projected to.",
        OnCommandLine(shown="512 where the widths differ", panel=Panel.head),
        ge=1,
    )
    rms: bool = setting(False, "Scale each half of each row to root mean square 1.", _SCALE)
    standardize: bool = setting(False, "Standardise features by the training rows.", _SCALE)
    modality_dropout: float = setting(
        0.0,
        "Share of the rows that lose one half in training, so that heads learn from and serve half posts.",
        OnCommandLine(
            shown=f"0; {HALF_DROPOUT:g} where over {HALF_POSTS:.0%} of the posts lack a half", panel=Panel.scaling
        ),
        ge=0,
        lt=1,
    )
    views: bool = setting(True, "Draw one augmented view per image and epoch.", _SCALE)
    tune: str = setting(
        "",
        "Also train the last blocks of an encoder, as in text:2 or image:1, on what extract's --tokens stored.",
        OnCommandLine(shown="none", panel=Panel.head),
        pattern=TUNE,
    )
    tune_lr: float = setting(1e-4, "Peak learning rate of tuned blocks; with --lora ten times it.", _HEAD, gt=0)
    lora: int = setting(0, "Tune low-rank updates of this rank alone; 16: a run a tenth the size.", _HEAD, ge=0)
    # Of the large matrix products of training; weights and evaluation are fp32. auto: see training.train.precision_for
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Precision of the matrix products in training: auto (bf16 where native), fp32 or bf16.", _RUN
    )


RECIPES: dict[str, dict[str, Any]] = {
    # The report's recipe, word for word: every value is FitSettings' own default.
    "paper": {},
    # For the offline pair, whose halves differ in scale: chosen by scripts/compare_recipes.py, see docs/notes.md.
    "offline": {"rms": True, "lr": 2e-4, "epochs": 20, "patience": 5},
    # For some hundred posts, where an epoch has few steps; the quickstart's.
    "small": {"rms": True, "lr": 1e-3, "epochs": 40, "patience": 10},
    # The best that the offline encoders give, for a preset with several of them: chosen by cross-validation with
    # scripts/compare_accuracy.py, see docs/notes.md. Its heads make a committee, see COMMITTEES.
    "best": {"rms": True, "lr": 2e-4, "epochs": 20, "patience": 5},
    # Heads that train the last two blocks of MiniLM with them; chosen by cross-validation, see docs/notes.md.
    "tuned": {"rms": True, "lr": 2e-4, "epochs": 4, "patience": 2, "batch_size": 32, "tune": "text:2", "tune_lr": 1e-4},
}


class Committee(Settings):
    """What a recipe fits where nothing else is asked for: these fusions, each on so many validation splits."""

    fusions: tuple[Fusion, ...]
    splits: int = Field(ge=1)


COMMITTEES: dict[str, Committee] = {
    "best": Committee(fusions=VOTING_FUSIONS, splits=5),
    "tuned": Committee(fusions=(Fusion.concat,), splits=3),
}


Model = TypeVar("Model", bound=BaseModel)


def settings(model: type[Model], **values: Any) -> Model:
    """Build a settings model, leaving out values that are None; all problems come in one UsageError."""
    given = {k: v for k, v in values.items() if v is not None}
    try:
        return model(**given)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or model.__name__}: got {e['input']!r}; {e['msg']}" for e in error.errors()
        ]
        raise UsageError("; ".join(problems)) from error


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


def choose_recipe(name: str, encoder: str) -> str:
    """The recipe that a name means for an encoder pair: `auto` is the pair's own. Raises UsageError on others."""
    if name != "auto" and name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; choose from auto, {', '.join(RECIPES)}")
    return recipe_for(encoder) if name == "auto" else name


def fit_settings(recipe: str, **overrides: Any) -> FitSettings:
    """The settings of a named recipe with overrides; raises UsageError on an unknown recipe or a bad value."""
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    given = {k: v for k, v in overrides.items() if v is not None}
    return settings(FitSettings, **(RECIPES[recipe] | given))


def fusions_named(names: str | Sequence[str]) -> list[Fusion]:
    """Fusions by name: single names, lists separated by commas, `vote` for the three that vote, `all` for all six; each
    once, in this order. Raises UsageError on an unknown name."""
    several = {"vote": VOTING_FUSIONS, "all": tuple(Fusion)}
    found: list[Fusion] = []
    for name in ",".join([names] if isinstance(names, str) else names).split(","):
        name = name.strip()
        if name not in several and name not in set(Fusion):
            raise UsageError(f"unknown fusion {name!r}; choose from {', '.join((*Fusion, *several))}")
        found += several[name] if name in several else (Fusion(name),)
    return list(dict.fromkeys(found))


def committee_of(recipe: str, splits: int | None) -> Committee | None:
    """The committee to fit: the recipe's own, or every head on `splits` validation splits where that is given; None for
    single heads. Raises UsageError below one split."""
    own = COMMITTEES.get(recipe)
    if splits is None:
        return own
    if splits < 1:
        raise UsageError(f"--splits {splits}: give 1 or more")
    return own.model_copy(update={"splits": splits}) if own else Committee(fusions=VOTING_FUSIONS, splits=splits)


def default(model: type[BaseModel], name: str) -> Any:
    """The default of one setting, for a command line or a document to show."""
    return model.model_fields[name].default


def preset_tokens(settings: EncoderSettings) -> str:
    """The states that a preset stores beside its features, as in text:2; empty for a pair that is no preset."""
    own = settings.encoder in PRESETS and settings.text_encoder is None
    return PRESETS[settings.encoder].tokens if own else ""


def recipe_for(label: str) -> str:
    """The training recipe that suits a pair's features, by the pair's label."""
    return PRESETS[label].recipe if label in PRESETS else "paper"


def near_cosine(encoder: str, name: str) -> float:
    """The cosine from which pictures (`near_image`) or texts (`near_text`) of an encoder pair are near-duplicates."""
    return float(getattr(PRESETS[encoder], name) if encoder in PRESETS else default(Preset, name))
