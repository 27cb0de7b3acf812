"""Models of open_clip, tiny, with random weights, open_clip's own transforms and tokenizers.

`OPEN_CLIP[name]()` builds one. Nothing is downloaded, and the same call gives the same weights.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer

from zoo import random_model
from zoo_tokenizers import roberta_tokenizer, siglip_tokenizer

VERSION = tuple(int(number) for number in open_clip.version.__version__.split(".")[:2])
CONTEXT = 24


@dataclass(frozen=True)
class Made:
    """A model with what reads for it, and what is known of it.

    Attributes:
        grid: of patches, or of places behind the last block.
        depths: blocks of the image and of the text tower.
        prefix: positions before the patches.
        padding_is_read: whether a text's embedding depends on its padding.
    """

    model: Any
    preprocess: Any
    tokenizer: Any
    grid: tuple[int, int]
    depths: tuple[int, int] = (3, 3)
    prefix: int = 1
    padding_is_read: bool = False

    @property
    def processor(self) -> tuple[Any, Any]:
        return self.preprocess, self.tokenizer


def vision(**more: Any) -> dict[str, Any]:
    return {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 40, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"context_length": CONTEXT, "width": 32, "heads": 2, "layers": 3, **more}


def transforms(size: int, **more: Any) -> Any:
    return open_clip.image_transform((size, size), is_train=False, **more)


def byte_pairs() -> Any:
    return open_clip.SimpleTokenizer(context_length=CONTEXT)


def wrapped(tokenizer: Any, **options: Any) -> Any:
    """open_clip's wrapper of a fast tokenizer, which it reads from a folder."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return of_today(HFTokenizer(folder, context_length=CONTEXT, **options))


def of_today(tokenizer: Any) -> Any:
    """open_clip 2.24 calls its tokenizer by a name that transformers 5 has no more."""
    if not hasattr(tokenizer.tokenizer, "batch_encode_plus"):
        tokenizer.tokenizer.batch_encode_plus = tokenizer.tokenizer.__call__
    return tokenizer


def vit() -> Made:
    model = random_model(lambda: open_clip.CLIP(16, vision(), text(), quick_gelu=True))
    return Made(model, transforms(40), byte_pairs(), (5, 5))


def vit_mean() -> Made:
    """The mean of patches, scaled branches, a text read in both directions up to the end of its padding."""
    seeing = vision(pool_type="avg", ls_init_value=0.1, final_ln_after_pool=True)
    reading = text(no_causal_mask=True, ls_init_value=0.1)
    model = random_model(lambda: open_clip.CustomTextCLIP(16, seeing, reading))
    return Made(model, transforms(40, resize_mode="squash"), byte_pairs(), (5, 5), padding_is_read=True)


def resnet() -> Made:
    seeing = {"layers": [2, 1, 1, 1], "width": 8, "image_size": 96}
    model = random_model(lambda: open_clip.CLIP(16, seeing, text()))
    return Made(model, transforms(96), byte_pairs(), (3, 3), depths=(5, 3), prefix=0)


def of_timm(trunk: Callable[[], Any], reading: dict[str, Any], *, projected: bool) -> Any:
    """A model with a trunk of timm's, of 32 features."""

    def make() -> Any:
        model = open_clip.CustomTextCLIP(32, vision(), reading)
        model.visual = TimmModel("test_convnext", 32, pool="avg", proj="linear" if projected else "none")
        model.visual.trunk = trunk()
        if projected:
            model.visual.head.proj = type(model.visual.head.proj)(32, 32, bias=False)
        return model

    return random_model(make)


def convnext() -> Made:
    from timm.models.convnext import ConvNeXt

    def trunk() -> Any:
        return ConvNeXt(num_classes=0, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))

    model = of_timm(trunk, text(), projected=True)
    return Made(model, transforms(96, resize_mode="longest"), byte_pairs(), (3, 3), depths=(4, 3), prefix=0)


def mobileclip() -> Made:
    """MobileCLIP's FastViT, and a text read in both directions."""
    from timm.models.fastvit import FastVit

    def trunk() -> Any:
        dims = (8, 16, 32, 64)
        return FastVit(layers=(1, 1, 2, 1), embed_dims=dims, mlp_ratios=(2,) * 4, num_classes=32)

    model = of_timm(trunk, text(no_causal_mask=True), projected=False)
    pictures = transforms(96, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    return Made(model, pictures, byte_pairs(), (3, 3), depths=(4, 3), prefix=0, padding_is_read=True)


def hybrid() -> Made:
    """MobileCLIP-B's kind of ViT, whose patches are cut by several convolutions, each smaller than a patch."""
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed

    def trunk() -> Any:
        stem = ConvStem(in_chans=3, depth=2, channels=(16, 32), kernel_size=(4, 2), stride=(4, 2), padding=0)
        embed = functools.partial(HybridEmbed, backbone=stem, proj=False)
        more = {"img_size": 32, "patch_size": 1, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
        return VisionTransformer(embed_layer=embed, **more)

    return Made(of_timm(trunk, text(), projected=True), transforms(32), byte_pairs(), (4, 4))


def siglip() -> Made:
    """timm's ViT without CLS, pooled by an attention head; a text pooled at its last padding."""
    from timm.models.vision_transformer import VisionTransformer

    def trunk() -> Any:
        more = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
        return VisionTransformer(class_token=False, global_pool="map", **more)

    tokenizer = siglip_tokenizer(max_tokens=CONTEXT)
    reading = text(no_causal_mask=True, proj_bias=True, pool_type="last", vocab_size=len(tokenizer))
    model = of_timm(trunk, reading, projected=False)
    pictures = transforms(32, resize_mode="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    words = wrapped(tokenizer, clean="canonicalize")
    return Made(model, pictures, words, (4, 4), prefix=0, padding_is_read=True)


def coca() -> Made:
    """Pools the picture by attention, and the text at a class token that it appends behind the padding."""
    seeing = vision(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, output_tokens=True)
    reading = text(embed_cls=True, output_tokens=True)
    decoder = text(layers=1, attn_pooler_heads=2, n_queries=4)
    model = random_model(lambda: open_clip.CoCa(16, decoder, reading, seeing))
    return Made(model, transforms(40), byte_pairs(), (5, 5), padding_is_read=True)


def roberta() -> Made:
    from transformers import RobertaConfig

    tokenizer = roberta_tokenizer(max_tokens=CONTEXT)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=CONTEXT + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    def make() -> Any:
        model = open_clip.CustomTextCLIP(16, vision(), text())
        model.text = HFTextEncoder("", 16, config=config, pooler_type="mean_pooler", proj_type="mlp")
        return model

    return Made(random_model(make), transforms(40), wrapped(tokenizer), (5, 5))


_BUILDERS = (vit, vit_mean, resnet, convnext, mobileclip, hybrid, siglip, coca, roberta)
OPEN_CLIP: dict[str, Callable[[], Made]] = {build.__name__: functools.cache(build) for build in _BUILDERS}
