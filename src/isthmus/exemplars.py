"""Exemplars: which pictures of a bank lie nearest to a picture or a text (Hossain et al., 2023).

The proposal (withdrawn from ICLR 2024; OpenReview Se6aznYMHa) explains a match by the nearest training pictures in
the joint space. A bank is any set of pictures; `isthmus.explain` on a neighbour shows where the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.dual import DualEncoder
from isthmus.errors import InputError, OptionError
from isthmus.targets import embeddings_of, expanded, modality, named

_BLOCK = 1 << 22  # similarities held at once where a bank is compared with itself
_DIGITS = 6  # to which similarities are compared: beyond them they depend on how pictures were batched


@dataclass(frozen=True, eq=False)
class Bank:
    """Pictures with their unit embeddings `(N, D)`, to be asked many times: see `bank_of`.

    Attributes:
        items: the pictures as they were given, folders opened.
        sources: the path of each, "a picture" where it has none.
        embeddings: `(N, D)` unit embeddings, in float32 or better.
    """

    items: tuple[Any, ...]
    sources: tuple[str, ...]
    embeddings: Tensor

    def __len__(self) -> int:
        """N, the number of pictures."""
        return len(self.items)


@dataclass(frozen=True)
class Exemplar:
    """A picture of a bank, with its cosines with what was asked; None where it was not asked."""

    index: int
    source: str
    to_picture: float | None
    to_text: float | None


@dataclass(frozen=True)
class Neighbors:
    """The nearest pictures of a bank, nearest first.

    Attributes:
        rows: the pictures.
        similarity: cosine of the picture with the text; None where one is missing.
        support: mean cosine of `rows` with what they were ranked by. Low support means that the bank knows nothing
            like it (k nearest neighbours as a test for what is out of distribution; Sun et al., ICML 2022).
        typicality: share of the bank's own pictures that have less support among the others, from 0 (farther from the
            bank than any of its pictures) to 1; None for a text, which lies in another part of the space, and where
            the bank holds no more than k pictures.
    """

    rows: tuple[Exemplar, ...]
    similarity: float | None
    support: float
    typicality: float | None


def bank_of(model: DualEncoder, pictures: Any, *, batch_size: int = 64) -> Bank:
    """Embed a bank of pictures once, `batch_size` at a time.

    Args:
        model: a loaded model.
        pictures: see `pictures_of`; a Bank is given back.
        batch_size: pictures that are opened and run at once.

    Raises:
        InputError: no picture, or one that cannot be used.
    """
    if isinstance(pictures, Bank):
        return pictures
    whole("batch_size", batch_size)
    items = pictures_of(pictures)
    return Bank(tuple(items), named(items), embeddings_of(model, items, batch_size=batch_size)[0])


def neighbors(
    model: DualEncoder,
    bank: Any,
    image: Any = None,
    text: str | None = None,
    *,
    k: int = 5,
    truncate: bool = False,
    batch_size: int = 64,
) -> Neighbors:
    """The k pictures of a bank that are nearest to a picture, or to a text where there is no picture.

    Args:
        model: a loaded model.
        bank: pictures, see `pictures_of`, or a Bank, which is embedded already. A picture that is in the bank finds
            itself first.
        image: a picture: path, PIL image, array or PreparedImage. With it, the bank is ranked by closeness to it, and
            each row says how well that picture matches the text too.
        text: a text.
        k: how many rows, at most.
        truncate: cut a text that is longer than the model reads.
        batch_size: pictures of the bank at once.

    Returns:
        Rows by descending cosine; of pictures that are equally near (to 1e-6), the first in the bank comes first.

    Raises:
        InputError: neither picture nor text, an empty bank, or something that cannot be used.
        OptionError: k or batch_size out of range, or a Bank of another model.
    """
    whole("k", k)
    if image is None and text is None:
        raise InputError("There is nothing to find neighbours of: give a picture, a text, or both.")
    asked_picture = None if image is None else pictures_of([image])
    if asked_picture is not None and len(asked_picture) != 1:
        raise InputError(f"One picture is asked about, not {len(asked_picture)}: give folders as the bank.")
    found = bank_of(model, bank, batch_size=batch_size)
    picture = None if asked_picture is None else embeddings_of(model, asked_picture)[0][0]
    words = None if text is None else embeddings_of(model, phrases_of([text]), truncate=truncate)[0][0]
    to_picture, to_text = (None if one is None else similar(found, one) for one in (picture, words))
    ranked = to_picture if to_picture is not None else to_text
    assert ranked is not None
    order = nearest(ranked, k)
    support = float(ranked[order].mean())
    rows = tuple(
        Exemplar(i, found.sources[i], *(None if by is None else float(by[i]) for by in (to_picture, to_text)))
        for i in order.tolist()
    )
    match = None if picture is None or words is None else float(picture @ words)
    known = _supports(found.embeddings, k) if picture is not None and len(found) > k else None
    typicality = None if known is None else float((known < support).double().mean())
    return Neighbors(rows, match, support, typicality)


def similar(bank: Bank, vector: Tensor) -> Tensor:
    """`(N,)` dot products of a bank's unit embeddings with a vector `(D,)`. Raises OptionError for another width."""
    if vector.shape != bank.embeddings.shape[1:]:
        raise OptionError(
            f"The bank's embeddings have {bank.embeddings.shape[1]} dimensions, but this model's have {len(vector)}: "
            "make the bank with the same model."
        )
    return bank.embeddings @ vector.to(bank.embeddings)


def nearest(similarity: Tensor, k: int) -> Tensor:
    """Places `(min(k, N),)` of the largest of `(N,)` similarities, largest first, equal ones in their order."""
    return torch.sort(similarity.double().round(decimals=_DIGITS), descending=True, stable=True).indices[:k]


def _supports(embeddings: Tensor, k: int) -> Tensor:
    """`(N,)` mean cosine of each picture of a bank with the k nearest others."""
    size, found = max(1, _BLOCK // len(embeddings)), []
    for start in range(0, len(embeddings), size):
        cosines = embeddings[start : start + size] @ embeddings.T
        own = torch.arange(len(cosines), device=cosines.device)
        cosines[own, own + start] = -torch.inf
        found.append(cosines.topk(k, dim=-1).values.mean(-1))
    return torch.cat(found)


def pictures_of(pictures: Any) -> list[Any]:
    """Pictures as a list, folders opened: one or a list of paths, PIL images, arrays, PreparedImages, or a Bank.

    Raises:
        InputError: none, a folder without one, or something that is no picture.
    """
    if isinstance(pictures, Bank):
        return list(pictures.items)
    given = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
    items = [Path(item) if isinstance(item, str) else item for item in given]
    for item in items:
        try:
            modality(item)
        except OptionError as error:
            raise InputError(
                f"A picture is a path, a folder, a PIL image, an array or a PreparedImage, not {type(item).__name__}."
            ) from error
    if not items:
        raise InputError("There are no pictures: give some, or a folder of them.")
    return expanded(items)


def phrases_of(phrases: Any) -> list[str]:
    """Phrases as a list. Raises InputError where there is none, or one is no text."""
    given = list(phrases) if isinstance(phrases, (list, tuple)) else [phrases]
    if not given or not all(isinstance(phrase, str) for phrase in given):
        raise InputError("Phrases are a list of at least one text.")
    return given


def whole(name: str, value: Any) -> None:
    """Refuse, with an OptionError, what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}.")
