"""Reads texts with open_clip's own tokenizers, and says which position is which part of the user's text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout, text_layout
from isthmus.encoders.texts import check_pieces, check_text, length_note, short
from isthmus.encoders.tower import Inputs
from isthmus.encoders.traced import Extent, extents
from isthmus.encoders.weights import lock_of, moved
from isthmus.errors import ModelError, OptionError


@dataclass(frozen=True)
class Tokens:
    """A text's own tokens, of any number: their ids, and their places in the text; `special` are added to them."""

    ids: list[int]
    places: list[Extent]
    special: int


class BytePairs:
    """open_clip's SimpleTokenizer, CLIP's byte pairs, which has no offsets."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self._tokenizer = tokenizer
        self.start, self.end, self.pad = tokenizer.sot_token_id, tokenizer.eot_token_id, 0

    def tokens(self, text: str) -> Tokens:
        """See `Tokens`."""
        own, ids, places = self._tokenizer, list[int](), list[Extent]()
        cleaned = own.clean_fn(text)
        where = extents(text, cleaned)
        for match in own.pat.finditer(cleaned):
            characters = [match.start() + i for i, one in enumerate(match.group()) for _ in one.encode()]
            for piece in own.bpe("".join(own.byte_encoder[byte] for byte in match.group().encode())).split(" "):
                size = len(piece.removesuffix("</w>"))
                ids.append(own.encoder[piece])
                places.append((where[characters[0]][0], where[characters[size - 1]][1]))
                characters = characters[size:]
        return Tokens(ids, places, 2)

    def name(self, token: int) -> str:
        """A special token's name."""
        return {self.start: "BOS", self.end: "EOS"}.get(token, str(self._tokenizer.decoder.get(token, token)))


class Wrapped:
    """open_clip's HFTokenizer or SigLipTokenizer, which clean a text and give it to a fast tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self._inner = tokenizer.tokenizer
        module = sys.modules[type(tokenizer).__module__]
        self._clean: Callable[[str], str] = getattr(tokenizer, "clean_fn", None) or module.get_clean_fn("canonicalize")
        self._last = getattr(tokenizer, "tokenizer_mode", "") == "clips"  # it appends a class token behind the padding
        self.end, self.pad = self._inner.eos_token_id, self._inner.pad_token_id

    def tokens(self, text: str) -> Tokens:
        """See `Tokens`."""
        cleaned = self._clean(text)
        where = [*extents(text, cleaned), (len(text), len(text))]
        found = self._inner(cleaned, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        places = [(where[a][0], where[b - 1][1]) if a < b else (0, 0) for a, b in found["offset_mapping"]]
        whole = 3 if self._last else len(self._inner(cleaned, verbose=False)["input_ids"]) - len(places)
        return Tokens(list(found["input_ids"]), places, whole)

    def name(self, token: int) -> str:
        """A special token's name."""
        known = {self._inner.cls_token_id: "CLS", self._inner.bos_token_id: "BOS"}
        known |= {self._inner.sep_token_id: "EOS", self._inner.eos_token_id: "EOS"}
        return known.get(token) or str(self._inner.convert_ids_to_tokens(token))


def tokens_of(tokenizer: Any) -> BytePairs | Wrapped:
    """What tells the pieces of a tokenizer of open_clip.

    Raises:
        OptionError: it is none, or it wraps one without offsets.
    """
    if all(hasattr(tokenizer, name) for name in ("bpe", "pat", "byte_encoder", "clean_fn")):
        return BytePairs(tokenizer)
    if getattr(getattr(tokenizer, "tokenizer", None), "is_fast", False):
        return Wrapped(tokenizer)
    raise OptionError("The tokenizer must be one that open_clip.get_tokenizer gives, with a fast one if it wraps any.")


class OpenClipTexts:
    """A tokenizer of open_clip, called as open_clip calls it: every text is padded to one length.

    Args:
        tokenizer: gives ids.
        length: positions of the ids.
        device: where they go.
        appended: how many positions the tower itself appends.
        padding_is_read: whether padding changes a text's embedding.
    """

    def __init__(
        self, tokenizer: Any, *, length: int, device: torch.device, appended: int = 0, padding_is_read: bool = True
    ) -> None:
        """Keep the parts; see the class."""
        self._tokenizer, self._told, self._length = tokenizer, tokens_of(tokenizer), length
        self._device, self._appended, self._padding_is_read = device, appended, padding_is_read

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """Token ids, their layouts, and a note where a text was cut or is cut off."""
        for text in texts:
            check_text(text)
        with lock_of(self._tokenizer):  # it keeps what it has seen, and a fast one its padding
            ids = self._tokenizer(list(texts), context_length=self._length)
            tokens = [self._told.tokens(text) for text in texts]
        notes = [
            length_note(text, len(one.ids) + one.special, self._length, truncate=truncate)
            for text, one in zip(texts, tokens, strict=True)
        ]
        layouts = [self._layout(*given) for given in zip(texts, ids.tolist(), tokens, strict=True)]
        for i, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
            check_pieces(text, layout)
            notes[i] = "; ".join(filter(None, (notes[i], self._early_end(layout, ids[i]))))
        return {"input_ids": moved(ids, self._device)}, layouts, notes

    def _layout(self, text: str, ids: list[int], tokens: Tokens) -> TokenLayout:
        kept = min(len(tokens.ids), self._length - tokens.special)
        starts = (n for n in range(self._length) if ids[n : n + kept] == tokens.ids[:kept])
        first = next(starts, None)
        if first is None:
            raise ModelError(
                f"The tokenizer gives other tokens for {short(text)} than it tells the pieces of: make it without "
                "options that draw or mask tokens."
            )
        names = [None if first <= n < first + kept else self._name(ids, n, first + kept) for n in range(len(ids))]
        names += ["CLS"] * self._appended
        places = [(0, 0)] * first + tokens.places[:kept] + [(0, 0)] * (len(names) - first - kept)
        return text_layout(
            text, places, names, padding_is_read=self._padding_is_read, total=self._length + self._appended
        )

    def _name(self, ids: list[int], position: int, behind: int) -> str:
        """A text's end may bear the same id as the padding after it."""
        if ids[position] == self._told.pad and not (position == behind and ids[position] == self._told.end):
            return "PAD"
        return self._told.name(ids[position])

    def _early_end(self, layout: TokenLayout, ids: Tensor) -> str:
        """CLIP reads a text only up to its first end-of-text id, which a user can write too."""
        ends = [piece.start for piece in layout.pieces if int(ids[piece.position]) == self._told.end]
        if not ends or self._padding_is_read or not isinstance(self._told, BytePairs):
            return ""
        return f"the model stops reading at character {ends[0]}, which it takes for the end of the text"
