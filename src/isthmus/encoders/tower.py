"""Tower: one side of a dual encoder, and how it is cut at a layer.

A tower is cut, not re-implemented: the model's own code runs up to the cut once, and again from the cut on any
batch of replacements, so masks, position ids, pooling and projections stay the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isthmus.encoders.counting import count, uncounted
from isthmus.encoders.cut import Seen, recorded
from isthmus.encoders.naming import blocks_of, module_of
from isthmus.encoders.parts import Attention
from isthmus.encoders.sharing import Same, States, keep_once, known_once, run_once
from isthmus.encoders.split import Entrance, Split
from isthmus.encoders.still import undisturbed
from isthmus.encoders.weights import device_of, differentiable, lock_of, version_of
from isthmus.errors import ModelError, OptionError

Side = Literal["image", "text"]
Inputs = Mapping[str, Any]

_HALF = {torch.float16, torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Tower:
    """One side of a dual encoder: a stack of blocks between an embedding and a pooled, projected output.

    Attributes:
        side: "image" or "text".
        model: the module whose mode and parameters are held still while the tower runs.
        encode: the model's own code from inputs to joint-space embeddings, `(B, D)`, not normalised.
        owner, stack: the module that runs the blocks, and the name of its `ModuleList` or `Sequential` of blocks; or
            the paths from it to each of the blocks, in the order in which they run.
        stem: module and attribute name of the embedding that only reads `stem_input`, where running it on every
            replacement would be dear (the patch convolution); None runs it.
        stem_input: the name of the input that only the stem reads.
        lookup: module and attribute name of the embedding that turns token ids into vectors, before positions are
            added; None where pixels enter, which are then the input named `stem_input`.
        limits: `(3, 1, 1)` lowest and highest values of the pixels that enter, `(values,)` where they are cut into
            patches already; None where they are not known.
        sequence_first: whether states pass the blocks as `(T, B, d)`; everywhere else they are `(B, T, d)`.
        attention: where the self-attention of a block is: an `Attention`, or the name of a module whose maps are called
            as CLIP's; None where blocks have none that can be read.
        blocks: the stack of blocks; `in_sequence` where it is a `Sequential`.
        autocast: the type in which matrix products run while the weights keep theirs; None leaves both alike.
        reference: makes batches of the reference set's inputs, each with a mask `(B, T)` of the positions that
            count in its mean state; None where there is no such set.
    """

    side: Side
    model: nn.Module
    encode: Callable[[Inputs], Tensor]
    owner: nn.Module
    stack: str | tuple[str, ...]
    stem: tuple[nn.Module, str] | None = None
    stem_input: str = ""
    lookup: tuple[nn.Module, str] | None = None
    limits: tuple[Tensor, Tensor] | None = None
    attention: Attention | str | None = "self_attn"
    sequence_first: bool = False
    reference: Callable[[], Iterable[tuple[Inputs, Tensor]]] | None = None
    autocast: torch.dtype | None = None
    blocks: nn.ModuleList | nn.Sequential = field(init=False, repr=False)
    in_sequence: bool = field(init=False, repr=False)
    _proved: set[tuple[Any, ...]] = field(default_factory=set, repr=False)
    _means: dict[int | str | None, tuple[Any, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Keep the whole stack: while another thread resumes, the owner holds another one."""
        if not callable(self.encode):
            raise OptionError(f"encode of a tower must be a function from inputs to embeddings, not {self.encode!r}.")
        with lock_of(self.model):
            found = blocks_of(self.owner, self.stack)
            for what, place in (("stem", self.stem), ("lookup", self.lookup)):
                if place is not None:
                    module_of(*place, what)
        object.__setattr__(self, "in_sequence", isinstance(found, nn.Sequential))
        object.__setattr__(self, "blocks", found)
        if isinstance(self.attention, str):
            object.__setattr__(self, "attention", Attention.named(self.attention))

    def turned(self, state: Tensor) -> Tensor:
        """A state of the blocks with the batch first, `(B, T, d)`; and such a one as the blocks take it."""
        return state.transpose(0, 1) if self.sequence_first and state.ndim == 3 else state

    @property
    def depth(self) -> int:
        """Number of blocks; `layer=k` is the state that enters block k, `layer=depth` leaves the last."""
        return len(self.blocks)

    def resolve(self, layer: float) -> int:
        """Turn a layer as users give it (negative: from the end; fractional: relative depth) into `0..depth`.

        Raises:
            OptionError: the tower has no such layer.
        """
        if isinstance(layer, bool) or not isinstance(layer, Real):
            raise OptionError(f"layer must be a whole number or a fraction of the depth, not {layer!r}.")
        if not isinstance(layer, Integral) and layer == 1:
            raise OptionError("layer=1.0 may be block 1 or the whole depth: give 1, or -1 for the last block's output.")
        if not float(layer).is_integer():
            if not 0 < layer < 1:
                raise OptionError(f"layer={layer} is no depth: a fraction must lie between 0 and 1.")
            return round(float(layer) * self.depth)
        index = int(layer) + (self.depth + 1 if layer < 0 else 0)
        if not 0 <= index <= self.depth:
            raise OptionError(
                f"layer={layer} is out of range: the {self.side} tower has {self.depth} blocks, so give "
                f"0 to {self.depth}, -1 to -{self.depth + 1}, or a fraction."
            )
        return index

    def embed(self, inputs: Inputs, *, cut: float | None = None) -> Tensor:
        """Joint-space embeddings `(B, D)`, not normalised, without gradient. Raises ModelError if not finite.

        Args:
            inputs: see `split`.
            cut: the layer at which the call is going to split these inputs, as far as that is known: what enters it is
                kept, so that the tower need not run there again.
        """
        inputs = _ordinary(inputs)

        def run(inputs: Inputs) -> States:
            with undisturbed(self.model), torch.no_grad(), recorded(self, index) as seen:
                embedding = self._finite(self.run(inputs))
            if seen.hidden is not None and index is not None and len(seen.hidden) == len(embedding):
                state = seen.hidden, embedding, seen.stem, seen.as_tuple
                keep_once(partial(self._key, ("split", index)), inputs, state, watched=self.model)
            return embedding, seen.as_tuple

        index = self._index(cut)
        embedding: Tensor = self.once("embed", inputs, run)[0]
        return embedding

    def _index(self, cut: float | None) -> int | None:
        """Where a cut is that is only hoped for; None where there is no such layer, or nothing to gain."""
        with suppress(OptionError):
            return None if cut is None else self.resolve(cut) or None
        return None

    def run(self, inputs: Inputs, *, replaced: Tensor | None = None) -> Tensor:
        """The model's own code, `encode`, its passes counted; gradients flow where its inputs ask for them."""
        device = device_of(self.model).type
        cast = nullcontext() if self.autocast is None else torch.autocast(device, dtype=self.autocast)
        with cast:
            embedding = self.encode(inputs)
        if not isinstance(embedding, Tensor) or embedding.ndim != 2:
            given = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
            raise ModelError(f"encode of the {self.side} tower must give embeddings of shape (batch, D), not {given}.")
        count(embedding)
        if embedding.requires_grad:
            self._check_slopes(embedding)
        elif replaced is not None and replaced.requires_grad and torch.is_grad_enabled():
            raise ModelError(
                f"encode of the {self.side} tower gives no gradient: leave out torch.no_grad() and detach() in it, or "
                "choose a method without gradients, such as occlusion, rise or shapley."
            )
        return embedding

    def split(self, inputs: Inputs, layer: float) -> Split:
        """Run the tower once, without gradient, and keep the state that enters block `layer`.

        Args:
            inputs: what the model's own forward takes; every tensor has the batch first.
            layer: the cut, see `resolve`.

        Raises:
            OptionError: no such layer.
            ModelError: the model's output is not finite, or cannot be resumed from this cut.
        """
        index, inputs = self.resolve(layer), _ordinary(inputs)

        def run(inputs: Inputs) -> States:
            seen, embedding = self._seen(inputs, index)
            if seen.hidden is None:
                raise ModelError(
                    f"The {self.side} tower never ran block {index} of its stack: give the model as it is before "
                    "torch.compile or any other wrapping."
                )
            if len(seen.hidden) != len(embedding):
                raise ModelError(
                    f"Block {index} of the {self.side} tower reads a state of shape {tuple(seen.hidden.shape)} for a "
                    f"batch of {len(embedding)}: blocks must take the batch first (batch_first=True)."
                )
            return seen.hidden, embedding, seen.stem, seen.as_tuple

        split = Split(self, inputs, index, *self.once(("split", index), inputs, run))
        self._prove(split)
        return split

    def enter(self, inputs: Inputs) -> Entrance:
        """Run the tower once, without gradient, and keep what enters it: pixels, or the vectors of the tokens.

        Raises:
            ModelError: the model's output is not finite, or the tower does not say where its vectors come from.
        """
        inputs = _ordinary(inputs)
        if self.lookup is None and self.stem_input not in inputs:
            raise ModelError(
                f"This {self.side} tower names neither its pixels nor its embedding of tokens: give isthmus.Tower a "
                "stem_input or a lookup, or choose a method that explains a layer."
            )

        def run(inputs: Inputs) -> States:
            seen, embedding = self._seen(inputs, 0)
            if seen.hidden is None or (self.lookup is not None and seen.vectors is None):
                raise ModelError(f"The {self.side} tower never looked its tokens up: name the module that it uses.")
            return seen.vectors, embedding, seen.hidden.shape[1:]

        vectors, embedding, inside = self.once("enter", inputs, run)
        values = inputs[self.stem_input] if self.lookup is None else vectors
        appended = 0 if self.lookup is None else inside[0] - values.shape[1]
        values = nn.functional.pad(values, (0, 0, 0, appended)) if appended else values
        return Entrance(self, inputs, 0, values, embedding, None, False, inside, appended)

    def _seen(self, inputs: Inputs, layer: int) -> tuple[Seen, Tensor]:
        """What a run shows of a layer, and the embeddings; where this call knows them, the run ends at the layer."""
        known = known_once(partial(self._key, "embed"), inputs, watched=self.model)
        with undisturbed(self.model), torch.no_grad(), recorded(self, layer, stop=known is not None) as seen:
            embedding = self._finite(self.run(inputs))
        if known is None:
            return seen, embedding
        embedding, seen.as_tuple = known
        count(embedding)
        return seen, embedding

    def once(self, kind: Hashable, inputs: dict[str, Any], run: Callable[[Inputs], States]) -> States:
        """A run, once in a call for each input; see `isthmus.encoders.sharing`."""
        return run_once(partial(self._key, kind), inputs, run, watched=self.model)

    def _key(self, kind: Hashable) -> Hashable:
        """What a run of this tower depends on, beside its inputs."""
        ends = ((Same(end[0]), end[1]) if end else None for end in (self.stem, self.lookup))
        cut = Same(self.owner), self.stack, self.stem_input, *ends
        return kind, Same(self.encode), cut, self.autocast, version_of(self.model)

    def mean_state(self, layer: int | None) -> Tensor:
        """Mean hidden state `(d,)` of the reference set's patches or words at a layer, see `reference_states`."""
        return self._fitted(layer, lambda: self.reference_states(layer).mean(0))

    def reference_states(self, layer: int | None) -> Tensor:
        """Hidden states `(N, d)` of all patches, places of a grid, or words of the reference set, in float32 or better.

        Args:
            layer: the cut; None for the vectors of tokens before positions are added.

        Raises:
            OptionError: the tower has no reference set.
        """
        if self.reference is None:
            raise OptionError(
                'closed="mean" and its like need a reference set, which this model has not: give a tensor, or "floor".'
            )
        found = []
        with uncounted():
            for inputs, mask in self.reference():
                hidden = (self.enter(inputs) if layer is None else self.split(inputs, layer)).hidden
                own = hidden.movedim(1, -1).flatten(0, 2) if hidden.ndim == 4 else hidden[mask.to(hidden.device)]
                found.append(own.to(accumulator(hidden.dtype)))
        return torch.cat(found)

    def reference_embeddings(self) -> Tensor:
        """Unit embeddings `(N, D)` of the reference set. Raises OptionError where the tower has none."""
        reference = self.reference
        if reference is None:
            raise OptionError(f"This needs a bank, and the {self.side} side of this model has none: give one.")
        with uncounted():
            return self._fitted("bank", lambda: torch.cat([unit(self.embed(inputs)) for inputs, _ in reference()]))

    def _fitted(self, name: int | str | None, make: Callable[[], Tensor]) -> Tensor:
        """What is made once for a model, and again where its weights changed."""
        version = version_of(self.model)
        kept = self._means.get(name)
        if kept is None or kept[0] != version:
            kept = self._means[name] = version, make()
        return kept[1]

    def _prove(self, split: Split) -> None:
        """Refuse, rather than corrupt, a model whose remaining blocks give another output than its own."""
        key = (split.layer, split.hidden.dtype, self.autocast, split.hidden.shape[1:], version_of(self.model))
        if key in self._proved:
            return
        with torch.no_grad(), uncounted():
            one = torch.zeros(2 if split.hidden.ndim == 4 else 1, dtype=torch.long, device=split.hidden.device)
            again = self._again(split, one)[-1].float()
        error = (again - split.embedding[0].float()).norm() / split.embedding[0].float().norm()
        if not error < (0.05 if _HALF & {split.hidden.dtype, self.autocast} else 1e-3):
            raise ModelError(
                f"The {self.side} tower cannot be cut at layer {split.layer}: resumed from there it gives "
                f"another embedding (relative error {error:.1e}); choose another layer."
            )
        self._proved.add(key)

    def _again(self, split: Split, rows: Tensor) -> Tensor:
        try:
            return split.resume(split.hidden[rows], rows)
        except (RuntimeError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
                raise
            raise ModelError(
                f"The {self.side} tower cannot be cut at layer {split.layer}: its blocks do not read what the ones "
                f"before them give ({str(error).splitlines()[0]}); name blocks that run one after the other."
            ) from error

    def _check_slopes(self, embedding: Tensor) -> None:
        """Refuse, once for a model, layers that torch cannot run back: it would leave them out with a warning."""
        key = ("slopes", version_of(self.model))
        if key in self._proved:
            return
        if not differentiable(embedding):
            raise ModelError(
                f"The weights of the {self.side} tower are quantised in a way that gradients cannot pass: choose a "
                "method without gradients, such as occlusion, rise or shapley, or load the weights unquantised."
            )
        self._proved.add(key)

    def _finite(self, embedding: Tensor) -> Tensor:
        if not bool(torch.isfinite(embedding).all()):
            raise ModelError(
                f"The {self.side} embedding is not finite (NaN or infinity): the weights are damaged or overflow "
                f"in {str(embedding.dtype).removeprefix('torch.')}; load them again, or use dtype=float32."
            )
        return embedding


def _ordinary(inputs: Inputs) -> dict[str, Any]:
    """Tensors made in inference mode cannot take part in a graph; their copies can."""
    return {k: v.clone() if isinstance(v, Tensor) and v.is_inference() else v for k, v in inputs.items()}


def unit(embedding: Tensor) -> Tensor:
    """Embeddings of length one, in float32 or better."""
    return nn.functional.normalize(embedding.to(accumulator(embedding.dtype)), dim=-1)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums, norms and cosines are taken."""
    return torch.float64 if dtype == torch.float64 else torch.float32
