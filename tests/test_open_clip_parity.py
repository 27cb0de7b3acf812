"""The bundled CLIP through transformers and, with the same weights, through open_clip: the maps are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from cheap import CHEAP
from conftest import EXAMPLES
from isthmus.encoders.dual import PreparedImage
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.transformers import MINI
from isthmus.methods import METHODS

open_clip = pytest.importorskip(
    "open_clip", reason="needs open_clip, which needs torchvision: pip install 'isthmus[open_clip]'"
)
from zoo_open_clip import of_today, transforms  # noqa: E402


def converted(clip: Any) -> Any:
    """transformers' CLIP as open_clip's, of the same weights."""
    seeing, reading = clip.config.vision_config, clip.config.text_config
    assert seeing.hidden_act == reading.hidden_act
    model = open_clip.CLIP(
        clip.config.projection_dim,
        {
            "layers": seeing.num_hidden_layers,
            "width": seeing.hidden_size,
            "head_width": seeing.hidden_size // seeing.num_attention_heads,
            "mlp_ratio": seeing.intermediate_size / seeing.hidden_size,
            "patch_size": seeing.patch_size,
            "image_size": seeing.image_size,
            "norm_kwargs": {"eps": seeing.layer_norm_eps},
        },
        {
            "context_length": reading.max_position_embeddings,
            "vocab_size": reading.vocab_size,
            "width": reading.hidden_size,
            "heads": reading.num_attention_heads,
            "layers": reading.num_hidden_layers,
            "mlp_ratio": reading.intermediate_size / reading.hidden_size,
            "norm_kwargs": {"eps": reading.layer_norm_eps},
        },
        quick_gelu=seeing.hidden_act == "quick_gelu",
    )
    own, eyes, words = clip.state_dict(), "vision_model.", "text_model."
    new = {
        "logit_scale": own["logit_scale"],
        "text_projection": own["text_projection.weight"].T,
        "token_embedding.weight": own[words + "embeddings.token_embedding.weight"],
        "positional_embedding": own[words + "embeddings.position_embedding.weight"],
        "visual.proj": own["visual_projection.weight"].T,
        "visual.class_embedding": own[eyes + "embeddings.class_embedding"],
        "visual.positional_embedding": own[eyes + "embeddings.position_embedding.weight"],
        "visual.conv1.weight": own[eyes + "embeddings.patch_embedding.weight"],
    }
    norms = {"ln_final": words + "final_layer_norm", "visual.ln_post": eyes + "post_layernorm"}
    norms["visual.ln_pre"] = eyes + "pre_layrnorm"
    for there, here, count in (
        ("transformer.resblocks", words + "encoder.layers", reading.num_hidden_layers),
        ("visual.transformer.resblocks", eyes + "encoder.layers", seeing.num_hidden_layers),
    ):
        for i in range(count):
            block, layer = f"{there}.{i}", f"{here}.{i}"
            norms |= {f"{block}.ln_1": f"{layer}.layer_norm1", f"{block}.ln_2": f"{layer}.layer_norm2"}
            norms |= {f"{block}.mlp.c_fc": f"{layer}.mlp.fc1", f"{block}.mlp.c_proj": f"{layer}.mlp.fc2"}
            norms[f"{block}.attn.out_proj"] = f"{layer}.self_attn.out_proj"
            for kind in ("weight", "bias"):
                parts = [own[f"{layer}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
                new[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    for there, here in norms.items():
        new |= {f"{there}.{kind}": own[f"{here}.{kind}"] for kind in ("weight", "bias")}
    model.load_state_dict(new)
    return model.eval()


@pytest.fixture(scope="module")
def two(mini: Any) -> tuple[Any, Any]:
    """The two libraries' centre crops may begin one pixel apart, so both have one set of reference pictures."""
    processor = mini.processing.of_pictures._image_processor
    preprocess = transforms(
        mini.model.config.vision_config.image_size,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    tokenizer = of_today(open_clip.tokenizer.HFTokenizer(str(MINI), context_length=77))
    other = isthmus.load(converted(mini.model), processor=(preprocess, tokenizer))
    return mini, replace(other, image=replace(other.image, reference=mini.image.reference))


PAIRS = [("dog.jpg", "a dog on the grass"), ("bear.jpg", "two brown bears at the river"), ("pizza.jpg", "a cat")]
PARITY = ["nib", "gradcam", "rise", "lime", "integrated-gradients", "chefer", "attnlrp", "grad-eclip", "textspan"]
PARITY += ["clip-surgery", "gem", "legrad", "rollout", "m2ib", "multilayer-nib"]


@pytest.mark.parametrize("method", PARITY)
def test_one_clip_has_one_map_through_both_libraries(two: tuple[Any, Any], method: str) -> None:
    """Of the largest score, or of 1: through transformers, and from the same weights through open_clip."""
    ours = METHODS[method]
    images = [_as_seen(two[0], EXAMPLES / name) for name, _ in PAIRS]
    texts = [text for _, text in PAIRS]
    options = CHEAP.get(method, {})
    first, second = (isthmus.explain(model, images, texts, method=method, **options) for model in two)
    for one, other in zip(first, second, strict=True):
        assert other.similarity == pytest.approx(one.similarity, abs=1e-5)
        if "image" in ours.sides:
            limit = 1e-4 * max(1.0, float(np.abs(one.image.scores).max()))
            np.testing.assert_allclose(other.image.scores, one.image.scores, rtol=0, atol=limit)
        if "text" in ours.sides:
            scores = [np.array([token.score for token in found.text.tokens]) for found in (one, other)]
            limit = 1e-4 * max(1.0, float(np.abs(scores[0]).max()))
            np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=limit)
            assert [word.text for word in other.text.words] == [word.text for word in one.text.words]


def _as_seen(model: Any, path: Path) -> PreparedImage:
    inputs, _, _ = model.processing.pictures([open_picture(path)])
    return PreparedImage(inputs["pixel_values"][0])


def test_pictures_are_read_alike_by_both_libraries(two: tuple[Any, Any]) -> None:
    """Where the two centre crops begin at the same pixel; else they are one pixel apart."""
    compared = 0
    for path in sorted(EXAMPLES.glob("*.jpg")):
        (first, (frame,), _), (second, (other,), _) = (model.processing.pictures([open_picture(path)]) for model in two)
        if frame.crop == other.crop:
            torch.testing.assert_close(first["pixel_values"], second["pixel_values"], rtol=0, atol=1e-5)
            compared += 1
    assert compared > 2
