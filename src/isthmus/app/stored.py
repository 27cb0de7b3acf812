"""Pictures as they are kept: as their files' bytes, a tenth of what they have decoded, and decoded when looked at."""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from PIL import Image

from isthmus.app.uploads import read_picture
from isthmus.preparing import STANDS_FOR

T = TypeVar("T")
_RECENT = 256 << 20  # bytes of decoded pictures that are kept for those who look again
_AGAIN = 60.0  # seconds for which they are


def decoded_bytes(size: tuple[int, int]) -> int:
    """What Pillow takes for an RGB picture."""
    return size[0] * size[1] * 4


class Recent:
    """The pictures that were looked at last, decoded, of all visits; few of the largest ones, or many small ones."""

    def __init__(self, bound: int) -> None:
        """At most `bound` bytes."""
        self._bound, self._size, self._lock = bound, 0, threading.Lock()
        self._kept: OrderedDict[int, tuple[Image.Image, float]] = OrderedDict()

    def use(self, image: Image.Image) -> None:
        """Somebody looks at a picture."""
        with self._lock:
            if self._kept.pop(id(image), None) is None:
                self._size += decoded_bytes(image.size)
            self._kept[id(image)] = image, time.monotonic()
            while self._size > self._bound:
                self._drop()

    def forget(self, before: float) -> bool:
        """Let go of those that nobody has looked at since then; whether there were any."""
        with self._lock:
            count = len(self._kept)
            while self._kept and next(iter(self._kept.values()))[1] < before:
                self._drop()
            return len(self._kept) < count

    def _drop(self) -> None:
        image, _ = self._kept.popitem(last=False)[1]
        self._size -= decoded_bytes(image.size)


_recent = Recent(_RECENT)


def forget_recent() -> None:
    """Let go of decoded pictures that nobody has looked at for a while; to be called now and then."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if _recent.forget(time.monotonic() - _AGAIN) and trim is not None:
        trim(0)  # else the C library keeps hundreds of megabytes for the next picture


class Stored:
    """One picture. As long as somebody has it decoded, everybody gets that same object."""

    def __init__(self, image: Image.Image, data: bytes = b"") -> None:
        """Keep a picture as `data`, of which `read_picture` has made it; without any, it is kept as it is."""
        self._data, self._lock = data, threading.Lock()
        self._whole = None if data else image
        self._digest = b""
        self._show(image)

    @classmethod
    def of(cls, image: Image.Image) -> Stored:
        """What a picture was decoded from."""
        return getattr(image, STANDS_FOR, None) or cls(image)

    @property
    def weight(self) -> int:
        """The bytes that it takes while nobody looks at it."""
        return len(self._data) if self._whole is None else decoded_bytes(self._whole.size)

    @property
    def digest(self) -> bytes:
        """Of the size and the pixels, whatever file they come from."""
        if not self._digest:
            image = self.image()
            kind = f"{image.mode} {image.size}".encode()
            self._digest = hashlib.blake2b(kind + image.tobytes(), digest_size=16).digest()
        return self._digest

    def image(self, at_hand: Image.Image | None = None) -> Image.Image:
        """The picture; `at_hand` is one of the same pixels, which saves to decode it."""
        with self._lock:
            image = self._seen()
            if image is None:
                image = at_hand if at_hand is not None else read_picture(self._data)
                self._show(image)
        if self._whole is None:
            _recent.use(image)
        return image

    def _show(self, image: Image.Image) -> None:
        setattr(image, STANDS_FOR, self)
        self._seen = weakref.ref(image)


class _Field:
    """A dataclass's field whose value is a picture, and that keeps what it was decoded from."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, one: Any, owner: type | None = None) -> Any:
        if one is None:
            return self
        kept = one.__dict__[self._name]
        return None if kept is None else kept.image()

    def __set__(self, one: Any, image: Image.Image | None) -> None:
        one.__dict__[self._name] = None if image is None else Stored.of(image)


def keeps_pictures(name: str) -> Callable[[type[T]], type[T]]:
    """Make a dataclass keep the picture in a field of this name as its file's bytes."""

    def made(kind: type[T]) -> type[T]:
        setattr(kind, name, _Field(name))
        return kind

    return made


def stored_in(one: Any, name: str = "picture") -> Stored | None:
    """What such a field keeps."""
    found: Stored | None = one.__dict__[name]
    return found
