"""Feature maps in two dimensions by PCA, t-SNE and UMAP (report, Figures 12 to 14)."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmsent.metrics import Labels
from mmsent.report.figures.style import WIDE, in_style, label_colours, label_markers, label_text, new_figure
from mmsent.report.language import say
from mmsent.system.files import folder_of_this_process

Points = NDArray[np.float64]


def project(features: NDArray[np.float32], seed: int = 0) -> dict[str, Points | None]:
    """(N, D) features -> (N, 2) by method; UMAP is None where umap-learn is not installed.

    PCA keeps variance, t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et al. 2018) neighbourhoods: distances
    between far clusters mean little there. The same features and seed give the same points.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(features)
    values = np.asarray(features, np.float64)
    few = n < 5
    pca: Points = PCA(2, random_state=seed).fit_transform(values) if n > 2 and values.shape[1] > 1 else values[:, :2]
    # The first 50 components hold what t-SNE and UMAP can see, at a fraction of the width.
    wide = min(50, n - 1, values.shape[1])
    slim = PCA(wide, random_state=seed, svd_solver="full").fit_transform(values) if wide > 2 else values
    tsne: Points | None = None
    if not few:
        tsne = TSNE(2, perplexity=min(30.0, (n - 1) / 3), init="pca", random_state=seed).fit_transform(slim)
    return {"PCA": pca, "t-SNE": tsne, "UMAP": None if few else umap_points(slim, seed)}


def umap_points(values: Points, seed: int) -> Points | None:
    """(N, D) -> (N, 2) by UMAP; None where umap-learn is not installed."""
    try:
        _let_numba_cache()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numba and umap warn of what does not concern the caller
            import umap

            # A fixed seed means one thread: the same points every time.
            mapper = umap.UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed, n_jobs=1)
            points: Points = mapper.fit_transform(values)
    except ImportError:
        return None
    return points


def _let_numba_cache() -> None:
    """A temporary folder for what numba compiles where it finds none, as in a container whose packages are read-only
    and whose user has no home; without one the import of umap fails."""
    found = importlib.util.find_spec("umap")
    if found is None or found.origin is None or "NUMBA_CACHE_DIR" in os.environ:
        return
    if not any(os.access(folder, os.W_OK) for folder in (Path(found.origin).parent, os.path.expanduser("~"))):
        os.environ["NUMBA_CACHE_DIR"] = str(folder_of_this_process("mmsent-numba-"))
        if "numba" in sys.modules:
            sys.modules["numba"].core.config.reload_config()


@in_style
def projection_figure(points: Mapping[str, Points | None], truth: Labels, labels: Sequence[str], what: str) -> Figure:
    """Figures 12 to 14: one panel per method with points, coloured and marked by true class. `what` names the features.
    The axes have no ticks, for their numbers mean nothing."""
    colours, markers = label_colours(labels), label_markers(labels)
    shown = {method: found for method, found in points.items() if found is not None}
    fig = new_figure(WIDE, 3.9)
    for ax, (method, found) in zip(fig.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        ax.set_title(method)
        ax.set_xlabel(say("{method} 1 (no unit)", method=method))
        ax.set_ylabel(say("{method} 2 (no unit)", method=method))
        ax.set_xticks([])
        ax.set_yticks([])
        order = np.random.default_rng(0).permutation(len(found))  # no class hides another by being drawn last
        for k in range(0, len(order), 25):
            for c, label in enumerate(labels):
                rows = [i for i in order[k : k + 25] if truth[i] == c]
                style = {"c": colours[label], "marker": markers[label], "s": 13, "alpha": 0.75, "lw": 0.3}
                ax.scatter(found[rows, 0], found[rows, 1], edgecolors="white", **style)
    handles = [
        fig.axes[0].scatter([], [], c=colours[name], marker=markers[name], label=label_text(name, 24))
        for name in labels
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(8, len(labels)), title=say("true class"))
    fig.suptitle(say("{what}, {n} validation rows", what=label_text(what), n=len(truth)))
    return fig
