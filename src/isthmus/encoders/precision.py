"""Half precision: where the hardware has it, and matrix products in it while the weights keep theirs."""

from __future__ import annotations

from dataclasses import replace

import torch

from isthmus.encoders.dual import DualEncoder
from isthmus.errors import OptionError


def bfloat16_unit(device: torch.device) -> str:
    """What computes bfloat16 in this device's hardware, "" where nothing does and it is slower than float32."""
    if device.type == "cuda":
        return "tensor cores" if torch.cuda.get_device_capability(device) >= (8, 0) else ""
    if device.type != "cpu":
        return ""
    known = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    there = [name for name, asks in known.items() if getattr(torch.cpu, asks, bool)()]
    return " and ".join(there)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device's hardware has it, else float32."""
    return torch.bfloat16 if bfloat16_unit(device) else torch.float32


def autocast_to(model: DualEncoder, autocast: str) -> DualEncoder:
    """The model with its matrix products in `autocast`; weights, sums, norms and cosines stay as they are.

    Raises:
        OptionError: another type than bfloat16, or weights that are not float32.
    """
    if str(autocast).removeprefix("torch.") != "bfloat16":
        raise OptionError(f"autocast must be bfloat16, not {autocast!r}.")
    if model.dtype != torch.float32:
        raise OptionError("autocast is for float32 weights: leave out autocast, or dtype.")
    image, text = (replace(tower, autocast=torch.bfloat16) for tower in (model.image, model.text))
    return replace(model, image=image, text=text)
