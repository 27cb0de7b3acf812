"""What happens inside blocks: queries, keys, values, masks and states, seen by hooks that live inside a `with`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.attention import attention_in, attention_weights, maps_apart
from isthmus.encoders.counting import uncounted
from isthmus.encoders.parts import heads_of
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Tower
from isthmus.encoders.weights import lock_of
from isthmus.errors import ModelError


@dataclass(frozen=True, eq=False)
class Modules:
    """The self-attention of a block: the module that holds it, its number of heads and its linear maps."""

    holder: nn.Module
    heads: int
    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module

    @property
    def projections(self) -> list[tuple[nn.Module, tuple[str, ...]]]:
        """The maps, each with the names of what it gives side by side."""
        if self.query is self.key:
            return [(self.query, ("query", "key", "value"))]
        return [(self.query, ("query",)), (self.key, ("key",)), (self.value, ("value",))]


@dataclass(frozen=True, eq=False)
class Parts:
    """The attention of one block in one run of N rows, part of the run's graph.

    Attributes:
        heads: how many heads share the d channels, one after the other.
        entering: `(N, T, d)` what the projections read.
        queries, keys, values: `(N, T, d)` what the projections give.
        mixed: `(N, T, d)` the values as all heads mix them, which the output projection reads.
        output: the output projection.
        attended: `(N or 1, 1, T, T)` which keys a query may attend to, from query to key; None where it may attend
            to all, and where masks were not asked for.
    """

    heads: int
    entering: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    mixed: Tensor
    output: nn.Module
    attended: Tensor | None


_MASKED = -1e4  # what is added to a logit to mask it: at most this, which BLIP's text tower adds in transformers 4

# Is shown the parts of a block before its output projection runs; gives what that is to read instead, or None.
Visit = Callable[[int, Parts], Tensor | None]


def split_heads(channels: Tensor, heads: int) -> Tensor:
    """`(N, T, d)` to `(N, heads, T, d / heads)`."""
    return channels.reshape(*channels.shape[:2], heads, -1).transpose(1, 2)


def merged_heads(heads: Tensor) -> Tensor:
    """`(N, heads, T, d / heads)` to `(N, T, d)`."""
    return heads.transpose(1, 2).flatten(2)


def attention_of(tower: Tower, layer: int) -> Modules:
    """The self-attention of a block.

    Raises:
        ModelError: see `attention_in`; or it lacks a map or its number of heads.
    """
    where, holder = attention_in(tower, layer)
    block, maps = tower.blocks[layer], dict[str, nn.Module]()
    for name in ("query", "key", "value", "output"):
        path = getattr(where, name)
        try:
            maps[name] = block.get_submodule(path)
        except AttributeError as error:
            raise ModelError(
                f"The attention of block {layer} of the {tower.side} tower has no {path.rpartition('.')[2]}: choose a "
                "method that does not read queries, keys and values."
            ) from error
    heads = heads_of(holder)
    if heads is None:
        raise ModelError(f"The attention of block {layer} of the {tower.side} tower does not tell its num_heads.")
    return Modules(holder, heads, **maps)


@contextmanager
def anatomy(tower: Tower, layers: Iterable[int], visit: Visit, *, masks: bool = False) -> Iterator[None]:
    """Within it, `visit` is shown the attention of blocks whenever the tower runs them.

    Args:
        tower: no other thread can run its model meanwhile.
        layers: the blocks to show.
        visit: may replace what a block's output projection reads.
        masks: find out which keys are attended to; the tower then runs under eager attention, which alone is always
            given its mask.

    Raises:
        ModelError: see `attention_of`.
    """
    with maps_apart(tower, layers := list(layers)), ExitStack() as stack:
        if masks:
            stack.enter_context(attention_weights(tower, ()))
        for layer in layers:
            _show(stack, attention_of(tower, layer), layer, visit, masks)
        yield


def _show(stack: ExitStack, module: Modules, layer: int, visit: Visit, masks: bool) -> None:
    """Register the hooks of one block. Runs of single projections by the visitor itself pass by unseen."""
    found: dict[str, Any] = {}

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.clear()
        found["attended"] = _attended((*args[1:], *kwargs.values())) if masks else None

    def projected(names: Sequence[str]) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            found["entering"] = args[0]
            found.update(zip(names, output.chunk(len(names), dim=-1), strict=True))

        return keep

    def mixed(output: nn.Module, args: tuple[Any, ...]) -> Any:
        if "query" not in found:
            return None
        entering, queries, keys, values = (found.pop(name) for name in ("entering", "query", "key", "value"))
        attended = found["attended"]
        other = visit(layer, Parts(module.heads, entering, queries, keys, values, args[0], output, attended))
        return None if other is None else (other, *args[1:])

    stack.callback(module.holder.register_forward_pre_hook(begin, with_kwargs=True).remove)
    for linear, names in module.projections:
        stack.callback(linear.register_forward_hook(projected(names)).remove)
    stack.callback(module.output.register_forward_pre_hook(mixed).remove)


def _attended(arguments: Iterable[Any]) -> Tensor | None:
    """Masks are the only arguments with four axes; transformers 4 gives the causal one separately."""
    allowed: Tensor | None = None
    for mask in arguments:
        if isinstance(mask, Tensor) and mask.ndim == 4:
            one = mask if mask.dtype == torch.bool else mask > _MASKED / 2
            allowed = one if allowed is None else allowed & one
    return allowed


@contextmanager
def states(tower: Tower, layers: Iterable[int], *, cut: bool = False) -> Iterator[dict[int, Tensor]]:
    """Within it, the states `(N, T, d)` that enter blocks (or leave the last) are kept, from the last run, by layer.

    Args:
        tower: no other thread can run its model meanwhile.
        layers: which states, 0 to the depth.
        cut: let no gradient from behind a state reach what is before it: the next block reads a leaf of its own.
    """
    seen: dict[int, Tensor] = {}

    def leaving(layer: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> Any:
            seen[layer] = tower.turned(output[0] if isinstance(output, tuple) else output)
            if not cut:
                return None
            leaf = tower.turned(seen[layer]).detach().requires_grad_(torch.is_grad_enabled())
            return (leaf, *output[1:]) if isinstance(output, tuple) else leaf

        return keep

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[0] = tower.turned(args[0] if args else kwargs["hidden_states"])

    with lock_of(tower.model), ExitStack() as stack:
        for layer in layers:
            if layer == 0:
                stack.callback(tower.blocks[0].register_forward_pre_hook(entering, with_kwargs=True).remove)
            else:
                stack.callback(tower.blocks[layer - 1].register_forward_hook(leaving(layer)).remove)
        yield seen


def head_of(split: Split, *, as_tuple: bool) -> Split:
    """The tower behind its last block, ready to run on single positions, states `(N, 1, d)`.

    It is the model's own code, normalisation and projection included. It fits a tower that pools the first position,
    or all of them, as image towers do.

    Args:
        split: the tower cut anywhere.
        as_tuple: whether the tower's blocks give tuples.

    Raises:
        ModelError: what follows the blocks needs more positions than one, or gives nothing for a single one.
    """
    stem, length = split.stem, split.hidden.shape[1]
    if stem is not None and stem.ndim == 3 and stem.shape[1] == length:
        stem = stem[:, :1]  # else it lacks positions that are added to all of it
    masks = {
        name: value[:, :1]  # a mask of all positions does not fit a single one
        for name, value in split.inputs.items()
        if name.endswith("attention_mask") and value.shape[1:] == (length,)
    }
    inputs = {**split.inputs, **masks}
    head = replace(
        split, inputs=inputs, layer=split.tower.depth, hidden=split.hidden[:, :1], stem=stem, as_tuple=as_tuple
    )
    problem = f"What follows the blocks of the {split.tower.side} tower does not run on single positions, as this "
    problem += "method needs: choose another method."
    try:
        with torch.no_grad(), uncounted():
            found = head.resume(head.hidden[:1], torch.zeros(1, dtype=torch.long, device=head.hidden.device))
    except (RuntimeError, IndexError) as error:
        raise ModelError(problem) from error
    if not bool(torch.isfinite(found).all()):  # such as the mean of no patches
        raise ModelError(problem)
    return head
