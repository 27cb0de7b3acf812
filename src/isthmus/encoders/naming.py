"""Modules by the names that a description of a tower gives, and what is said where there is none."""

from __future__ import annotations

from torch import nn

from isthmus.errors import ModelError


def blocks_of(owner: nn.Module, stack: str | tuple[str, ...]) -> nn.ModuleList | nn.Sequential:
    """The blocks that a tower names: a list that its owner holds, or a list made of single ones.

    Raises:
        ModelError: the owner has none of that name.
    """
    if isinstance(stack, str):
        found = getattr(owner, stack, None)
        if isinstance(found, (nn.ModuleList, nn.Sequential)) and len(found):
            return found
        raise ModelError(
            f"{type(owner).__name__} holds no list of blocks {stack!r}: give as owner the module that runs the blocks, "
            "and as stack the name of its ModuleList or Sequential, or a tuple of paths to single blocks."
        )
    if not stack:
        raise ModelError("The stack of a tower names no block: give the path of each, in the order in which they run.")
    return nn.ModuleList(module_of(owner, path, "stack") for path in stack)


def module_of(owner: nn.Module, path: str, what: str) -> nn.Module:
    """The module at a path. Raises ModelError, with `what` names it, where there is none."""
    try:
        return owner.get_submodule(path)
    except AttributeError as error:
        there = ", ".join(name for name, _ in owner.named_children()) or "no module"
        raise ModelError(
            f"{type(owner).__name__} has no module {path!r} for the tower's {what}: it holds {there}."
        ) from error
