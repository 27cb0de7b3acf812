"""Tiny dual encoders of CLIP's and SigLIP's kind: a ViT of their own and a text tower with position embeddings."""

from __future__ import annotations

from typing import Any

from zoo import Built, cropped, entry, pictures_of, random_model, square
from zoo_tokenizers import clip_tokenizer, gemma_tokenizer, siglip_tokenizer, tips_tokenizer, xlm_tokenizer

STACKS = {"image_stack": "vision_model.encoder.layers", "text_stack": "text_model.encoder.layers"}
CLS_ARGMAX = "CLS, post_layernorm, linear; argmax of the ids"
CLS_EOS = "CLS, post_layernorm, linear; first end token"
HEAD_LAST = "attention head with a learnt probe over all patches; last position whatever its token, linear"
LONGEST = {"padding": True}


def vision(**more: Any) -> dict[str, Any]:
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    return {**common, "image_size": 32, "patch_size": 8, **more}


def text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    common = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends["pad_token_id"] = tokenizer.pad_token_id
    return {
        **common,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        **ends,
        **more,
    }


def two_towers(model: str, config: str, tokenizer: Any, image: dict[str, Any], words: dict[str, Any]) -> Any:
    """Most models are `XModel(XConfig(vision_config, text_config))` with one width to meet at."""
    import transformers

    made = getattr(transformers, config)(vision_config=image, text_config=words, projection_dim=24)
    return random_model(lambda: getattr(transformers, model)(made))


def _clip_like(model: str, config: str, eos: int | None = None, note: str = CLS_EOS) -> Built:
    tokenizer = clip_tokenizer(max_tokens=77)
    words = text(tokenizer) if eos is None else text(tokenizer, bos_token_id=0, pad_token_id=1, eos_token_id=eos)
    built = two_towers(model, config, tokenizer, vision(), words)
    return Built(
        built, pictures_of("CLIP", **cropped(32)), tokenizer, LONGEST, grid=(4, 4), pooling_note=note, **STACKS
    )


@entry("clip", "CLIPModel")
def clip() -> Built:
    return _clip_like("CLIPModel", "CLIPConfig")


@entry("clip-eos2", "CLIPModel")
def clip_eos2() -> Built:
    """OpenAI's checkpoints: the config says `eos_token_id=2`, which means the position of the highest id."""
    return _clip_like("CLIPModel", "CLIPConfig", 2, CLS_ARGMAX)


@entry("clipseg", "CLIPSegModel")
def clipseg() -> Built:
    tokenizer = clip_tokenizer(max_tokens=77)
    words = text(tokenizer, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    model = two_towers("CLIPSegModel", "CLIPSegConfig", tokenizer, vision(), words)
    pictures = pictures_of("ViT", size=square(32))
    more = {"pooling_note": CLS_ARGMAX, "processor": "CLIPSegProcessor"}
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), **STACKS, **more)


@entry("metaclip_2", "MetaClip2Model")
def metaclip_2() -> Built:
    tokenizer = xlm_tokenizer(max_tokens=77)
    model = two_towers("MetaClip2Model", "MetaClip2Config", tokenizer, vision(), text(tokenizer))
    pictures = pictures_of("CLIP", **cropped(32))
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), pooling_note=CLS_EOS, **STACKS)


@entry("aimv2", "Aimv2Model")
def aimv2() -> Built:
    """No CLS, RMS norms, gated MLPs; the text is causal only where an attention mask is given."""
    tokenizer = clip_tokenizer(max_tokens=77)
    words = text(tokenizer)
    for absent in ("bos_token_id", "pad_token_id"):
        del words[absent]
    model = two_towers("Aimv2Model", "Aimv2Config", tokenizer, vision(), words)
    note = "attention head with a learnt query over all patches, linear; first end token"
    pictures = pictures_of("CLIP", **cropped(32))
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), pooling_note=note, prefix=0, **STACKS)


def _owl(kind: str, processor: str) -> Built:
    tokenizer = clip_tokenizer(max_tokens=16, pad="!")  # pads with an ordinary token whose id is 0
    model = two_towers(f"{kind}Model", f"{kind}Config", tokenizer, vision(), text(tokenizer))
    pictures = pictures_of(kind, size=square(32))
    more = {"pooling_note": CLS_ARGMAX, "processor": processor}
    return Built(model, pictures, tokenizer, {"padding": "max_length"}, grid=(4, 4), **STACKS, **more)


@entry("owlvit", "OwlViTModel")
def owlvit() -> Built:
    return _owl("OwlViT", "OwlViTProcessor")


@entry("owlv2", "Owlv2Model")
def owlv2() -> Built:
    """Its image processor pads below and at the right to a square, so that part of the grid shows nothing."""
    return _owl("Owlv2", "Owlv2Processor")


def _siglip(tokenizer: Any, kwargs: dict[str, Any], processor: str, resample: int) -> Built:
    from transformers import SiglipConfig, SiglipModel

    config = SiglipConfig(vision_config=vision(), text_config=text(tokenizer, hidden_size=32))
    model = random_model(lambda: SiglipModel(config))
    pictures = pictures_of("Siglip", size=square(32), resample=resample)
    more = {"pooling_note": HEAD_LAST, "processor": processor, "prefix": 0}
    return Built(model, pictures, tokenizer, kwargs, grid=(4, 4), **STACKS, **more)


@entry("siglip", "SiglipModel")
def siglip() -> Built:
    """Always padded to the end, without an attention mask: its pooled position is nearly always padding."""
    return _siglip(siglip_tokenizer(max_tokens=64), {"padding": "max_length"}, "SiglipProcessor", 3)


@entry("siglip2-fixed", "SiglipModel")
def siglip2_fixed() -> Built:
    """SigLIP 2 at a fixed resolution is a `siglip` model with Gemma's tokenizer."""
    kwargs = {"padding": "max_length", "max_length": 64, "truncation": True}
    return _siglip(gemma_tokenizer(max_tokens=64), kwargs, "SiglipProcessor", 2)


@entry("siglip2", "Siglip2Model")
def siglip2() -> Built:
    """NaFlex: patches come flat, padded to 24 behind a mask, with the grid that the picture's shape asks for."""
    from transformers import Siglip2Config, Siglip2Model

    tokenizer = gemma_tokenizer(max_tokens=64)
    eyes = vision(num_patches=16)
    del eyes["image_size"]
    config = Siglip2Config(vision_config=eyes, text_config=text(tokenizer, hidden_size=32))
    model = random_model(lambda: Siglip2Model(config))
    pictures = pictures_of("Siglip2", patch_size=8, max_num_patches=24)
    kwargs = {"padding": "max_length", "max_length": 64, "truncation": True}
    more = {"pooling_note": HEAD_LAST, "processor": "Siglip2Processor", "prefix": 0}
    return Built(model, pictures, tokenizer, kwargs, grid=(4, 4), **STACKS, **more)


@entry("tipsv2", "Tipsv2Model")
def tipsv2() -> Built:
    """CLS, two registers, no projection on either side; ViT's image processor, since its own needs torchvision."""
    from transformers import Tipsv2Config, Tipsv2Model

    tokenizer = tips_tokenizer(max_tokens=64)
    words = text(tokenizer, hidden_size=32)
    config = Tipsv2Config(vision_config=vision(mlp_ratio=2, num_register_tokens=2), text_config=words)
    model = random_model(lambda: Tipsv2Model(config))
    pictures = pictures_of("ViT", size=square(32), resample=2, do_normalize=False)
    kwargs = {"padding": "max_length", "max_length": 64, "truncation": True}
    note = "CLS, layernorm; mean of the last states over the attention mask"
    stacks = {"image_stack": "vision_model.encoder.layer", "text_stack": "text_model.encoder.layers"}
    more = {"pooling_note": note, "processor": "Tipsv2Processor", "prefix": 3}
    return Built(model, pictures, tokenizer, kwargs, grid=(4, 4), **stacks, **more)
