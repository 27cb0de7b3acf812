"""What is known of a model's weights: who holds them, whether they changed, and their short hash."""

from __future__ import annotations

import hashlib
import itertools
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()


def lock_of(item: Any) -> threading.RLock:
    """The one lock of a model or tokenizer, however often it was loaded: both change while they run."""
    with _GUARD:
        return _LOCKS.setdefault(item, threading.RLock())


def device_of(model: nn.Module) -> torch.device:
    """Where the weights are."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def moved(value: Tensor, device: torch.device) -> Tensor:
    """A value where the weights are; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


def dtype_of(model: nn.Module) -> torch.dtype:
    """Type of the weights: of the first that are no whole numbers, as those of a quantised layer may be."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def version_of(model: nn.Module) -> tuple[Any, ...]:
    """A value that changes when parameters are written to, replaced, moved or converted."""
    parameters = list(model.parameters())
    written = sum(0 if p.is_inference() else p._version for p in parameters)
    return written, hash(tuple(p.data_ptr() for p in parameters)), dtype_of(model), str(device_of(model))


def differentiable(output: Tensor) -> bool:
    """Whether every operation that led to an output has a derivative; those of quantised layers may have none."""
    seen: set[Any] = set()
    ahead = [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if "NotImplemented" in node.name():
            return False
        seen.add(node)
        ahead += [before for before, _ in node.next_functions]
    return True


def fingerprint(model: nn.Module) -> str:
    """Short hash of a model's parameters: names, shapes, types and up to 1,024 values of each, evenly spaced."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 1024)].to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:12]
