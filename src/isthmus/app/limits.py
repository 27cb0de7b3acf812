"""What the page takes on at once, and for how long it keeps it; `uploads` bounds what a visitor gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the page.

    Attributes:
        queue: questions that wait at once; whoever comes after them is told so.
        history: results that a visitor can go back to.
        idle: seconds after which files are deleted that no visit uses.
        grace: seconds after which a visit has ended whose connection broke off, unless it comes back.
        upload: bytes of one request that gives files; what is made of them is bounded in `uploads`.
        disk: bytes of all uploads that lie on the server; while there are more, no other is taken.
        kept: bytes that all visits together keep in memory; the results that were not looked at for longest go first.
        sessions: visits whose state is kept at once.
    """

    queue: int = 32
    history: int = 12
    idle: int = 3600
    grace: float = 90
    upload: int = 256 << 20
    disk: int = 4 << 30
    kept: int = 2 << 30
    sessions: int = 200
