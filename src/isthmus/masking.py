"""Scores of many masked copies of a pair: one engine for the methods that take parts away, and for metrics.

A mask keeps or takes away positions: 1 keeps what is there, 0 puts the replacement, values between mix the two.
Special positions (CLS, BOS, EOS, registers, padding) always stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from isthmus.encoders.counting import count_shared
from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.sharing import digests_of
from isthmus.encoders.split import Entrance
from isthmus.encoders.tower import Inputs, Tower, accumulator, unit
from isthmus.entering import replaced, size_of, spread

_FORWARD_ALONE = 8  # without gradients the activations of one block are held at a time, not those of all
_CPU_PICTURES = (
    64  # beyond this a processor's caches overflow: a quarter slower (ViT-B/32 shapes, float32 and bfloat16)
)


@dataclass(frozen=True, eq=False)
class Masking:
    """One side of a batch of B inputs, ready to be masked.

    Attributes:
        entrance: what enters the tower; `entrance.embedding` is that of the unmasked inputs.
        layouts: what each position of each input is.
        replacement: what stands where something was taken away, of the entrance's shape; None takes positions out of
            the attention mask.
        memory: budget in bytes.
    """

    entrance: Entrance
    layouts: Sequence[TokenLayout]
    replacement: Tensor | None
    memory: int | None = None

    @property
    def content(self) -> Tensor:
        """`(B, T)` bool: the positions that a mask can take away."""
        return content_of(self.layouts)

    @property
    def positions(self) -> int:
        """T, the number of positions that a mask has."""
        return self.content.shape[1]

    def embeddings(self, keep: Tensor, rows: Tensor) -> Tensor:
        """Unit embeddings `(N, D)` of masked copies, without gradient, in float32 or better.

        Args:
            keep: `(N, T)` in [0, 1], what is kept of each position; or `(N, H, W)` of each pixel, where the rows are
                of pictures of one size.
            rows: `(N,)` the input that each copy is made of.
        """
        device = self.entrance.hidden.device
        keep, rows = keep.to(device), rows.to(device)
        first = self._first_alike(keep, rows)
        once, back = torch.unique(first, return_inverse=True)
        if len(once) < len(rows):
            count_shared(len(rows) - len(once))
            return self._embeddings(keep[once], rows[once])[back]
        return self._embeddings(keep, rows)

    def _embeddings(self, keep: Tensor, rows: Tensor) -> Tensor:
        device, width = rows.device, self.entrance.embedding.shape[1]
        found = torch.empty(len(rows), width, device=device, dtype=accumulator(self.entrance.embedding.dtype))

        def run(part: slice) -> None:
            found[part] = unit(self._run(keep[part], rows[part]))

        at_once = rows_at_once(self.entrance, self.memory).times(_FORWARD_ALONE)
        if device.type == "cpu" and self.entrance.tower.lookup is None:
            at_once = at_once.at_most(_CPU_PICTURES)
        with torch.no_grad():
            in_chunks(run, len(rows), at_once)
        return found

    def _first_alike(self, keep: Tensor, rows: Tensor) -> Tensor:
        """`(N,)` the place of each copy, or where another input is the same and has the same masks, of that one's."""
        found = torch.arange(len(rows), device=rows.device)
        for row, same in enumerate(self._first_equal):
            if same == row:
                continue
            own, other = (rows == row).nonzero()[:, 0], (rows == same).nonzero()[:, 0]
            if len(own) == len(other) and torch.equal(keep[own], keep[other]):
                found[own] = other
        return found

    @cached_property
    def _first_equal(self) -> list[int]:
        """For each input the first that equals it, as one picture with many texts does."""
        given = [value for value in self.entrance.inputs.values() if isinstance(value, Tensor) and value.ndim]
        beside = [] if self.replacement is None else [self.replacement]
        keys = [*zip(*map(digests_of, (self.entrance.hidden, *given, *beside)), strict=True)]
        return [keys.index(key) for key in keys]

    def scores(self, keep: Tensor, rows: Tensor, target: Tensor) -> Tensor:
        """`(N,)` scores of masked copies, see `embeddings`, with targets `(B, D)` of the unmasked inputs."""
        found = self.embeddings(keep, rows)
        return (found * target.to(found)[rows.to(found.device)]).sum(-1)

    def open(self, target: Tensor) -> Tensor:
        """`(B,)` scores of the unmasked inputs."""
        found = unit(self.entrance.embedding)
        return (found * target.to(found)).sum(-1)

    def _run(self, keep: Tensor, rows: Tensor) -> Tensor:
        values = self.entrance.hidden[rows]
        if self.replacement is None:
            content = self.content.to(rows.device)[rows]
            return self.entrance.resume(values, rows, attended=(keep > 0.5) | ~content)
        share = self._share(keep, rows).to(values.dtype)
        return self.entrance.resume(torch.lerp(self.replacement[rows].to(values.dtype), values, share), rows)

    def _share(self, keep: Tensor, rows: Tensor) -> Tensor:
        """What is kept, of the shape of what enters, or of one that broadcasts to it."""
        if self.entrance.tower.lookup is not None:
            return keep[..., None]
        layout = self.layouts[int(rows[0])]
        values = self.entrance.hidden
        if keep.ndim == 3:
            return spread(keep, layout, values)
        if values.ndim == 3:
            first = layout.patches[0]
            return keep[:, first : first + values.shape[1], None]
        assert layout.grid is not None, "a picture has a grid"
        patches = keep[:, list(layout.patches)].view(len(keep), 1, *layout.grid)
        large = nn.functional.interpolate(patches.float(), size=size_of(layout), mode="nearest")
        height, width = values.shape[-2:]
        return nn.functional.pad(large, (0, width - large.shape[-1], 0, height - large.shape[-2]), value=1.0)


def masking(
    tower: Tower,
    inputs: Inputs,
    layouts: Sequence[TokenLayout],
    *,
    replacement: str | Tensor = "mean",
    memory: int | None = None,
) -> Masking:
    """Make one side ready to be masked.

    Args:
        tower, inputs: the side, B inputs.
        layouts: what each position of each input is.
        replacement: see `isthmus.entering.replaced`; for a text also "remove", which takes tokens out of the
            attention mask.
        memory: budget in bytes.

    Raises:
        OptionError: no such replacement.
    """
    entrance = tower.enter(inputs)
    removed = isinstance(replacement, str) and replacement == "remove" and tower.lookup is not None
    return Masking(entrance, layouts, None if removed else replaced(entrance, layouts, replacement), memory)


def masked_scores(image: Masking, text: Masking, image_masks: Tensor, text_masks: Tensor) -> Tensor:
    """Cosines `(B, K, L)` of B pairs, each masked in all ways, with K + L passes a pair.

    Args:
        image, text: the two sides of the pairs.
        image_masks: `(B, K, T)`, or `(B, K, H, W)`.
        text_masks: `(B, L, T)`.
    """
    return torch.einsum("bkd,bld->bkl", _all_copies(image, image_masks), _all_copies(text, text_masks))


def _all_copies(side: Masking, masks: Tensor) -> Tensor:
    batch, count = masks.shape[:2]
    rows = torch.arange(batch).repeat_interleave(count)
    return side.embeddings(masks.flatten(0, 1), rows).view(batch, count, -1)
