"""Names for positions: which are patches, which are words of the user's text, which are special."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import regex
import torch
from torch import Tensor

# Unicode's word boundaries (UAX #29): "don't" and "3.14" stay whole, an emoji of several code points too, and
# scripts without spaces fall apart into characters instead of becoming one word as long as the sentence.
_BOUNDARY = regex.compile(r"(?V1w)\b")


@dataclass(frozen=True)
class Piece:
    """A token of the user's text at `position`; `start` and `end` are offsets into that text."""

    position: int
    start: int
    end: int


@dataclass(frozen=True)
class Span:
    """A word of the user's text, `text[start:end]`, and the positions of its tokens."""

    start: int
    end: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class TokenLayout:
    """What each position of a tower's sequence is.

    Attributes:
        length: number of positions that are not padding; padding, if any, comes after them or before.
        grid: `(rows, columns)` of the patches, None for a text.
        patch: side of a patch in pixels of the model's input, None for a text.
        patches: position of each patch, row by row.
        pieces: tokens of the user's text, in order.
        words: words of the user's text, each with the positions of its tokens.
        special: `(name, position)` of the rest: CLS, registers, BOS, EOS.
        total: number of positions with padding, of a sequence that is always padded; else 0.
    """

    length: int
    grid: tuple[int, int] | None = None
    patch: int | None = None
    patches: tuple[int, ...] = ()
    pieces: tuple[Piece, ...] = ()
    words: tuple[Span, ...] = ()
    special: tuple[tuple[str, int], ...] = ()
    total: int = 0

    @property
    def content(self) -> tuple[int, ...]:
        """Positions of what the user gave: patches, or pieces of the text."""
        return (*self.patches, *(piece.position for piece in self.pieces))


def content_of(layouts: Sequence[TokenLayout]) -> Tensor:
    """Mask `(B, T)` of the content of a batch, whose longest input has no padding, or that is always padded."""
    last = max(max((*one.content, *(position for _, position in one.special), one.total - 1)) for one in layouts)
    mask = torch.zeros(len(layouts), last + 1, dtype=torch.bool)
    for row, one in zip(mask, layouts, strict=True):
        row[list(one.content)] = True
    return mask


def named_of(layouts: Sequence[TokenLayout]) -> Tensor:
    """Mask `(B, T)` of all that is not padding: the content of a batch and its special positions."""
    mask = content_of(layouts)
    for row, one in zip(mask, layouts, strict=True):
        row[[position for _, position in one.special]] = True
    return mask


def image_layout(
    grid: tuple[int, int], *, patch: int, special: Sequence[str] = ("CLS",), after: Sequence[str] = ()
) -> TokenLayout:
    """Layout of a vision transformer: `special` positions, patches of `patch` pixels, row by row, positions `after`."""
    first, count = len(special), grid[0] * grid[1]
    last = first + count
    return TokenLayout(
        length=last + len(after),
        grid=grid,
        patch=patch,
        patches=tuple(range(first, last)),
        special=(*((name, i) for i, name in enumerate(special)), *((name, last + i) for i, name in enumerate(after))),
    )


def text_layout(
    text: str,
    offsets: Sequence[tuple[int, ...]],
    names: Sequence[str | None],
    *,
    padding_is_read: bool = False,
    total: int = 0,
) -> TokenLayout:
    """Layout of a tokenised text.

    Args:
        text: the user's text.
        offsets: for each position the `(start, end)` of its characters in `text`; empty for special ones.
        names: for each position its name where it is special ("BOS", "EOS", "PAD"), else None.
        padding_is_read: whether the model reads its padding as it reads other positions; else it has no part.
        total: see `TokenLayout`.
    """
    pieces, special = [], []
    for position, ((start, end), name) in enumerate(zip(offsets, names, strict=True)):
        start, end = _trimmed(text, start, end)
        if name == "PAD" and not padding_is_read:
            continue
        if name is not None or start >= end:
            special.append((name or "BLANK", position))
        else:
            pieces.append(Piece(position, start, end))
    length = len(pieces) + len(special)
    return TokenLayout(length, pieces=tuple(pieces), words=_words(text, pieces), special=tuple(special), total=total)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Some tokenizers count the blank before a word to its offsets."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _words(text: str, pieces: Sequence[Piece]) -> tuple[Span, ...]:
    """Merge pieces to words; words that share a piece become one."""
    cuts = [match.start() for match in _BOUNDARY.finditer(text)]
    edges = sorted({0, len(text), *cuts})
    spans = [(a, b) for a, b in itertools.pairwise(edges) if not text[a:b].isspace()]
    groups: list[list[int]] = []  # first and last span of each group, then the positions of its pieces
    first = 0
    for piece in pieces:
        while spans[first][1] <= piece.start:
            first += 1
        last = first
        while last + 1 < len(spans) and spans[last + 1][0] < piece.end:
            last += 1
        if groups and first <= groups[-1][1]:
            groups[-1][1] = max(groups[-1][1], last)
            groups[-1].append(piece.position)
        else:
            groups.append([first, last, piece.position])
    return tuple(Span(spans[g[0]][0], spans[g[1]][1], tuple(g[2:])) for g in groups)
