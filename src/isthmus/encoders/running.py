"""Runs a tower once under hooks, and tells what each of its modules read and gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.tower import Inputs
from isthmus.errors import ModelError

Encode = Callable[[Inputs], Tensor]


@dataclass
class Call:
    """One run of a module.

    Attributes:
        owner, name: the module that holds it, and its name there.
        entered, left: when it began and ended, counted in such events; -1 while it runs.
        read: what it read first; `arguments` is all of it, the last of which had these `keywords`.
        gave: what it gave, of a tuple the first.
    """

    owner: nn.Module
    name: str
    module: nn.Module
    entered: int
    left: int = -1
    read: Any = None
    gave: Any = None
    arguments: tuple[Any, ...] = ()
    keywords: tuple[str, ...] = ()

    def inside(self, other: Call) -> bool:
        """Whether it ran while another did."""
        return other.entered < self.entered and self.left < other.left


def calls_of(model: nn.Module, encode: Encode, inputs: Inputs) -> tuple[list[Call], Tensor]:
    """All runs of a model's modules during one run of a tower, in the order in which they began; and its embedding."""
    calls: list[Call] = []
    running: list[Call] = []
    events = iter(range(1 << 62))

    def begin(owner: nn.Module, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = (*args, *kwargs.values())
            first = args[0] if args else kwargs.get("hidden_states", next(iter(arguments), None))
            call = Call(owner, name, module, next(events), read=first, arguments=arguments, keywords=tuple(kwargs))
            calls.append(call)
            running.append(call)

        return hook

    def end(_: nn.Module, __: Any, output: Any) -> None:
        call = running.pop()
        call.left, call.gave = next(events), output[0] if isinstance(output, tuple) and output else output

    with torch.no_grad(), ExitStack() as stack:
        seen: set[int] = set()
        for owner in model.modules():
            for name, module in owner.named_children():
                if id(module) not in seen:
                    seen.add(id(module))
                    stack.callback(module.register_forward_pre_hook(begin(owner, name), with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(end).remove)
        embedding = encode(inputs)
    return calls, embedding


def entering_states(encode: Encode, inputs: Inputs, block: nn.Module) -> Tensor:
    """What enters a block, which is not run, nor what follows it."""
    with torch.no_grad(), _stopping(block) as seen:
        try:
            encode(inputs)
        except _StopError:
            return seen[0].detach()
    raise ModelError("The first block of this tower never ran: describe the tower by hand with isthmus.Tower(...).")


class _StopError(Exception):
    """The run has shown what was asked."""


@contextmanager
def _stopping(block: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _StopError

    hook = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()
