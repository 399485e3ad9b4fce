"""Runs that are loaded once and answer many requests. No HTTP here.

`prepare` may run in any thread; `answer` only on the encoder's thread; `explain` on another one, with encoders
of its own, because explaining adds hooks to the models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmsent.config import EncoderSettings, Fusion
from mmsent.data.images import image_url
from mmsent.encoders.base import Encoders
from mmsent.errors import RunError, UsageError
from mmsent.features.new_posts import NewPost, Prepared, prepare_post
from mmsent.inference.abstain import Abstention, confidence_of
from mmsent.inference.attribution import CamOf
from mmsent.inference.distances import TrainingRows
from mmsent.inference.held_out import HeldOut, held_out
from mmsent.inference.logits import head_shares
from mmsent.inference.predict import abstaining, encoder_settings, encoders_of, require_encoders, vote_features
from mmsent.inference.tally import Tally, Way, tally, tie_label
from mmsent.inference.tuned import Texts, encode_batch
from mmsent.inference.vote import averages
from mmsent.metrics import accuracy_by_coverage
from mmsent.serve.limits import Limits
from mmsent.training.head_config import HeadConfig
from mmsent.training.numpy_heads import Weights
from mmsent.training.runs import Run
from mmsent.version import __version__

BATCH = 16


class ServedRun(Run):
    """A run whose weights are read once and kept."""

    @functools.cached_property
    def _read(self) -> tuple[HeadConfig, Weights]:
        return super().weights()

    def weights(self) -> tuple[HeadConfig, Weights]:
        """What the head is built from, and its weights."""
        return self._read


class Service:
    """Runs with their encoders. Raises RunError where the runs do not go together or do not fit the encoders,
    EncoderError where the encoders cannot be had, UsageError on an unknown tie label. training: rows to which the
    distance of posts is measured, where there are any."""

    training: TrainingRows | None = None

    def __init__(
        self,
        runs: Sequence[Run],
        limits: Limits,
        *,
        weights: str | None = None,
        device: str | None = None,
        tie: str | None = None,
        soft: bool = False,
        abstention: Abstention | None = None,
        opener: Callable[[EncoderSettings], Encoders] = encoders_of,
    ) -> None:
        self.runs = [ServedRun(run.path, run.info) for run in runs]
        self.limits = limits
        self.chosen = encoder_settings(self.runs, weights=weights, device=device)
        self.labels, cache = self.runs[0].labels, self.runs[0].info["cache"]
        self.encoder, self.data = cache["encoder"], cache["data_name"]
        tie_label(tie, self.labels)
        self._tie, self._soft, self._opener, self.abstention = tie, soft, opener, abstention
        self.encoders = opener(self.chosen)
        require_encoders(self.encoders, self.runs[0], self.chosen.normalize)
        self._how, self._clean = self.encoders.image.card.preprocess, self.runs[0].data_settings.clean
        self.calibrated = all(run.calibrated for run in self.runs)
        full = all(card.precision == "fp32" for card in (self.encoders.image.card, self.encoders.text.card))
        self.batch_size = limits.batch_size or (BATCH if full else 1)

    def warm_up(self) -> None:
        """Load heads and encoders by labelling one post, and prepare what the page asks for. Raises the errors that a
        later request would get."""
        size = self._how.size
        self.answer([("warm-up", Prepared(np.zeros((size, size, 3), np.uint8), "warm-up"))])
        self.info()

    def prepare(self, post: NewPost) -> Prepared:
        """Decode a post's picture and clean its text."""
        return prepare_post(post, self._how, self._clean, self.limits.pixels)

    def answer(self, batch: Sequence[tuple[str, Prepared]]) -> list[dict[str, Any]]:
        """Label prepared posts, (id, post) each; see `schemas.Answer` for what comes back, and besides `distance`, to
        the nearest training row. That one is for /metrics alone: a 0 would tell who is among the training posts."""
        posts = [post for _, post in batch]
        image, text, missing, problems = encode_batch(posts, self.encoders, self.runs, self.chosen.normalize)
        ids = [name for name, _ in batch]
        voted = vote_features(ids, self.runs, image, text, missing, problems, tie=self._tie, soft=self._soft)
        shares = [head_shares(run, image, text, missing) for run in self.runs]
        own = text.frozen if isinstance(text, Texts) else text
        distances = None if self.training is None else self.training.distances(image, own, missing)
        out = []
        for i, found in enumerate(abstaining(voted.predictions, self.abstention)):
            heads = []
            for r, run in enumerate(self.runs):
                votes = bool(voting) if (voting := voted.voting[r, i]) else False
                row, share = voted.probabilities[r, i], shares[r]
                heads.append(
                    {
                        "run": run.name,
                        "fusion": run.fusion.value,
                        "label": found.heads.get(run.name),
                        "probabilities": dict(zip(self.labels, map(float, row), strict=True)) if votes else {},
                        "weights": None
                        if share is None or not votes
                        else {"image": float(share[i, 0]), "text": float(share[i, 1])},
                    }
                )
            distance = None if distances is None else float(distances[i])
            out.append({**vars(found), "calibrated": self.calibrated, "by_head": heads, "distance": distance})
        return out

    @functools.cached_property
    def _explainable(self) -> Encoders:
        return self._opener(self.chosen)

    def run_named(self, name: str | None) -> ServedRun:
        """A run by its name; the first without. Raises UsageError on an unknown name."""
        found = next((run for run in self.runs if name in (None, run.name)), None)
        if found is None:
            names = ", ".join(run.name for run in self.runs)
            raise UsageError(f"no run called {str(name)[:100]!r} is served; the runs are {names}")
        return found

    def explain(
        self, post: NewPost, run: ServedRun, target: str | None, occlude: bool, cam_of: CamOf = "logit"
    ) -> dict[str, Any]:
        """Explain what a run says of a post; see `schemas.ExplanationOut`. Errors as of mmsent.inference.explain."""
        from mmsent.inference.explain import explain

        found = explain(run, self._explainable, post, target=target, stand_in=True, occlude=occlude, cam_of=cam_of)
        out = found.to_json()
        if found.picture is not None:
            out["picture"]["seen"] = image_url(Image.fromarray(found.picture.pixels), "PNG")
        return out

    def heads(self) -> list[dict[str, Any]]:
        """What each head is, for the page."""
        out = []
        for run in self.runs:
            single = run.fusion in {Fusion.image, Fusion.text}
            out.append(
                {
                    "run": run.name,
                    "fusion": run.fusion.value,
                    "halves": [run.fusion.value] if single else ["image", "text"],
                    "needs_both": not single and run.fit.modality_dropout == 0,
                    "calibrated": run.calibrated,
                }
            )
        return out

    @functools.cached_property
    def validated(self) -> tuple[HeldOut, Tally] | None:
        """The validation rows and the vote on them; None where runs keep none."""
        try:
            rows = held_out(self.runs)
        except RunError:
            return None
        way = Way.of(self.labels, self._tie, averages(self.runs, self._soft))
        return (rows, tally(rows.probabilities, way, rows.held)) if rows.ids else None

    @functools.cached_property
    def coverage(self) -> list[dict[str, float]]:
        """How accurate the surest validation rows are; empty where runs keep none."""
        if self.validated is None:
            return []
        rows, voted = self.validated
        return accuracy_by_coverage(voted.labels == rows.truth, confidence_of(voted))

    def info(self) -> dict[str, Any]:
        """What is served, for `schemas.Info`, without what the application adds."""
        from mmsent.report.figures.style import label_colours

        return {
            "version": __version__,
            "encoder": self.encoder,
            "data": self.data,
            "labels": self.labels,
            "colours": label_colours(self.labels),
            "heads": self.heads(),
            "calibrated": self.calibrated,
            "abstain": self.abstention.to_json() if self.abstention else None,
            "coverage": self.coverage,
            "max_text": self.limits.text,
            "max_body": self.limits.body,
            "max_pixels": self.limits.pixels,
            "max_posts": self.limits.most_posts,
        }


class NoHeads(Service):
    """A service before anything is trained: posts are looked through and labelled by people."""

    def __init__(self, limits: Limits, labels: Sequence[str], data: str) -> None:
        self.runs, self.limits, self.labels, self.encoder, self.data = [], limits, list(labels), "", data
        self.batch_size, self.calibrated, self.abstention, self.coverage, self.validated = 1, False, None, [], None
