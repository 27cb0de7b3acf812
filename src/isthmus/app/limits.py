"""What the page takes and keeps, at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that one visitor cannot move.

    Attributes:
        upload: size of one upload, as Gradio writes it.
        text: letters of one text.
        queue: questions that wait at once; more are told to come back.
        history: results that a visitor can go back to.
        idle: seconds after which the files of a visit are deleted.
        sessions: visits whose state is kept at once.
    """

    upload: str = "20mb"
    text: int = 1000
    queue: int = 32
    history: int = 12
    idle: int = 3600
    sessions: int = 200
