"""Settings: one frozen, validated model per stage, and the named recipes and encoder presets.

    fields.py     how a setting is declared, and models are built from what people typed
    data.py       how a data set is read
    presets.py    the named encoder pairs
    encoding.py   encoders, views, extraction
    training.py   splits, heads, recipes

Every default lives here once; the command line shows these values. All is imported from here: `from mmsent.config
import FitSettings`. JSON round trip: `model_dump` / `model_validate`.
"""

# mypy: implicit-reexport
# ruff: noqa: F401

from __future__ import annotations

from mmsent.config.data import DEFAULT_LABELS, READER_NAMES, TEXT_ENCODINGS, Clean, DataSettings
from mmsent.config.encoding import EncoderSettings, ExtractSettings, ViewSettings, preset_tokens, tuned_blocks
from mmsent.config.fields import (
    OnCommandLine,
    Panel,
    Settings,
    by_option,
    default,
    nearest,
    on_command_line,
    option_name,
    setting,
    settings,
)
from mmsent.config.presets import PRESETS, Preset, near_cosine, recipe_for
from mmsent.config.training import (
    COMMITTEES,
    HALF_DROPOUT,
    HALF_POSTS,
    RECIPES,
    VOTING_FUSIONS,
    Committee,
    FitSettings,
    Fusion,
    Group,
    SplitSettings,
    choose_recipe,
    committee_of,
    fit_settings,
    fusions_named,
)
