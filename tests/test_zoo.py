"""The zoo is what its notes say: whole, the same every time, not degenerate, and readable from a folder."""

from __future__ import annotations

import functools
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from conftest import EXAMPLES
from zoo import BROKEN, ZOO, Built

transformers.logging.set_verbosity_error()
V5 = int(transformers.__version__.split(".")[0]) >= 5
NAMES = list(ZOO)
TEXTS = ("a photo of a dog", "two brown bears near the river at night")
EACH = pytest.mark.parametrize("name", NAMES)


@functools.cache
def built(name: str) -> Built:
    return ZOO[name]()


@functools.cache
def pictures() -> list[Any]:
    return [Image.open(EXAMPLES / name).convert("RGB") for name in ("dog.jpg", "pizza.jpg")]


@functools.cache
def embeddings(name: str) -> tuple[Tensor, Tensor]:
    zoo = built(name)
    return embedded(zoo, zoo.model)


def embedded(zoo: Built, model: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        image = zoo.embed_image(model, zoo.image_inputs(pictures()))
        return image, zoo.embed_text(model, zoo.text_inputs(TEXTS))


def test_has_the_models_that_the_tool_claims() -> None:
    expected = {"clip", "clip-eos2", "siglip", "siglip2-fixed", "align", "altclip", "chinese_clip", "clipseg", "flava"}
    expected |= {"groupvit", "blip", "blip-retrieval", "blip_2", "owlvit", "owlv2"}
    expected |= {"vit-bert", "clip-roberta"}
    if hasattr(transformers, "Dinov2WithRegistersModel"):
        expected |= {"dinov2-bert"}
    if V5:
        expected |= {"siglip2", "metaclip_2", "aimv2", "tipsv2"}
    for version, names in BROKEN.items():
        expected -= set(names) if transformers.__version__.startswith(version) else set()
    assert expected <= set(NAMES)


@EACH
def test_same_weights_every_time_and_random_states_untouched(name: str) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    again = ZOO[name]().model.state_dict()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    first = built(name).model.state_dict()
    assert list(again) == list(first)
    assert all(torch.equal(again[key], first[key]) for key in first)


@EACH
def test_no_weight_is_left_at_its_start(name: str) -> None:
    """A bias of zero, a norm of one or an embedding of 1e-10 would hide mistakes."""
    model = built(name).model
    assert not model.training
    for key, weight in model.named_parameters():
        assert weight.dtype == torch.float32, key
        assert bool(torch.isfinite(weight).all()), key
        if weight.numel() > 4:
            assert weight.detach().std() > 0.02, key


@EACH
def test_embeddings_are_finite_and_tell_pictures_and_texts_apart(name: str) -> None:
    for embedding in embeddings(name):
        assert bool(torch.isfinite(embedding).all())
        first, second = embedding.flatten(1)
        assert cosine_similarity(first, second, dim=0) < 0.999
    image, text = embeddings(name)
    assert text.ndim == 2
    assert image.ndim == (3 if name == "blip_2" else 2)
    assert image.shape[-1] == text.shape[-1]


@EACH
def test_joint_embedding_is_the_models_own(name: str) -> None:
    """Against the model's own forward, which scores each picture with each text."""
    zoo = built(name)
    image, text = (normalize(embedding, dim=-1) for embedding in embeddings(name))
    both = {**zoo.text_inputs(TEXTS), **zoo.image_inputs(pictures())}
    with torch.inference_mode():
        if name == "flava":
            whole = transformers.FlavaForPreTraining(zoo.model.config)
            whole.flava = zoo.model
            logits = whole.eval()(**both, return_loss=False).contrastive_logits_per_image
            torch.testing.assert_close(logits, image @ text.T * zoo.model.logit_scale.exp())
        elif name == "blip-retrieval":
            torch.testing.assert_close(zoo.model(**both, use_itm_head=False).itm_score, image @ text.T)
        elif name == "blip_2":
            scores = zoo.model(**both).logits_per_image
            torch.testing.assert_close(scores, (image @ text.T).amax(1))
        else:
            output = zoo.model(**both)
            torch.testing.assert_close(normalize(output.image_embeds, dim=-1), image)
            torch.testing.assert_close(normalize(output.text_embeds, dim=-1), text)


@EACH
def test_padding_and_company_change_no_text(name: str) -> None:
    """Masks, padding sides and pooled positions are right: a text alone is what it is beside a longer one.

    Not so for AIMv2 with sdpa: where no position is masked, transformers leaves the causal mask to `is_causal`, which
    AIMv2's attention sets to False, so that a text without padding is read in both directions.
    """
    zoo = built(name)
    if name == "aimv2":
        zoo = ZOO[name]()
        zoo.model.set_attn_implementation("eager")
    with torch.inference_mode():
        alone, together = (zoo.embed_text(zoo.model, zoo.text_inputs(texts))[0] for texts in (TEXTS[:1], TEXTS))
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


@EACH
def test_a_saved_folder_gives_the_same_features(name: str, tmp_path: Path) -> None:
    zoo = built(name)
    zoo.save(tmp_path)
    model = getattr(transformers, zoo.loads_as).from_pretrained(tmp_path, torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    except TypeError:  # transformers 4 knows no backends
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    assert type(model) is type(zoo.model)
    assert tokenizer.is_fast
    fields = {key: getattr(zoo, key) for key in zoo.__dataclass_fields__}
    again = Built(**{**fields, "model": model, "tokenizer": tokenizer, "image_processor": processor})
    for new, old in zip(embedded(again, model), embeddings(name), strict=True):
        torch.testing.assert_close(new, old, atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(not V5, reason="processors of transformers 4 state their defaults nowhere to be read")
@pytest.mark.parametrize("name", ["align", "owlvit", "owlv2", "siglip2", "tipsv2", "blip", "blip_2"])
def test_text_is_tokenised_as_the_processor_does(name: str) -> None:
    zoo = built(name)
    defaults = getattr(transformers, zoo.processor).text_kwargs
    assert "token_type_ids" not in zoo.text_inputs(TEXTS) or defaults.get("return_token_type_ids", True)
    defaults = {key: value for key, value in defaults.items() if not key.startswith("return_")}
    assert defaults.items() <= zoo.text_kwargs.items()


@EACH
def test_every_text_input_is_one_that_the_model_reads(name: str) -> None:
    """SigLIP alone is given no attention mask; where texts are padded, the mask says where."""
    zoo = built(name)
    inputs = zoo.text_inputs(TEXTS)
    assert ("attention_mask" in inputs) == (not name.startswith("siglip"))
    if zoo.text_kwargs["padding"] == "max_length":
        assert inputs["input_ids"].shape[1] == zoo.tokenizer.model_max_length
    if "attention_mask" in inputs:
        lengths = [len(zoo.tokenizer(text)["input_ids"]) for text in TEXTS]
        assert inputs["attention_mask"].sum(1).tolist() == lengths
        assert lengths[0] < lengths[1]


@EACH
def test_blocks_are_where_the_notes_say(name: str) -> None:
    """The first block reads prefix, patches and suffix; ALIGN's last block leaves the grid."""
    zoo = built(name)
    stacks = {path: zoo.model.get_submodule(path) for path in (zoo.image_stack, zoo.text_stack)}
    shapes: dict[str, tuple[int, ...]] = {}
    for stack in stacks.values():
        assert isinstance(stack, torch.nn.ModuleList)
        assert len(stack) >= 2
        assert len({type(block) for block in stack}) == 1
    first = stacks[zoo.image_stack][0].register_forward_pre_hook(lambda _, a: shapes.update(first=tuple(a[0].shape)))
    last = stacks[zoo.image_stack][-1].register_forward_hook(lambda *a: shapes.update(last=_state(a[2]).shape))
    with torch.inference_mode():
        zoo.embed_image(zoo.model, zoo.image_inputs(pictures()))
    first.remove()
    last.remove()
    if name == "align":
        assert shapes["last"][2:] == zoo.grid
    elif name == "siglip2":
        assert shapes["first"][1] == zoo.image_processor.max_num_patches
    else:
        assert shapes["first"][1] == zoo.prefix + zoo.grid[0] * zoo.grid[1] + zoo.suffix


def _state(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@EACH
def test_every_ascii_letter_has_a_token(name: str) -> None:
    tokenizer = built(name).tokenizer
    ids = tokenizer(" ".join(string.ascii_letters + string.digits), add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert max(ids) < len(tokenizer) < 700


def test_old_and_new_end_token_convention_pool_one_position() -> None:
    """With the end token's id the highest, argmax and first end token agree: both CLIPs have the same weights."""
    for kind in ("clip", "clip-eos2", "owlvit", "groupvit"):
        tokenizer = built(kind).tokenizer
        assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert (
        built("clip").model.config.text_config.eos_token_id != built("clip-eos2").model.config.text_config.eos_token_id
    )
    assert torch.equal(embeddings("clip")[1], embeddings("clip-eos2")[1])


@pytest.mark.skipif("siglip2" not in NAMES, reason="the installed transformers has no SigLIP 2")
def test_naflex_grids_follow_the_pictures_and_are_padded() -> None:
    zoo = built("siglip2")
    wide = Image.new("RGB", (160, 40))
    inputs = zoo.image_inputs([wide, wide.rotate(90, expand=True), *pictures()])
    shapes, mask = inputs["spatial_shapes"], inputs["pixel_attention_mask"]
    assert torch.equal(shapes[0], shapes[1].flip(0))
    assert shapes[0][1] > shapes[0][0]
    assert torch.equal(mask.sum(1), shapes.prod(1).to(mask.dtype))
    assert bool((mask == 0).any())


def test_groupvit_is_the_only_one_with_group_tokens_and_stages() -> None:
    assert [name for name in NAMES if built(name).suffix] == ["groupvit"]
    stages = built("groupvit").model.vision_model.encoder.stages
    assert [len(stage.layers) for stage in stages] == [2, 1, 1]


def test_asking_for_another_name_fails() -> None:
    import zoo

    with pytest.raises(AttributeError):
        _ = zoo.ZO
