"""Confidence Drop and Increase, as the NIB paper's code computes them and as they should be computed.

The paper's: pixels, and rows of the token table, are scaled by a min-max map. A map that is 0.99 everywhere beats every
method, so it stands beside every table (METHODS 4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.split import Entrance
from isthmus.encoders.tower import Side, unit
from isthmus.entering import size_of, spread
from isthmus.errors import ModelError, OptionError
from isthmus.metrics.maps import shares, token_shares
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.ranking import embedded, kept_masks, ranks
from isthmus.metrics.registry import Metric, register


def confidence_drop(
    judged: Judged, side: Side, *, protocol: str = "paper", mass: float = 0.25, replacement: str = "mean"
) -> Tensor:
    """How much the cosine falls where only what the map calls important is kept (Chattopadhyay et al., WACV 2018).

    Args:
        judged, side: the maps of one side.
        protocol: "paper" multiplies the input by the min-max map, bug for bug (NIB, ICLR 2025; METHODS 4.1): pixels
            after normalisation; rows of the token table, for the text without its first and last token, where a token
            that occurs twice is scaled twice. "sound" keeps the share `mass` of positions with the highest scores,
            position by position, special tokens and length as they are.
        mass: share of the positions kept, above 0 and at most 1; "sound" only.
        replacement: what stands where a position was taken away; "sound" only.

    Returns:
        `(B,)` `100 max(0, cos(whole) - cos(kept))`, absolute points of cosine, lower is better.
    """
    whole, part = _cosines(judged, side, protocol, mass, replacement)
    return 100 * (whole - part).clamp(min=0)


def confidence_increase(
    judged: Judged, side: Side, *, protocol: str = "paper", mass: float = 0.25, replacement: str = "mean"
) -> Tensor:
    """Whether the cosine rises where only what the map calls important is kept: 100 where it does, else 0.

    See `confidence_drop`.
    """
    whole, part = _cosines(judged, side, protocol, mass, replacement)
    return 100 * torch.where(torch.isfinite(part), (part > whole).double(), torch.nan)


def _cosines(judged: Judged, side: Side, protocol: str, mass: float, replacement: str) -> tuple[Tensor, Tensor]:
    """Cosines `(B,)` of the whole input and of what is kept of it."""
    if protocol not in ("paper", "sound"):
        raise OptionError(f'protocol must be "paper" or "sound", not {protocol!r}.')
    key = ("confidence", side, protocol, mass, replacement)
    if protocol == "sound":
        return judged.once(key, lambda: _sound(judged, side, mass, replacement))
    return judged.once(key[:3], lambda: (_scaled_pixels if side == "image" else _scaled_rows)(judged))


def _sound(judged: Judged, side: Side, mass: float, replacement: str) -> tuple[Tensor, Tensor]:
    if not 0 < mass <= 1:
        raise OptionError(f"mass must be above 0 and at most 1, not {mass!r}.")
    pairs = judged.pairs
    own = (pairs.players(side) >= 0).sum(1, keepdim=True)
    counts = (mass * own).round().long().clamp(min=1)
    masks = kept_masks(ranks(judged.scores(side), pairs, side), pairs, side, counts)
    target = pairs.target(side)
    whole, part = _dot(pairs.embeddings[side], target), _dot(embedded(pairs, side, masks, replacement)[:, 0], target)
    part = torch.where((counts == own)[:, 0], whole, part)  # all is kept: the same, not up to rounding
    return whole, torch.where(judged.known(side), part, torch.nan)


def _scaled_pixels(judged: Judged) -> tuple[Tensor, Tensor]:
    pairs = judged.pairs
    inputs, tower = pairs.inputs["image"], pairs.model.image
    pixels, layouts = inputs[tower.stem_input], pairs.layouts["image"]
    own = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    sizes = [own if pixels.ndim == 4 else size_of(layout) for layout in layouts]
    parts = [shares([one], size) for one, size in zip(judged.of("image"), sizes, strict=True)]
    shown = [spread(part.nan_to_num(), layout, pixels) for part, layout in zip(parts, layouts, strict=True)]
    part = unit(tower.embed({**inputs, tower.stem_input: pixels * torch.cat(shown).to(pixels)}))
    there = torch.tensor([bool(torch.isfinite(one).all()) for one in parts])
    scores = torch.where(there, _dot(part, pairs.target("image")), torch.nan)
    return _dot(pairs.embeddings["image"], pairs.target("image")), scores


def _scaled_rows(judged: Judged) -> tuple[Tensor, Tensor]:
    """The text without its first and last token, as it is and with its rows scaled; both are encoded anew."""
    pairs = judged.pairs
    entrance = pairs.once("text without its ends", lambda: _without_ends(pairs))
    factors = torch.ones(entrance.hidden.shape[:2])
    for row, one, layout in zip(factors, judged.of("text"), pairs.layouts["text"], strict=True):
        inner = token_shares(one, _positions(layout), layout.content)[1:-1]
        row[: len(inner)] = inner
    factors = _of_every_occurrence(entrance.inputs["input_ids"].cpu(), factors)
    hidden = entrance.hidden * factors.nan_to_num()[..., None].to(entrance.hidden)
    with torch.no_grad():
        part = unit(entrance.resume(hidden))
    target = pairs.target("text")
    scores = torch.where(torch.isfinite(factors).all(1), _dot(part, target), torch.nan)
    return _dot(unit(entrance.embedding), target), scores


def _without_ends(pairs: Pairs) -> Entrance:
    """The texts without their first and last token, padded behind with id 0, which no pooling looks at."""
    ids = pairs.inputs["text"]["input_ids"]
    inner = [_between_ends(layout) for layout in pairs.layouts["text"]]
    found = torch.zeros(len(pairs), max(map(len, inner)), dtype=ids.dtype, device=ids.device)
    there = torch.zeros_like(found)
    for i, positions in enumerate(inner):
        found[i, : len(positions)] = ids[i, list(positions)]
        there[i, : len(positions)] = 1
    given = {"input_ids": found, "attention_mask": there}
    return pairs.model.text.enter({name: value for name, value in given.items() if name in pairs.inputs["text"]})


def _between_ends(layout: TokenLayout) -> tuple[int, ...]:
    """Positions of a text but its first and last. Raises ModelError where these are words, or padding is read."""
    first, *inner, last = _positions(layout)
    names = {position: name for name, position in layout.special}
    if not {first, last} <= set(names) or "PAD" in names.values():
        raise ModelError(
            "The paper's protocol takes the start and end token off a text, and this model's texts have none, or are "
            'padded as they are read: choose protocol="sound".'
        )
    return tuple(inner)


def _of_every_occurrence(ids: Tensor, factors: Tensor) -> Tensor:
    """`(B, T)` the product of the factors of all positions with the same id: they share a row of the table."""
    same = ids[:, :, None] == ids[:, None, :]
    return torch.where(same, factors[:, None, :], torch.ones(())).prod(-1)


def _positions(layout: TokenLayout) -> tuple[int, ...]:
    """All positions that are not padding, in order."""
    return tuple(sorted((*layout.content, *(position for _, position in layout.special))))


def _dot(embeddings: Tensor, target: Tensor) -> Tensor:
    return (embeddings * target.to(embeddings)).sum(-1).double().cpu()


_SOUND: dict[str, dict[str, object]] = {
    f"sound {mass:.0%} {replacement}": {"protocol": "sound", "mass": mass, "replacement": replacement}
    for replacement in ("mean", "blur", "remove")
    for mass in (0.1, 0.25, 0.5)
}
_VARIANTS: dict[str, dict[str, object]] = {"paper": {}, **_SOUND}
_PAPER = "Chattopadhyay et al., Grad-CAM++, WACV 2018; as in Zhu et al., NIB, ICLR 2025"
register(
    Metric("confidence-drop", "Confidence Drop", _PAPER, confidence_drop, _VARIANTS, better="lower", unit="points")
)
register(Metric("confidence-increase", "Confidence Increase", _PAPER, confidence_increase, _VARIANTS, unit="%"))
