"""Quantised weights load; what they cannot do is refused, never computed wrong."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus
from cheap import CHEAP
from conftest import picture
from isthmus.errors import ModelError
from state import untouched
from zoo import ZOO

TEXT = "a dog on the grass"


@functools.cache
def zoo() -> Any:
    return ZOO["clip"]()


def loaded(model: Any) -> Any:
    return isthmus.load(model, processor={"image_processor": zoo().image_processor, "tokenizer": zoo().tokenizer})


def dynamic(*names: str) -> Any:
    """CLIP with torch's own int8 linear layers: in all modules, or in those of these names alone."""
    which = set(names) or {nn.Linear}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torchao used
        return loaded(torch.ao.quantization.quantize_dynamic(zoo().model, which, dtype=torch.qint8))


@pytest.mark.parametrize("method", ["occlusion", "rise", "shapley"])
def test_dynamic_int8_runs_methods_without_gradients(method: str) -> None:
    model, whole = dynamic(), loaded(zoo().model)
    options = {"method": method, **CHEAP.get(method, {})}
    found, expected = (isthmus.explain(one, picture(), TEXT, **options) for one in (model, whole))
    assert found.similarity == pytest.approx(expected.similarity, abs=0.05)
    assert np.corrcoef(found.image.scores.ravel(), expected.image.scores.ravel())[0, 1] > 0.8
    again = isthmus.explain(model, picture(), TEXT, **options)
    assert (again.image, again.text) == (found.image, found.text)


@pytest.mark.parametrize("method", ["nib", "gradcam", "integrated-gradients", "m2ib", "saliency"])
def test_dynamic_int8_refuses_gradients(method: str) -> None:
    model = dynamic()
    with untouched(model.model), pytest.raises(ModelError, match=r"weights of the image tower are quantised in a way"):
        isthmus.explain(model, picture(), TEXT, method=method, **CHEAP.get(method, {}))


def test_one_quantised_layer_is_enough_to_be_refused() -> None:
    """torch would go round it by the residual, with a warning: a map that is wrong and looks right."""
    model = dynamic("text_model.encoder.layers.1.mlp.fc1")
    assert isthmus.explain(model, picture(), TEXT, sides="image").image is not None
    with pytest.raises(ModelError, match=r"weights of the text tower are quantised.*occlusion, rise or shapley"):
        isthmus.explain(model, picture(), TEXT, sides="text", layer=0)
    behind = isthmus.explain(model, picture(), TEXT, sides="text", layer=-1)
    assert behind.text.completeness.relative_delta < 0.2


def test_methods_that_read_attention_say_that_there_is_none() -> None:
    with pytest.raises(ModelError, match="no self-attention whose queries"):
        isthmus.explain(dynamic(), picture(), TEXT, method="chefer")


class Packed(nn.Module):
    """A linear map whose weights are kept as whole numbers in a parameter, as bitsandbytes does."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter(
            ((linear.weight.detach() / scale).round() + 128).to(torch.uint8), requires_grad=False
        )
        self.scale, self.bias = nn.Parameter(scale), linear.bias

    def forward(self, state: Tensor) -> Tensor:
        return nn.functional.linear(state, (self.weight.to(state.dtype) - 128) * self.scale, self.bias)


def packed() -> Any:
    """Every linear map is packed, and so is what comes first among the parameters."""
    model = ZOO["clip"]().model
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Linear):
                setattr(owner, name, Packed(child))
    first = nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    model._parameters = {"first": first, **model._parameters}
    return model


def test_packed_weights_run_methods_with_and_without_gradients() -> None:
    model = packed()
    assert next(model.parameters()).dtype == torch.uint8
    own, whole = loaded(model), loaded(zoo().model)
    assert own.dtype == torch.float32
    for method in ("nib", "gradcam", "occlusion"):
        with untouched(model):
            found = isthmus.explain(own, picture(), TEXT, method=method)
        expected = isthmus.explain(whole, picture(), TEXT, method=method)
        assert found.provenance.dtype == "float32"
        assert np.corrcoef(found.image.scores.ravel(), expected.image.scores.ravel())[0, 1] > 0.95
