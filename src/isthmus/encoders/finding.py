"""Finds the parts of a tower by running it once: its stack of blocks, its embedding, its attention.

What a module is called, and of which class it is, differs from model to model; what it does to the tensors that pass
does not. So a tower is run on an example under hooks, and its parts are told by what they read and give.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.cut import Given, swapped
from isthmus.encoders.parts import Attention, heads_of
from isthmus.encoders.running import Call, Encode, calls_of, entering_states
from isthmus.encoders.tower import Inputs, Side, Tower
from isthmus.encoders.unfused import agrees, unfused
from isthmus.errors import ModelError

Place = tuple[nn.Module, str]  # a module's owner, and its name there


@dataclass(frozen=True)
class Parts:
    """The parts of a tower, see `Tower`.

    Attributes:
        owner, stack, stem, lookup, attention, sequence_first: as in `Tower`.
        first: the first block.
        entering: the state that enters it, of the example, with the batch first.
        leaving: the state that leaves the last one.
        patch: side in pixels of what the first convolution cuts the picture into; None where none does.
        length: how many positions a text tower has; None where no embedding of positions tells.
    """

    owner: nn.Module
    stack: str | tuple[str, ...]
    stem: Place | None
    lookup: Place | None
    attention: Attention | None
    sequence_first: bool
    first: nn.Module
    entering: Tensor
    leaving: Tensor
    patch: int | None
    length: int | None

    def tower(self, side: Side, model: nn.Module, encode: Encode, **more: Any) -> Tower:
        """The tower of these parts."""
        return Tower(
            side,
            model,
            encode,
            self.owner,
            self.stack,
            stem=self.stem,
            lookup=self.lookup,
            attention=self.attention,
            sequence_first=self.sequence_first,
            **more,
        )


def parts_of(model: nn.Module, encode: Encode, inputs: Inputs, *, side: Side, entering: str) -> Parts:
    """Find the parts of one side of a dual encoder.

    Args:
        model: holds the modules; in eval mode.
        encode: its own code from inputs to embeddings.
        inputs: of one example, as `encode` takes them.
        side: which side it is.
        entering: the name of the input that carries pixels or token ids.

    Raises:
        ModelError: there is no stack of like blocks that run one after the other.
    """
    calls, embedding = calls_of(model, encode, inputs)
    found = max(_stacks(model, calls), key=lambda one: (len(one.calls) > 1, one.weight), default=None)
    if found is None:
        raise ModelError(
            f"No stack of blocks was found on the {side} side of this model: no modules of one kind run one after the "
            "other, each on what the one before it gave. Describe the tower by hand with isthmus.Tower(...)."
        )
    first, last = found.calls[0], found.calls[-1]
    before = [call for call in calls if call.left != -1 and call.left < first.entered]
    values = inputs[entering]
    turned = first.read.ndim == 3 and first.read.shape[0] != len(values) == first.read.shape[1]
    inside = [call for call in calls if call.inside(first)]
    return Parts(
        owner=found.owner,
        stack=found.stack,
        stem=_stem(encode, inputs, before, entering, first, embedding) if side == "image" else None,
        lookup=_lookup(before, values) if side == "text" else None,
        attention=_fused_attention(first, inside) or _attention(first, inside),
        sequence_first=turned,
        first=first.module,
        entering=first.read.transpose(0, 1) if turned else first.read,
        leaving=last.gave,
        patch=patch_side(before, values) if side == "image" else None,
        length=_length(before, values) if side == "text" else None,
    )


@dataclass(frozen=True)
class _Stack:
    owner: nn.Module
    stack: str | tuple[str, ...]
    calls: list[Call]

    @property
    def weight(self) -> int:
        return sum(p.numel() for call in self.calls for p in call.module.parameters())


def _stacks(model: nn.Module, calls: Sequence[Call]) -> Iterator[_Stack]:
    """Lists of blocks, and runs of children of one class; of each every block ran once, on what the former gave."""
    runs: dict[int, list[Call]] = {}
    for call in calls:
        runs.setdefault(id(call.module), []).append(call)
    once = {key: own[0] for key, own in runs.items() if len(own) == 1}
    for owner in model.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) or (isinstance(child, nn.Sequential) and len(child) > 1):
                chain = [once[id(block)] for block in child if id(block) in once]
                if len(chain) == len(child) > 0 and _is_chain(chain):
                    yield _Stack(owner, name, chain)
        if not isinstance(owner, (nn.ModuleList, nn.Sequential)):
            own = [once[id(child)] for child in owner.children() if id(child) in once]
            for _, group in itertools.groupby(own, key=lambda call: _kind(call.module)):
                stages = list(group)
                if len(stages) > 1 and _is_chain(stages) and stages[0].read.ndim == 4:
                    yield _flattened(owner, stages, once)


def _kind(module: nn.Module) -> Any:
    """Two `Sequential` are alike where they hold modules of the same classes."""
    return type(module), {type(child) for child in module.children()} if isinstance(module, nn.Sequential) else None


def _flattened(owner: nn.Module, stages: Sequence[Call], once: dict[int, Call]) -> _Stack:
    """The stages of a convolutional tower, or where every stage is a chain of blocks, the blocks of all."""
    inner = [[(f"{stage.name}.{n}", once.get(id(b))) for n, b in stage.module.named_children()] for stage in stages]
    blocks = [(name, call) for own in inner for name, call in own if call is not None]
    if all(isinstance(stage.module, nn.Sequential) for stage in stages) and _is_chain([call for _, call in blocks]):
        return _Stack(owner, tuple(name for name, _ in blocks), [call for _, call in blocks])
    return _Stack(owner, tuple(stage.name for stage in stages), list(stages))


def _is_chain(calls: Sequence[Call]) -> bool:
    """States of tokens or of a grid, of which each block reads what the one before gave."""
    if any(not isinstance(call.read, Tensor) or not isinstance(call.gave, Tensor) for call in calls):
        return False
    ranks = {call.read.ndim for call in calls} | {call.gave.ndim for call in calls}
    if ranks not in ({3}, {4}):
        return False
    if ranks == {3} and len({(call.read.shape, call.gave.shape) for call in calls}) > 1:
        return False
    return all(a.gave.data_ptr() == b.read.data_ptr() for a, b in itertools.pairwise(calls))


def _lookup(before: Sequence[Call], ids: Tensor) -> Place | None:
    """The largest embedding that turns exactly these ids into vectors."""
    found = [
        (call.module.num_embeddings, (call.owner, call.name))
        for call in before
        if isinstance(call.module, nn.Embedding) and isinstance(call.read, Tensor) and torch.equal(call.read, ids)
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _length(before: Sequence[Call], ids: Tensor) -> int | None:
    """The size of an embedding that reads consecutive numbers, less the one that it begins with."""
    for call in before:
        if isinstance(call.module, nn.Embedding) and isinstance(call.read, Tensor):
            numbers = call.read.flatten()
            if len(numbers) == ids.shape[1] > 1 and bool((numbers.diff() == 1).all()):
                return call.module.num_embeddings - int(numbers[0])
    return None


def _stem(
    encode: Encode, inputs: Inputs, before: Sequence[Call], entering: str, first: Call, embedding: Tensor
) -> Place | None:
    """The outermost module that alone reads the pixels: given its output, the pixels themselves change nothing."""
    pixels = inputs[entering]
    blank = {**inputs, entering: torch.zeros_like(pixels)}
    for call in before:
        if any(_is_input(one, pixels) for one in call.arguments) and isinstance(call.gave, Tensor):
            with swapped(call.owner, call.name, Given(call.gave, instead_of=call.module)), torch.no_grad():
                same = entering_states(encode, blank, first.module)
                if _alike(same, first.read) and _alike(encode(blank), embedding):
                    return call.owner, call.name
    return None


def _is_input(one: Any, values: Tensor) -> bool:
    """Whether a module was given these values, perhaps in the type of its weights."""
    return isinstance(one, Tensor) and one.shape == values.shape and torch.equal(one, values.to(one.dtype))


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def patch_side(before: Sequence[Call], pixels: Tensor) -> int | None:
    """The stride of the convolution that reads the pixels."""
    for call in before:
        if isinstance(call.module, nn.Conv2d) and isinstance(call.read, Tensor) and call.read.shape == pixels.shape:
            return int(call.module.stride[0])
    return None


def _attention(block: Call, inside: Sequence[Call]) -> Attention | None:
    """Three linear maps of one tensor, which their owner calls by query, key and value, or one that is all three of
    them, and the next that runs."""
    linear = [call for call in inside if isinstance(call.module, nn.Linear) and isinstance(call.read, Tensor)]
    path = {id(module): name for name, module in block.module.named_modules()}
    for i in range(len(linear) - 3):
        three, out = linear[i : i + 3], linear[i + 3]
        names = {call.name.removeprefix("to_")[:1]: call for call in three}
        together = len({(id(call.owner), call.read.data_ptr(), call.gave.shape) for call in three}) == 1
        if together and set(names) == {"q", "k", "v"}:
            own = path[id(three[0].owner)]
            query, key, value, output = (path[id(one.module)] for one in (names["q"], names["k"], names["v"], out))
            return Attention(own, query, key, value, output, _is_added(out, block, inside))
    for one, out in itertools.pairwise(linear):
        if one.owner is out.owner and _is_fused(one, out):
            own, maps, output = (path[id(module)] for module in (one.owner, one.module, out.module))
            return Attention(own, maps, maps, maps, output, _is_added(out, block, inside))
    return None


def _is_fused(one: Call, out: Call) -> bool:
    """Whether a map gives queries, keys and values side by side: attention among them is what the next map reads."""
    heads = heads_of(one.owner)
    if heads is None or one.gave.shape[-1] != 3 * out.read.shape[-1]:
        return False
    parts = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in one.gave.chunk(3, dim=-1))
    return _alike(nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2), out.read)


def _fused_attention(block: Call, inside: Sequence[Call]) -> Attention | None:
    """A module whose queries, keys and values come of one matrix, and which gives the same run as separate maps."""
    path = {id(module): name for name, module in block.module.named_modules()}
    for call in inside:
        other = unfused(call.module)
        if other is not None and isinstance(call.gave, Tensor) and agrees(other, call):
            return Attention.in_one(path[id(call.module)], plain=_is_added(call, block, inside))
    return None


def _is_added(out: Call, block: Call, inside: Sequence[Call]) -> bool:
    """Whether a later module reads the sum of what enters the block and what the attention gives."""
    total = block.read + out.gave
    later = (call.read for call in inside if call.entered > out.left and isinstance(call.read, Tensor))
    return any(_alike(total, one) for one in later)
