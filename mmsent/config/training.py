"""How heads are trained: the split, the head, and the named recipes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator

from mmsent.config.encoding import TUNE
from mmsent.config.fields import HEAD, RUN, SCALE, SPLIT, TRAIN, OnCommandLine, Panel, Settings, setting, settings
from mmsent.config.presets import recipe_for
from mmsent.errors import UsageError


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

# From this share of training posts that lack one half on, heads are trained with this modality dropout by default.
HALF_POSTS, HALF_DROPOUT = 0.01, 0.2


class SplitSettings(Settings):
    """The validation split, cut from the training rows (report: 500 of 4,000, stratified)."""

    val_size: float = setting(0.125, "Validation rows: a share below 1, or a number.", SPLIT, gt=0)
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
    seed: int = setting(0, "Seed of the initial weights, shuffling, dropout and views.", TRAIN, ge=0, lt=2**63)
    lr: float = setting(1e-4, "Peak learning rate.", HEAD, gt=0)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", HEAD, ge=0)
    warmup: float = setting(0.3, "Share of the steps before the peak learning rate.", HEAD, gt=0, lt=1)
    epochs: int = setting(10, "Largest number of epochs.", HEAD, ge=1)
    patience: int = setting(2, "Epochs without a better validation weighted F1 before training stops.", HEAD, ge=1)
    batch_size: int = setting(64, "Rows per step.", HEAD, ge=1)
    hidden: int = setting(256, "Width of the hidden layers.", HEAD, ge=1)
    depth: int = setting(1, "Number of hidden layers; attention_alt has none.", HEAD, ge=1, le=16)
    dropout: float = setting(0.5, "Dropout after each hidden layer.", HEAD, ge=0, lt=1)
    label_smoothing: float = setting(0.1, "Label smoothing.", HEAD, ge=0, lt=1)
    balance: Literal["weights", "sampler", "none"] = setting(
        "weights", "What evens out unequal classes: weights, sampler or none.", HEAD
    )
    class_weight_power: float = setting(
        0.3, "Class weights are (N / (C count)) to this power, scaled to sum to C.", HEAD, ge=0
    )
    heads: int = setting(8, "Attention heads.", HEAD, ge=1)
    common_width: int | None = setting(
        None,
        "Width that both halves are projected to.",
        OnCommandLine(shown="512 where the widths differ", panel=Panel.head),
        ge=1,
    )
    rms: bool = setting(False, "Scale each half of each row to root mean square 1.", SCALE)
    standardize: bool = setting(False, "Standardise features by the training rows.", SCALE)
    modality_dropout: float = setting(
        0.0,
        "Share of the rows that lose one half in training, so that heads learn from and serve half posts.",
        OnCommandLine(
            shown=f"0; {HALF_DROPOUT:g} where over {HALF_POSTS:.0%} of the posts lack a half", panel=Panel.scaling
        ),
        ge=0,
        lt=1,
    )
    views: bool = setting(True, "Draw one augmented view per image and epoch.", SCALE)
    tune: str = setting(
        "",
        "Also train the last blocks of an encoder, as in text:2 or image:1, on what extract's --tokens stored.",
        OnCommandLine(shown="none", panel=Panel.head),
        pattern=TUNE,
    )
    tune_lr: float = setting(1e-4, "Peak learning rate of tuned blocks; with --lora ten times it.", HEAD, gt=0)
    lora: int = setting(0, "Tune low-rank updates of this rank alone; 16: a run a tenth the size.", HEAD, ge=0)
    # Of the large matrix products of training; weights and evaluation are fp32. auto: see training.train.precision_for
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Precision of the matrix products in training: auto (bf16 where native), fp32 or bf16.", RUN
    )


RECIPES: dict[str, dict[str, Any]] = {
    # The report's recipe, word for word: every value is FitSettings' own default.
    "paper": {},
    # For the offline pair, whose halves differ in scale: chosen by scripts/compare_recipes.py, see docs/notes.md.
    "offline": {"rms": True, "lr": 2e-4, "epochs": 20, "patience": 5},
    # For a few hundred posts, where an epoch has few steps; the quickstart's.
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
