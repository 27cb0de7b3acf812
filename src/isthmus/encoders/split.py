"""Split and Entrance: a tower cut at a layer, or opened at its inputs, ready to go on from replacements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isthmus.encoders.cut import entered, resumed
from isthmus.encoders.still import undisturbed
from isthmus.errors import OptionError

if TYPE_CHECKING:
    from isthmus.encoders.tower import Inputs, Tower


@dataclass(frozen=True, eq=False)
class Split:
    """A tower run up to a layer for a batch of inputs, ready to go on from replaced hidden states.

    Attributes:
        hidden: `(B, T, d)` the state that enters block `layer`.
        embedding: `(B, D)` the tower's own output, not normalised.
    """

    tower: Tower
    inputs: Inputs
    layer: int
    hidden: Tensor
    embedding: Tensor
    stem: Tensor | None
    as_tuple: bool

    def resume(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """Run the model's remaining layers on replacements of the hidden state.

        Args:
            hidden: `(N, T, d)` replacements; gradients flow to them where they ask for it.
            rows: `(N,)` which input each replacement belongs to; by default they run through the batch in
                turn, so `N = B x nodes` with the node first.

        Returns:
            `(N, D)` embeddings, not normalised.
        """
        if rows is None:
            rows = torch.arange(len(hidden), device=hidden.device) % len(self.hidden)
        with undisturbed(self.tower.model), resumed(self, hidden, rows):
            return self.tower.run(self._expanded(rows), replaced=hidden)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input's state inside the tower: `(T, d)`, or `(C, H, W)` in a convolutional tower."""
        return tuple(self.hidden.shape[1:])

    @property
    def _of_a_grid(self) -> bool:
        return self.hidden.ndim == 4

    def _expanded(self, rows: Tensor) -> dict[str, Any]:
        def expand(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim == 0:
                return value
            if name == self.tower.stem_input and self._of_a_grid:
                return value[:1]  # blocks before the cut are left out, and a grid brings its own batch
            if name == self.tower.stem_input and self.stem is not None:
                return value[:1].expand(len(rows), *value.shape[1:])  # its stem is skipped: only the shape counts
            return value[rows]

        return {name: expand(name, value) for name, value in self.inputs.items()}


@dataclass(frozen=True, eq=False)
class Entrance(Split):
    """A tower uncut, ready to run on replacements of what enters it.

    Attributes:
        hidden: `(B, 3, H, W)` pixels as the model takes them, or `(B, T, d)` vectors of the tokens.
        inside: shape of one input's state at layer 0.
        appended: how many positions at the end the tower itself appends; their vectors are 0 and are not read.
    """

    inside: torch.Size
    appended: int = 0

    @property
    def _of_a_grid(self) -> bool:
        return False  # of pixels, all of which are read

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input's state inside the tower."""
        return tuple(self.inside)

    def resume(self, hidden: Tensor, rows: Tensor | None = None, *, attended: Tensor | None = None) -> Tensor:
        """Run the whole tower on replacements `(N, ...)` of `hidden`; see `Split.resume`.

        Args:
            hidden, rows: as in `Split.resume`.
            attended: `(N, T)` bool: False takes a position out of the attention mask.
        """
        if rows is None:
            rows = torch.arange(len(hidden), device=hidden.device) % len(self.hidden)
        inputs = self._expanded(rows)
        if attended is not None:
            if not isinstance(inputs.get("attention_mask"), Tensor):
                raise OptionError(f"The {self.tower.side} tower takes no attention mask: choose another replacement.")
            inputs["attention_mask"] = inputs["attention_mask"] * attended.to(inputs["attention_mask"])
        if self.tower.lookup is None:
            inputs[self.tower.stem_input] = hidden
        vectors = hidden[:, : -self.appended] if self.appended else hidden
        with undisturbed(self.tower.model), entered(self.tower, vectors):
            return self.tower.run(inputs, replaced=hidden)
