"""Options that make the dear methods cheap enough for tests of what holds for every method."""

from __future__ import annotations

from typing import Any

CHEAP: dict[str, dict[str, Any]] = {
    "grad-eclip": {"relu": False},  # cut off, a pair that does not match may have no map at all
    "integrated-gradients": {"steps": 6},
    "mfaba": {"steps": 4},
    "agi": {"steps": 3},
    "multilayer-nib": {"steps": 4},
    "rise": {"samples": 12},
    "lime": {"samples": 12},
    "shapley": {"samples": 8},
    "banzhaf": {"samples": {"image": 512, "text": 150}},
    "m2ib": {"steps": 2, "copies": 2},
    "iba": {"steps": 2, "copies": 2},
}
