"""Prompt-free maps: per-patch vectors kept once for a picture, from which any prompt's map is one matrix product."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import unit
from isthmus.errors import InputError, ModelError, OptionError, SaveError
from isthmus.frozen import Array
from isthmus.methods.vectors import position_vectors
from isthmus.targets import embeddings_of

_ARRAYS = ("vectors", "closed", "open")


@dataclass(frozen=True, eq=False)
class PromptFreeMaps:
    """The embeddings of B pictures of one size as sums over their patches.

    Attributes:
        model: the model that they are of.
        vectors: `(B, P, D)` the part of each patch in the embedding, row by row.
        rest: `(B, D)` the parts of special positions, such as CLS.
        closed, open: `(B, D)` the embedding of the closed state, and the embedding; not normalised.
        grid: `(rows, columns)` of the patches.
        options: options as resolved.
    """

    model: DualEncoder
    vectors: Tensor
    rest: Tensor
    closed: Tensor
    open: Tensor
    grid: tuple[int, int]
    options: dict[str, Any]

    @property
    def delta(self) -> Array:
        """`(B,)` how much of `open - closed` the parts miss, as a share of its length."""
        change = self.open - self.closed
        missed = self.vectors.sum(1) + self.rest - change
        return np.asarray((missed.norm(dim=-1) / change.norm(dim=-1)).cpu().numpy())

    def maps(self, prompts: Sequence[str] | Tensor, *, truncate: bool = False) -> Array:
        """Signed maps `(B, N, rows, columns)`, in units of the cosine, of N prompts or vectors `(N, D)`.

        With the shares of special positions and of the closed state, a map sums to the cosine up to `delta`.
        """
        directions = self._directions(prompts, truncate=truncate)
        found = torch.einsum("bpd,nd,b->bnp", self.vectors, directions, 1 / self.open.norm(dim=-1))
        return np.asarray(found.view(*found.shape[:2], *self.grid).cpu().numpy())

    def similarities(self, prompts: Sequence[str] | Tensor, *, truncate: bool = False) -> Array:
        """Cosines `(B, N)` of the pictures with N prompts, or dot products with N vectors."""
        return np.asarray((unit(self.open) @ self._directions(prompts, truncate=truncate).T).cpu().numpy())

    def _directions(self, prompts: Sequence[str] | Tensor, *, truncate: bool) -> Tensor:
        if isinstance(prompts, Tensor):
            if prompts.ndim != 2 or prompts.shape[1] != self.open.shape[1]:
                raise OptionError(
                    f"Prompts as vectors have shape (N, {self.open.shape[1]}), not {tuple(prompts.shape)}."
                )
            return prompts.to(self.vectors)
        if isinstance(prompts, str):
            prompts = [prompts]
        if not prompts or not all(isinstance(one, str) for one in prompts):
            raise InputError("Prompts are a list of at least one text, or a tensor of vectors.")
        return embeddings_of(self.model, prompts, truncate=truncate)[0].to(self.vectors)

    def save(self, path: str | Path) -> Path:
        """Write everything but the model as safetensors. Raises SaveError where that fails."""
        from safetensors.torch import save_file

        about = {"grid": list(self.grid), "options": self.options, "model": [self.model.name, self.model.revision]}
        tensors = {name: getattr(self, name).cpu().contiguous() for name in (*_ARRAYS, "rest")}
        try:
            save_file(tensors, str(path), metadata={"isthmus": json.dumps(about)})
        except Exception as error:  # safetensors raises kinds of its own
            raise SaveError(f"{str(path)!r} cannot be written ({error}): choose another place.") from error
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, model: DualEncoder) -> PromptFreeMaps:
        """Read back what `save` wrote, for the same model.

        Raises:
            SaveError: there is no such file, or it is damaged.
            ModelError: it is of another model.
        """
        from safetensors import safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = json.loads(file.metadata()["isthmus"])
                tensors = {name: file.get_tensor(name).to(model.device) for name in (*_ARRAYS, "rest")}
            grid = (int(about["grid"][0]), int(about["grid"][1]))
        except Exception as error:
            raise SaveError(f"{str(path)!r} holds no prompt-free maps: give a file that save() wrote.") from error
        if about["model"][1] != model.revision:
            raise ModelError(f"{str(path)!r} is of the model {about['model'][0]!r}, not of this one: load that model.")
        return cls(model, grid=grid, options=about["options"], **tensors)


def prompt_free(
    model: DualEncoder,
    images: Any,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> PromptFreeMaps:
    """Take the embeddings of pictures apart by patch, before any prompt is known.

    Args:
        model: what `load` gives.
        images: a picture, or a list of pictures whose inputs have one size.
        batch_size: pictures at once.
        progress: called with the number of pictures done and their total.
        options: layer, steps, rule, closed, floor, tolerance, limit, memory; see
            `isthmus.methods.vectors.position_vectors`.

    Raises:
        InputError: a picture that cannot be used, or inputs of several sizes.
        OptionError: an option that makes no sense.
    """
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    if not listed:
        raise InputError("There is no picture: give at least one.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number of at least 1, not {batch_size!r}.")
    known = ("layer", "steps", "rule", "closed", "floor", "tolerance", "limit", "memory")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OptionError(f"Prompt-free maps have no option {unknown[0]!r}: they have {', '.join(known)}.")
    parts: list[PromptFreeMaps] = []
    for start in range(0, len(listed), batch_size):
        opened = [p if isinstance(p, PreparedImage) else open_picture(p) for p in listed[start : start + batch_size]]
        inputs, _, layouts = model.processing.pictures(opened)
        if {one.grid for one in layouts} != {parts[0].grid if parts else layouts[0].grid}:
            raise InputError("These pictures have inputs of several sizes: take those of one size at once.")
        found = position_vectors(model.image, inputs, **options)
        grid, patches = layouts[0].grid, list(layouts[0].patches)
        assert grid is not None, "the layout of a picture has a grid"
        vectors = found.vectors[:, patches]
        rest = found.vectors.sum(1) - vectors.sum(1)
        parts.append(PromptFreeMaps(model, vectors, rest, found.closed, found.open, grid, found.options))
        if progress is not None:
            progress(min(start + batch_size, len(listed)), len(listed))
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in (*_ARRAYS, "rest")}
    return PromptFreeMaps(model, grid=parts[0].grid, options=parts[0].options, **joined)
