"""What makes no sense is refused with one sentence, and nothing is ignored in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from conftest import EXAMPLES, picture
from isthmus.errors import InputError, IsthmusError, ModelError, OptionError
from isthmus.methods.registry import METHODS, Attribution, Method

QUICK = {"layer": 11, "steps": 1}
NAN = float("nan")

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a target that is a text": ({"target": "a cat"}, "must be a Pair, a Contrast or a Direction"),
    "a target that is a tensor": ({"target": torch.ones(192)}, "must be a Pair, a Contrast or a Direction"),
    "a direction of NaN": ({"target": isthmus.Direction(torch.full((192,), NAN))}, "finite numbers"),
    "a direction of letters": ({"target": isthmus.Direction("abc")}, "vector of numbers"),  # type: ignore[arg-type]
    "an unknown side": ({"layer": {"picture": 3}}, 'keys "image" and "text"'),
    "a tolerance for a fixed rule": ({"tolerance": 0.5}, 'applies to steps="auto" alone'),
    "a limit for a fixed rule": ({"limit": 20}, 'applies to steps="auto" alone'),
    "a floor for another state": ({"floor": 0.2}, 'applies to closed="floor" alone'),
    "a floor of letters": ({"closed": "floor", "floor": "low"}, "floor must be at least 0"),
    "a tolerance of letters": ({"steps": "auto", "tolerance": "low"}, "tolerance must lie between"),
    "a memory of letters": ({"memory": "low"}, "number of bytes"),
    "a closed state of lists": ({"closed": [1, 2]}, "no closed state"),
    "a closed state of NaN": ({"closed": torch.full((192,), NAN)}, "NaN or infinite"),
    "a rule that is a list": ({"rule": ["right"]}, "no rule"),
    "a method that is a list": ({"method": ["nib"]}, "no method"),
    "a preset that is a list": ({"preset": ["paper"]}, "no preset"),
    "no sides": ({"sides": ()}, "sides must be"),
    "a number of sides": ({"sides": 3}, "sides must be"),
    "a depth that may be a block": ({"layer": 1.0}, "may be block 1 or the whole depth"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options(mini: Any, case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(OptionError, match=message):
        isthmus.explain(mini, EXAMPLES / "dog.jpg", "a dog", **{**QUICK, **options})


@pytest.mark.parametrize("items", [np.zeros((9, 9, 3), np.uint8), Image.new("RGB", (9, 9)), iter(["a"]), "a"])
def test_contrast_takes_lists(items: Any) -> None:
    with pytest.raises(OptionError, match="Contrast takes lists"):
        isthmus.Contrast(for_=items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "multiples of the model's patch"),
        ({"image_size": -32}, "multiples of the model's patch"),
        ({"image_size": (224,)}, "whole number or"),
        ({"image_size": "224"}, "whole number or"),
        ({"image_size": 224.0}, "whole number or"),
        ({"attention": "magic"}, "sdpa or eager"),
        ({"device": "meta"}, "no meta device"),
        ({"device": 3.5}, "no device 3.5"),
        ({"dtype": torch.int8}, "no such dtype"),
    ],
)
def test_loading(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.load("mini", **options)


def test_open_clip_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        OptionError, match=r"needs open_clip, which is not installed: pip install 'isthmus\[open_clip\]'"
    ):
        isthmus.load("open_clip:RN50/openai", device="cpu")


def test_options_of_a_model_that_is_loaded_are_not_ignored(mini: Any) -> None:
    with pytest.raises(OptionError, match="loaded already"):
        isthmus.load(mini, dtype="bfloat16")
    with pytest.raises(OptionError, match="keeps its dtype and attention"):
        isthmus.load(mini.model, processor={}, attention="eager")
    for nothing in (None, "", 5):
        with pytest.raises(OptionError, match="a name, a folder or a model object"):
            isthmus.load(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        ("x" * 300, "a dog"),
        ([None, EXAMPLES / "dog.jpg"], ["a", "b"]),
        ([EXAMPLES / "dog.jpg"] * 2, [None, "a"]),
        (isthmus.PreparedImage(np.zeros((3, 224, 224), np.float32)), "a dog"),  # type: ignore[arg-type]
        (isthmus.PreparedImage(torch.zeros(3, 0, 224)), "a dog"),
        ((EXAMPLES / "dog.jpg").open, "a dog"),
        ("", "a dog"),
        ("HTTPS://example.org/a.jpg", "a dog"),
    ],
)
def test_inputs(mini: Any, images: Any, texts: Any) -> None:
    with pytest.raises(InputError) as caught:
        isthmus.explain(mini, images, texts, **QUICK)
    assert "\n" not in str(caught.value)


def test_one_against_needs_no_list(mini: Any) -> None:
    for single, many in (("cat", ["cat"]), (Path(EXAMPLES / "bear.jpg"), [EXAMPLES / "bear.jpg"])):
        one, other = (isthmus.explain(mini, EXAMPLES / "dog.jpg", "a dog", against=a, **QUICK) for a in (single, many))
        assert (one.image, one.text) == (other.image, other.text)


def test_numpy_numbers_are_numbers(mini: Any, tmp_path: Path) -> None:
    one = isthmus.explain(
        mini, picture(), "a dog", layer=np.int64(11), steps=np.int64(2), closed="floor", floor=np.float32(0.25)
    )
    one.save(tmp_path, formats=("json",))
    assert isthmus.Explanation.load(tmp_path).image.options["floor"] == 0.25


def test_scores_that_are_not_finite_are_an_error(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tower: Any, inputs: Any, target: torch.Tensor, **_: Any) -> Attribution:
        length = 50 if tower.side == "image" else 5
        return Attribution(torch.full((1, length), NAN), torch.ones(1), torch.zeros(1), ({},), {})

    monkeypatch.setitem(METHODS, "broken", Method("broken", "Broken", "nobody", broken))
    with pytest.raises(ModelError, match=r'scores are not finite.*closed="floor" or "mean"'):
        isthmus.explain(mini, picture(), "a dog", method="broken")


def test_a_model_that_returns_tuples_or_skips_its_blocks(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    model.model.vision_model.encoder.forward = lambda inputs_embeds, **_: _Output(inputs_embeds)
    with pytest.raises(ModelError, match="never ran block 1"):
        isthmus.explain(model, picture(), "a dog", layer=1)
    model = make_tiny()
    model.model.config.return_dict = False
    with pytest.raises(IsthmusError, match="return_dict = True"):
        isthmus.explain(model, picture(), "a dog", layer=1)


@pytest.mark.parametrize("where", ["vision_model.pre_layrnorm.bias", "vision_model.encoder.layers.1.mlp.fc1.weight"])
def test_damaged_weights_are_called_damaged(make_tiny: Callable[..., Any], where: str) -> None:
    tiny = make_tiny()
    with torch.no_grad():
        tiny.model.get_parameter(where).fill_(NAN)
    processor = {"image_processor": tiny.processing.of_pictures._image_processor, "tokenizer": tiny_tokenizer()}

    def loaded_and_explained() -> Any:
        return isthmus.explain(isthmus.load(tiny.model, processor=processor), picture(), "a dog")

    with pytest.raises(ModelError, match="weights are damaged"):
        loaded_and_explained()


def tiny_tokenizer() -> Any:
    from transformers import AutoTokenizer

    from isthmus.encoders.transformers import MINI

    return AutoTokenizer.from_pretrained(MINI)


class _Output:
    def __init__(self, last_hidden_state: torch.Tensor) -> None:
        self.last_hidden_state, self.hidden_states, self.attentions = last_hidden_state, None, None

    def __getitem__(self, _: int) -> torch.Tensor:
        return self.last_hidden_state
