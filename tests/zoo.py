"""Every dual encoder of the installed transformers, tiny, with random weights, its own kind of tokenizer and pictures.

`ZOO[name]()` builds one. Nothing is downloaded, the same call gives the same weights, and the global random state
stays as it was. Models that the installed transformers lacks are left out of `ZOO`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Embed = Callable[[Any, Mapping[str, Tensor]], Tensor]


def features(name: str) -> Embed:
    """The model's own `get_image_features` or `get_text_features`, as `(B, D)`."""

    def embed(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        output = getattr(model, name)(**inputs)
        return output if isinstance(output, Tensor) else output.pooler_output  # transformers 4 gives the tensor

    return embed


@dataclass(frozen=True)
class Built:
    """A tiny dual encoder and what is known of it.

    Attributes:
        model: float32, in eval mode, on the CPU.
        image_processor: made of the class that the model's checkpoints use, for small pictures.
        tokenizer: a fast tokenizer of the kind that the model's checkpoints use.
        text_kwargs: what the tokenizer is called with: the processor's own defaults, else what the model's
            documentation passes (padding to the longest text, or for SigLIP to `max_length`).
        image_stack: path of the image side's list of blocks.
        text_stack: path of the text side's list of blocks; for BLIP-2 part of the image side too.
        grid: `(rows, columns)` of patches, or of positions at the end of a convolutional tower; for NaFlex the
            positions that were learnt.
        pooling_note: how the joint embedding comes from the last block, image; text.
        prefix: positions ahead of the patches (CLS and registers) at the first block.
        suffix: positions behind the patches at the first block (GroupViT's group tokens).
        processor: name of the processor class.
        loads_as: name of the class whose `from_pretrained` reads a saved folder.
        embed_image: gives the joint embedding of prepared pictures, `(B, D)`, or `(B, Q, D)` for BLIP-2.
        embed_text: gives the joint embedding of tokenised texts, `(B, D)`.
    """

    model: Any
    image_processor: Any
    tokenizer: Any
    text_kwargs: dict[str, Any]
    image_stack: str
    text_stack: str
    grid: tuple[int, int]
    pooling_note: str
    prefix: int = 1
    suffix: int = 0
    processor: str = "CLIPProcessor"
    loads_as: str = "AutoModel"
    embed_image: Embed = field(default_factory=lambda: features("get_image_features"))
    embed_text: Embed = field(default_factory=lambda: features("get_text_features"))

    def image_inputs(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        """The model's inputs of PIL pictures."""
        return dict(self.image_processor(images=list(pictures), return_tensors="pt"))

    def text_inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The model's inputs of texts, as its processor makes them."""
        return dict(self.tokenizer(list(texts), return_tensors="pt", **self.text_kwargs))

    def save(self, folder: Any) -> None:
        """Write model, tokenizer and image processor, as a checkpoint's folder has them."""
        for part in (self.model, self.tokenizer, self.image_processor):
            part.save_pretrained(folder)


def random_model(make: Callable[[], nn.Module], *, seed: int = 0) -> Any:
    """Build a model and draw all its weights anew; the global random state stays as it was.

    transformers leaves biases at zero, norms at one, and class, query and register tokens at zero, which hides
    mistakes; and some configs start with weights of 1e-10.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    with torch.no_grad():
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                _draw(module, name, weight, generator)
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0.0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.float().eval()


def _draw(module: nn.Module, name: str, weight: Tensor, generator: torch.Generator) -> None:
    if weight.ndim == 0 or name in ("logit_scale", "logit_bias", "temperature"):
        return
    if (name == "weight" and weight.ndim >= 2 and not isinstance(module, nn.Embedding)) or name == "in_proj_weight":
        gain = 1.5 if isinstance(module, nn.Conv2d) else 1.0  # gates and swish would fade a picture out
        weight.normal_(0.0, gain / math.sqrt(weight[0].numel()), generator=generator)
    elif name == "lambda1" or (name == "weight" and weight.ndim == 1):
        weight.normal_(1.0, 0.2, generator=generator)
    elif name.endswith("bias"):
        weight.normal_(0.0, 0.2, generator=generator)
    else:  # embeddings, and class, query, register, group and mask tokens
        weight.normal_(0.0, 0.5, generator=generator)


def pictures_of(kind: str, **options: Any) -> Any:
    """An image processor on Pillow: transformers 5 keeps those beside the ones on torchvision, 4 had no others."""
    import transformers

    module = {"ViT": "vit", "Bit": "bit", "OwlViT": "owlvit", "ChineseCLIP": "chinese_clip"}.get(kind, kind.lower())
    try:
        maker = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
        return getattr(maker, f"{kind}ImageProcessorPil")(**options)
    except ImportError:
        return getattr(transformers, f"{kind}ImageProcessor")(**options)


def stack_of(model: nn.Module, *paths: str) -> str:
    """The first of the paths that the model has: versions of transformers name some lists of blocks differently."""
    modules = dict(model.named_modules())
    return next(path for path in paths if path in modules)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def cropped(side: int) -> dict[str, Any]:
    """CLIP's way: the shorter side resized, then the centre cropped."""
    return {"size": {"shortest_edge": side}, "crop_size": square(side)}


# Models whose own features fail under a version: huggingface/transformers#42351.
BROKEN = {"4.57.": ("chinese_clip",)}

Builder = Callable[[], Built]
_ENTRIES: dict[str, tuple[str, Builder]] = {}


def entry(name: str, needs: str) -> Callable[[Builder], Builder]:
    """Enter a builder under a name; `needs` is the transformers class without which there is no such model."""

    def enter(build: Builder) -> Builder:
        _ENTRIES[name] = (needs, build)
        return build

    return enter


def _offered() -> dict[str, Builder]:
    import transformers

    for module in ("zoo_clip", "zoo_bert", "zoo_other"):
        importlib.import_module(module)
    broken = next((names for version, names in BROKEN.items() if transformers.__version__.startswith(version)), ())
    return {
        name: build for name, (needs, build) in _ENTRIES.items() if hasattr(transformers, needs) and name not in broken
    }


def __getattr__(name: str) -> Any:
    """`ZOO` is filled when first asked for: the modules that fill it import this one."""
    if name != "ZOO":
        raise AttributeError(name)
    globals()["ZOO"] = _offered()
    return globals()["ZOO"]
