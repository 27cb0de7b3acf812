"""Attention-aware class activation maps: Grad-ECLIP and LeGrad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isthmus.encoders.anatomy import Parts, anatomy, head_of, merged_heads, split_heads, states
from isthmus.encoders.attention import attention_weights
from isthmus.encoders.cut import recorded
from isthmus.encoders.layout import TokenLayout, content_of, named_of
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.encoders.weights import lock_of
from isthmus.errors import ModelError, OptionError
from isthmus.methods.checks import whole
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import in_one_pass, slope

_BLOCKS = {"image": 1, "text": 8}


def grad_eclip(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    blocks: int | None = None,
    official: bool = False,
    relu: bool = True,
    memory: int | None = None,
) -> Attribution:
    """Grad-ECLIP (Zhao et al., ICML 2024): values, weighted by the gradient and by loosened attention.

    The output of attention at the pooled position is, in channel c of head h, `o_c = sum over i of a_hi v_ic`. With
    `w_c` the score's gradient by it, position i gives the share `sum over c of w_c a_hi v_ic`. Softmax makes a sparse,
    so it is loosened to the similarity `l_hi = minmax over i of cos(q_h, k_hi)` of the pooled query with the keys:

        score_i = relu(sum over blocks, heads h and channels c of h of l_hi w_c v_ic).

    Each head compares its own part of queries and keys, as the model's attention does. A picture's minimum and maximum
    are over its patches, and its special positions get 0; a text's are over all positions that the pooled one attends
    to, BOS and EOS among them. Where all are alike, `l = 1`.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are.
        blocks: how many blocks count, from the last: by default 1 for a picture and 8 (or all) for a text.
        official: what the authors' code computes. It runs these blocks with *one* head, so it explains a network that
            is not the model, and compares queries and keys after the output projection, which was trained for
            values. Unlike that code, it leaves padding out of minimum and maximum.
        relu: False keeps the sign, which the published method cuts off.
        memory: budget in bytes.

    Raises:
        OptionError: the tower has not so many blocks.
        ModelError: it has no separate projections of queries, keys and values, or pools more than one position.
    """
    count = _number_of(tower, blocks)
    split = tower.split(inputs, tower.depth - count)
    content = content_of(layouts).to(split.hidden.device) if tower.side == "image" else None
    layers, seen = range(split.layer, tower.depth), dict[int, Parts]()

    def visit(layer: int, parts: Parts) -> Tensor:
        seen[layer] = replace(parts, heads=1, mixed=_with_one_head(parts)) if official else parts
        return seen[layer].mixed

    def mapped(gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
        pooled = _pooled(gradients[-1], tower)
        inside = None if content is None else content[rows]
        maps = [
            _shares(seen[layer], gradient, pooled, inside, projected=official)
            for layer, gradient in zip(layers, gradients, strict=True)
        ]
        return torch.stack(maps).sum(0)

    def mixed(_: Tensor) -> list[Tensor]:
        return [seen[layer].mixed for layer in layers]

    with anatomy(tower, layers, visit, masks=True):
        scores, changed = in_one_pass(split, target, mapped, memory=memory, wanted=mixed)
    options = tuple({"blocks": count, "official": official, "relu": relu} for _ in range(len(scores)))
    notes = tuple(
        (f"The last {'block' if count == 1 else f'{count} blocks'} ran with one head, which scores {score:.3f}.",)
        for score in changed.tolist()
    )
    scores = scores.relu() if relu else scores
    return Attribution(scores, _opened(split, target), None, options, notes=notes if official else ())


def _number_of(tower: Tower, blocks: int | None) -> int:
    if blocks is None:
        return min(_BLOCKS[tower.side], tower.depth)
    if whole("blocks", blocks, 1) > tower.depth:
        raise OptionError(f"blocks={blocks} is too many: the {tower.side} tower has {tower.depth} blocks.")
    return int(blocks)


def _opened(split: Split, target: Tensor) -> Tensor:
    """`(B,)` scores of the unchanged inputs."""
    embedding = unit(split.embedding)
    return (embedding * target.to(embedding)).sum(-1)


def _pooled(gradient: Tensor, tower: Tower) -> Tensor:
    """`(N,)` the pooled position: the only one at which the last attention's output `(N, T, d)` counts."""
    size = gradient.abs().amax(-1)
    if bool(((size > 0).sum(-1) > 1).any()):
        raise ModelError(
            f"The {tower.side} tower pools more than one position, for which Grad-ECLIP is not defined: choose "
            "another method."
        )
    return size.argmax(-1)


def _with_one_head(parts: Parts) -> Tensor:
    """Attention over all channels at once, masked as the model's own."""
    queries, keys, values = (split_heads(part, 1) for part in (parts.queries, parts.keys, parts.values))
    mask = parts.attended
    if mask is not None:
        mask = mask | ~mask.any(-1, keepdim=True)  # padding that sees nothing would become NaN
    return merged_heads(nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))


def _shares(parts: Parts, gradient: Tensor, pooled: Tensor, inside: Tensor | None, *, projected: bool) -> Tensor:
    """`(N, T)` a block's sum over channels of gradient, value and loosened attention."""
    queries, keys = parts.queries.detach(), parts.keys.detach()
    if projected:
        with torch.no_grad():
            queries, keys = parts.output(queries), parts.output(keys)
    queries, keys, values, gradient = (
        split_heads(part.detach().to(gradient.dtype), parts.heads) for part in (queries, keys, parts.values, gradient)
    )
    rows = torch.arange(len(pooled), device=pooled.device)
    allowed = torch.ones_like(values[:, 0, :, 0], dtype=torch.bool) if inside is None else inside
    if parts.attended is not None:
        attended = parts.attended[:, 0].expand(len(rows), -1, -1)
        allowed = allowed & attended[rows, pooled]
    similarity = nn.functional.cosine_similarity(queries[rows, :, pooled][:, :, None], keys, dim=-1)
    shares = (gradient[rows, :, pooled][:, :, None] * values).sum(-1) * _loosened(similarity, allowed[:, None])
    return shares.sum(1).where(allowed, 0.0)


def _loosened(similarity: Tensor, allowed: Tensor) -> Tensor:
    """Min-max over the positions `(N, 1, T)` that are allowed; 1 where all are alike."""
    lowest = similarity.where(allowed, torch.inf).amin(-1, keepdim=True)
    highest = similarity.where(allowed, -torch.inf).amax(-1, keepdim=True)
    return ((similarity - lowest) / (highest - lowest)).where(highest > lowest, 1.0)


@dataclass(frozen=True, eq=False)
class _MeanTokens(Split):
    """A tower that is run on, but whose embeddings are those of the mean token behind each of some blocks."""

    head: Split
    seen: dict[int, Tensor]
    shares: Tensor  # `(B, T, 1)` of each position in its picture's mean, 0 for padding

    def resume(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """`(blocks * N, D)` embeddings, first block first, of `(N, T, d)` states; rows are `(blocks * N,)`."""
        assert rows is not None
        super().resume(hidden, rows[: len(hidden)])
        shares = self.shares[rows[: len(hidden)]]
        means = [(self.seen[layer] * shares).sum(1, keepdim=True) for layer in sorted(self.seen)]
        return self.head.resume(torch.cat(means).to(hidden.dtype), rows)


def legrad(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    start_layer: float | None = None,
    memory: int | None = None,
) -> Attribution:
    """LeGrad (Bousselham et al., ICCV 2025): the positive gradient of each block's own score by its attention.

    With `z^l` the output of block l, of which the *mean token* (not the pooled one) is sent through the tower's own
    head, and A^l the block's attention weights:

        s_l = cos(head(mean over i of z^l_i), target),
        score_j = sum over l of the mean over heads and queries i of (d s_l / d A^l_ij)^+.

    The gradient is that of the block alone, and means leave padding out. Scores are not negative, and in units of the
    score.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what the positions are.
        start_layer: first block that counts, by default the last but one (-3).
        memory: budget in bytes.

    Raises:
        OptionError: there is no such block.
        ModelError: the attention gives no weights.
    """
    first = max(0, tower.depth - 2) if start_layer is None else tower.resolve(start_layer)
    if first == tower.depth:
        raise OptionError(
            f"start_layer={start_layer} is the last block's output: give a block, 0 to {tower.depth - 1}."
        )
    with lock_of(tower.model), recorded(tower, tower.depth) as last:
        split = tower.split(inputs, first)
    layers = range(first, tower.depth)
    head, device = head_of(split, as_tuple=last.as_tuple), split.hidden.device
    target = target.to(device)
    scores = torch.empty(split.hidden.shape[:2], device=device, dtype=accumulator(split.hidden.dtype))
    named = named_of(layouts).to(scores)
    shares = named / named.sum(1, keepdim=True)
    with attention_weights(tower, layers) as weights, states(tower, [i + 1 for i in layers], cut=True) as seen:
        means = _MeanTokens(**vars(split), head=head, seen=seen, shares=shares[..., None])

        def run(part: slice) -> None:
            rows = torch.arange(part.start, part.stop, device=device).repeat(len(layers))
            gradients, _ = slope(means, split.hidden[part], rows, target, lambda _: [weights[i] for i in layers])
            by_query = torch.stack([gradient.clamp(min=0).mean(1) for gradient in gradients]).sum(0)
            scores[part] = (shares[part, :, None] * by_query).sum(1) * named[part]

        in_chunks(run, len(scores), rows_at_once(split, memory))
    return Attribution(scores, _opened(split, target), None, tuple({"start_layer": first} for _ in scores))


register(
    Method(
        name="grad-eclip",
        title="Grad-ECLIP",
        paper="Zhao et al., Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024 (arXiv:2502.18816)",
        function=grad_eclip,
        options={
            "blocks": "how many blocks count, from the last: 1 for a picture, 8 for a text",
            "official": "what the authors' code computes: these blocks with one head, which is another network",
            "relu": "cut off what speaks against the match",
            "memory": "memory budget in bytes",
        },
        signed=False,
        needs_attention=True,
        needs_layouts=True,
    )
)
register(
    Method(
        name="legrad",
        title="LeGrad",
        paper="Bousselham et al., LeGrad, ICCV 2025 (arXiv:2404.03214)",
        function=legrad,
        sides=("image",),
        needs_layouts=True,
        options={
            "start_layer": "first block that counts, by default the last but one (-3)",
            "memory": "memory budget in bytes",
        },
        signed=False,
        needs_attention=True,
        passes=("4", "2"),
    )
)
