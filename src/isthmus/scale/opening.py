"""Opens the pictures of records, in a process of its own that imports no torch: see `isthmus.scale.decoding`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from isthmus.datasets.values import BadRecordError, encoded_picture
from isthmus.encoders.pictures import Picture, open_picture
from isthmus.errors import InputError
from isthmus.scale.places import content_of

OPENER = "isthmus.scale.opening:opened"


def opened(picture: bytes | str) -> Picture:
    """The picture in encoded bytes or at a path, upright in RGB; its pixels are those that `explain` takes.

    Raises:
        InputError: in one sentence, what is wrong with it.
    """
    if isinstance(picture, str):
        return open_picture(picture)
    try:
        return open_picture(encoded_picture(picture))
    except BadRecordError as error:
        raise InputError(str(error)) from error


def fetched(url: str) -> bytes:
    """The encoded picture at a URL. Raises InputError, in one sentence, where it is not there or out of reach."""
    try:
        return content_of(url)
    except FileNotFoundError as error:
        raise InputError(f"There is no picture {url!r}: check the URL.") from error
    except InputError:
        raise
    except Exception as error:  # each file system has its own
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"The picture {url!r} cannot be fetched ({said}): check the network.") from error


def served(opener: str) -> Callable[[list[bytes | str]], list[Any]]:
    """What opens pictures by "module:function": for each `(width, height, bytes)`, or a sentence that says why not."""
    module, _, name = opener.partition(":")
    function: Callable[[bytes | str], Picture] = getattr(importlib.import_module(module), name)
    return lambda pictures: [_answer(function, picture) for picture in pictures]


def _answer(function: Callable[[bytes | str], Picture], picture: bytes | str) -> Any:
    try:
        found = function(picture)
    except InputError as error:
        return str(error)
    except MemoryError:
        return "There is not enough memory to open its picture: scale it down."
    except Exception as error:  # whatever a reader of pictures throws
        return f"Its picture cannot be opened ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
    return (*found.image.size, found.image.tobytes())
