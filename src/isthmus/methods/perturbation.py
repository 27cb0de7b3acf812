"""Attribution by taking parts away: occlusion, RISE and LIME."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Inputs, Tower
from isthmus.entering import over_patches, size_of
from isthmus.masking import Masking, masking
from isthmus.methods.checks import positive, probability, stated, whole
from isthmus.methods.coalitions import bernoulli
from isthmus.methods.registry import Attribution, Method, register

_PIXEL_MASKS = 64  # soft masks of whole pictures are large: so many copies are made at a time


def occlusion(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    window: int = 1,
    replacement: str | Tensor = "mean",
    memory: int | None = None,
) -> Attribution:
    """The score lost when a part is replaced (Zeiler & Fergus, Visualizing and Understanding CNNs, ECCV 2014).

    A window of `window` patches a side, or of so many tokens in a row, slides one by one; a position gets the mean
    loss over the windows that cover it. Signed, in units of the score; not complete.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is; special positions are never taken away and get 0.
        window: side of the window, at least 1.
        replacement: see `isthmus.masking.masking`.
        memory: budget in bytes.
    """
    window = whole("window", window, 1)
    side = masking(tower, inputs, layouts, replacement=replacement, memory=memory)
    covers = [_windows(layout, window, side.positions) for layout in layouts]
    counts = [len(one) for one in covers]
    rows = torch.arange(len(covers)).repeat_interleave(torch.tensor(counts))
    opened = side.open(target)
    lost = opened[rows.to(opened.device)] - side.scores(1 - torch.cat(covers), rows, target)
    parts = zip((one.to(lost) for one in covers), torch.split(lost, counts), strict=True)
    scores = torch.stack([(cover.T @ loss) / cover.sum(0).clamp(min=1) for cover, loss in parts])
    return Attribution(scores, opened, None, ({"window": window, **stated(replacement)},) * len(scores))


def _windows(layout: TokenLayout, window: int, positions: int) -> Tensor:
    """`(K, T)` 1 where a window covers a position; a text is a grid of one row."""
    grid = layout.grid or (1, len(layout.content))
    places = torch.tensor(layout.content, dtype=torch.long).view(grid)
    for axis, length in enumerate(grid):
        places = places.unfold(axis, min(window, length), 1)
    covered = places.flatten(0, 1).flatten(1)
    return torch.zeros(len(covered), positions).scatter_(1, covered, 1.0)


def rise(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    samples: int | None = None,
    cells: int | None = None,
    keep: float | None = None,
    centred: bool | None = None,
    replacement: str | Tensor | None = None,
    seed: int = 0,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """RISE (Petsiuk et al., BMVC 2018, eq. 6): the mean score of random masks that keep a position.

    With masks m_k and scores s_k, `score_i = sum over k of (s_k - mean s) m_ki / sum over k of m_ki`; the paper does
    not take the mean off, which leaves noise of the size of the signal where all scores are alike, as cosines are.
    A picture's masks are random coarse grids, enlarged bilinearly and shifted; a patch's value is the mean over its
    pixels. A text's masks keep or take whole tokens. Random: `standard_error` of the result, the median over
    positions, tells how far another seed may lead.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is; special positions are never taken away and get 0.
        samples: number of masks, default 2,000 (the paper: 4,000 to 8,000).
        cells: cells of the coarse grid along a side, default 7.
        keep: probability with which a cell or token is kept, default 0.5.
        centred: take the mean score off first, default True.
        replacement: see `isthmus.masking.masking`; default "mean". The paper: "zero".
        seed: of the masks, the same for every input.
        preset: "paper" is the NIB paper's comparison: 6,000 masks of 8 cells for a picture, 200 for a text, kept with
            probability 0.1, zero elsewhere, not centred, divided by the expected weight, with its min-max map. Its
            masks take BOS and EOS away too; here they stay.
        memory: budget in bytes.
    """
    paper = preset == "paper"
    chosen = _PAPER[tower.side] if paper else {"samples": 2000, "cells": 7, "keep": 0.5, "centred": True}
    given = {"samples": samples, "cells": cells, "keep": keep, "centred": centred}
    used: dict[str, Any] = {name: chosen[name] if value is None else value for name, value in given.items()}
    whole("samples", used["samples"], 2)
    whole("cells", used["cells"], 1)
    probability("keep", used["keep"])
    replacement = ("zero" if paper else "mean") if replacement is None else replacement
    side = masking(tower, inputs, layouts, replacement=replacement, memory=memory)
    draw = _of_pictures if tower.lookup is None else _of_texts
    masks, scores = draw(side, target, used, seed)
    found, error = _rise(masks, scores, used)
    options = tuple({**used, **stated(replacement), "seed": seed, "standard_error": one} for one in error)
    return Attribution(found, side.open(target), None, options, published=paper)


_PAPER: dict[str, dict[str, Any]] = {
    "image": {"samples": 6000, "cells": 8, "keep": 0.1, "centred": False},
    "text": {"samples": 200, "cells": 8, "keep": 0.1, "centred": False},
}


def _rise(masks: Tensor, scores: Tensor, used: dict[str, Any]) -> tuple[Tensor, list[float]]:
    """Scores `(B, T)`, and the median standard error of each input, of masks `(B, K, T)` and scores `(B, K)`."""
    weight = masks.sum(1) if used["centred"] else torch.full_like(masks[:, 0], used["keep"] * used["samples"])
    about = scores - scores.mean(1, keepdim=True) if used["centred"] else scores
    terms = about[..., None] * masks
    there = masks.amax(1) > 0
    found = torch.where(there, terms.sum(1) / weight.clamp(min=1e-12), 0.0)
    spread = used["samples"] ** 0.5 * terms.std(1) / weight.clamp(min=1e-12)
    errors = [
        float(row[inside].median()) if bool(inside.any()) else 0.0 for row, inside in zip(spread, there, strict=True)
    ]
    return found, errors


def _of_texts(side: Masking, target: Tensor, used: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Masks `(B, K, T)`, zero at special positions, and their scores `(B, K)`."""
    kept = torch.stack([bernoulli(one, side.positions, used["samples"], used["keep"], seed) for one in side.layouts])
    rows = torch.arange(len(kept)).repeat_interleave(used["samples"])
    scores = side.scores(kept.flatten(0, 1), rows, target).view(len(kept), -1)
    return kept.to(scores) * side.content.to(scores)[:, None], scores


def _of_pictures(side: Masking, target: Tensor, used: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """As `_of_texts`; pictures of one size share their masks."""
    alike: dict[TokenLayout, list[int]] = {}
    for row, layout in enumerate(side.layouts):
        alike.setdefault(layout, []).append(row)
    parts = [_of_one_size(side, layout, rows, target, used, seed) for layout, rows in alike.items()]
    if len(parts) == 1:
        masks, scores = parts[0]
        return masks.expand(len(target), -1, -1), scores
    order = torch.tensor([row for rows in alike.values() for row in rows]).argsort()
    masks = torch.cat([masks.expand(len(scores), -1, -1) for masks, scores in parts])
    return masks[order], torch.cat([scores for _, scores in parts])[order]


def _of_one_size(
    side: Masking, layout: TokenLayout, inputs: Sequence[int], target: Tensor, used: dict[str, Any], seed: int
) -> tuple[Tensor, Tensor]:
    """Masks `(1, K, T)` and scores `(b, K)`; the soft masks are made a few at a time and kept as means over patches."""
    generator = torch.Generator().manual_seed(seed)
    flat = side.entrance.hidden.ndim == 3
    height, width = size_of(layout) if flat else side.entrance.hidden.shape[-2:]
    count, cells, size = used["samples"], used["cells"], (height, width)
    step = [-(-length // cells) for length in size]
    coarse = (torch.rand(count, 1, cells, cells, generator=generator) < used["keep"]).float()
    shifts = [torch.randint(length, (count,), generator=generator) for length in step]
    means, scores, batch = [], [], len(inputs)
    for start in range(0, count, max(1, _PIXEL_MASKS // batch)):
        part = slice(start, start + max(1, _PIXEL_MASKS // batch))
        soft = _enlarged(coarse[part], step, [shift[part] for shift in shifts], size)
        rows = torch.tensor(inputs).repeat_interleave(len(soft))
        scores.append(side.scores(soft.repeat(batch, 1, 1), rows, target).view(batch, -1))
        means.append(over_patches(soft, layout))
    found = torch.cat(scores, 1)
    masks = found.new_zeros(1, count, side.positions)
    masks[0, :, list(layout.patches)] = torch.cat(means).to(found)
    return masks, found


def _enlarged(coarse: Tensor, step: Sequence[int], shifts: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Coarse masks `(K, 1, s, s)` as soft ones `(K, H, W)`, enlarged by one cell too many and cut at their shift."""
    large = [(coarse.shape[-1] + 1) * length for length in step]
    soft = nn.functional.interpolate(coarse, size=large, mode="bilinear", align_corners=False)[:, 0]
    rows, columns = (shift[:, None] + torch.arange(length) for shift, length in zip(shifts, size, strict=True))
    return soft[torch.arange(len(soft))[:, None, None], rows[:, :, None], columns[:, None, :]]


def lime(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    samples: int = 1000,
    width: float = 0.25,
    ridge: float = 1.0,
    replacement: str | Tensor = "mean",
    seed: int = 0,
    memory: int | None = None,
) -> Attribution:
    """LIME (Ribeiro et al., KDD 2016): the weights of a local linear model of the score, over patches or tokens.

    Minimises `sum over k of pi_k (s_k - w b_k - w_0)^2 + ridge |w|^2` over masks b_k that keep each position with
    probability 1/2, the first keeping all, with `pi = sqrt(exp(-D^2 / width^2))` and D the cosine distance of b_k from
    the full mask. The players are patches, not the superpixels of the published code for pictures. Random:
    `r_squared` of the result tells how much of the weighted scores' variance the linear model explains.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is; special positions are never taken away and get 0.
        samples: number of masks.
        width: of the kernel.
        ridge: strength of the penalty; with cosines and 1,000 masks, 1 shrinks the weights noticeably.
        replacement: see `isthmus.masking.masking`.
        seed: of the masks, the same for every input.
        memory: budget in bytes.
    """
    whole("samples", samples, 2)
    positive("width", width)
    positive("ridge", ridge)
    side = masking(tower, inputs, layouts, replacement=replacement, memory=memory)
    kept = torch.stack([bernoulli(one, side.positions, samples, 0.5, seed) for one in layouts])
    kept[:, 0] = 1
    rows = torch.arange(len(kept)).repeat_interleave(samples)
    values = side.scores(kept.flatten(0, 1), rows, target).view(len(kept), -1)
    content = side.content.to(values.device)
    found, explained = _ridge(kept.to(values) * content[:, None], values, content, width=width, ridge=ridge)
    used = {"samples": samples, "width": width, "ridge": ridge, **stated(replacement), "seed": seed}
    options = tuple({**used, "r_squared": one} for one in explained.tolist())
    return Attribution(found.to(values.dtype), side.open(target), None, options)


def _ridge(masks: Tensor, values: Tensor, content: Tensor, *, width: float, ridge: float) -> tuple[Tensor, Tensor]:
    """Weights `(B, T)` and the share of variance explained `(B,)`; the intercept is not penalised."""
    masks, values = masks.double(), values.double()
    share = masks.sum(-1) / content.sum(-1, keepdim=True).clamp(min=1)
    kernel = torch.exp(-(((1 - share.sqrt()) / width) ** 2) / 2)
    near = kernel / kernel.sum(1, keepdim=True)
    mean, average = (near[..., None] * masks).sum(1, keepdim=True), (near * values).sum(1, keepdim=True)
    x, y = masks - mean, values - average
    weighted = near[..., None] * x
    penalty = ridge / kernel.sum(1)  # as the kernel's weights were made to sum to 1
    system = weighted.transpose(1, 2) @ x + penalty[:, None, None] * torch.eye(x.shape[-1], device=x.device)
    found = torch.linalg.solve(system, (weighted.transpose(1, 2) @ y[..., None]))[..., 0]
    left = (near * (y - (x @ found[..., None])[..., 0]) ** 2).sum(1)
    return found, 1 - left / (near * y**2).sum(1).clamp(min=1e-30)


_REPLACEMENT = "what stands where something was taken away: mean, blur, zero or a picture; for words mean, zero, remove"
_MEMORY = {"memory": "memory budget in bytes"}

register(
    Method(
        name="occlusion",
        title="Occlusion",
        paper="Zeiler & Fergus, ECCV 2014 (arXiv:1311.2901)",
        function=occlusion,
        options={"window": "side of the window in patches or tokens", "replacement": _REPLACEMENT, **_MEMORY},
        needs_gradients=False,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("1 + P", "0"),
    )
)
register(
    Method(
        name="rise",
        title="RISE, centred",
        paper="Petsiuk et al., BMVC 2018 (arXiv:1806.07421)",
        function=rise,
        options={
            "samples": "number of masks, default 2000",
            "cells": "cells of the coarse grid along a side, default 7",
            "keep": "probability with which a cell or token is kept, default 0.5",
            "centred": "take the mean score off first, default true",
            "replacement": _REPLACEMENT,
            "seed": "of the masks",
            **_MEMORY,
        },
        presets={"paper": "the NIB paper's comparison: not centred, kept with probability 0.1, with its min-max map"},
        needs_gradients=False,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("1 + n", "0"),
    )
)
register(
    Method(
        name="lime",
        title="LIME over patches and tokens",
        paper="Ribeiro et al., KDD 2016 (arXiv:1602.04938)",
        function=lime,
        options={
            "samples": "number of masks",
            "width": "of the kernel",
            "ridge": "strength of the penalty",
            "replacement": _REPLACEMENT,
            "seed": "of the masks",
            **_MEMORY,
        },
        needs_gradients=False,
        needs_fit=("text",),
        needs_layouts=True,
        passes=("1 + n", "0"),
    )
)
