"""What enters a tower, pixels or token vectors, gathered to scores of positions, and replaced by something else.

Pixels enter as pictures `(B, C, H, W)`, or cut into flat patches `(B, P, side * side * C)`, row by row, the colours of
one pixel side by side (SigLIP 2 NaFlex); behind a picture's own patches there may be padding, which counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.encoders.layout import TokenLayout, content_of
from isthmus.encoders.split import Entrance
from isthmus.errors import OptionError

_BLUR = 10 / 224  # standard deviation of the blur as a share of the longer side: patches lose their content


def gathered(values: Tensor, layouts: Sequence[TokenLayout], rows: Tensor, positions: int) -> Tensor:
    """Sum values of inputs `rows` over each position: `(N, C, H, W)` or `(N, T, d)` to `(N, T)`.

    Pixels count for their patch; positions without pixels, such as CLS, get 0.
    """
    if values.ndim == 3:
        return placed(values.sum(-1), layouts, positions)
    layout = layouts[int(rows[0])]
    return placed(over_patches(values.sum(1), layout, total=True), [layout], positions)


def placed(of_patches: Tensor, layouts: Sequence[TokenLayout], positions: int) -> Tensor:
    """Values `(N, P)` of patches, or of all positions, at their positions `(N, T)`; 0 at the others."""
    if of_patches.shape[1] == positions:
        return of_patches
    found, first = of_patches.new_zeros(len(of_patches), positions), layouts[0].patches[0]
    found[:, first : first + of_patches.shape[1]] = of_patches
    return found


def over_patches(values: Tensor, layout: TokenLayout, *, total: bool = False) -> Tensor:
    """Means, or totals, of pixels `(N, H, W)` over each patch, `(N, P)`; a patch may reach over the edge."""
    height, width = size_of(layout)
    used, side = values[:, None, :height, :width], layout.patch
    assert side is not None, "the layout of a picture knows the side of its patches"
    divisor = 1 if total else None
    return nn.functional.avg_pool2d(used, side, ceil_mode=True, divisor_override=divisor).flatten(1)


def size_of(layout: TokenLayout) -> tuple[int, int]:
    """Height and width in pixels of what a picture's patches cover."""
    assert layout.grid is not None, "the layout of a picture has a grid"
    assert layout.patch is not None, "of patches of a known size"
    return layout.grid[0] * layout.patch, layout.grid[1] * layout.patch


def cut(pixels: Tensor, layout: TokenLayout, count: int) -> Tensor:
    """Pictures `(N, C, H, W)` of one layout as flat patches `(N, count, side * side * C)`, padded with 0."""
    assert layout.grid is not None, "the layout of a picture has a grid"
    assert layout.patch is not None, "of patches of a known size"
    (rows, columns), side = layout.grid, layout.patch
    tiles = pixels.reshape(*pixels.shape[:2], rows, side, columns, side)
    flat = tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return nn.functional.pad(flat, (0, 0, 0, count - flat.shape[1]))


def spread(shares: Tensor, layout: TokenLayout, values: Tensor) -> Tensor:
    """Shares `(N, H, W)` of the pixels of pictures of one layout, in the shape of what enters, `values`."""
    if values.ndim == 4:
        return shares[:, None]
    flat = cut(shares[:, None], layout, values.shape[1])
    return flat.repeat_interleave(values.shape[2] // flat.shape[2], dim=2)


def whole(patches: Tensor, layout: TokenLayout, colours: int = 3) -> Tensor:
    """The pictures `(N, C, H, W)` that `cut` made flat patches of."""
    assert layout.grid is not None, "the layout of a picture has a grid"
    assert layout.patch is not None, "of patches of a known size"
    (rows, columns), side = layout.grid, layout.patch
    tiles = patches[:, : rows * columns].reshape(-1, rows, columns, side, side, colours)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(-1, colours, rows * side, columns * side)


def replaced(entrance: Entrance, layouts: Sequence[TokenLayout], replacement: str | Tensor) -> Tensor:
    """What stands where something was taken away, of the shape of `entrance.hidden`.

    Args:
        entrance: what enters.
        layouts: what each position is; special positions keep what they have.
        replacement: for pixels "mean" (the picture's mean colour), "blur", "zero" (0 after the model's
            normalisation, the mean colour of its training set), "black", or pixels `(3, H, W)` or `(B, 3, H, W)` of
            another picture; for tokens "mean" (the mean token vector of the reference set) or "zero", or vectors
            `(d,)` or `(B, T, d)`. Token vectors are replaced before positions are added.

    Raises:
        OptionError: no such replacement, or another picture of another size.
    """
    values, side = entrance.hidden, entrance.tower.side
    if isinstance(replacement, Tensor):
        try:
            found = replacement.to(values).expand_as(values)
        except RuntimeError as error:
            raise OptionError(
                f"The replacement has shape {tuple(replacement.shape)}, which does not fit {tuple(values.shape)}."
            ) from error
    elif entrance.tower.lookup is None:
        found = _flat(entrance, layouts, replacement) if values.ndim == 3 else _pixels(entrance, replacement)
    elif replacement == "mean":
        found = entrance.tower.mean_state(None).to(values).expand_as(values)
    elif replacement == "zero":
        found = torch.zeros_like(values)
    else:
        raise OptionError(f"There is no replacement {replacement!r} for the {side}: choose mean or zero.")
    if entrance.tower.lookup is None:
        return found
    content = content_of(layouts).to(values.device)[..., None]
    return torch.where(content, found, values)


def _pixels(entrance: Entrance, replacement: str) -> Tensor:
    values = entrance.hidden
    if replacement == "mean":
        return values.mean((2, 3), keepdim=True).expand_as(values)
    if replacement == "blur":
        return _blurred(values)
    if replacement == "zero":
        return torch.zeros_like(values)
    if replacement == "black" and entrance.tower.limits is not None:
        return entrance.tower.limits[0].to(values).expand_as(values)
    raise OptionError(f"There is no replacement {replacement!r} for the image: choose mean, blur, zero or a picture.")


def _flat(entrance: Entrance, layouts: Sequence[TokenLayout], replacement: str) -> Tensor:
    """As `_pixels`, of flat patches; padding stays as it is."""
    values = entrance.hidden
    first = layouts[0].patches[0]
    own = content_of(layouts).to(values.device)[:, first : first + values.shape[1], None]
    if replacement == "mean":
        colours = values.reshape(*values.shape[:2], -1, 3) * own[..., None]
        mean = colours.sum((1, 2)) / (own.sum(1) * colours.shape[2])
        found = mean[:, None].repeat(1, 1, colours.shape[2])
    elif replacement == "blur":
        found = torch.cat(
            [cut(_blurred(whole(one[None], of)), of, len(one)) for one, of in zip(values, layouts, strict=True)]
        )
    else:
        found = _pixels(entrance, replacement)
    return torch.where(own, found, values)


def _blurred(values: Tensor) -> Tensor:
    """A Gaussian blur, axis by axis; pixels beyond the edge are those of the edge."""
    sigma = _BLUR * max(values.shape[-2:])
    reach = min(int(3 * sigma), *(side - 1 for side in values.shape[-2:]))
    steps = torch.arange(-reach, reach + 1, device=values.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(values.dtype).expand(values.shape[1], 1, 1, -1)
    for turned in (kernel, kernel.transpose(2, 3)):
        pad = (reach, reach, 0, 0) if turned.shape[-1] > 1 else (0, 0, reach, reach)
        values = nn.functional.conv2d(nn.functional.pad(values, pad, mode="replicate"), turned, groups=values.shape[1])
    return values
