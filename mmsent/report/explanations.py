"""The explanations in a report: Figure 15 for some validation posts, Figure 16 for a given text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmsent.config import Fusion
from mmsent.encoders.base import Encoders
from mmsent.errors import MmsentError
from mmsent.features.new_posts import NewPost
from mmsent.inference.attribution import METHODS, CamOf, strongest
from mmsent.report.language import say
from mmsent.report.naming import title_of
from mmsent.report.study import Study, Unavailable
from mmsent.system.memory import free_memory, out_of_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmsent.inference.explain import Explanation

ALIKE = 0.6  # rank correlation from which two maps agree
TRIES = 5  # posts of a class whose pictures can be read but which cannot be explained


class Explainer:
    """Explains the main run of a study. encoders: None where they cannot be had; `reason` says why. cam_of: as for
    mmsent.inference.explain."""

    def __init__(
        self,
        study: Study,
        encoders: Encoders | None,
        reason: str = "",
        cam_of: CamOf = "logit",
    ) -> None:
        self._study = study
        self._encoders = encoders
        self._reason = reason or say("the encoders were not loaded")
        self._cam_of = cam_of

    def _explain(self, post: NewPost, target: str | None) -> Explanation:
        from mmsent.inference.explain import explain

        if self._encoders is None:
            raise Unavailable(self._reason)
        try:
            return explain(self._study.main, self._encoders, post, target=target, stand_in=True, cam_of=self._cam_of)
        except MmsentError as error:
            raise Unavailable(str(error)) from error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        free_memory()
        raise Unavailable(say("the memory is too small to explain a post; free some, or use --device cpu"))

    def pictures(self) -> tuple[Figure, str]:
        """Figure 15: one post of each class that the head gets right, at the middle of its confidences. Raises
        Unavailable where encoders or images are not available, or the head reads no image."""
        from mmsent.report.figures.explanations import grad_cam_figure

        study = self._study
        if study.dataset is None:
            raise Unavailable(say("the posts are not available; name the data set with --data"))
        if study.main.fusion is Fusion.text:
            raise Unavailable(say("a text head reads no image"))
        found = study.evaluation(study.main)
        explanations = []
        reason = say("no image of a validation post could be read")
        for c in range(len(study.labels)):
            rows = np.flatnonzero((found.truth == c) & (found.predicted == c))
            if not len(rows):
                rows = np.flatnonzero(found.truth == c)
            order = rows[np.argsort(found.probabilities[rows, c], kind="stable")]
            outwards = np.argsort(np.abs(np.arange(len(order)) - len(order) // 2), kind="stable")
            tries = 0
            for i in order[outwards].tolist():
                row_id = study.features.index.ids[int(found.positions[i])]
                post = study.post(row_id)
                if post is None or study.picture(row_id, 8) is None:
                    continue
                try:
                    explanations.append(self._explain(NewPost(row_id, study.text(row_id), post.image), None))
                    break
                except Unavailable as error:
                    reason, tries = str(error), tries + 1
                    if tries == TRIES:
                        break
        if not any(e.picture for e in explanations):
            raise Unavailable(reason)
        values = [m.correlation for e in explanations if e.picture for m in e.picture.maps if m.correlation is not None]
        words = say(
            "One post per class that {head} labels correctly: the brighter a region, the more it supports the label.",
            head=title_of(study.main),
        )
        if values:
            far = {"low": min(values), "high": max(values)}
            words += say(" ") + (
                say("Grad-CAM and occlusion, which needs no gradient, rank the regions much alike (rank "
                    "correlation {low:+.2f} to {high:+.2f}).", **far)
                if min(values) > ALIKE
                else say("Grad-CAM and occlusion, which needs no gradient, disagree in places (rank correlation "
                         "{low:+.2f} to {high:+.2f} over the layers): trust occlusion.", **far)
            )  # fmt: skip
        if self._cam_of == "logit":
            words += say(" ") + say("The coursework report took the gradient of the loss; --cam-of loss does so.")
        title = say("What in an image supports its label, {name}", name=title_of(study.main))
        return grad_cam_figure(explanations, title), words

    def own_words(self) -> tuple[Figure, str]:
        """Figure 16 for a set with labels of its own: the validation post, of those that the head gets right and whose
        text it can read, in the middle of its confidences. Raises Unavailable where there is none."""
        study = self._study
        found = study.evaluation(study.main)
        right = np.flatnonzero(found.truth == found.predicted)
        sure = found.probabilities[right, found.predicted[right]]
        order = right[np.argsort(sure, kind="stable")]
        for i in order[np.argsort(np.abs(np.arange(len(order)) - len(order) // 2), kind="stable")].tolist():
            text = study.text(study.features.index.ids[int(found.positions[i])])
            if text and text.strip():
                return self.words(text, study.labels[int(found.predicted[i])])
        raise Unavailable(say("there is no text of a validation post that the head labels correctly"))

    def words(self, text: str, target: str) -> tuple[Figure, str]:
        """Figure 16. Raises Unavailable where the encoders are not available or the head reads no text."""
        from mmsent.report.figures.explanations import word_figure

        study = self._study
        if study.main.fusion is Fusion.image:
            raise Unavailable(say("an image head reads no text"))
        found = self._explain(NewPost("example", text, None), target)
        if found.text is None or not found.text.words:
            raise Unavailable(say("the text has no words"))
        best = {name: strongest(found.text.words, name, 1, 1) for name in METHODS}
        first = {name: found_words[0].word if found_words else say("none") for name, found_words in best.items()}
        values = {"text": text, "target": target, **first}
        words = (
            say("All three methods find that {occlusion} supports {target} most in “{text}”.", **values)
            if len(set(first.values())) == 1
            else say("What supports {target} most in “{text}” is {grad_cam} by Grad-CAM at the token embedding, "
                     "{integrated} by "
                     "integrated gradients and {occlusion} by occlusion: where they differ, trust occlusion.", **values)
        ) + say(" ") + say("The mean of the training rows replaces the image.")  # fmt: skip
        return word_figure(found), words
