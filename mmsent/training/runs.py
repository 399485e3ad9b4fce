"""Run folders: one trained head with its settings, weights, history, validation predictions and fingerprints.

A run folder appears complete, in one rename. No pickle: weights are safetensors, everything else is JSON or CSV.

    run.json            settings, split, metrics, temperature, fingerprints of the cache, and its origin:
                        command, versions, machine, code and digests of the data (see mmsent.system.provenance)
    head.safetensors    weights; its metadata holds the head's configuration and contract
    blocks.safetensors  weights of the encoder's blocks that were tuned with the head, where some were
    history.json        a record per epoch
    validation.csv      id, label, predicted, confidence and a probability per class, at that temperature
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.config import RECIPES, DataSettings, EncoderSettings, FitSettings, Fusion, SplitSettings, fit_settings
from mmsent.errors import RunError, first_line
from mmsent.features.cache import Cache
from mmsent.system.files import put_folder
from mmsent.system.hashing import file_sha256
from mmsent.system.process import survive_forks
from mmsent.system.records import Record, RecordKind
from mmsent.system.safe_csv import plain
from mmsent.training.head_config import HeadConfig
from mmsent.training.numpy_heads import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from mmsent.training.heads import Head
    from mmsent.training.train import Trained

FORMAT_VERSION = 1
WINNERS = "winners"  # in the folder of a sweep: its runs, which no command takes by itself
KEPT = (
    "the rows that validate are those of earlier runs with this split, so that runs can be compared, though labels or "
    "rows have changed since; another --split-seed chooses new ones"
)
BLOCKS = "blocks.safetensors"
_KIND = RecordKind(
    file="run.json",
    version=FORMAT_VERSION,
    needed=frozenset({"fit", "split", "labels", "cache", "metrics", "finished", "head_sha256"}),
    name="a run folder",
    made_by="`mmsent fit` writes runs",
    again="run `mmsent fit` again",
)
_OF_CACHE = {"fingerprint", "contract", "data_name", "encoder", "encoder_settings", "data_settings"}


@dataclass(frozen=True)
class Run(Record):
    """A finished run, read from its folder; the head's weights are loaded on demand."""

    @property
    def fusion(self) -> Fusion:
        """The head's fusion."""
        return Fusion(self.info["fit"]["fusion"])

    @property
    def labels(self) -> list[str]:
        """The label set, in the order of the head's outputs."""
        return list(self.info["labels"])

    @property
    def fit(self) -> FitSettings:
        """The settings the head was trained with."""
        return FitSettings.model_validate({"precision": "fp32"} | self.info["fit"])  # early runs do not record it

    @property
    def tune(self) -> str:
        """Which blocks of the encoder were trained with the head, such as text:2; empty where none were."""
        return str(self.info["fit"].get("tune", ""))

    def blocks(self) -> dict[str, Tensor]:
        """The weights of the tuned blocks. Raises RunError where their file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path / BLOCKS
        try:
            if file_sha256(path) != self.info["blocks_sha256"]:
                raise RunError(f"{path} is not the file this run wrote: its SHA-256 differs; run `mmsent fit` again")
            return load_file(path)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunError(f"{path} cannot be loaded ({first_line(error)}); run `mmsent fit` again") from error

    @property
    def split(self) -> SplitSettings:
        """The validation split the head was chosen on."""
        return SplitSettings.model_validate(self.info["split"])

    @property
    def committee(self) -> tuple[str, int] | None:
        """The committee that the head belongs to, its name and number of heads; None for a head on its own."""
        found = self.info.get("committee")
        return (str(found["name"]), int(found["size"])) if found else None

    @property
    def home(self) -> Path:
        """The folder of the runs that it belongs to; of a sweep's winner that in which the sweep lies."""
        return self.path.parents[2] if self.path.parent.name == WINNERS else self.path.parent

    @property
    def made(self) -> str:
        """How the head was made, in words: the recipe and what differs from it, or the sweep; and when."""
        when = f"fitted {self.info['finished'][:16].replace('T', ' ')} UTC"
        if (sweep := self.info.get("sweep")) is not None:
            promoted = f", promoted {self.since[:16].replace('T', ' ')} UTC" if self.info.get("promoted") else ""
            return f"trial {sweep['trial']} of the sweep {sweep['name']}, {when}{promoted}"
        recipe, own = self.info.get("recipe", "paper"), self.fit.model_dump(mode="json", exclude={"fusion", "seed"})
        usual = fit_settings(recipe).model_dump(mode="json") if recipe in RECIPES else own
        changed = [f"{k} {v}" for k, v in own.items() if v != usual[k] and k != "precision"]
        return f"recipe {recipe}{' with ' if changed else ''}{', '.join(changed)}, {when}"

    @property
    def contract(self) -> str:
        """The digest of the features the head takes."""
        return str(self.info["cache"]["contract"])

    @property
    def encoder_settings(self) -> EncoderSettings:
        """How the features were encoded, so that new posts can be encoded alike."""
        return EncoderSettings.model_validate({"runtime": "torch"} | self.info["cache"]["encoder_settings"])

    def with_text_folder(self, folder: str | None) -> Run:
        """The run, with its text encoder's own folders at another place."""
        stored = self.info["cache"]["encoder_settings"]
        cache = self.info["cache"] | {"encoder_settings": stored | {"text_folder": folder}}
        return type(self)(self.path, self.info | {"cache": cache})

    @property
    def data_settings(self) -> DataSettings:
        """How texts were read and cleaned."""
        return DataSettings.model_validate(self.info["cache"]["data_settings"])

    @property
    def calibrated(self) -> bool:
        """Whether a temperature was fitted for the head; runs of mmsent 0.1 have none."""
        return self.info.get("temperature") is not None

    @property
    def temperature(self) -> float:
        """What the head's logits are divided by (see mmsent.training.calibration); 1 for a run that has none."""
        return float(self.info["temperature"]) if self.calibrated else 1.0

    def weights(self) -> tuple[HeadConfig, Weights]:
        """What the head is built from, and its weights. Raises RunError where its file is missing or damaged, or knows
        other labels."""
        from safetensors import SafetensorError, safe_open
        from safetensors.numpy import load_file

        path = self.path / "head.safetensors"
        try:
            if file_sha256(path) != self.info["head_sha256"]:
                raise RunError(f"{path} is not the file this run wrote: its SHA-256 differs; run `mmsent fit` again")
            with safe_open(path, "np") as file:
                about = json.loads(file.metadata()["mmsent"])
            config = HeadConfig.model_validate(about["config"])
            if config.classes != len(self.labels) or about.get("labels", self.labels) != self.labels:
                raise RunError(f"{path} was trained on other labels than run.json names; run `mmsent fit` again")
            return config, load_file(path)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} cannot be loaded ({first_line(error)}); run `mmsent fit` again") from error

    @property
    def columns(self) -> slice:
        """Which columns of the text features its head reads."""
        return slice(None)

    def head(self) -> Head:
        """Load the head in eval mode, on the CPU. Raises RunError as `weights`, or where they are not such a head's."""
        import torch

        from mmsent.training.heads import Head

        survive_forks()
        config, weights = self.weights()
        try:
            head = Head(config)
            head.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        except (ValueError, RuntimeError) as error:
            path = self.path / "head.safetensors"
            raise RunError(f"{path} cannot be loaded ({first_line(error)}); run `mmsent fit` again") from error
        return head.eval()

    def validation_ids(self) -> list[str]:
        """The ids of the rows the head was chosen on. Raises RunError where validation.csv cannot be read."""
        path = self.path / "validation.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                ids = [plain(row["id"]) for row in csv.DictReader(file)]
            if not ids or len(ids) != self.info.get("metrics", {}).get("n", len(ids)):
                raise ValueError(f"it has {len(ids)} rows, which is not how many were written")
            return ids
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; run `mmsent fit` again") from error

    def require(self, contract: str, what: str, encoder: str) -> None:
        """Raise RunError unless features with this contract are what the head was trained on."""
        if contract != self.contract:
            raise RunError(
                f"run {self.name} was trained on features of {self.info['cache']['encoder']} "
                f"(contract {self.contract[:8]}), but {what} holds {encoder} (contract {contract[:8]}); "
                "fit a head on it, or choose runs that match"
            )


def open_run(path: Path) -> Run:
    """Read a run folder. Raises RunError where it is not one."""
    file, info = path / _KIND.file, _KIND.read(path)
    try:
        Fusion(info["fit"]["fusion"])
        if absent := sorted(_OF_CACHE - info["cache"].keys()):
            raise RunError(f"{file} lacks cache.{', cache.'.join(absent)}; run `mmsent fit` again")
        if not (isinstance(info["labels"], list) and all(isinstance(label, str) for label in info["labels"])):
            raise RunError(f"{file} does not name its labels; run `mmsent fit` again")
        heat = info.get("temperature", 1.0)
        if heat is not None and not (type(heat) in (int, float) and math.isfinite(heat) and heat > 0):
            raise RunError(
                f"{file} has the temperature {heat!r}, which is not a number above 0; run `mmsent fit` again"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
    return Run(path, info)


def list_runs(folder: Path, *, fingerprint: str | None = None, data_name: str | None = None) -> list[Run]:
    """The readable runs in a folder, newest first; fingerprint: only those fitted on that cache."""
    return _KIND.newest_first(folder, open_run, fingerprint, data_name)


def runs_of(folder: Path, cache: Cache) -> list[Run]:
    """The readable runs of a cache, newest first. Where there is none, those fitted on the same features of its data
    set that other library versions or another precision made."""
    runs = list_runs(folder, data_name=cache.data_name)
    own = [run for run in runs if run.info["cache"]["fingerprint"] == cache.fingerprint]
    return own or [run for run in runs if run.contract == cache.settings.contract]


def cache_facts(cache: Cache) -> dict[str, Any]:
    """What a run records of the cache it was fitted on."""
    return {
        "path": str(cache.path.absolute()),
        "written": cache.provenance.get("written"),
        "fingerprint": cache.fingerprint,
        "contract": cache.settings.contract,
        "data_name": cache.data_name,
        "definition": cache.definition,
        "encoder": cache.encoder,
        "encoder_settings": cache.provenance["encoder_settings"],
        "data_settings": cache.provenance["data_settings"],
    }


def save_run(
    folder: Path,
    name: str,
    info: dict[str, Any],
    trained: Trained,
    predictions: str,
) -> Run:
    """Write a run folder whole. name: the wanted folder name; a number is added where it is taken."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def fill(building: Path) -> None:
        head = trained.head
        about = {"config": head.config.model_dump(mode="json"), "contract": info["cache"]["contract"]}
        # One key alone: safetensors writes several in an order that differs from save to save.
        metadata = {"mmsent": json.dumps({**about, "labels": info["labels"]})}
        weights = {k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
        save_file(weights, building / "head.safetensors", metadata)
        (building / "history.json").write_text(json.dumps(trained.history, indent=1), encoding="utf-8")
        (building / "validation.csv").write_text(predictions, encoding="utf-8")
        digests = {"head_sha256": file_sha256(building / "head.safetensors")}
        if trained.blocks is not None:
            save_file({k: v.detach().cpu().contiguous() for k, v in trained.blocks.items()}, building / BLOCKS)
            digests["blocks_sha256"] = file_sha256(building / BLOCKS)
        text = json.dumps({"format_version": FORMAT_VERSION, **info, **digests}, indent=1, ensure_ascii=False)
        # Paths that are not UTF-8 reach Python as lone surrogates; backslashes make them JSON's own escapes.
        (building / "run.json").write_text(text, encoding="utf-8", errors="backslashreplace")

    try:
        return open_run(put_folder(folder, name, fill))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot write a run in {folder}: {reason}") from error


def picked(runs: Sequence[Run], why: str) -> str:
    """What to tell people where a command chose runs by itself: which, how each was made, and why these."""
    by_make: dict[str, list[str]] = {}
    for run in runs:
        by_make.setdefault(run.made, []).append(run.name)
    names = {made: [*some[:1], "...", *some[-1:]] if len(some) > 6 else some for made, some in by_make.items()}
    which = "; ".join(f"{', '.join(some)} ({made})" for made, some in names.items())
    return f"taking {which}: {why}; name runs to take others"


def calibration_note(runs: Sequence[Run]) -> str:
    """One line for people: whether the runs' probabilities are calibrated."""
    without = sum(not run.calibrated for run in runs)
    if not without:
        return "probabilities are calibrated by temperature scaling on the validation rows"
    some = f" throughout: {without} of {len(runs)} runs have no temperature" if without < len(runs) else ""
    return f"probabilities are not calibrated{some}; a new `mmsent fit` calibrates them"
