"""Openers of pictures for the tests, which run in the processes that decode: see `isthmus.scale.decoding.Decoder`."""

from __future__ import annotations

import os
import time

from isthmus.encoders.pictures import Picture
from isthmus.scale.opening import opened

DEADLY = b"\xff\xd8deadly"


def deadly(picture: bytes | str) -> Picture:
    """Ends the process at a picture that begins so, or has this name."""
    if picture[: len(DEADLY)] == DEADLY or (isinstance(picture, str) and "deadly" in picture.rpartition("/")[2]):
        os._exit(7)
    return opened(picture)


def slow(picture: bytes | str) -> Picture:
    """Takes its time."""
    time.sleep(0.2)
    return opened(picture)


def noisy(picture: bytes | str) -> Picture:
    """Prints, as some libraries do."""
    print("a warning of a library" * 100)
    return opened(picture)


def broken(picture: bytes | str) -> Picture:
    """Fails as no reader of pictures should."""
    raise RuntimeError("nothing works")


def patch() -> None:
    """Let this process die wherever it explains a text that begins so."""
    import signal
    from typing import Any

    import isthmus.scale.worker as worker

    explain = worker.explain

    def fatal(model: Any, pictures: Any, texts: Any, **options: Any) -> Any:
        if any(text.startswith("deadly") for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return explain(model, pictures, texts, **options)

    worker.explain = fatal
