"""The paper preset gives what the paper's published code gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import isthmus


@pytest.fixture(scope="module")
def prepared(reference: Any) -> Any:
    arrays, pairs = reference
    pixels = torch.from_numpy(arrays["pixel_values"].astype(np.float32))
    return [isthmus.PreparedImage(p) for p in pixels], [pair["caption"] for pair in pairs]


@pytest.mark.parametrize("batch", [8, 1])
@pytest.mark.parametrize(("steps", "layer", "key"), [(10, 9, "nib"), (5, 6, "nib_steps5_layer6")])
def test_paper_preset_equals_the_published_maps(
    mini: Any, reference: Any, prepared: Any, batch: int, steps: int, layer: int, key: str
) -> None:
    arrays, pairs = reference
    images, texts = prepared
    found = isthmus.explain(mini, images, texts, preset="paper", steps=steps, layer=layer, batch_size=batch)
    assert isinstance(found, list)
    assert len(found) == 16
    for i, one in enumerate(found):
        expected = arrays[f"{key}_image_b{batch}"][i]
        np.testing.assert_allclose(one.image.published[::2, ::2], expected, atol=1e-4)
        length = len(pairs[i]["ids"])
        np.testing.assert_allclose(one.text.published, arrays[f"{key}_text_b{batch}"][i][:length], atol=1e-4)
        assert one.similarity == pytest.approx(float(arrays["cosine"][i]), abs=1e-5)


def test_paper_preset_names_its_own_layer_and_steps(mini: Any, prepared: Any) -> None:
    images, texts = prepared
    one = isthmus.explain(mini, images[0], texts[0], preset="paper")
    assert dict(one.image.options) == {"layer": 9, "closed": "zero", "steps": 10, "rule": "right"}


def test_published_text_map_depends_on_the_batch_and_ours_does_not(mini: Any, prepared: Any) -> None:
    images, texts = prepared

    def words(preset: str | None, size: int) -> np.ndarray:
        found = isthmus.explain(mini, images[:8], texts[:8], preset=preset, batch_size=size, sides="text")
        return np.array([word.score for one in found for word in one.text.words])

    assert np.abs(words("paper", 8) - words("paper", 1)).max() > 1e-3
    np.testing.assert_allclose(words(None, 8), words(None, 1), atol=2e-6)
