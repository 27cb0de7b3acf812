"""Turns texts into the inputs of a text tower, and says which position is which token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout, text_layout
from isthmus.encoders.tokens import Tokens
from isthmus.encoders.tower import Inputs
from isthmus.encoders.weights import lock_of, moved
from isthmus.errors import InputError


class TextReader:
    """A transformers fast tokenizer, called as a model was trained with it, or a user's own.

    Args:
        tokenizer: a fast tokenizer, since words need character offsets, or `Tokens`.
        max_tokens: positions that the text tower has.
        device: where the inputs go.
        masked: whether the model is told which positions are padding.
        always_padded: whether texts are padded to `max_tokens`, not to the longest; a model that is not told then
            reads padding as it reads any other position.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        device: torch.device,
        masked: bool = True,
        always_padded: bool = False,
    ) -> None:
        """Keep the parts; see the class."""
        self._tokenizer, self._device = tokenizer, device
        self._max_tokens = min(max_tokens, tokenizer.model_max_length)
        self._masked, self._always_padded = masked, always_padded

    def texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        """Token ids, their layouts, and a note where a text was cut or is cut off."""
        with lock_of(self._tokenizer):  # a fast tokenizer keeps padding and truncation as its state
            return self._texts(texts, truncate=truncate)

    def _texts(self, texts: Sequence[str], *, truncate: bool) -> tuple[Inputs, list[TokenLayout], list[str]]:
        full = [self._encode(text) for text in texts]
        notes = [
            length_note(text, len(ids), self._max_tokens, truncate=truncate)
            for text, ids in zip(texts, full, strict=True)
        ]
        batch = self._tokenizer(
            list(texts),
            padding="max_length" if self._always_padded else True,
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        layouts = [self._layout(text, i, batch) for i, text in enumerate(texts)]
        for i, (text, layout) in enumerate(zip(texts, layouts, strict=True)):
            check_pieces(text, layout)
            early = self._early_end(layout, batch["input_ids"][i])
            notes[i] = "; ".join(filter(None, (notes[i], early)))
        names = ("input_ids", "attention_mask") if self._masked else ("input_ids",)
        return {name: moved(batch[name], self._device) for name in names}, layouts, notes

    def _encode(self, text: str) -> list[int]:
        check_text(text)
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        return ids

    def _layout(self, text: str, row: int, batch: Any) -> TokenLayout:
        seen: set[str | None] = set()
        names: list[str | None] = []
        for token, special, kept in zip(
            batch["input_ids"][row].tolist(),
            batch["special_tokens_mask"][row].tolist(),
            batch["attention_mask"][row].tolist(),
            strict=True,
        ):
            name = None if kept and not special else "PAD" if not kept else self._special_name(token, seen)
            seen.add(name)
            names.append(name)
        offsets = [tuple(o) for o in batch["offset_mapping"][row].tolist()]
        total = len(names) if self._always_padded else 0
        return text_layout(text, offsets, names, padding_is_read=self._always_padded and not self._masked, total=total)

    def _special_name(self, token: int, seen: set[str | None]) -> str:
        if isinstance(self._tokenizer, Tokens):
            return "EOS" if None in seen else "BOS"
        if token == self._tokenizer.bos_token_id and "BOS" not in seen:
            return "BOS"
        if token == self._tokenizer.eos_token_id:
            return "EOS"
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def _early_end(self, layout: TokenLayout, ids: Tensor) -> str:
        """CLIP reads a text only up to its first end-of-text id, which unknown characters may bear too."""
        ends = [p.start for p in layout.pieces if int(ids[p.position]) == self._tokenizer.eos_token_id]
        if not ends or not self._masked:
            return ""
        return f"the model stops reading at character {ends[0]}, which it takes for the end of the text"


def check_text(text: Any) -> None:
    """Raise InputError where a text cannot be used."""
    if not isinstance(text, str):
        raise InputError(f"A text must be a string, not {type(text).__name__}.")
    if not text.strip():
        raise InputError("The text is empty: give at least one word.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"The text {short(text)} is not valid Unicode: save it as UTF-8.") from error


def check_pieces(text: str, layout: TokenLayout) -> None:
    """Raise InputError where a tokenizer found nothing in a text."""
    if not layout.pieces:
        raise InputError(f"The text {short(text)} is empty for this model: give at least one word.")


def length_note(text: str, count: int, most: int, *, truncate: bool) -> str:
    """What to say of a text of `count` tokens where a model reads `most`. Raises InputError where it may not be cut."""
    if count > most and not truncate:
        raise InputError(
            f"The text {short(text)} has {count} tokens with its start and end, but the model reads at most {most}: "
            "shorten it, or pass truncate=True (--truncate)."
        )
    return f"cut from {count} to {most} tokens" if count > most else ""


def short(text: str) -> str:
    """A text as errors quote it."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two embeddings are the same but for rounding."""
    error = (one.float() - other.float()).norm() / one.float().norm()
    return bool(error < (0.02 if one.dtype in (torch.float16, torch.bfloat16) else 1e-3))
