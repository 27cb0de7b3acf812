"""What enters a tower, pixels or token vectors, gathered to scores of positions, and replaced by something else."""

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
        return values.sum(-1)
    layout = layouts[int(rows[0])]
    assert layout.patch is not None, "the layout of a picture knows the side of its patches"
    sums = nn.functional.avg_pool2d(values.sum(1), layout.patch, divisor_override=1).flatten(1)
    found = values.new_zeros(len(values), positions)
    found[:, list(layout.patches)] = sums
    return found


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
        found = _pixels(entrance, replacement)
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
