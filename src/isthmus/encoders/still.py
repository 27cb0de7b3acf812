"""Holds a model still while it runs: its mode, its parameters and the other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from isthmus.encoders.weights import device_of, lock_of


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within it, the model is in eval mode with parameters that take no gradient, one thread at a time."""
    device = device_of(model).type
    with lock_of(model), torch.inference_mode(False), torch.autocast(device, enabled=False), _UNFUSED:
        training = [module for module in model.modules() if module.training]
        learning = [p for p in model.parameters() if p.requires_grad]
        try:
            model.eval()
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)


class _Unfused:
    """torch's own TransformerEncoder has a second path for eval mode, whose states have no padding and no shape.

    It is switched off for the whole process while any thread runs a model, and back when the last has done.
    """

    def __init__(self) -> None:
        self._guard, self._inside, self._before = threading.Lock(), 0, True

    def __enter__(self) -> None:
        with self._guard:
            if self._inside == 0:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.mha.set_fastpath_enabled(self._before)


_UNFUSED = _Unfused()
