"""NIB as a plain loop, with the costs that the published code has.

Written from METHODS 1.4: nodes 1/n ... 1 one after another, each node's state a leaf of its own, a backward pass that
also makes gradients of all weights it meets, the prefix run with a graph that nobody uses, text by text, each text
against the whole batch of pictures, embeddings computed anew where they are needed. It differs from the published
code in nothing that costs less: sizes are read from the model, and attention is the model's own. transformers 5.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from speed_models import Pairs

STEPS = 10
SIDES = ("image", "text")


def image_state(model: Any, pixels: Tensor, layer: int) -> Tensor:
    """The state `(B, T, d)` that enters block `layer` of the image tower."""
    vision = model.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels))
    return _through(vision.encoder.layers[:layer], hidden, None)


def image_rest(model: Any, hidden: Tensor, layer: int) -> Tensor:
    """Embeddings `(B, D)` from that state, not normalised."""
    vision = model.vision_model
    hidden = _through(vision.encoder.layers[layer:], hidden, None)
    return model.visual_projection(vision.post_layernorm(hidden[:, 0]))  # type: ignore[no-any-return]


def text_state(model: Any, ids: Tensor, layer: int) -> Tensor:
    """The state that enters block `layer` of the text tower, of texts without padding."""
    hidden = model.text_model.embeddings(input_ids=ids)
    return _through(model.text_model.encoder.layers[:layer], hidden, _causal(hidden))


def text_rest(model: Any, hidden: Tensor, ids: Tensor, layer: int) -> Tensor:
    """Embeddings from that state, pooled at the end of the text."""
    text = model.text_model
    hidden = text.final_layer_norm(_through(text.encoder.layers[layer:], hidden, _causal(hidden)))
    end = model.config.text_config.eos_token_id
    place = ids.argmax(-1) if end == 2 else (ids == end).int().argmax(-1)
    return model.text_projection(hidden[torch.arange(len(ids)), place])  # type: ignore[no-any-return]


def _through(blocks: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """transformers 4 gives a block two masks, and takes its state out of a tuple."""
    for block in blocks:
        old = "causal_attention_mask" in inspect.signature(block.forward).parameters
        found = block(hidden, None, mask) if old else block(hidden, mask)
        hidden = found[0] if isinstance(found, tuple) else found
    return hidden


def _causal(hidden: Tensor) -> Tensor:
    length = hidden.shape[1]
    lowest = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
    return lowest.triu(1)[None, None]


@dataclass(frozen=True)
class Maps:
    """What the loop gives for a batch: published maps in [0, 1], and the sums behind them.

    Attributes:
        images, texts: maps `(H, W)` and `(T,)`, each stretched to [0, 1].
        image_scores, text_scores: sums over channels, `(B, T)` with the factor 1/B of the published code, `(T,)`.
    """

    images: list[np.ndarray]
    texts: list[np.ndarray]
    image_scores: Tensor
    text_scores: list[Tensor]


def published(model: Any, pixels: Tensor, ids: list[Tensor], layer: int, steps: int = STEPS) -> Maps:
    """Both sides of a batch of pairs; gradients of the weights are left in the model, as the published code does."""
    with torch.no_grad():
        together = _padded(ids)
        texts = text_rest(model, text_state(model, together, layer), together, layer)
    image_scores = _summed(
        image_state(model, pixels, layer),
        lambda state: nn.functional.cosine_similarity(texts, image_rest(model, state, layer), dim=-1, eps=1e-6).mean(),
        steps,
    )
    found = []
    with torch.no_grad():
        pictures = image_rest(model, image_state(model, pixels, layer), layer)
    for one in ids:
        with torch.no_grad():  # once more, and not used
            text_rest(model, text_state(model, one, layer), one, layer)

        def score(state: Tensor, one: Tensor = one) -> Tensor:
            embedding = text_rest(model, state, one, layer)
            return nn.functional.cosine_similarity(embedding, pictures, dim=-1, eps=1e-6).mean()

        found.append(_summed(text_state(model, one, layer), score, steps)[0])
    maps = [_stretched(_stretched(_numbers(scores))) for scores in found]
    return Maps(_pictures(image_scores, pixels.shape[-1]), maps, image_scores, found)


def _padded(ids: list[Tensor]) -> Tensor:
    """One batch of texts; what follows a text's end does not reach it, for attention is causal."""
    end = int(ids[0][0, -1])
    return nn.utils.rnn.pad_sequence([one[0] for one in ids], batch_first=True, padding_value=end)


def _summed(hidden: Tensor, score: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Right Riemann sum of state times gradient, over channels."""
    total = torch.zeros_like(hidden)
    for step in range(1, steps + 1):
        state = (hidden * (step / steps)).detach().requires_grad_(True)
        score(state).backward()
        total += hidden.detach() * state.grad / steps
    return total.nansum(-1).detach()


def _pictures(scores: Tensor, size: int) -> list[np.ndarray]:
    side = round((scores.shape[1] - 1) ** 0.5)
    small = scores[:, 1:].reshape(-1, 1, side, side)
    large = nn.functional.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    return [_stretched(_numbers(one[0])) for one in large]


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


class Missed(NamedTuple):
    """What the scores of one pair sum to beyond the change of the score, and that change."""

    delta: float
    change: float

    @property
    def relative(self) -> float:
        """Of the change; infinite where there is none."""
        return abs(self.delta) / abs(self.change) if self.change else math.inf


def batch_deltas(model: Any, pairs: Pairs, layer: int, maps: Maps) -> dict[str, list[Missed]]:
    """What the sums of each pair miss of the change of the score that the loop explains."""
    ends = _Ends(model, pairs, layer)
    mean = ends.unit["image"].mean(0)
    batch = len(pairs)
    return {
        "image": [
            _missed(float(scores.double().sum()) * batch, ends.change("image", i, ends.unit["text"][i]))
            for i, scores in enumerate(maps.image_scores)
        ],
        "text": [
            _missed(float(scores.double().sum()), ends.change("text", i, mean))
            for i, scores in enumerate(maps.text_scores)
        ],
    }


def pair_deltas(model: Any, pairs: Pairs, layer: int, totals: dict[str, list[float]]) -> dict[str, list[Missed]]:
    """What attributions of each pair's own cosine miss, by their sums."""
    ends = _Ends(model, pairs, layer)
    other = {"image": "text", "text": "image"}
    return {
        side: [_missed(total, ends.change(side, i, ends.unit[other[side]][i])) for i, total in enumerate(found)]
        for side, found in totals.items()
    }


class _Ends:
    """Unit embeddings `(B, D)` of each side with its state open, and closed to zero."""

    @torch.no_grad()
    def __init__(self, model: Any, pairs: Pairs, layer: int) -> None:
        hidden = image_state(model, pairs.pixels, layer)
        opened = {"image": image_rest(model, hidden, layer)}
        closed = {"image": image_rest(model, torch.zeros_like(hidden), layer)}
        states = [text_state(model, ids, layer) for ids in pairs.ids]
        both = list(zip(states, pairs.ids, strict=True))
        opened["text"] = torch.cat([text_rest(model, state, ids, layer) for state, ids in both])
        closed["text"] = torch.cat([text_rest(model, torch.zeros_like(state), ids, layer) for state, ids in both])
        self.unit = {side: nn.functional.normalize(found.float(), dim=-1) for side, found in opened.items()}
        self.closed = {side: nn.functional.normalize(found.float(), dim=-1) for side, found in closed.items()}

    def change(self, side: str, row: int, target: Tensor) -> float:
        """Score open less score closed."""
        return float(((self.unit[side][row] - self.closed[side][row]) * target).sum())


def _missed(total: float, change: float) -> Missed:
    return Missed(total - change, change)
