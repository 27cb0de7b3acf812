"""Tokens of a user's own tokenizer, in the form in which transformers' fast tokenizers give theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.errors import OptionError

Token = tuple[int, int, int]


class Tokens:
    """Wraps a function from a text to its tokens `(id, start, end)`.

    Tokens without characters (`start == end`) are special: ahead of the text BOS, behind it EOS. A text that is cut
    keeps those behind it.

    Args:
        tokenize: the function.
        pad: id of padding.
        padding_side: "right" or "left".
    """

    model_max_length = 1 << 30
    bos_token_id = eos_token_id = None

    def __init__(
        self, tokenize: Callable[[str], Sequence[Token]], *, pad: int = 0, padding_side: str = "right"
    ) -> None:
        """Keep the parts; see the class."""
        if padding_side not in ("right", "left"):
            raise OptionError(f'padding_side must be "right" or "left", not {padding_side!r}.')
        self._tokenize, self._pad, self._left = tokenize, pad, padding_side == "left"

    def __call__(self, text: str | Sequence[str], **options: Any) -> dict[str, Any]:
        """The ids of one text as a list, or a padded batch of several as tensors."""
        if isinstance(text, str):
            return {"input_ids": [token[0] for token in self._tokens(text)]}
        most = int(options["max_length"])
        rows = [_cut(self._tokens(one), most) for one in text]
        width = most if options["padding"] == "max_length" else max(map(len, rows))
        return {
            "input_ids": self._padded([[i for i, _, _ in row] for row in rows], width, self._pad),
            "attention_mask": self._padded([[1] * len(row) for row in rows], width, 0),
            "special_tokens_mask": self._padded([[int(a == b) for _, a, b in row] for row in rows], width, 1),
            "offset_mapping": torch.stack(
                [
                    self._padded([[a for _, a, _ in row] for row in rows], width, 0),
                    self._padded([[b for _, _, b in row] for row in rows], width, 0),
                ],
                dim=-1,
            ),
        }

    def _tokens(self, text: str) -> list[Token]:
        try:
            found = [(int(i), int(start), int(end)) for i, start, end in self._tokenize(text)]
        except (TypeError, ValueError) as error:
            raise OptionError(
                "The tokenizer must give a list of (id, start, end) for a text, three whole numbers for each token."
            ) from error
        if any(not 0 <= start <= end <= len(text) for _, start, end in found):
            raise OptionError("The tokenizer gives a token characters that the text does not have: mend its offsets.")
        starts = [start for _, start, end in found if start < end]
        if starts != sorted(starts):
            raise OptionError("The tokenizer gives tokens out of order: give them in the order of their characters.")
        return found

    def _padded(self, rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
        blanks = [[value] * (width - len(row)) for row in rows]
        padded = [[*blank, *row] if self._left else [*row, *blank] for row, blank in zip(rows, blanks, strict=True)]
        return torch.tensor(padded, dtype=torch.long)


def _cut(tokens: list[Token], most: int) -> list[Token]:
    """At most so many tokens; special ones at the end stay."""
    end = len(tokens)
    while end and tokens[end - 1][1] == tokens[end - 1][2]:
        end -= 1
    behind = tokens[end:]
    return tokens if len(tokens) <= most else [*tokens[: max(0, most - len(behind))], *behind]
