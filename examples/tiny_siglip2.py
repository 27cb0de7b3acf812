"""A tiny SigLIP 2 with random weights, whose grid of patches follows the picture (NaFlex), and its processor.

It shows how such a model is explained without a network; what its maps show is chance.
"""

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Siglip2Config, Siglip2Model

LONGEST, SIDE = 64, 16
NAMES = ["<pad>", "<eos>", "<unk>", "a", "the", "of", "on", "with", "dog", "bear", "cat", "grass", "plate", "food"]
Pictures = getattr(transformers, "Siglip2ImageProcessorPil", None) or transformers.Siglip2ImageProcessor

core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(NAMES)}, unk_token="<unk>"))
core.normalizer = normalizers.Lowercase()
core.pre_tokenizer = pre_tokenizers.Whitespace()
core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core,
    model_max_length=LONGEST,
    model_input_names=["input_ids"],  # no attention mask: SigLIP reads its padding
    pad_token="<pad>",
    eos_token="<eos>",
    unk_token="<unk>",
)

size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
words = {**size, "vocab_size": len(NAMES), "max_position_embeddings": LONGEST, "projection_size": 32}
vision = {**size, "patch_size": SIDE, "num_patches": 64}
ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Siglip2Model(Siglip2Config(vision_config=vision, text_config={**words, **ids})).eval()
processor = {"image_processor": Pictures(patch_size=SIDE, max_num_patches=64), "tokenizer": tokenizer}
