"""What is known of a model's weights: who holds them, whether they changed, and their short hash."""

from __future__ import annotations

import hashlib
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()


def lock_of(item: Any) -> threading.RLock:
    """The one lock of a model or tokenizer, however often it was loaded: both change while they run."""
    with _GUARD:
        return _LOCKS.setdefault(item, threading.RLock())


def version_of(model: nn.Module) -> tuple[Any, ...]:
    """A value that changes when parameters are written to, replaced, moved or converted."""
    parameters = list(model.parameters())
    written = sum(0 if p.is_inference() else p._version for p in parameters)
    return written, hash(tuple(p.data_ptr() for p in parameters)), parameters[0].dtype, str(parameters[0].device)


def fingerprint(model: nn.Module) -> str:
    """Short hash of a model's parameters: names, shapes, types and up to 1,024 values of each, evenly spaced."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 1024)].to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:12]
