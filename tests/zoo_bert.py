"""Tiny dual encoders whose text tower is a BERT or a RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo import Built, cropped, entry, pictures_of, random_model, square, stack_of
from zoo_clip import LONGEST, text, two_towers, vision
from zoo_tokenizers import bert_tokenizer, roberta_tokenizer, xlm_tokenizer

BERT = {"image_stack": "vision_model.encoder.layers", "text_stack": "text_model.encoder.layer"}


def bert(tokenizer: Any, **more: Any) -> dict[str, Any]:
    words = text(tokenizer, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more)
    del words["bos_token_id"], words["eos_token_id"]
    return words


@entry("altclip", "AltCLIPModel")
def altclip() -> Built:
    """XLM-RoBERTa: a text's positions are counted from the padding id + 1, and padding keeps the padding's own."""
    tokenizer = xlm_tokenizer(max_tokens=64)
    words = text(tokenizer, max_position_embeddings=66, type_vocab_size=1, project_dim=40, hidden_dropout_prob=0.0)
    model = two_towers("AltCLIPModel", "AltCLIPConfig", tokenizer, vision(), words)
    roberta = "text_model.roberta.encoder."
    stacks = {**BERT, "text_stack": stack_of(model, roberta + "layers", roberta + "layer")}
    note = "CLS, post_layernorm, linear; first position, layer norm, two linears"
    more = {"pooling_note": note, "processor": "AltCLIPProcessor"}
    return Built(model, pictures_of("CLIP", **cropped(32)), tokenizer, LONGEST, grid=(4, 4), **stacks, **more)


@entry("chinese_clip", "ChineseCLIPModel")
def chinese_clip() -> Built:
    tokenizer = bert_tokenizer(max_tokens=64)
    model = two_towers("ChineseCLIPModel", "ChineseCLIPConfig", tokenizer, vision(), bert(tokenizer))
    pictures = pictures_of("ChineseCLIP", size=square(32), do_center_crop=False)

    def embed_text(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """transformers 4.57's own get_text_features projects a pooler's output that the model does not have."""
        return model.text_projection(model.text_model(**inputs).last_hidden_state[:, 0])

    note = "CLS, post_layernorm, linear; first position, linear (no pooler)"
    more = {"pooling_note": note, "processor": "ChineseCLIPProcessor", "embed_text": embed_text}
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), **BERT, **more)


@entry("align", "AlignModel")
def align() -> Built:
    """An EfficientNet: blocks of five shapes on (B, C, H, W), here down to 8 x 8; the text has a pooler, unused."""
    from transformers import AlignConfig, AlignModel

    tokenizer = bert_tokenizer(max_tokens=64)
    eyes = {
        "image_size": 64,
        "width_coefficient": 0.5,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3, 5],
        "in_channels": [32, 16, 24],
        "out_channels": [16, 24, 40],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 2, 2],
        "expand_ratios": [1, 6, 6],
        "hidden_dim": 64,
    }
    width = 24  # of the last block: 40 channels by half, rounded to eights
    config = AlignConfig(vision_config=eyes, text_config=bert(tokenizer), projection_dim=width)
    model = random_model(lambda: AlignModel(config))
    pictures = pictures_of("EfficientNet", size=square(72), crop_size=square(64), do_center_crop=True)
    stacks = {"image_stack": "vision_model.encoder.blocks", "text_stack": "text_model.encoder.layer"}
    note = "mean over the grid, no projection; first position, linear"
    kwargs = {"padding": "max_length", "max_length": 64}
    more = {"pooling_note": note, "processor": "AlignProcessor", "prefix": 0}
    return Built(model, pictures, tokenizer, kwargs, grid=(8, 8), **stacks, **more)


@entry("flava", "FlavaModel")
def flava() -> Built:
    """Its features are sequences; the joint embedding is their first position, as in its contrastive loss."""
    from transformers import FlavaConfig, FlavaModel

    tokenizer = bert_tokenizer(max_tokens=77)
    both = vision(num_hidden_layers=4)
    del both["image_size"], both["patch_size"]
    config = FlavaConfig(
        image_config=vision(vocab_size=16),
        text_config=bert(tokenizer, hidden_size=32, qkv_bias=True),
        multimodal_config=both,  # deeper than either tower, and no part of the joint embedding
        hidden_size=32,
        projection_dim=24,
        init_codebook=False,
    )
    model = random_model(lambda: FlavaModel(config))
    pictures = pictures_of("Flava", size=square(32), crop_size=square(32))
    stacks = {"image_stack": "image_model.encoder.layer", "text_stack": "text_model.encoder.layer"}
    note = "layernorm, linear at every position, of which the first (CLS); the same"
    more = {"pooling_note": note, "processor": "FlavaProcessor"}
    more |= {"embed_image": _first("get_image_features"), "embed_text": _first("get_text_features")}
    kwargs = {"padding": "max_length", "max_length": 77}
    return Built(model, pictures, tokenizer, kwargs, grid=(4, 4), **stacks, **more)


def _first(name: str) -> Any:
    def embed(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        output = getattr(model, name)(**inputs)
        return (output if isinstance(output, Tensor) else output.pooler_output)[:, 0]

    return embed


def _pair(eyes: Any, words: Any, tokenizer: Any, pictures: Any, note: str, prefix: int = 1) -> Built:
    from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    config = VisionTextDualEncoderConfig.from_vision_text_configs(eyes, words, projection_dim=24)
    model = random_model(lambda: VisionTextDualEncoderModel(config))
    more = {"pooling_note": note + "; first position, dense, tanh, linear", "prefix": prefix}
    more["processor"] = "VisionTextDualEncoderProcessor"
    ends = ("layers", "encoder.layers", "encoder.layer", "vision_model.encoder.layers")
    paths = ["vision_model." + end for end in ends]
    stacks = {"image_stack": stack_of(model, *paths), "text_stack": "text_model.encoder.layer"}
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), **stacks, **more)


@entry("vit-bert", "VisionTextDualEncoderModel")
def vit_bert() -> Built:
    from transformers import BertConfig, ViTConfig

    tokenizer = bert_tokenizer(max_tokens=64)
    pictures = pictures_of("ViT", size=square(32))
    note = "CLS, layernorm, dense, tanh, linear"
    return _pair(ViTConfig(**vision()), BertConfig(**bert(tokenizer)), tokenizer, pictures, note)


@entry("clip-roberta", "VisionTextDualEncoderModel")
def clip_roberta() -> Built:
    from transformers import CLIPVisionConfig, RobertaConfig

    tokenizer = roberta_tokenizer(max_tokens=64)
    words = bert(tokenizer, max_position_embeddings=66, type_vocab_size=1)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    pictures = pictures_of("CLIP", **cropped(32))
    note = "CLS, post_layernorm, linear"
    return _pair(CLIPVisionConfig(**vision()), RobertaConfig(**words, **ends), tokenizer, pictures, note)


@entry("dinov2-bert", "Dinov2WithRegistersModel")
def dinov2_bert() -> Built:
    from transformers import BertConfig, Dinov2WithRegistersConfig

    tokenizer = bert_tokenizer(max_tokens=64)
    eyes = vision(mlp_ratio=2, num_register_tokens=4)
    pictures = pictures_of("Bit", **cropped(32))
    config = Dinov2WithRegistersConfig(**eyes)
    return _pair(config, BertConfig(**bert(tokenizer)), tokenizer, pictures, "CLS, layernorm, linear", prefix=5)
