"""Half precision: its maps agree with those of float32, and sums, norms and cosines stay in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import isthmus
from cheap import CHEAP
from conftest import EXAMPLES, picture
from isthmus.cli.checks import checks
from isthmus.encoders import precision
from isthmus.errors import OptionError
from isthmus.methods import METHODS

NAMES = ("bear", "bird", "dog", "elephant", "horses", "laptop", "pizza")
IMAGES, TEXTS = [EXAMPLES / f"{name}.jpg" for name in NAMES], [f"a photo of a {name} outside" for name in NAMES]
HALF: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "autocast": {"autocast": "bfloat16"},
}


@pytest.fixture(scope="module")
def whole(mini: Any) -> list[isthmus.Explanation]:
    return isthmus.explain(mini, IMAGES, TEXTS)


@pytest.mark.parametrize("kind", HALF)
def test_maps_agree_with_float32(whole: list[isthmus.Explanation], kind: str) -> None:
    """By nib with its defaults, on each of the examples' pictures."""
    model = isthmus.load("mini", device="cpu", **HALF[kind])
    for a, b in zip(whole, isthmus.explain(model, IMAGES, TEXTS), strict=True):
        assert not np.array_equal(a.image.scores, b.image.scores), "another precision was used"
        assert b.image.scores.dtype == np.float32
        assert scipy.stats.spearmanr(a.image.scores.ravel(), b.image.scores.ravel()).statistic > 0.99
        words = [[word.score for word in one.text.words] for one in (a, b)]
        assert np.corrcoef(*words)[0, 1] > 0.99
        assert a.similarity == pytest.approx(b.similarity, abs=0.01)
        assert b.provenance.dtype.endswith(kind if kind != "autocast" else "float32, matrix products in bfloat16")


def test_autocast_leaves_weights_and_sums_alone(make_tiny: Callable[..., Any]) -> None:
    tiny = make_tiny()
    model, own = precision.autocast_to(tiny, "bfloat16"), tiny.model
    assert model.dtype == own.dtype == torch.float32
    assert model.image.autocast == model.text.autocast == torch.bfloat16
    seen: list[torch.dtype] = []
    hook = own.vision_model.encoder.layers[0].mlp.fc1.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    try:
        found = isthmus.explain(model, picture(), "a dog", method="gradcam")
    finally:
        hook.remove()
    assert set(seen) == {torch.bfloat16}
    assert tiny.image.autocast is None
    assert found.image.scores.dtype == np.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_runs_under_autocast(mini: Any, method: str) -> None:
    model = precision.autocast_to(mini, "bfloat16")
    maps = [
        isthmus.explain(one, EXAMPLES / "dog.jpg", "a dog on grass", method=method, **CHEAP.get(method, {}))
        for one in (mini, model)
    ]
    a, b = (one.image.scores.ravel() for one in maps)
    assert scipy.stats.spearmanr(a, b).statistic > 0.99


def test_what_load_refuses(mini: Any) -> None:
    for options, match in (
        ({"autocast": "float16"}, "autocast must be bfloat16"),
        ({"autocast": "bfloat16", "dtype": "float16"}, "autocast is for float32 weights"),
    ):
        with pytest.raises(OptionError, match=match):
            isthmus.load("mini", device="cpu", **options)
    with pytest.raises(OptionError, match="loaded already"):
        isthmus.load(mini, autocast="bfloat16")


@pytest.mark.parametrize(("amx", "avx"), [(True, True), (False, True), (False, False)])
def test_auto_takes_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch, amx: bool, avx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    expected = torch.bfloat16 if amx or avx else torch.float32
    assert isthmus.load("mini", device="cpu", dtype="auto").dtype == expected
    (told,) = [finding for _, name, finding, _ in checks() if name == "cpu"]
    assert ("AMX" in told, "AVX512-BF16" in told, "no bfloat16" in told) == (amx, avx, not (amx or avx))
