"""Opens pictures of every kind as RGB, upright, and says in one sentence what is wrong with those it cannot."""

from __future__ import annotations

import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from isthmus.errors import InputError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000
MIN_SIDE = 4
MAX_ASPECT = 100


@dataclass(frozen=True, eq=False)
class Picture:
    """An RGB picture, upright; `source` is its path, "" where it came as an object."""

    image: Image.Image
    source: str = ""


def open_picture(source: Any) -> Picture:
    """Open a picture.

    Args:
        source: a path; a PIL image; an array or tensor of shape `(H, W)`, `(H, W, 1 | 3 | 4)` or `(3, H, W)`,
            uint8, or float in [0, 1]; or a Picture, which is given back.

    Returns:
        The picture in RGB with its EXIF orientation applied; transparent parts are laid over white.

    Raises:
        InputError: with one sentence that names the picture and the mend.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return Picture(_upright_rgb(_read(str(name)), repr(str(name))), str(name))
    if isinstance(source, Image.Image):
        return Picture(_upright_rgb(source, "The picture"))
    torch = sys.modules.get("torch")  # not imported for a picture: processes that only decode do without
    if torch is not None and isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return Picture(_upright_rgb(_from_array(source), "The array"))
    raise InputError(f"A picture must be a path, a PIL image, an array or a tensor, not {type(source).__name__}.")


def _read(name: str) -> Image.Image:
    if not name:
        raise InputError("The path of the picture is empty: give one.")
    if is_url(name):
        raise InputError(f"{name!r} is a URL, and URLs are not fetched: download the picture and give its path.")
    try:
        path = Path(name)
        if path.is_dir():
            raise InputError(f"{name!r} is a folder: give the path of a picture in it.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked below, and damage that matters raises
            with Image.open(path) as image:
                _check_size(image.size, repr(name))
                image.load()
                return image.copy()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no picture {name!r}: check the path.") from error
    except PermissionError as error:
        raise InputError(f"The picture {name!r} may not be read: change its permissions.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"The picture {name!r} has too many pixels: scale it to at most {MAX_PIXELS:,}.") from error
    except UnidentifiedImageError as error:
        if path.stat().st_size == 0:
            raise InputError(f"The file {name!r} is empty: get a whole copy.") from error
        raise InputError(
            f"{name!r} is no picture that Pillow can read: convert it to JPEG, PNG, WebP, GIF, BMP or TIFF."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise InputError(
                f"The picture {_short(name)} cannot be opened ({error.strerror}): check the path."
            ) from error
        raise InputError(f"The picture {name!r} is damaged or cut off ({error}): get a whole copy.") from error
    except Exception as error:  # Pillow's readers fail in any way on a damaged file
        reason = str(error) or type(error).__name__
        raise InputError(f"The picture {name!r} is damaged or cut off ({reason}): get a whole copy.") from error


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else name[:200] + "...")


def is_url(name: str) -> bool:
    """Whether a path is a URL; a `Path` made of one has lost one of its slashes."""
    return re.match(r"(https?|ftp|file|data|s3|gs):", name, re.IGNORECASE) is not None


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    shape = f"{name} is {width} x {height} pixels"
    if min(size) < MIN_SIDE:
        raise InputError(f"{shape}, too small to show anything: give one of at least {MIN_SIDE} pixels a side.")
    if width * height > MAX_PIXELS:
        raise InputError(f"{shape}, too large to open safely: scale it to at most {MAX_PIXELS:,} pixels.")
    if max(size) > MAX_ASPECT * min(size):
        raise InputError(f"{shape}, too long and narrow: crop it to an aspect of at most {MAX_ASPECT} to 1.")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            return _from_wide(image, name)
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return image.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # such as a damaged EXIF block
        raise InputError(f"{name} cannot be turned into RGB ({error}): save it as an 8-bit JPEG or PNG.") from error


def _from_wide(image: Image.Image, name: str) -> Image.Image:
    """Pillow clips 16-bit, integer and float greys at 255 where it should scale them."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(values).all() and low >= 0 and high <= 65535):
        raise InputError(f"{name} has grey values from {low:g} to {high:g}: save it with 8 or 16 bits a channel.")
    top = 1.0 if image.mode == "F" and high <= 1 else 255.0 if image.mode == "F" and high <= 255 else 65535.0
    return Image.fromarray((values * (255.0 / top)).round().astype(np.uint8)).convert("RGB")


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))) or array.size == 0:
        raise InputError(
            f"An array of shape {tuple(array.shape)} is no picture: give (H, W), (H, W, 1 | 3 | 4) or (3, H, W)."
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise InputError(
                "A float array must lie in [0, 1] without NaN: divide by 255, or wrap values that are already "
                "normalised for the model in isthmus.PreparedImage."
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"An array of {array.dtype} is no picture: give uint8, or float in [0, 1].")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[-1:] == (1,) else array))


def display_copy(picture: Picture, limit: int = 1024) -> npt.NDArray[np.uint8]:
    """A copy `(h, w, 3)` uint8 for drawing, at most `limit` pixels a side."""
    image = picture.image
    if max(image.size) > limit:
        scale = limit / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(image, dtype=np.uint8)
