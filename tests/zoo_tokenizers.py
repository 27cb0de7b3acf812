"""Small fast tokenizers of the kinds that dual encoders use, made with the `tokenizers` library and nothing else."""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = tuple(
    re.findall(
        r"\w+",
        "a an the of in on at by and with near photo picture two three small big brown white red dog dogs bear bears "
        "bird cat pizza laptop horses elephant grass river night table runs sits stands",
    )
)
"""Words that are one token each; everything else falls into characters or bytes."""

CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def clip_tokenizer(*, max_tokens: int, pad: str = "<|endoftext|>") -> Any:
    """CLIP's byte-level BPE: start, text, end, with the end token's id the highest of all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges("", "</w>")
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges)]
    vocabulary = _numbered([*pieces, "<|startoftext|>", "<|endoftext|>"])
    model = models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    core = Tokenizer(model)
    core.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"<\|startoftext\|>|<\|endoftext\|>|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    core.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", end), ("<|startoftext|>", start), trim_offsets=False, add_prefix_space=False
    )
    tokens = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    return _fast(core, max_tokens=max_tokens, pad_token=pad, **tokens)


def bert_tokenizer(*, max_tokens: int, token_types: bool = True) -> Any:
    """BERT's WordPiece: [CLS], text, [SEP], padded with [PAD] on the right."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [letter for letter in CHARACTERS if not letter.isupper()]
    words = [word for word in WORDS if len(word) > 1]
    vocabulary = _numbered([*special, *letters, *("##" + letter for letter in letters), *words])
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    tokens = {f"{name.lower()[1:-1]}_token": name for name in special}
    return _fast(core, max_tokens=max_tokens, model_input_names=names, **tokens)


def roberta_tokenizer(*, max_tokens: int) -> Any:
    """RoBERTa's byte-level BPE: <s>, text, </s>, padded with <pad>; a word's leading space belongs to its token."""
    merges = [*_merges("Ġ", ""), *_merges("", "")]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(map("".join, merges))]
    vocabulary = _numbered(["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"])
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return _fast(core, max_tokens=max_tokens, **_XLM)


def xlm_tokenizer(*, max_tokens: int) -> Any:
    """XLM-RoBERTa's Unigram: <s>, text, </s>, padded with <pad>."""
    core = _unigram(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], unknown=3)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _fast(core, max_tokens=max_tokens, **_XLM)


def siglip_tokenizer(*, max_tokens: int) -> Any:
    """SigLIP's Unigram: text, </s>, padded with </s>; no start, no attention mask, no punctuation."""
    core = _unigram(["<pad>", "</s>", "<unk>"], [], unknown=2)
    core.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Strip()]
    )
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return _fast(core, max_tokens=max_tokens, model_input_names=["input_ids"], **tokens)


def gemma_tokenizer(*, max_tokens: int) -> Any:
    """SigLIP 2's Gemma BPE in lower case: text, <eos>, padded with <pad>; no start, no attention mask."""
    core = _spaced_bpe(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    core.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokens = {name + "_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")}
    return _fast(core, max_tokens=max_tokens, model_input_names=["input_ids"], **tokens)


def tips_tokenizer(*, max_tokens: int) -> Any:
    """TIPS v2's SentencePiece BPE in lower case: the text alone, neither start nor end, padded with <pad>."""
    core = _spaced_bpe(["<pad>", "<unk>"])
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    return _fast(core, max_tokens=max_tokens, pad_token="<pad>", unk_token="<unk>")


_XLM = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def _unigram(first: list[str], last: list[str], *, unknown: int) -> Tokenizer:
    """Longer pieces cost less than their characters, so that whole words win."""
    pieces = [(token, 0.0) for token in first]
    pieces += [(token, -9.0) for token in ("▁", *CHARACTERS)]
    pieces += [("▁" + word, -1.0) for word in WORDS]
    core = Tokenizer(models.Unigram([*pieces, *((token, 0.0) for token in last)], unknown, False))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    return core


def _spaced_bpe(first: list[str]) -> Tokenizer:
    """BPE over characters and a visible space, with bytes for what it does not know."""
    merges = [*_merges("▁", ""), *_merges("", "")]
    symbols = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = dict.fromkeys([*symbols, "▁", *CHARACTERS, *map("".join, merges)])
    model = models.BPE(_numbered([*first, *pieces]), merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return Tokenizer(model)


def _merges(before: str, after: str) -> list[tuple[str, str]]:
    """Merges that build every word of `WORDS` from the left, with a sign before or behind it."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        symbols = [*before, *word[:-1], word[-1] + after]
        for i in range(1, len(symbols)):
            merges["".join(symbols[:i]), symbols[i]] = None
    return list(merges)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def _fast(core: Tokenizer, *, max_tokens: int, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    special = {name: AddedToken(token, special=True, normalized=False) for name, token in _tokens(options).items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=max_tokens,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        **{"model_input_names": ["input_ids", "attention_mask"], **options, **special},
    )


def _tokens(options: dict[str, Any]) -> dict[str, str]:
    return {name: token for name, token in options.items() if name.endswith("_token")}
