"""Attention rollout: how attention weights mix the positions into the pooled one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.attention import attention_in, attention_weights
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.errors import ModelError, OptionError
from isthmus.methods.registry import Attribution, Method, register


def rollout(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    start_layer: float = 0,
    memory: int | None = None,
) -> Attribution:
    """Attention rollout (Abnar & Zuidema, ACL 2020, section 3): attention weights, multiplied from block to block.

    With A the mean of a block's attention weights over its heads, each block mixes by `A' = (A + I) / 2`, where I
    stands for the residual path; the scores are the pooled position's row of `A'_last ... A'_first`. They are not
    negative and sum to 1.

    They do not depend on the target: every text gets the same map of a picture. They say where a tower looks, not why
    two inputs match, and are here for comparison.

    Args:
        tower, inputs: see `isthmus.methods.nib.nib`.
        target: what the inputs are scored by; the map does not depend on it.
        start_layer: first block that counts, by default 0, the first of all.
        memory: budget in bytes, of the search for the pooled position.

    Raises:
        OptionError: there is no such block.
        ModelError: the attention gives no weights, or the tower pools more than one position.
    """
    first = tower.resolve(start_layer)
    if first == tower.depth:
        raise OptionError(
            f"start_layer={start_layer} is the last block's output: give a block, 0 to {tower.depth - 1}."
        )
    with _mean_weights(tower, range(first, tower.depth)) as weights:
        split = tower.split(inputs, tower.depth)
    rows = nn.functional.one_hot(pooled_position(split, memory), split.hidden.shape[1])
    scores = rows.to(split.hidden.device, accumulator(split.hidden.dtype))
    for layer in reversed(range(first, tower.depth)):
        scores = (scores + (scores[:, None] @ weights[layer])[:, 0]) / 2
    embedding = unit(split.embedding)
    opened = (embedding * target.to(embedding)).sum(-1)
    return Attribution(scores, opened, None, tuple({"start_layer": first} for _ in scores))


@contextmanager
def _mean_weights(tower: Tower, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within it, the mean weights `(N, T, T)` over the heads of blocks are kept, but never those of all heads."""
    with attention_weights(tower, layers) as seen, ExitStack() as stack:

        def averaging(layer: int) -> Any:
            def average(*_: Any) -> None:
                seen[layer] = seen[layer].mean(1, dtype=accumulator(seen[layer].dtype))

            return average

        for layer in layers:  # these hooks run after those that keep the weights
            _, module = attention_in(tower, layer)
            stack.callback(module.register_forward_hook(averaging(layer)).remove)
        yield seen


def pooled_position(split: Split, memory: int | None = None) -> Tensor:
    """`(B,)` the position that each input's embedding is made of, found by the model's own head.

    States behind the last block are negated at all positions whose number has a given binary digit: where the
    embedding changes, the pooled position has that digit. It takes `1 + log2 T` runs of the head, and no gradient.

    Args:
        split: a tower cut behind its last block.
        memory: budget in bytes.

    Raises:
        ModelError: the embedding is made of more than one position.
    """
    count, length = split.hidden.shape[:2]
    device, digits = split.hidden.device, (length - 1).bit_length()
    number = torch.arange(length, device=device)
    negated = torch.stack([*((number >> digit) % 2 == 1 for digit in range(digits)), number >= 0])
    rows = torch.arange(count, device=device).repeat(digits + 1)
    which = torch.arange(digits + 1, device=device).repeat_interleave(count)
    found = torch.empty(len(rows), split.embedding.shape[1], device=device, dtype=accumulator(split.embedding.dtype))

    def run(part: slice) -> None:
        state = split.hidden[rows[part]]
        state = torch.where(negated[which[part]][..., None], -state, state)
        with torch.no_grad():
            found[part] = split.resume(state, rows[part]).to(found.dtype)

    in_chunks(run, len(rows), rows_at_once(split, memory))
    found = found.view(digits + 1, count, -1)
    same, other = ((found[:-1] - end).norm(dim=-1) for end in (split.embedding.to(found), found[-1]))
    if bool((torch.minimum(same, other) > 0.1 * torch.maximum(same, other)).any()):
        raise ModelError(
            f"The {split.tower.side} tower pools more than one position, so rollout has no row to show: choose "
            "another method."
        )
    digit: Tensor = other < same
    return (digit * 2 ** torch.arange(digits, device=device)[:, None]).sum(0)


register(
    Method(
        name="rollout",
        title="Attention rollout",
        paper="Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020 (arXiv:2005.00928)",
        function=rollout,
        options={
            "start_layer": "first block that counts, by default 0",
            "memory": "memory budget in bytes",
        },
        units="",
        signed=False,
        needs_gradients=False,
        needs_attention=True,
        explains_score=False,
        passes=("2 + log2 T", "0"),
    )
)
