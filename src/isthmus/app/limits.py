"""What the page takes on at once, and for how long it keeps it; `uploads` bounds what a visitor gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the page.

    Attributes:
        queue: questions that wait at once; whoever comes after them is told so.
        history: results that a visitor can go back to.
        idle: seconds after which uploads are deleted, should a visit not have ended by then.
        sessions: visits whose state is kept at once.
    """

    queue: int = 32
    history: int = 12
    idle: int = 3600
    sessions: int = 200
