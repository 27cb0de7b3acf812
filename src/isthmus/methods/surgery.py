"""Dense patch-text alignment by self-self attention: CLIP Surgery and GEM.

Both keep the model's own path and add a second one beside its last blocks. It starts from the state x that enters the
first of them, has no MLP, and attends by the similarity of queries with queries, keys with keys, or values with
values, all of them computed on the model's own path:

    x <- x + out_proj(self-self attention(v)).

A patch is then scored by the cosine of its state on that path, sent through the model's own head, with the text. Such
a map says how well each patch alone agrees with the text. It does not explain the score, which is that of the pooled
position on the model's own path: it is for localisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from isthmus.encoders.anatomy import Parts, anatomy, head_of, merged_heads, split_heads, states
from isthmus.encoders.attention import attention_in, needs_plain
from isthmus.encoders.layout import TokenLayout, content_of, named_of
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.errors import OptionError
from isthmus.methods.checks import whole
from isthmus.methods.registry import Attribution, Method, register

_BLOCKS = 6
_SHARPNESS = 2.0  # the paper's factor before the softmax over labels
_SURGERIES = ("labels", "mean", "none")


def clip_surgery(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    bank: Tensor,
    blocks: int | None = None,
    surgery: str = "labels",
    memory: int | None = None,
) -> Attribution:
    """CLIP Surgery (Li et al., arXiv:2304.05653): value-value attention, and feature surgery.

    It tells how well each patch agrees with the text; it does not explain the score (see the head of this module).
    Each head of the second path mixes by `softmax(v v' / sqrt(d_h)) v`. With F_i the unit feature of
    patch i there, F_c that of the picture, and the target t for one label among those of the bank, `T_1 = t` and
    `T_2 .. T_N` the bank's:

        p_m = softmax over m of 2 <F_c, T_m>,    w_m = N p_m,
        score_i = w_1 <F_i, t> - mean over m of w_m <F_i, T_m>.

    The mean is what the features have in common with every label. Scores are signed; under "labels" they do not grow
    in proportion to the target. Special positions keep the state of the model's own path. The authors' demonstration
    divides features by their norm over positions; here, as in the paper's formula, it is that over channels.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are.
        bank: `(M, D)` unit embeddings of other texts.
        blocks: how many blocks the second path runs beside, from the last: by default 6, or all.
        surgery: "labels" is the formula above. "mean" is the paper's for a single text, `<F_i, t - r>`, where the
            bank's mean stands for the redundant feature r (the paper takes the empty text's). "none" is `<F_i, t>`.
        memory: budget in bytes.

    Raises:
        OptionError: an unknown surgery, or the tower has not so many blocks.
        ModelError: the tower has no separate projections of queries, keys and values.
    """
    if surgery not in _SURGERIES:
        raise OptionError(f"There is no surgery {surgery!r}: choose {', '.join(_SURGERIES)}.")
    found = _features(tower, inputs, layouts, _by_values, blocks, memory)
    target = target.to(found.features)
    direction = _direction(found.picture, target, bank.to(target), surgery)
    return found.scored(direction, target, surgery=surgery)


def _by_values(parts: Parts, named: Tensor) -> Tensor:
    values = split_heads(parts.values, parts.heads).to(accumulator(parts.values.dtype))
    return merged_heads(scaled_dot_product_attention(values, values, values, attn_mask=_mask_of(named)))


def _mask_of(named: Tensor) -> Tensor | None:
    """`(B, 1, 1, T)` mask of the keys that are not padding; None where there is no padding, which is faster."""
    return None if bool(named.all()) else named[:, None, None]


def _direction(picture: Tensor, target: Tensor, bank: Tensor, surgery: str) -> Tensor:
    """`(B, D)`: feature surgery is linear in the patch's feature, so it is a product with one vector."""
    if surgery == "none":
        return target
    if surgery == "mean":
        return target - bank.mean(0)
    likeness = torch.cat([(picture * target).sum(-1, keepdim=True), picture @ bank.T], 1)
    weights = (_SHARPNESS * likeness).softmax(-1) * likeness.shape[1]
    mean = (weights[:, :1] * target + weights[:, 1:] @ bank) / likeness.shape[1]
    return weights[:, :1] * target - mean


def gem(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    blocks: int | None = None,
    iterations: int = 1,
    memory: int | None = None,
) -> Attribution:
    """GEM (Bousselham et al., Grounding Everything, CVPR 2024): self-self attention of queries, keys and values.

    It tells how well each patch agrees with the text; it does not explain the score (see the head of this module).
    In each head and for each s of queries, keys and values, `s <- normalize(softmax(tau s s') s)` is repeated from
    `normalize(s)`, which draws alike positions together; then `softmax(tau s s') v` is taken, and the mean of the three
    goes through the output projection. The temperature is the picture's own: tau = mean over positions of the norm of
    what enters the projections, over sqrt(d_h). With F_i the unit feature of patch i on the second path,
    `score_i = <F_i, target>`, signed. Special positions keep the state of the model's own path.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are.
        blocks: how many blocks the second path runs beside, from the last: by default 6, or all.
        iterations: how often positions are drawn together.
        memory: budget in bytes.

    Raises:
        OptionError: a number of iterations under 0, or the tower has not so many blocks.
        ModelError: the tower has no separate projections of queries, keys and values.
    """
    whole("iterations", iterations, 0)

    def mix(parts: Parts, named: Tensor) -> Tensor:
        return _by_all_three(parts, named, iterations)

    found = _features(tower, inputs, layouts, mix, blocks, memory)
    target = target.to(found.features)
    return found.scored(target, target, iterations=int(iterations))


def _by_all_three(parts: Parts, named: Tensor, iterations: int) -> Tensor:
    dtype = accumulator(parts.values.dtype)
    values = split_heads(parts.values, parts.heads).to(dtype)
    norm = (parts.entering.to(dtype).norm(dim=-1) * named).sum(-1) / named.sum(-1)
    temperature = (norm / values.shape[-1] ** 0.5)[:, None, None, None]
    mask, mixed = _mask_of(named), torch.zeros_like(values)
    for part in (parts.queries, parts.keys, parts.values):
        alike = normalize(split_heads(part, parts.heads).to(dtype), dim=-1)
        for _ in range(iterations):
            drawn = scaled_dot_product_attention(alike * temperature, alike, alike, attn_mask=mask, scale=1.0)
            alike = normalize(drawn, dim=-1)
        mixed += scaled_dot_product_attention(alike * temperature, alike, values, attn_mask=mask, scale=1.0)
    return merged_heads(mixed / 3)


class _Features:
    """Unit features of positions `(B, T, D)` and of the pictures `(B, D)`, and how many blocks made them."""

    def __init__(self, features: Tensor, split: Split, blocks: int) -> None:
        self.features, self.picture, self.blocks = features, unit(split.embedding), blocks

    def scored(self, direction: Tensor, target: Tensor, **options: Any) -> Attribution:
        scores = (self.features @ direction[..., None])[..., 0]
        shown = tuple({"blocks": self.blocks, **options} for _ in scores)
        return Attribution(scores, (self.picture * target).sum(-1), None, shown)


def _features(
    tower: Tower,
    inputs: Inputs,
    layouts: Sequence[TokenLayout],
    mix: Callable[[Parts, Tensor], Tensor],
    blocks: int | None,
    memory: int | None,
) -> _Features:
    """Run the tower once, the second path beside its last blocks, and the head on every position."""
    count = min(_BLOCKS, tower.depth) if blocks is None else whole("blocks", blocks, 1)
    if count > tower.depth:
        raise OptionError(f"blocks={blocks} is too many: the {tower.side} tower has {tower.depth} blocks.")
    first, steps, named = tower.depth - count, list[Tensor](), named_of(layouts)
    needs_plain(attention_in(tower, first)[0], tower)

    def visit(_: int, parts: Parts) -> None:
        mixed = mix(parts, named.to(parts.values.device)).to(parts.values.dtype)
        step = parts.output(mixed).to(accumulator(parts.values.dtype))
        steps[:] = [steps[0] + step if steps else step]

    with torch.no_grad(), states(tower, [first]) as seen, anatomy(tower, range(first, tower.depth), visit):
        split = tower.split(inputs, tower.depth)
    content = content_of(layouts).to(split.hidden.device)[..., None]
    second = torch.where(content, (seen[first] + steps[0]).to(split.hidden.dtype), split.hidden)
    return _Features(_through_the_head(split, second, memory), split, count)


def _through_the_head(split: Split, state: Tensor, memory: int | None) -> Tensor:
    """`(B, T, D)` unit features of states `(B, T, d)`, each position for itself."""
    head, length = head_of(split, as_tuple=split.as_tuple), state.shape[1]
    alone = state.reshape(-1, 1, state.shape[-1])
    rows = torch.arange(len(state), device=state.device).repeat_interleave(length)
    features = torch.empty(
        len(alone), split.embedding.shape[1], device=state.device, dtype=accumulator(split.embedding.dtype)
    )

    def run(part: slice) -> None:
        with torch.no_grad():
            features[part] = unit(head.resume(alone[part], rows[part]))

    in_chunks(run, len(alone), rows_at_once(head, memory))
    return features.view(len(state), length, -1)


_OPTIONS = {
    "blocks": "how many blocks the second path runs beside, from the last: 6 by default",
    "memory": "memory budget in bytes",
}

register(
    Method(
        name="clip-surgery",
        title="CLIP Surgery",
        paper="Li et al., A Closer Look at the Explainability of CLIP, Pattern Recognition 2025 (arXiv:2304.05653)",
        function=clip_surgery,
        sides=("image",),
        options={
            "surgery": 'how what all texts share is removed: "labels", "mean" or "none"',
            "bank": "other texts to compare with, by default the reference set's",
            **_OPTIONS,
        },
        units="",
        needs_gradients=False,
        needs_attention=True,
        needs_bank=True,
        needs_layouts=True,
        explains_score=False,
        passes=("1 + T", "0"),
    )
)
register(
    Method(
        name="gem",
        title="GEM",
        paper="Bousselham et al., Grounding Everything, CVPR 2024 (arXiv:2312.00878)",
        function=gem,
        sides=("image",),
        options={"iterations": "how often alike positions are drawn together", **_OPTIONS},
        needs_gradients=False,
        needs_attention=True,
        needs_layouts=True,
        explains_score=False,
        passes=("1 + T", "0"),
    )
)
