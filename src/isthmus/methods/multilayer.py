"""NIB with gates at several layers of one network at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.memory import in_chunks, rows_at_once
from isthmus.encoders.tower import Inputs, Tower, accumulator
from isthmus.encoders.weights import lock_of
from isthmus.errors import ModelError, OptionError
from isthmus.methods.closed import closed_state
from isthmus.methods.path import StraightPath
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.slope import positions_of, score_of, slope


def multilayer_nib(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layers: Sequence[float] | None = None,
    steps: int | str = 10,
    rule: str | None = None,
    closed: str = "mean",
    floor: float | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    memory: int | None = None,
) -> Attribution:
    """NIB (ICLR 2025) with one gate g for several layers k of one network, each of which narrows what reaches it.

    Where `h_k(g)` enters block k, `z_k = c_k + g (h_k(g) - c_k)` goes on. The score's slope is the sum over the gates
    of `df/dz_k * (h_k(g) - c_k)`, so that position i gets the integral of its share in all of them, and

        sum over layers and positions of A_ki = f(open) - f(closed)

    exactly, up to the quadrature's error. A node costs one pass however many gates there are.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layers: the gated layers, at least one, each the block whose input is gated (0 to depth - 1, negative from the
            end, or a fraction of the depth); default a quarter, a half and three quarters of the depth.
        steps, rule, tolerance, limit: as in `nib`.
        closed: "mean" (of the reference set at each layer), "floor" or "zero", at every gate.
        floor: what "floor" leaves of the features, by default 0.1.
        memory: budget in bytes.

    Returns:
        Signed scores, summed over the layers.

    Raises:
        OptionError: no such layer, or one named twice.
        ModelError: a convolutional tower, whose layers differ in their grids.
    """
    gated = _quarters(tower) if layers is None else _resolved(tower, layers)
    split = tower.split(inputs, gated[0])
    if split.hidden.ndim == 4:
        raise ModelError(
            f"The {tower.side} tower is convolutional, and its layers have grids of several sizes that do not add up: "
            "choose nib, which gates one layer."
        )
    closing, used = closed_state(split, closed, floor)
    if used["closed"] == "tensor":
        raise OptionError('closed must be "mean", "floor" or "zero" where there are several layers.')
    means = {k: tower.mean_state(k) for k in gated[1:]} if closed == "mean" else {}
    path = _GatedPath(split, closing, target, memory, layers=gated, means=means, left=used.get("floor", 0.0))
    rule = ("adaptive" if steps == "auto" else "gauss-legendre-cubic") if rule is None else rule
    return path.integrate({"layers": gated, **used}, steps=steps, rule=rule, tolerance=tolerance, limit=limit)


def _quarters(tower: Tower) -> tuple[int, ...]:
    """A quarter, a half and three quarters of the depth, of which a shallow tower may have but one or two."""
    return tuple(sorted({min(tower.depth - 1, round(share * tower.depth)) for share in (0.25, 0.5, 0.75)}))


def _resolved(tower: Tower, layers: Any) -> tuple[int, ...]:
    if not isinstance(layers, (list, tuple)) or not layers:
        raise OptionError(f"layers must be a list of at least one layer, not {layers!r}.")
    found = sorted(tower.resolve(layer) for layer in layers)
    if found[-1] == tower.depth:
        raise OptionError(f"layers ends behind the last block: give blocks, 0 to {tower.depth - 1}.")
    if len(set(found)) < len(found):
        raise OptionError(f"layers names block {max(found, key=found.count)} twice: give each once.")
    return tuple(found)


@dataclass
class _Gates:
    """The states behind the gates of one run, and their slope by the gate, `h_k - c_k`."""

    states: list[Tensor] = field(default_factory=list)
    changes: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _GatedPath(StraightPath):
    """A path whose later gates depend on the earlier ones; `closing` is the first gate's closed state."""

    layers: tuple[int, ...] = ()
    means: Mapping[int, Tensor] = field(default_factory=dict)
    left: float = 0.0

    def slopes(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `StraightPath.slopes`; summed over the gates."""
        hidden, dtype = self.split.hidden, accumulator(self.split.embedding.dtype)
        gates, rows = gates.to(hidden.device, dtype), rows.to(hidden.device)
        found = torch.empty(len(rows), positions_of(self.split), device=hidden.device, dtype=dtype)
        scores = torch.empty(len(rows), device=hidden.device, dtype=dtype)

        def run(part: slice) -> None:
            state, change = self._first(gates[part], rows[part])
            with self._gated(gates[part]) as seen:

                def behind_gates(first: Tensor) -> list[Tensor]:
                    return [first, *seen.states]

                gradients, scores[part] = slope(self.split, state, rows[part], self.target, behind_gates)
            parts = zip(gradients, [change, *seen.changes], strict=True)
            found[part] = torch.stack([(gradient * change).sum(-1) for gradient, change in parts]).sum(0)

        in_chunks(run, len(rows), rows_at_once(self.split, self.memory))
        return found, scores

    def ends(self) -> tuple[Tensor, Tensor]:
        """Scores `(B,)` with all gates closed, and open."""
        hidden = self.split.hidden
        both = torch.empty(2, len(hidden), device=hidden.device, dtype=accumulator(self.split.embedding.dtype))

        def run(part: slice) -> None:
            rows = torch.arange(part.start, part.stop, device=hidden.device)
            for gate, found in enumerate(both):
                gates = torch.full((len(rows),), float(gate), device=hidden.device, dtype=both.dtype)
                state, _ = self._first(gates, rows)
                with self._gated(gates):
                    found[part] = score_of(self.split, state, rows, self.target.to(hidden.device))

        with torch.no_grad():
            in_chunks(run, len(hidden), rows_at_once(self.split, self.memory))
        return both[0], both[1]

    def _first(self, gates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        closing = self.closing[rows]
        change = self.split.hidden[rows].to(closing.dtype) - closing
        return (closing + gates[:, None, None] * change).to(self.split.hidden.dtype), change

    @contextmanager
    def _gated(self, gates: Tensor) -> Iterator[_Gates]:
        """Within it, a run of the tower passes the later gates, and what lies behind them is kept."""
        seen, blocks, turned = _Gates(), self.split.tower.blocks, self.split.tower.turned

        def gate(layer: int) -> Any:
            def narrow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                if layer == self.layers[1]:
                    seen.states.clear()
                    seen.changes.clear()
                hidden = turned(args[0] if args else kwargs["hidden_states"])
                wide = hidden.to(gates.dtype)
                closing = self.means[layer].to(wide).expand_as(wide) if layer in self.means else self.left * wide
                state = (closing + gates[:, None, None] * (wide - closing)).to(hidden.dtype)
                seen.states.append(state)
                seen.changes.append((wide - closing).detach())
                state = turned(state)
                return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

            return narrow

        with lock_of(self.split.tower.model), ExitStack() as stack:
            for layer in self.layers[1:]:
                stack.callback(blocks[layer].register_forward_pre_hook(gate(layer), with_kwargs=True).remove)
            yield seen


register(
    Method(
        name="multilayer-nib",
        title="Narrowing Information Bottleneck, several layers",
        paper="Isthmus; after Zhu et al., ICLR 2025 (arXiv:2502.14889)",
        function=multilayer_nib,
        options={
            "layers": "the blocks whose inputs are gated, by default a quarter, half and three quarters of the depth",
            "steps": 'nodes of the integral, or "auto" to add them until the delta is under the tolerance',
            "rule": "gauss-legendre, gauss-legendre-cubic, gauss-legendre-sinh or right",
            "closed": "the closed state at every gate: mean, floor or zero",
            "floor": 'what the closed state "floor" leaves of the features',
            "tolerance": 'largest relative delta with steps="auto"',
            "limit": 'most nodes with steps="auto"',
            "memory": "memory budget in bytes",
        },
        complete=True,
        needs_fit=("image", "text"),
        passes=("3 + n", "n"),
    )
)
