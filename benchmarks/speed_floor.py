"""How much of the machine a call uses: the operations that NIB needs, over seconds, beside a large matrix product.

METHODS 6.1: a block costs `24 T d^2 + 4 T^2 d` forward (two operations a multiply-add), as much again back to its
inputs but for attention, whose two products have two inputs each and cost twice; nothing goes to weights. The last
block is needed for the pooled position alone: keys and values of all, the rest of one. A call needs, a side, the
tower once, what is left behind the cut once more for the closed state, and once forward and back for every node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import isthmus
from speed_machine import Point, spread, timed
from speed_models import DTYPES, Pairs, Shape, Stack
from speed_plain import SIDES

_WARM = 2


def block(stack: Stack, positions: int, *, back: bool = False, pooled: bool = False) -> int:
    """Operations of one block on one input, forward, or back to its inputs; for the pooled position alone."""
    width, one = stack.width, 1 if pooled else positions
    keys_values = 4 * positions * width**2
    rest = one * (4 * width**2 + 4 * width * stack.inner)
    return keys_values + rest + (8 if back else 4) * one * positions * width


def remaining(stack: Stack, positions: int, joint: int, layer: int, *, back: bool = False, pooled: bool = True) -> int:
    """Operations from the state that enters block `layer` to the embedding, or back."""
    blocks = stack.depth - layer
    last = [block(stack, positions, back=back, pooled=pooled)] if blocks else []
    return sum(last) + max(0, blocks - 1) * block(stack, positions, back=back) + 2 * stack.width * joint


def stem(shape: Shape) -> int:
    """Operations of the patch embedding of one picture."""
    return 2 * (shape.positions - 1) * 3 * shape.patch**2 * shape.image.width


def needed(shape: Shape, side: str, positions: int, layer: int, nodes: int) -> int:
    """Operations that NIB of one side of one pair needs, the side's own embedding among them."""
    stack = shape.image if side == "image" else shape.text
    forward = remaining(stack, positions, shape.joint, layer)
    back = remaining(stack, positions, shape.joint, layer, back=True)
    before = layer * block(stack, positions) + (stem(shape) if side == "image" else 0)
    return before + 2 * forward + nodes * (forward + back)


def needed_by(shape: Shape, pairs: Pairs, found: Sequence[isthmus.Explanation]) -> int:
    """Operations that an explanation of pairs, both sides, needed, by the layers and nodes that it states."""
    total = 0
    for ids, one in zip(pairs.ids, found, strict=True):
        for side, positions in (("image", shape.positions), ("text", ids.shape[1])):
            used = getattr(one, side).options
            total += needed(shape, side, positions, used["layer"], used["steps"])
    return total


class Operations(TorchDispatchMode):
    """Within it, counts the operations of matrix products, attention and convolutions, forward and back.

    `FlopCounterMode`, whose formulas these are, does not take gradients by a hidden state.
    """

    def __init__(self) -> None:
        """Begin at none."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator, or what it is made of."""
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:
                made = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if made is NotImplemented else made
        found = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=found)
        return found


def _attention(query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    batch, heads, rows, width = query.shape
    return 4 * batch * heads * rows * key.shape[2] * width


def _attention_back(_: Any, query: Tensor, key: Tensor, *__: Any, **___: Any) -> int:
    return 5 * _attention(query, key) // 2  # the weights once more, and two products for each of two


_ATEN = torch.ops.aten
_FORMULAS: Mapping[Any, Any] = {
    **flop_registry,  # which lacks attention on a CPU
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_back,
}


def performed(call: Callable[[], Any]) -> int:
    """Operations that a call really makes."""
    with Operations() as counter:
        call()
    return counter.total


def product_rate(size: int, dtype: str, device: str) -> Callable[[], float]:
    """A clock for operations a second of a square matrix product."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, DTYPES[dtype]) for _ in range(2))
    for _ in range(_WARM):
        left @ right
    return lambda: 2 * size**3 / timed(lambda: left @ right, device)[1]


def share(
    encoder: isthmus.DualEncoder,
    shape: Shape,
    pairs: Pairs,
    options: Mapping[str, Any],
    *,
    dtype: str,
    device: str,
    repeats: int,
    limit: float,
) -> Point:
    """Share of the product's rate at which a call of `isthmus.explain` does what is needed, and all that it does.

    The product is timed before every call, so that both have the same machine.
    """
    pictures, texts = pairs.pictures, pairs.texts

    def call() -> Any:
        return isthmus.explain(encoder, pictures, texts, sides=SIDES, **options)

    isthmus.explain(encoder, pictures[:1], texts[:1], sides=SIDES, **options)  # warm
    rate = product_rate(shape.product, dtype, device)
    rates: list[float] = []
    seconds: list[float] = []
    found: Any = None
    while len(seconds) < repeats and sum(seconds) <= limit:
        rates.append(max(rate() for _ in range(3)))
        found, taken = timed(call, device)
        seconds.append(taken)
        print(f"    {taken:9.3f} s  product {rates[-1] / 1e9:,.1f} GFLOP/s", flush=True)
    small = pairs.first(min(4, len(pairs)))
    made = performed(lambda: isthmus.explain(encoder, small.pictures, small.texts, sides=SIDES, **options))
    times, best = spread(seconds), sorted(rates)[len(rates) // 2]
    flops, extra = needed_by(shape, pairs, found), made / needed_by(shape, small, found[: len(small)])
    return {
        **times,
        "pairs": len(pairs),
        "needed": flops,
        "performed": extra,
        "product": best,
        "share": flops / times["seconds"] / best,
        "share_performed": flops * extra / times["seconds"] / best,
    }
