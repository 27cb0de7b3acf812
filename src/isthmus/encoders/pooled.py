"""The last block for the pooled position alone, where a tower reads no other of what that block gives.

Keys and values are needed of all positions, the rest of the block of one: a sixth of its operations. Which position it
is says the gradient of the embedding, which is exactly zero at what is not read; that the narrowed block then gives the
same is proved on the model's own states, once for a model, before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from isthmus.encoders.counting import uncounted
from isthmus.encoders.parts import Attention
from isthmus.encoders.sharing import has_hooks
from isthmus.encoders.split import Split
from isthmus.encoders.tower import Tower
from isthmus.encoders.weights import lock_of, version_of
from isthmus.errors import ModelError

_EXACT, _HALF = 1e-4, 0.05  # relative errors that are rounding
_POSITIONS: WeakKeyDictionary[Split, Tensor | None] = WeakKeyDictionary()
_PROVED: WeakKeyDictionary[Tower, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


@contextmanager
def pooled_only(split: Split, rows: Tensor) -> Iterator[None]:
    """Within it, `split.resume` of inputs `rows` runs the last block for their pooled positions, if there is but one.

    For callers that read nothing inside the blocks: what the last block gives elsewhere is wrong.

    Args:
        split: a tower at a cut.
        rows: `(N,)` which input each of the replacements to come belongs to.
    """
    with lock_of(split.tower.model), ExitStack() as stack:
        positions = pooled_positions(split)
        if positions is not None:
            stack.enter_context(_narrowed(split.tower, positions[rows], split.hidden.shape[1]))
        yield


def pooled_positions(split: Split) -> Tensor | None:
    """`(B,)` the one position of each input that the tower reads behind its last block.

    None where it reads several, where the last block cannot be narrowed to one, and as long as that block has hooks.
    """
    with lock_of(split.tower.model):  # else another thread's hooks would be taken for somebody's
        if has_hooks(split.tower.blocks[-1]):
            return None
        if split not in _POSITIONS:
            _POSITIONS[split] = _found(split)
        return _POSITIONS[split]


def _found(split: Split) -> Tensor | None:
    tower = split.tower
    narrow = type(split) is Split and split.hidden.ndim == 3 and split.hidden.shape[1] > 1
    if not narrow or split.layer == tower.depth or tower.sequence_first or not _pointwise(tower):
        return None
    with uncounted():
        try:
            read = _slope(replace(split, layer=tower.depth), split.hidden)[1].abs().amax(-1) > 0
            positions = read.int().argmax(-1) if bool((read.sum(-1) == 1).all()) else None
            return positions if positions is not None and _proved(split, positions) else None
        except (RuntimeError, TypeError, IndexError, ModelError):  # such as a head that takes no gradient
            return None


def _proved(split: Split, positions: Tensor) -> bool:
    """Whether the narrowed block gives the first input's embedding and its gradient."""
    tower = split.tower
    known = _PROVED.setdefault(tower, {})
    key = split.layer, split.hidden.dtype, tower.autocast, split.hidden.shape[-1], version_of(tower.model)
    if key not in known:
        one, state = torch.zeros(1, dtype=torch.long, device=split.hidden.device), split.hidden[:1]
        whole = _slope(split, state, one)
        with lock_of(tower.model), _narrowed(tower, positions[:1], state.shape[1]):
            narrow = _slope(split, state, one)
        half = {torch.bfloat16, torch.float16} & {split.hidden.dtype, tower.autocast}
        errors = [(a - b).norm() / b.norm() for a, b in zip(narrow, whole, strict=True)]
        known[key] = all(bool(error < (_HALF if half else _EXACT)) for error in errors)
    return known[key]


def _slope(split: Split, state: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings of states, and the gradient of a weighted sum of their channels, in float32."""
    with torch.enable_grad():
        leaf = state.detach().requires_grad_(True)
        embedding = split.resume(leaf, rows)
        weights = torch.linspace(1, 2, embedding.shape[1], device=embedding.device)
        (gradient,) = torch.autograd.grad((embedding.float() * weights).sum(), leaf)
    return embedding.detach().float(), gradient.float()


def _pointwise(tower: Tower) -> list[nn.Module]:
    """The parts of the last block that work on each position by itself, but for the maps to keys and values."""
    where, block = tower.attention, tower.blocks[-1]
    if not isinstance(where, Attention):
        return []
    try:
        holder = block.get_submodule(where.whole or where.module)
        own = () if where.whole or where.fused else (where.query, where.output)
        of_attention = [block.get_submodule(path) for path in own]
    except AttributeError:  # a block of other names than the tower's
        return []

    def outside(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            inside = [*child.modules()]
            if any(part is holder for part in inside):
                yield from () if child is holder else outside(child)
            elif any(isinstance(part, nn.Linear) for part in inside):
                yield child

    return [*outside(block), *(one for one in of_attention if any(one is part for part in holder.modules()))]


@contextmanager
def _narrowed(tower: Tower, positions: Tensor, length: int) -> Iterator[None]:
    """Within it, pointwise parts of the last block run on one position of each row, and give zeros elsewhere."""
    places = torch.arange(len(positions), device=positions.device), positions

    def narrow(value: Any) -> Any:
        whole = isinstance(value, Tensor) and value.ndim == 3 and value.shape[:2] == (len(positions), length)
        return value[places][:, None] if whole else value

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(narrow(value) for value in args), {name: narrow(value) for name, value in kwargs.items()}

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.new_zeros(len(positions), length, output.shape[-1]).index_put(places, output[:, 0])

    with ExitStack() as stack:
        for part in _pointwise(tower):
            stack.callback(part.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(part.register_forward_hook(after).remove)
        yield
