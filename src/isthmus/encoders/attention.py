"""Attention weights: read from the model's own eager attention, which is switched on and off again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from isthmus.encoders.cut import swapped
from isthmus.encoders.parts import Attention
from isthmus.encoders.tower import Tower
from isthmus.encoders.unfused import Unfused, unfused
from isthmus.encoders.weights import lock_of
from isthmus.errors import ModelError

_IMPLEMENTATION = "_attn_implementation"


def attention_in(tower: Tower, layer: int) -> tuple[Attention, nn.Module]:
    """Where the self-attention of a block is, and the module that holds it.

    Raises:
        ModelError: the tower's blocks have none that can be read, or this block has no module of its name.
    """
    where = tower.attention
    if not isinstance(where, Attention):
        raise ModelError(
            f"The blocks of the {tower.side} tower have no self-attention whose queries, keys and values can be read: "
            "choose a method that does not read attention."
        )
    block = tower.blocks[layer]
    try:
        if where.whole is not None and not isinstance(fused := block.get_submodule(where.whole), Unfused):
            return where, fused
        return where, block.get_submodule(where.module)
    except AttributeError as error:
        raise ModelError(f"Block {layer} of the {tower.side} tower has no module {where.module!r}.") from error


def needs_plain(where: Attention, tower: Tower) -> None:
    """Refuse a tower whose blocks do not add what attention gives to the residual as it is. Raises ModelError."""
    if not where.plain:
        raise ModelError(
            f"The blocks of the {tower.side} tower scale or normalise what attention gives before they add it, which "
            "this method does not follow: choose another method."
        )


@contextmanager
def maps_apart(tower: Tower, layers: Iterable[int]) -> Iterator[None]:
    """Within it, attention whose maps are one matrix runs as separate ones; other threads wait.

    Args:
        tower: whose blocks.
        layers: their numbers.
    """
    where = tower.attention
    with lock_of(tower.model), ExitStack() as stack:
        for layer in layers if isinstance(where, Attention) and where.whole is not None else ():
            assert isinstance(where, Attention)
            _, module = attention_in(tower, layer)
            path, _, name = str(where.whole).rpartition(".")
            other = unfused(module)
            if other is not None:
                stack.enter_context(swapped(tower.blocks[layer].get_submodule(path), name, other))
        yield


@contextmanager
def attention_weights(tower: Tower, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within it, the tower runs under eager attention, and the weights of its last run are kept by block.

    Args:
        tower: no other thread can run its model meanwhile.
        layers: the blocks whose weights are wanted.

    Yields:
        `(N, heads, T, T)` weights of each block, from query to key, part of the run's graph; empty before a run.

    Raises:
        ModelError: a block has no attention module of the tower's name, or it gives no weights.
    """
    seen: dict[int, Tensor] = {}

    def keeping(layer: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, tuple) or len(output) < 2 or not isinstance(output[1], Tensor):
                raise ModelError(f"Block {layer} of the {tower.side} tower gives no attention weights.")
            seen[layer] = output[1]

        return keep

    with maps_apart(tower, layers), ExitStack() as stack:
        stack.enter_context(_eager(tower.model))
        for layer in layers:
            _, module = attention_in(tower, layer)
            stack.callback(module.register_forward_pre_hook(_asking, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(keeping(layer)).remove)
        yield seen


def _asking(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """transformers 4 gives weights where it is asked for them."""
    return args, {**kwargs, "output_attentions": True} if "output_attentions" in kwargs else kwargs


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Masks and attention functions are chosen by the configurations, of which a model has several."""
    found = {id(m.config): m.config for m in model.modules() if hasattr(getattr(m, "config", None), _IMPLEMENTATION)}
    before = [(config, getattr(config, _IMPLEMENTATION)) for config in found.values()]
    try:
        for config, _ in before:
            setattr(config, _IMPLEMENTATION, "eager")
        yield
    finally:
        for config, implementation in before:
            setattr(config, _IMPLEMENTATION, implementation)
