"""Swaps: does the one wrong word of a caption get the lowest score, and a negative one (METHODS 4.3)?

The truth is `Pairs.wrong`, made by `wrong_captions`. A word's score is the sum of its tokens' raw scores; signs are not
looked at but for `swap_negative`, so that a method without signs can still be ranked. A name of several words, such as
"traffic light", is one. Punctuation is left out. Sums are larger for words of several tokens, on a flat map too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Side
from isthmus.errors import InputError, OptionError
from isthmus.metrics.foils import Swap as Swap
from isthmus.metrics.foils import wrong_captions as wrong_captions
from isthmus.metrics.pairs import Judged, Pairs
from isthmus.metrics.registry import Metric, register


@dataclass(frozen=True, eq=False)
class _Words:
    """Scores of words: `wrong` `(B,)`, NaN where there is none, and `others` `(B, W)`, NaN beyond a pair's own."""

    wrong: Tensor
    others: Tensor

    @property
    def comparable(self) -> Tensor:
        """`(B,)` bool: the wrong word has a score, and there is another word."""
        return torch.isfinite(self.wrong) & torch.isfinite(self.others).any(1)


def swap_lowest(judged: Judged, side: Side) -> Tensor:
    """Whether the wrong word has the lowest score of the caption's words (after FOIL, Shekhar et al., ACL 2017).

    Returns:
        `(B,)` 1 where it has, 1/n where n words have the lowest score and it is one of them, else 0; higher is better.
        NaN where the wrong word was cut off, is the only word, or has scores that are not finite.

    Raises:
        InputError: it is not known which word is wrong, or the texts were not explained.
        OptionError: another side than the text.
    """
    found = _words(judged, side)
    wrong = found.wrong[:, None]
    tied = 1 + (found.others == wrong).sum(1)
    lowest = ~(found.others < wrong).any(1)
    return torch.where(found.comparable, lowest.double() / tied, torch.nan)


def swap_negative(judged: Judged, side: Side) -> Tensor:
    """Whether the wrong word's score is below 0: `(B,)` 1 where it is, else 0. See `swap_lowest`."""
    wrong = _words(judged, side).wrong
    return torch.where(torch.isfinite(wrong), (wrong < 0).double(), torch.nan)


def swap_rank(judged: Judged, side: Side) -> Tensor:
    """Share of the other words that score higher than the wrong one, ties counted half.

    Returns:
        `(B,)` in [0, 1], 1 where the wrong word is lowest, 0.5 by chance. See `swap_lowest`.
    """
    found = _words(judged, side)
    wrong = found.wrong[:, None]
    above = (found.others > wrong).sum(1) + 0.5 * (found.others == wrong).sum(1)
    count = torch.isfinite(found.others).sum(1)
    return torch.where(found.comparable, above.double() / count, torch.nan)


def _words(judged: Judged, side: Side) -> _Words:
    if side != "text":
        raise OptionError("A swapped word is looked for in the text: there is none in the image.")
    return judged.once("swapped words", lambda: _make_words(judged))


def _make_words(judged: Judged) -> _Words:
    scores = judged.scores("text")
    members = judged.pairs.once(("swapped words", judged.pairs.wrong), lambda: _members(judged.pairs))
    there = members.any(2)
    sums = torch.where(members, scores[:, None, :], 0.0).sum(2)
    broken = (there & ~torch.isfinite(sums)).any(1, keepdim=True)
    sums = torch.where(there & ~broken, sums, torch.nan)
    return _Words(sums[:, 0], sums[:, 1:])


def _members(pairs: Pairs) -> Tensor:
    """`(B, 1 + W, P)` which tokens make up the wrong word, first, and each other word of the caption."""
    if pairs.wrong is None:
        raise InputError("It is not known which word of each caption is wrong: give the spans, as wrong_captions does.")
    if len(pairs.wrong) != len(pairs):
        raise InputError(f"{len(pairs.wrong)} spans of wrong words for {len(pairs)} captions: give one for each.")
    layouts = pairs.layouts["text"]
    widest = max(len(layout.words) for layout in layouts)
    found = torch.zeros(len(pairs), 1 + widest, pairs.players("text").shape[1], dtype=torch.bool)
    for row, text, layout, span in zip(found, pairs.texts, layouts, pairs.wrong, strict=True):
        _fill(row, text, layout, span)
    return found


def _fill(row: Tensor, text: str, layout: TokenLayout, span: tuple[int, int]) -> None:
    """One pair of `_members`; a word of which the span holds a part is neither wrong as a whole nor another word."""
    start, end = span
    place = {piece.position: i for i, piece in enumerate(layout.pieces)}
    row[0, [i for i, piece in enumerate(layout.pieces) if piece.start < end and start < piece.end]] = True
    for slot, word in enumerate(layout.words, 1):
        apart = word.end <= start or end <= word.start
        if apart and any(letter.isalnum() for letter in text[word.start : word.end]):
            row[slot, [place[position] for position in word.positions]] = True


_PAPER = "after Shekhar et al., FOIL it!, ACL 2017"
register(Metric("swap-lowest", "Wrong word lowest", _PAPER, swap_lowest, sides=("text",), question="swap"))
register(Metric("swap-negative", "Wrong word negative", _PAPER, swap_negative, sides=("text",), question="swap"))
register(Metric("swap-rank", "Rank of the wrong word", _PAPER, swap_rank, sides=("text",), question="swap"))
