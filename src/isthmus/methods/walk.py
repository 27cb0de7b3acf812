"""Walks from an input towards where the model decides otherwise: paths, classes, bounds and slopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.split import Entrance
from isthmus.encoders.tower import accumulator, unit
from isthmus.entering import gathered
from isthmus.errors import OptionError
from isthmus.methods.slope import positions_of

_ALIKE = 0.9999  # cosine from which on an item of the bank is the target itself
_NORMALISED = 100.0  # the published code's factor between the two kinds of step
_BAND = 1e-3  # of the largest gradient: under it the sign fades to 0, so that rounding cannot turn a step around
_HALF_SCALES = (1024.0, 1.0)  # in half precision small gradients round off to zero, and large ones overflow

# Takes states `(n, ...)`, the paths they are on `(n,)` and the number of the step; gives the next states, the gradients
# that count, and which of the paths go on `(n,)`.
Advance = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Walk:
    """Paths of states, each of one of the inputs, that start at the input.

    Attributes:
        entrance: what enters.
        owners: `(P,)` the input that each path belongs to.
        layouts: what each position is.
        steps: most steps of a path.
        memory: budget in bytes.
    """

    entrance: Entrance
    owners: Tensor
    layouts: Sequence[TokenLayout]
    steps: int
    memory: int | None

    def follow(self, advance: Advance) -> tuple[Tensor, Tensor]:
        """Scores `(P, T)`, minus the sum of change times gradient, and the steps taken `(P,)`; those at an end rest."""
        hidden, positions = self.entrance.hidden, positions_of(self.entrance)
        dtype = accumulator(self.entrance.embedding.dtype)
        scores = torch.empty(len(self.owners), positions, device=hidden.device, dtype=dtype)
        taken = torch.empty(len(self.owners), device=hidden.device, dtype=torch.long)

        def run(part: slice) -> None:
            scores[part], taken[part] = 0, 0
            paths = torch.arange(part.start, part.stop, device=hidden.device)
            state = hidden[self.owners[paths]].to(accumulator(hidden.dtype))
            for number in range(self.steps):
                after, gradient, on = advance(state, paths, number)
                state, after, gradient, paths = (x[on] for x in (state, after, gradient, paths))
                if not len(paths):
                    break
                rows = self.owners[paths]
                scores[paths] -= gathered((after - state) * gradient, self.layouts, rows, positions).to(dtype)
                taken[paths] += 1
                state = after

        in_chunks(run, len(self.owners), rows_at_once(self.entrance, self.memory))
        return scores, taken


@dataclass(frozen=True, eq=False)
class Classes:
    """The target of each input, class 0, and the items of the bank, classes 1 to M.

    Attributes:
        embedding: `(B, D)` unit embeddings of the inputs.
        target: `(B, D)`.
        bank: `(M, D)`.
        out: `(B, M)` bool: items that are the target itself.
        scale: of the cosines.
        coarse: the model runs in half precision.
    """

    embedding: Tensor
    target: Tensor
    bank: Tensor
    out: Tensor
    scale: float
    coarse: bool

    @classmethod
    def of(cls, entrance: Entrance, target: Tensor, bank: Tensor, scale: float) -> Classes:
        """Raises OptionError where the bank has no other item than the target, or another width."""
        embedding = unit(entrance.embedding)
        target = target.to(embedding)
        if bank.ndim != 2 or bank.shape[1] != target.shape[1]:
            raise OptionError(
                f"The bank has shape {tuple(bank.shape)}, not (items, {target.shape[1]}): give embeddings."
            )
        bank = bank.to(embedding)
        out = unit(target) @ unit(bank).T > _ALIKE
        if not len(bank) or bool(out.all(1).any()):
            raise OptionError("The bank must hold an item other than the target: give more of them.")
        return cls(embedding, target, bank, out, scale, entrance.embedding.dtype in (torch.float16, torch.bfloat16))

    @property
    def open(self) -> Tensor:
        """`(B,)` scores of the unchanged inputs."""
        return (self.embedding * self.target).sum(-1)

    @property
    def notes(self) -> tuple[tuple[str, ...], ...]:
        """For each input, whether the bank has the better of the target from the start, and doubts of its path."""
        logits = self.logits(self.embedding, torch.arange(len(self.target), device=self.target.device))
        lost = (logits[:, 0] < logits[:, 1:].amax(1)).tolist()
        coarse = ("rounding in half precision may turn the path: use float32",) * self.coarse
        return tuple(
            (*("an item of the bank is more probable than the target from the start",) * one, *coarse) for one in lost
        )

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Numbers `(B, K)` of the bank's classes most similar to each input, and which of them count."""
        similar = (self.embedding @ self.bank.T).masked_fill(self.out, -torch.inf)
        order = torch.argsort(similar, dim=1, descending=True, stable=True)[:, :count]
        return order + 1, ~self.out.gather(1, order)

    def logits(self, found: Tensor, rows: Tensor) -> Tensor:
        """`(N, 1 + M)` of unit embeddings `(N, D)` of inputs `rows`."""
        others = (found @ self.bank.T).masked_fill(self.out[rows], -torch.inf)
        return self.scale * torch.cat([(found * self.target[rows]).sum(-1, keepdim=True), others], 1)

    def towards(self, logits: Tensor, one: Tensor, rows: Tensor) -> Tensor:
        """Gradients `(N, D)` of the probabilities of classes `one` `(N,)` by the unit embedding.

        `p (1 - p) scale (c - sum of q_m c_m)` with q the softmax over the other classes: p (1 - p) from the log odds,
        since beside p = 1 the difference would be rounded off.
        """
        mine = logits.gather(1, one[:, None])
        others = logits.scatter(1, one[:, None], -torch.inf)
        odds = mine - others.logsumexp(1, keepdim=True)
        share = others.softmax(1) - torch.zeros_like(logits).scatter(1, one[:, None], 1.0)
        change = share[:, :1] * self.target[rows] + share[:, 1:] @ self.bank
        return -self.scale * odds.sigmoid() * (-odds).sigmoid() * change


@dataclass(frozen=True, eq=False)
class Room:
    """Where paths may go, for B inputs.

    Attributes:
        range: `(B, ...)` the range of what enters, which broadcasts to it: the unit of lengths.
        low, high: `(B, ...)` bounds; None where there are none.
        content: `(B, T, 1)` what may change of a text; None for pixels.
    """

    range: Tensor
    low: Tensor | None
    high: Tensor | None
    content: Tensor | None

    @classmethod
    def of(cls, entrance: Entrance, layouts: Sequence[TokenLayout], epsilon: float | None) -> Room:
        """The room for what enters; `epsilon` ranges around it, where given."""
        values = entrance.hidden.to(accumulator(entrance.hidden.dtype))
        limits, content = entrance.tower.limits, None
        if entrance.tower.lookup is not None:
            content, limits = content_of(layouts).to(values.device)[..., None], None
            highest = values.masked_fill(~content, -torch.inf).amax((1, 2), keepdim=True)
            span = highest - values.masked_fill(~content, torch.inf).amin((1, 2), keepdim=True)
        else:
            one = values[:, :1] if values.ndim == 3 else values[:, :, :1, :1]  # of all patches, or of all pixels
            span = torch.ones_like(one) if limits is None else (limits[1] - limits[0]).to(values).expand_as(one)
        low = None if epsilon is None else values - epsilon * span
        high = None if epsilon is None else values + epsilon * span
        if limits is not None:
            # An input that lies outside stays there: it may not be pulled in against the slope.
            black, white = (limit.to(values) for limit in limits)
            low = torch.minimum(black, values) if low is None else torch.maximum(low, torch.minimum(black, values))
            high = torch.maximum(white, values) if high is None else torch.minimum(high, torch.maximum(white, values))
        return cls(span, low, high, content)

    def free(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """A gradient of inputs `rows` without what may not change."""
        return gradient if self.content is None else gradient * self.content[rows]

    def direction(self, gradient: Tensor, rows: Tensor, *, step: str) -> Tensor:
        """A step of size one up a gradient; signs fade out within `_BAND` of zero."""
        span = self.range[rows]
        if step == "sign":
            return span * (_over_largest(gradient.flatten(1))[0] / _BAND).clamp(-1, 1).view(gradient.shape)
        return _NORMALISED * span * _unit_and_length((span * gradient).flatten(1))[0].view(gradient.shape)

    def held(self, state: Tensor, rows: Tensor) -> Tensor:
        """States of inputs `rows`, brought back within the bounds."""
        low = None if self.low is None else self.low[rows]
        high = None if self.high is None else self.high[rows]
        return state if low is None and high is None else state.clamp(low, high)


@dataclass(frozen=True, eq=False)
class Pass:
    """A run of the tower on states, ready to be differentiated more than once.

    Attributes:
        leaf: `(N, ...)` the states.
        found: `(N, D)` their unit embeddings, in float32 or better.
        scales: by which gradients are multiplied on their way, the next one where one overflows.
    """

    leaf: Tensor
    found: Tensor
    scales: tuple[float, ...]

    @classmethod
    def of(cls, entrance: Entrance, state: Tensor, rows: Tensor) -> Pass:
        """Run states of inputs `rows`."""
        leaf = state.to(entrance.hidden.dtype, copy=True).requires_grad_(True)
        with torch.enable_grad():
            found = unit(entrance.resume(leaf, rows))
        return cls(leaf, found, _HALF_SCALES if entrance.embedding.dtype == torch.float16 else (1.0,))

    def slope(self, towards: Tensor) -> Tensor:
        """Gradients by the states of functions with gradients `towards` `(N, D)` by the embeddings.

        Directions of length one are pulled back, so that a probability that is almost certain keeps its direction.
        """
        direction, length = _unit_and_length(towards)
        shape = (-1, *[1] * (self.leaf.ndim - 1))
        gradient = torch.full_like(self.leaf, torch.nan, dtype=self.found.dtype)
        for scale in self.scales:
            (new,) = torch.autograd.grad(self.found, self.leaf, scale * direction, retain_graph=True)
            good = torch.isfinite(gradient).flatten(1).all(1)
            gradient = torch.where(good.view(shape), gradient, new.to(gradient) / scale)
            if bool(torch.isfinite(gradient).all()):
                break
        return gradient * length.view(shape)


def _over_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """`(N, D)` values divided by the largest of their row, and that `(N, 1)`; zeros stay."""
    largest = values.abs().amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return values / largest, largest


def _unit_and_length(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `(N, D)` of length one, and their lengths `(N, 1)`, also where their squares would round off to zero."""
    within, largest = _over_largest(values)
    size: Tensor = torch.linalg.vector_norm(within, dim=1, keepdim=True).clamp(min=1)  # 0 of zeros, else at least 1
    return within / size, largest * size
