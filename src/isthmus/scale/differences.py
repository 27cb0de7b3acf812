"""What differs between the settings of two runs, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DIGESTS = ("input", "prompts", "weights")


def differences(before: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """What differs between the settings of two runs, each with both values where a user knows them."""
    names = [name for name in {**before, **told} if before.get(name) != told.get(name)]
    return [_difference(name, before.get(name), told.get(name)) for name in names]


def _difference(name: str, before: Any, told: Any) -> str:
    shown = name.replace("_", " ")
    if name in _DIGESTS:
        return shown
    if isinstance(before, Mapping) and isinstance(told, Mapping):
        return ", ".join(differences(before, told))
    return f"{shown} ({_value(before)}, not {_value(told)})"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
