"""The cut itself: hooks, and stand-ins for the blocks before it, which live inside a `with` and are gone after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from isthmus.encoders.split import Split
    from isthmus.encoders.tower import Tower


class _StandIn(nn.Module):
    """Stands in for a module, whose attributes it lends: some models ask for its type or shape before they run it."""

    def __init__(self, instead_of: nn.Module | None) -> None:
        super().__init__()
        self.__dict__["_instead_of"] = instead_of  # no child: its owner's parameters would count twice

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_instead_of"], name)


class Given(_StandIn):
    """Stands in for a module and returns a value in place of computing it."""

    def __init__(self, value: Tensor, *, as_tuple: bool = False, instead_of: nn.Module | None = None) -> None:
        """Keep the value, in a tuple where its readers expect one, and the module whose attributes it lends."""
        super().__init__(instead_of)
        self._value = (value,) if as_tuple else value

    def forward(self, *_: Any, **__: Any) -> Any:
        """The value, whatever is asked."""
        return self._value


class _Passing(_StandIn):
    """Stands in for a block that is left out."""

    def __init__(self, instead_of: nn.Module, *, as_tuple: bool) -> None:
        super().__init__(instead_of)
        self._as_tuple = as_tuple

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        state = args[0] if args else kwargs["hidden_states"]
        return (state,) if self._as_tuple else state


@dataclass
class Seen:
    """What a run of a tower showed: the state at a layer, outputs of stem and lookup, how blocks return theirs."""

    hidden: Tensor | None = None
    stem: Tensor | None = None
    vectors: Tensor | None = None
    as_tuple: bool = False


class SeenError(Exception):
    """A run has shown what was asked, and goes no further."""


@contextmanager
def recorded(tower: Tower, layer: int | None, *, stop: bool = False) -> Iterator[Seen]:
    """Within it, a run of the tower records the state that enters block `layer`, and with `stop` ends there.

    Args:
        tower: no other thread can run its model meanwhile.
        layer: None records only how blocks return their states.
        stop: the block at `layer` is not run, nor what follows it.
    """
    seen, blocks = Seen(), tower.blocks

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.hidden = tower.turned(args[0] if args else kwargs["hidden_states"]).detach()
        if stop:
            raise SeenError

    def giving(_: nn.Module, __: Any, output: Any) -> None:
        seen.as_tuple = isinstance(output, tuple)

    def leaving(_: nn.Module, __: Any, output: Any) -> None:
        seen.as_tuple = isinstance(output, tuple)
        seen.hidden = tower.turned(output[0] if seen.as_tuple else output).detach()
        if stop:
            raise SeenError

    def embedded(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.stem = output.detach().clone()

    def looked_up(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.vectors = output.detach().clone()  # some models add positions in place

    with ExitStack() as stack:
        if layer == len(blocks):
            stack.callback(blocks[-1].register_forward_hook(leaving).remove)
        else:
            stack.callback(blocks[0].register_forward_hook(giving).remove)
        if layer is not None and layer < len(blocks):
            stack.callback(blocks[layer].register_forward_pre_hook(entering, with_kwargs=True).remove)
        stack.enter_context(suppress(SeenError))
        if tower.stem is not None:
            stack.callback(getattr(*tower.stem).register_forward_hook(embedded).remove)
        if tower.lookup is not None:
            stack.callback(getattr(*tower.lookup).register_forward_hook(looked_up).remove)
        yield seen


@contextmanager
def resumed(split: Split, hidden: Tensor, rows: Tensor) -> Iterator[None]:
    """Within it, the stack runs only the blocks from the cut on, the first of which reads the replacement."""
    tower, blocks = split.tower, split.tower.blocks
    state = tower.turned(hidden)

    def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    with ExitStack() as stack:
        if split.layer < len(blocks):
            hook = blocks[split.layer].register_forward_pre_hook(replace, with_kwargs=True)
            stack.callback(hook.remove)
        _leave_out(stack, split, state)
        if tower.stem is not None and split.stem is not None and hidden.ndim == 3:
            stem = getattr(*tower.stem)
            stack.enter_context(swapped(*tower.stem, Given(split.stem[rows], instead_of=stem)))
        yield


def _leave_out(stack: ExitStack, split: Split, state: Tensor) -> None:
    """Take the blocks before the cut out of the stack; behind the last, what stands for it gives the state."""
    tower, blocks, layer = split.tower, split.tower.blocks, split.layer
    end = Given(state, as_tuple=split.as_tuple, instead_of=blocks[-1])
    # As many as before: some models count their blocks, or find something else for each by its number.
    others: list[nn.Module] = [_Passing(block, as_tuple=split.as_tuple) for block in [*blocks][:layer]]
    if layer == len(blocks):
        others[-1] = end
    if isinstance(tower.stack, str):
        rest = [*others, *[*blocks][layer:]]
        whole = nn.Sequential(*rest) if tower.in_sequence else nn.ModuleList(rest)
        stack.enter_context(swapped(tower.owner, tower.stack, whole))
        return
    for path, other in zip(tower.stack, others, strict=False):
        owner, _, name = path.rpartition(".")
        stack.enter_context(swapped(tower.owner.get_submodule(owner), name, other))


@contextmanager
def entered(tower: Tower, vectors: Tensor) -> Iterator[None]:
    """Within it, the tower's lookup gives `vectors`; a tower without one is left as it is."""
    with ExitStack() as stack:
        if tower.lookup is not None:
            given = Given(vectors.clone(), instead_of=getattr(*tower.lookup))  # cloned, see `recorded`
            stack.enter_context(swapped(*tower.lookup, given))
        yield


@contextmanager
def swapped(owner: nn.Module, name: str, module: nn.Module) -> Iterator[None]:
    """Within it, another module stands in an owner's place of that name."""
    original = owner._modules[name]
    try:
        owner._modules[name] = module
        yield
    finally:
        owner._modules[name] = original
