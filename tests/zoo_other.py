"""Tiny dual encoders that fit no pattern: GroupViT, BLIP and BLIP-2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo import Built, cropped, entry, pictures_of, random_model, square
from zoo_bert import bert
from zoo_clip import LONGEST, text, vision
from zoo_tokenizers import bert_tokenizer, clip_tokenizer

BLIP_STACK = "vision_model.encoder.layers"


@entry("groupvit", "GroupViTModel")
def groupvit() -> Built:
    """Three stages with lists of blocks of their own; after a stage the patches are gone, into groups."""
    from transformers import GroupViTConfig, GroupViTModel

    tokenizer = clip_tokenizer(max_tokens=77)
    eyes = vision(depths=[2, 1, 1], num_group_tokens=[6, 3, 0], num_output_groups=[6, 3, 3], num_hidden_layers=4)
    words = text(tokenizer, bos_token_id=0, pad_token_id=1, eos_token_id=2)
    width = {"projection_dim": 24, "projection_intermediate_dim": 48}
    config = GroupViTConfig(vision_config=eyes, text_config=words, **width)
    model = random_model(lambda: GroupViTModel(config))
    stacks = {"image_stack": "vision_model.encoder.stages.0.layers", "text_stack": "text_model.encoder.layers"}
    note = "mean over the last stage's groups, MLP with batch norm; argmax of the ids, MLP with batch norm"
    more = {"pooling_note": note, "prefix": 0, "suffix": 6}
    return Built(model, pictures_of("CLIP", **cropped(32)), tokenizer, LONGEST, grid=(4, 4), **stacks, **more)


def _blip(model: str) -> tuple[Any, Any, Any]:
    import transformers

    tokenizer = bert_tokenizer(max_tokens=64, token_types=False)
    words = bert(tokenizer, bos_token_id=1, sep_token_id=tokenizer.sep_token_id)
    shape = {"projection_dim": 24, "image_text_hidden_size": 24}
    config = transformers.BlipConfig(vision_config=vision(), text_config=words, **shape)
    return random_model(lambda: getattr(transformers, model)(config)), pictures_of("Blip", size=square(32)), tokenizer


@entry("blip", "BlipModel")
def blip() -> Built:
    """Its text blocks carry cross-attention that a text alone leaves unused; post_layernorm is applied twice."""
    model, pictures, tokenizer = _blip("BlipModel")
    note = "post_layernorm twice on CLS, linear; first position, dense, tanh, linear"
    stacks = {"image_stack": BLIP_STACK, "text_stack": "text_model.encoder.layer"}
    more = {"pooling_note": note, "processor": "BlipProcessor"}
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), **stacks, **more)


@entry("blip-retrieval", "BlipForImageTextRetrieval")
def blip_retrieval() -> Built:
    """The class of BLIP's contrastive checkpoints, which offers no features: they are taken apart by hand."""
    model, pictures, tokenizer = _blip("BlipForImageTextRetrieval")

    def embed_image(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        return model.vision_proj(model.vision_model(**inputs).last_hidden_state[:, 0])

    def embed_text(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        return model.text_proj(model.text_encoder(**inputs).last_hidden_state[:, 0])

    stacks = {"image_stack": BLIP_STACK, "text_stack": "text_encoder.encoder.layer"}
    note = "CLS, post_layernorm, linear; first position, linear (no pooler)"
    more = {"pooling_note": note, "processor": "BlipProcessor", "loads_as": "BlipForImageTextRetrieval"}
    more |= {"embed_image": embed_image, "embed_text": embed_text}
    return Built(model, pictures, tokenizer, LONGEST, grid=(4, 4), **stacks, **more)


@entry("blip_2", "Blip2ForImageTextRetrieval")
def blip_2() -> Built:
    """An image has an embedding per query token; its score with a text is the greatest of their cosines."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, OPTConfig

    tokenizer = bert_tokenizer(max_tokens=64, token_types=False)
    former = bert(tokenizer, use_qformer_text_input=True, num_hidden_layers=4, cross_attention_frequency=2)
    unused = OPTConfig(
        vocab_size=8, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1, word_embed_proj_dim=8
    )
    shape = {"num_query_tokens": 5, "image_text_hidden_size": 24}
    config = Blip2Config(vision_config=vision(), qformer_config=former, text_config=unused.to_dict(), **shape)
    model = random_model(lambda: Blip2ForImageTextRetrieval(config))

    def embed_image(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        seen = model.vision_model(**inputs).last_hidden_state
        queries = model.query_tokens.expand(len(seen), -1, -1)
        asked = model.qformer(query_embeds=queries, encoder_hidden_states=seen)
        return model.vision_projection(asked.last_hidden_state)

    def embed_text(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        words = model.embeddings(input_ids=inputs["input_ids"])
        read = model.qformer(query_embeds=words, query_length=0, attention_mask=inputs["attention_mask"])
        return model.text_projection(read.last_hidden_state[:, 0])

    stacks = {"image_stack": BLIP_STACK, "text_stack": "qformer.encoder.layer"}
    note = (
        "one vector per query of the Q-Former over all positions, linear; first position of the same Q-Former, linear"
    )
    more = {"pooling_note": note, "processor": "Blip2Processor", "loads_as": "Blip2ForImageTextRetrieval"}
    more |= {"embed_image": embed_image, "embed_text": embed_text}
    return Built(model, pictures_of("Blip", size=square(32)), tokenizer, LONGEST, grid=(4, 4), **stacks, **more)
