"""The heat map of a picture: scores resized to it, and laid over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isthmus.drawing.scale import Scale, layered
from isthmus.explanation import Array, Box, ImageAttribution


def scaled_crop(attribution: ImageAttribution, size: tuple[int, int]) -> Box:
    """The model's crop in the pixels of a `(width, height)` copy of the picture."""
    sx, sy = size[0] / attribution.size[0], size[1] / attribution.size[1]
    crop = attribution.crop
    return Box(crop.left * sx, crop.top * sy, crop.right * sx, crop.bottom * sy)


def resized_scores(attribution: ImageAttribution, size: tuple[int, int]) -> Array:
    """Scores resized bilinearly, `(height, width)` float32; NaN where the model saw nothing.

    A pixel's value is that of its centre between the centres of the four nearest patches, as in
    `torch.nn.functional.interpolate(..., align_corners=False)`.
    """
    crop = scaled_crop(attribution, size)
    scores = attribution.scores.astype(np.float64)
    across, columns = _weights(size[0], crop.left, crop.right, scores.shape[1])
    down, rows = _weights(size[1], crop.top, crop.bottom, scores.shape[0])
    full = np.full((size[1], size[0]), np.nan, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        full[np.ix_(rows, columns)] = down[rows] @ scores @ across[columns].T
    return full


def _weights(pixels: int, start: float, end: float, patches: int) -> tuple[Array, npt.NDArray[np.intp]]:
    """Weight of each patch at each pixel centre, `(pixels, patches)`, and the pixels inside the crop."""
    centres = np.arange(pixels) + 0.5
    inside = np.flatnonzero((centres >= start) & (centres <= end))
    place = np.clip((centres - start) / (end - start) * patches - 0.5, 0, patches - 1)
    low = np.floor(place).astype(int).clip(0, max(patches - 2, 0))
    high = np.minimum(low + 1, patches - 1)
    weights = np.zeros((pixels, patches))
    weights[np.arange(pixels), low] += 1 - (place - low)
    weights[np.arange(pixels), high] += place - low
    return weights, inside


def layer(attribution: ImageAttribution, size: tuple[int, int], scale: Scale, *, sign: int = 0) -> Array:
    """A transparent `(height, width, 4)` uint8 layer of the heat map; `sign` 1 or -1 keeps one side of zero."""
    values = np.nan_to_num(scale.normalised(resized_scores(attribution, size)))
    if sign:
        values = np.where(np.sign(values) == sign, values, 0)
    rgba = np.zeros((*values.shape, 4), dtype=np.uint8)
    colours, opacity = layered(values)
    rgba[..., :3], rgba[..., 3] = colours, np.round(255 * opacity)
    return rgba


def calmed(picture: Array) -> Array:
    """The picture with half of its colour, so that the map's red and blue are not taken for the picture's own."""
    grey = picture @ np.array([0.299, 0.587, 0.114])
    return np.asarray((0.4 * picture + 0.6 * grey[..., None] * 0.85 + 0.09 * 255).clip(0, 255).astype(np.uint8))


def overlay(picture: Array, attribution: ImageAttribution, scale: Scale) -> Array:
    """The heat map on a `(height, width, 3)` uint8 copy of the picture; what the model did not see is paler."""
    size = (picture.shape[1], picture.shape[0])
    rgba = layer(attribution, size, scale)
    alpha = rgba[..., 3:] / 255.0
    base = calmed(picture).astype(np.float64)
    unseen = np.isnan(resized_scores(attribution, size))[..., None]
    base = np.where(unseen, 0.45 * base + 0.55 * 235, base)
    return np.asarray((base * (1 - alpha) + rgba[..., :3] * alpha).round().astype(np.uint8))


def outlined(attribution: ImageAttribution) -> bool:
    """Whether the model's crop is less than the whole picture, by half a pixel or more."""
    crop, (width, height) = attribution.crop, attribution.size
    edges = (crop.left, crop.top, width - crop.right, height - crop.bottom)
    return max(map(abs, edges)) >= 0.5
