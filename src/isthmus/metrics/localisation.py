"""Localisation: whether a picture's map marks the place of what its text names (METHODS 4.3).

The truth is `Pairs.regions`, in pixels of the model's input. A map is resized bilinearly to these pixels and stays raw
and signed. A pair is NaN where its region is empty in what the model saw, or where its map is not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.encoders.tower import Side
from isthmus.errors import InputError, OptionError
from isthmus.metrics.pairs import Judged
from isthmus.metrics.registry import Metric, register


@dataclass(frozen=True, eq=False)
class _Located:
    """Maps and truth of the pairs for which there is something to say.

    Attributes:
        rows: `(B,)` bool, which of the pairs these are; R of them.
        scores: `(R, H, W)` float32.
        regions: `(R, H, W)` bool, each with a pixel that is true.
    """

    rows: Tensor
    scores: Tensor
    regions: Tensor

    def spread(self, values: Tensor) -> Tensor:
        """Values `(R,)` as `(B,)` float64, NaN for the other pairs."""
        found = torch.full((len(self.rows),), torch.nan, dtype=torch.float64)
        found[self.rows] = values.double()
        return found


def pointing_game(judged: Judged, side: Side, *, tolerance: float = 0) -> Tensor:
    """Whether the highest-scoring pixel lies in the region (Zhang et al., IJCV 2018).

    Args:
        judged, side: the maps of the pictures.
        tolerance: a pixel counts as in the region up to this distance from it, in pixels of the model's input
            (Zhang et al. take 15).

    Returns:
        `(B,)` in [0, 1], higher is better. Of several pixels with the same highest score, the share that lies in the
        region: what a draw among them gives in the mean, and for a flat map the share of the picture that the region
        covers.

    Raises:
        InputError: no regions are known, or the pictures were not explained.
        OptionError: a negative tolerance, a side without regions, or a tolerance without scipy.
    """
    if not tolerance >= 0:
        raise OptionError(f"tolerance must be 0 or more pixels, not {tolerance!r}.")
    found = _located(judged, side)
    near = found.regions
    if tolerance > 0:
        near = judged.pairs.once(("near", tolerance), lambda: _grown(judged.pairs.regions, tolerance))[found.rows]
    highest = found.scores == found.scores.amax((1, 2), keepdim=True)
    return found.spread((highest & near).sum((1, 2)).double() / highest.sum((1, 2)))


def energy_inside(judged: Judged, side: Side) -> Tensor:
    """Share of the positive score that lies in the region (the energy-based pointing game: Wang et al., Score-CAM).

    Returns:
        `(B,)` in [0, 1], higher is better; 0 where no score is positive, as such a map points to nothing, and leaving
        the pair out would favour methods that are silent on hard pictures.

    Raises:
        InputError: no regions are known, or the pictures were not explained.
        OptionError: a side without regions.
    """
    found = _located(judged, side)
    positive = found.scores.double().clamp(min=0)
    whole = positive.sum((1, 2))
    inside = (positive * found.regions).sum((1, 2))
    return found.spread(torch.where(whole > 0, inside / whole, 0.0))


def iou(judged: Judged, side: Side, *, threshold: str = "best") -> Tensor:
    """Intersection over union of the region and the pixels that score above a threshold.

    Args:
        judged, side: the maps of the pictures.
        threshold: "best" takes, for each map, that of its own values which gives the highest IoU: a bound on what any
            threshold can do. "otsu" takes Otsu's (IEEE Trans. SMC 1979), which knows nothing of the region.

    Returns:
        `(B,)` in [0, 1], higher is better. A flat map sets nothing apart; all pixels are taken, and its value is the
        share of the picture that the region covers. No map has less than that at the best threshold.

    Raises:
        InputError: no regions are known, or the pictures were not explained.
        OptionError: no such threshold, a side without regions, or Otsu's without scikit-image.
    """
    if threshold not in _THRESHOLDS:
        raise OptionError(f"threshold must be {' or '.join(map(repr, _THRESHOLDS))}, not {threshold!r}.")
    found = _located(judged, side)
    return found.spread(_THRESHOLDS[threshold](found))


def average_precision(judged: Judged, side: Side) -> Tensor:
    """Average precision of the pixels, ranked by score, as finders of the region.

    The mean precision over steps of recall, `sum_n (R_n - R_(n-1)) P_n`, one step for each distinct score.

    Returns:
        `(B,)` in [0, 1], higher is better; a flat map has the share of the picture that the region covers.

    Raises:
        InputError: no regions are known, or the pictures were not explained.
        OptionError: a side without regions, or torchmetrics is not there.
    """
    try:
        from torchmetrics.functional.classification import multilabel_average_precision
    except ImportError as error:
        raise OptionError("Average precision needs torchmetrics: pip install 'isthmus[evaluate]'.") from error
    found = _located(judged, side)
    count = len(found.scores)
    if not count:
        return found.spread(torch.empty(0))
    # Ranks, as torchmetrics would put scores outside [0, 1] through a sigmoid, which makes ties where there are none.
    ranks = torch.stack([torch.unique(one, return_inverse=True)[1] for one in found.scores.flatten(1)])
    values = ranks.double() / ranks.shape[1]
    truth = found.regions.flatten(1).long()
    return found.spread(multilabel_average_precision(values.T, truth.T, count, average="none", validate_args=False))


def _located(judged: Judged, side: Side) -> _Located:
    if side != "image":
        raise OptionError("Localisation is defined for the image only: a text has no regions.")
    return judged.once("located", lambda: _make_located(judged))


def _make_located(judged: Judged) -> _Located:
    pairs, maps = judged.pairs, judged.of("image")
    if pairs.regions is None:
        raise InputError(
            "Localisation needs to know where things are: take a dataset with masks or boxes, or give regions."
        )
    sizes = {frame.input_size for frame in pairs.frames}
    if len(sizes) > 1:
        raise InputError(f"The model's inputs of these pictures have {len(sizes)} sizes: take pictures of one size.")
    (size,) = sizes
    regions = torch.tensor(pairs.regions)
    if tuple(regions.shape) != (len(pairs), *size):
        raise InputError(
            f"The regions have the shape {tuple(regions.shape)}: give {(len(pairs), *size)}, "
            "one for each pair in pixels of the model's input."
        )
    scores = torch.stack([_resized(torch.tensor(one.scores), size) for one in maps])
    rows = regions.flatten(1).any(1) & torch.isfinite(scores).flatten(1).all(1)
    return _Located(rows, scores[rows], regions[rows])


def _resized(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resized in float64, then rounded: float32 alone would tear pixels apart that tie."""
    grid = scores.double()[None, None]
    return nn.functional.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0, 0].float()


def _grown(regions: np.ndarray | None, tolerance: float) -> Tensor:
    """Regions `(B, H, W)` with all pixels at most `tolerance` from them."""
    try:
        from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]
    except ImportError as error:
        raise OptionError("A tolerance needs scipy: pip install 'isthmus[evaluate]'.") from error
    assert regions is not None, "pairs without regions were refused before"
    # A region without a pixel has no distance to it; its pair is NaN anyway.
    grown = [distance_transform_edt(~one) <= tolerance if one.any() else one for one in regions]
    return torch.tensor(np.stack(grown))


def _best(found: _Located) -> Tensor:
    """`(R,)` the highest IoU over all thresholds: one sort, looked at where the score changes."""
    values, order = found.scores.flatten(1).sort(dim=1, descending=True)
    inside = found.regions.flatten(1)
    hits = inside.gather(1, order).cumsum(1).double()
    taken = torch.arange(1, values.shape[1] + 1)
    ious = hits / (taken + inside.sum(1, keepdim=True) - hits)
    last = nn.functional.pad(values[:, 1:] != values[:, :-1], (0, 1), value=True)  # of the pixels that tie
    return torch.where(last, ious, 0.0).amax(1)


def _otsu(found: _Located) -> Tensor:
    """`(R,)` the IoU at Otsu's threshold, pixels above it being foreground as in scikit-image."""
    try:
        from skimage.filters import threshold_otsu
    except ImportError as error:
        raise OptionError("Otsu's threshold needs scikit-image: pip install 'isthmus[evaluate]'.") from error
    ious = torch.empty(len(found.scores), dtype=torch.float64)
    for i, (scores, region) in enumerate(zip(found.scores.double(), found.regions, strict=True)):
        taken = scores > float(threshold_otsu(scores.numpy()))  # type: ignore[no-untyped-call]
        if not taken.any():
            taken = torch.ones_like(region)
        ious[i] = (taken & region).sum().double() / (taken | region).sum()
    return ious


_THRESHOLDS: dict[str, Callable[[_Located], Tensor]] = {"best": _best, "otsu": _otsu}


_TOLERANCES: dict[str, dict[str, object]] = {"": {}, "15 px": {"tolerance": 15}}
register(
    Metric(
        "pointing-game",
        "Pointing game",
        "Zhang et al., Excitation Backprop, IJCV 2018",
        pointing_game,
        _TOLERANCES,
        sides=("image",),
        question="region",
    )
)
register(
    Metric(
        "energy-inside",
        "Energy inside",
        "Wang et al., Score-CAM, CVPR Workshops 2020",
        energy_inside,
        sides=("image",),
        question="region",
    )
)
register(
    Metric(
        "iou",
        "Intersection over union",
        "Jaccard, 1912; Otsu, IEEE Trans. SMC 1979",
        iou,
        {name: {"threshold": name} for name in _THRESHOLDS},
        sides=("image",),
        question="region",
    )
)
register(
    Metric(
        "average-precision",
        "Average precision of pixels",
        "as of relevance maps in Chefer et al., CVPR 2021",
        average_precision,
        sides=("image",),
        question="region",
    )
)
