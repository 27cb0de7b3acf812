"""The embedding as a sum over blocks, heads and positions (Gandelsman et al., TextSpan, ICLR 2024, section 3).

What a tower pools is one position p of its residual stream, to which every block adds:

    x = h_first + sum over blocks l of (b_O + sum over heads h and positions i of a_pi W_O^h v_i + MLP_l),

with attention weights a and values v. The embedding is u = P LN(x). With the deviation s that the LayerNorm divides by
held at its value for this input, LN is affine, and each part of x has its own part of u,

    c = P gamma * (part - mean(part)) / s.

The mean that the LayerNorm subtracts is a sum over parts too, so each part bears its own and only s is held. (How
constants are split is arbitrary: the paper spreads the whole mean, beta and b_O evenly over all parts.) Here beta, b_O,
what entered the first block and MLPs, which belong to no position, are kept apart: a part of zero means that nothing
came from there. `isthmus.heads` gives the parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.attention import attention_in, attention_weights, needs_plain
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.encoders.weights import lock_of
from isthmus.errors import ModelError, OptionError
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import positions_of

# Vectors are pulled back at this length: in float16 smaller slopes would be rounded off.
_LENGTH = 32.0
_SUBTRACT = ("share", "mean", "none")


def textspan(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    bank: Tensor,
    start_layer: float = 0,
    subtract: str = "share",
    memory: int | None = None,
) -> Attribution:
    """What each position puts into the pooled one through the heads of all blocks, less what it puts there for others.

    `M_i = sum over l, h of <c_lhi, t'> / |u|`, see the module, signed, in units of the score. The text side reads a
    caption's end as the image side reads CLS; positions after it get 0. The map of a set of prompts needs no further
    passes: see `isthmus.heads.decompose`.

    Args:
        tower, inputs: the explained side, B inputs of T positions.
        target: `(B, D)` fixed vectors t.
        bank: `(M, D)` unit embeddings of other texts (for a picture) or pictures (for a text), of mean b.
        start_layer: first block that counts, by default 0: all, as in the paper's maps; -5 leaves the last four.
        subtract: what every position gives to any target alike. "share" (default): t' = t - b <t, b> / <b, b>, which
            is linear in the target, so that a contrast, of which both sides hold b, keeps its sign when swapped;
            "mean": t' = t - b, the paper's, the same for a t that is as close to b as the bank's own are on average;
            "none": t' = t.
        memory: budget in bytes.

    Raises:
        OptionError: no such block, or no such `subtract`.
        ModelError: a tower of another build, see `isthmus.heads.decompose`.
    """
    if subtract not in _SUBTRACT:
        raise OptionError(f"subtract must be one of {', '.join(_SUBTRACT)}, not {subtract!r}.")
    first = first_block(tower, start_layer)
    split = tower.split(inputs, first)
    embedding = split.embedding.to(accumulator(split.embedding.dtype))
    target = target.to(embedding)
    vectors = _distinct(target, bank.to(embedding).mean(0), subtract)
    scores = embedding.new_zeros(len(target), positions_of(split))

    def run(part: slice) -> None:
        rows = torch.arange(part.start, part.stop, device=scores.device)
        seen = flow_of(split, rows)
        found = pulled(seen.head, seen.final, rows, vectors[rows], memory)
        for layer in seen.blocks:
            scores[part] += _read(seen, layer, found).sum(1)

    in_chunks(run, len(scores), rows_at_once(split, memory))
    opened = (unit(embedding) * target).sum(-1)
    options = tuple({"start_layer": first, "subtract": subtract} for _ in range(len(scores)))
    return Attribution(scores / embedding.norm(dim=-1, keepdim=True), opened, None, options)


def _distinct(target: Tensor, bank: Tensor, subtract: str) -> Tensor:
    if subtract == "none":
        return target
    if subtract == "mean":
        return target - bank
    return target - bank * ((target @ bank) / (bank @ bank))[:, None]


@dataclass(frozen=True, eq=False)
class Flow:
    """What a run of inputs showed, by block: weights, values, what attention and block gave, and the output maps."""

    tower: Tower
    head: Split
    hidden: Tensor
    blocks: range
    weights: dict[int, Tensor]
    values: dict[int, Tensor]
    attended: dict[int, Tensor]
    left: dict[int, Tensor]
    outputs: dict[int, nn.Linear]

    @property
    def final(self) -> Tensor:
        """`(N, T, d)` output of the last block."""
        return self.left[self.blocks[-1]]


def flow_of(split: Split, rows: Tensor) -> Flow:
    """Run inputs `rows` from the cut on and watch the blocks; `head` is the tower cut behind them."""
    tower, blocks = split.tower, range(split.layer, split.tower.depth)
    values: dict[int, Tensor] = {}
    attended: dict[int, Tensor] = {}
    left: dict[int, Tensor] = {}
    outputs: dict[int, nn.Linear] = {}
    tuples: list[bool] = []

    def keeping(kept: dict[int, Tensor], layer: int, *, third: bool) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            found = found.chunk(3, dim=-1)[2] if third else found  # behind queries and keys
            kept[layer] = tower.turned(found) if kept is left else found
            tuples.append(isinstance(output, tuple))

        return keep

    with torch.no_grad(), attention_weights(tower, blocks) as weights, ExitStack() as stack:
        for layer in blocks:
            value, output = _projections(tower, layer)
            outputs[layer] = output
            fused = attention_in(tower, layer)[0].fused
            modules = ((value, values, fused), (output, attended, False), (tower.blocks[layer], left, False))
            for module, kept, last in modules:
                stack.callback(module.register_forward_hook(keeping(kept, layer, third=last)).remove)
        split.resume(split.hidden[rows], rows)
    head = replace(split, layer=tower.depth, as_tuple=tuples[-1])  # the last to return is the last block
    return Flow(tower, head, split.hidden[rows], blocks, dict(weights), values, attended, left, outputs)


@dataclass(frozen=True, eq=False)
class Head:
    """Vectors pulled back to the residual, `weights` `(N, d)`; the `pooled` positions `(N,)`; the embeddings."""

    weights: Tensor
    pooled: Tensor
    embedding: Tensor

    def at(self, states: Tensor) -> Tensor:
        """`(N, d)` the pooled positions of states `(N, T, d)`."""
        return states[torch.arange(len(states), device=states.device), self.pooled].to(self.weights)


def pulled(head: Split, states: Tensor, rows: Tensor, vectors: Tensor, memory: int | None) -> Head:
    """What vectors `(N, D)` weigh at the final states `(N, T, d)` of inputs `rows`, LayerNorm's deviation held."""
    length = vectors.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    directions = vectors / length * _LENGTH  # before they enter the graph: its factors would overflow beside zeros
    slopes, pooled = vectors.new_empty(len(states), states.shape[-1]), torch.empty_like(rows)
    embedding = torch.empty_like(vectors)

    def run(part: slice) -> None:
        state = states[part].detach().clone().requires_grad_(True)
        with torch.enable_grad(), _held(head.tower) as norms:
            found = head.resume(state, rows[part]).to(vectors.dtype)
            (slope,) = torch.autograd.grad((found * directions[part]).sum(), state)
        size = slope.abs().amax(-1)
        if not norms or bool(((size > 0).sum(-1) > 1).any()):
            raise ModelError(
                f"The {head.tower.side} tower does not pool one position through a LayerNorm after its blocks, as "
                "this method needs: choose another method."
            )
        pooled[part] = size.argmax(-1)
        one = slope[torch.arange(len(slope), device=slope.device), pooled[part]]
        slopes[part] = one.to(vectors.dtype) * length[part] / _LENGTH
        embedding[part] = found.detach()

    in_chunks(run, len(states), rows_at_once(head, memory))
    return Head(slopes, pooled, embedding)


@contextmanager
def _held(tower: Tower) -> Iterator[list[nn.Module]]:
    """Within it, every LayerNorm after the stack divides by a constant; yields those that ran."""
    norms: list[nn.Module] = []

    def hold(module: nn.LayerNorm, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not args[0].requires_grad:  # it runs before the stack, and its output is replaced there
            return None
        norms.append(module)
        given = args[0].to(accumulator(args[0].dtype))
        centred = given - given.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + module.eps).sqrt().detach()
        held: Tensor = centred / deviation
        held = held if module.weight is None else held * module.weight.to(given.dtype)
        held = held if module.bias is None else held + module.bias.to(given.dtype)
        return held.to(output.dtype)

    inside = {id(module) for module in tower.blocks.modules()}
    with lock_of(tower.model), ExitStack() as stack:
        for module in tower.model.modules():
            if isinstance(module, nn.LayerNorm) and id(module) not in inside:
                stack.callback(module.register_forward_hook(hold).remove)
        yield norms


def _read(seen: Flow, layer: int, head: Head) -> Tensor:
    """`(N, H, T)` dot products of the direct effects of a block's heads with what was pulled back."""
    flow = through(seen, layer, head.pooled)
    read = torch.einsum("nd,hcd->nhc", head.weights, projections_of(seen, layer).to(flow.dtype))
    return torch.einsum("nhtc,nhc->nht", flow, read)


def through(seen: Flow, layer: int, pooled: Tensor) -> Tensor:
    """`(N, H, T, c)` weights times values: what goes from each position through each head to the pooled one."""
    everyone = torch.arange(len(pooled), device=pooled.device)
    weights = seen.weights[layer][everyone, :, pooled]
    dtype = accumulator(weights.dtype)
    count, heads, positions = weights.shape
    values = seen.values[layer].reshape(count, positions, heads, -1).transpose(1, 2).to(dtype)
    flow: Tensor = weights.to(dtype)[..., None] * values
    whole = torch.einsum("nhc,hcd->nd", flow.sum(2), projections_of(seen, layer)) + bias_of(seen, layer)
    own = seen.attended[layer][everyone, pooled]
    name = f"Attention of block {layer} of the {seen.tower.side} tower"
    agree(whole, own, weights.dtype, f"{name} is more than weights, values and out_proj")
    return flow


def projections_of(seen: Flow, layer: int) -> Tensor:
    """`(H, c, d)` the output projection of each head, in float32 or better."""
    weight = seen.outputs[layer].weight.detach()
    return weight.T.reshape(seen.weights[layer].shape[1], -1, len(weight)).to(accumulator(weight.dtype))


def bias_of(seen: Flow, layer: int) -> Tensor | float:
    """`(d,)` b_O of a block, 0 where it has none."""
    bias: Tensor | None = seen.outputs[layer].bias
    return 0.0 if bias is None else bias.detach().to(accumulator(bias.dtype))


def _projections(tower: Tower, layer: int) -> Sequence[Any]:
    """The linear maps to values, and from what the heads give, of a block's attention."""
    where, _ = attention_in(tower, layer)
    maps = dict(tower.blocks[layer].named_modules(remove_duplicate=False))
    found = [maps.get(path) for path in (where.value, where.output)]
    if not all(isinstance(module, nn.Linear) for module in found):
        raise ModelError(
            f"Attention of block {layer} of the {tower.side} tower has no linear v_proj and out_proj, which this "
            "method reads: choose another method."
        )
    needs_plain(where, tower)
    return found


def agree(found: Tensor, own: Tensor, dtype: torch.dtype, otherwise: str) -> None:
    """Refuse, rather than misread, a model of type `dtype` whose parts do not make up its `own` output.

    Raises:
        ModelError: they differ; it says that the model is `otherwise`.
    """
    error = (found - own).norm() / own.to(found).norm().clamp_min(torch.finfo(found.dtype).tiny)
    if not error < (0.05 if dtype in (torch.float16, torch.bfloat16) else 1e-3):
        raise ModelError(f"{otherwise} (relative error {error:.1e}): choose another method.")


def first_block(tower: Tower, start_layer: float) -> int:
    """The block that an option `start_layer` means. Raises OptionError where it means none."""
    first = tower.resolve(start_layer)
    if first == tower.depth:
        raise OptionError(
            f"start_layer={start_layer} is the last block's output: give a block, 0 to {tower.depth - 1}."
        )
    return first


register(
    Method(
        name="textspan",
        title="Direct effects of heads and positions (TextSpan)",
        paper="Gandelsman et al., Interpreting CLIP's Image Representation, ICLR 2024 (arXiv:2310.05916)",
        function=textspan,
        options={
            "start_layer": "first block that counts: 0 for all, -5 for the last four",
            "subtract": "what any target would get: share (scaled to the target), mean (the paper's), none",
            "bank": "other texts (for a picture) or pictures (for a text), by default the reference set",
            "memory": "memory budget in bytes",
        },
        needs_attention=True,
        needs_bank=True,
        explains_score=False,
        passes=("3", "1"),
    )
)
