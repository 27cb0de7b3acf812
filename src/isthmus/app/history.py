"""Results that a visitor can go back to, within the page."""

from __future__ import annotations

from threading import RLock
from typing import Any

from PIL import Image

from isthmus.app.question import Answer
from isthmus.app.stored import Stored, stored_in
from isthmus.app.work import Visit
from isthmus.errors import InputError

_GONE = "The server keeps only so many results, and has let go of this one: explain it again."
_LOCK = RLock()  # `thin` comes from another thread than a visitor's own


def keep(visit: Visit, answer: Answer, most: int) -> None:
    """Show an answer after the one that is shown now; what was undone is forgotten, and the oldest beyond `most`."""
    with _LOCK:
        visit.answers[visit.at + 1 :] = [answer]
        del visit.answers[:-most]
        visit.at = len(visit.answers) - 1


def improve(visit: Visit, former: Answer, answer: Answer) -> None:
    """Put an answer in the place of the same one that knew less."""
    with _LOCK:
        if former in visit.answers:
            visit.answers[visit.answers.index(former)] = answer


def shown(visit: Visit) -> Answer | None:
    """The answer that is shown."""
    with _LOCK:
        found: Answer | None = visit.answers[visit.at] if 0 <= visit.at < len(visit.answers) else None
    return found


def before(visit: Visit) -> Answer | None:
    """The one before it."""
    with _LOCK:
        found: Answer | None = visit.answers[visit.at - 1] if 0 < visit.at < len(visit.answers) else None
    return found


def move(visit: Visit, to: Any) -> Answer | None:
    """Go to the result at a place; a place that is not there changes nothing.

    Raises:
        InputError: the server has let go of that result.
    """
    if isinstance(to, int) and not isinstance(to, bool):
        with _LOCK:
            if not visit.answers or (0 <= to < len(visit.answers) and visit.answers[to] is None):
                raise InputError(_GONE)
            if 0 <= to < len(visit.answers):
                visit.at = to
    return shown(visit)


def thin(visit: Visit) -> None:
    """Let go of the results before the one that is shown and its former one, and of what the model made of them."""
    with _LOCK:
        old = max(0, visit.at - 1)
        visit.answers[:old] = [None] * old  # the places of the others stay: the page knows results by them
        visit.forget_store()


def same_picture(visit: Visit, picture: Image.Image) -> Image.Image:
    """The picture, as the object that is kept already where it is the same, so that it is kept once."""
    mine = Stored.of(picture)
    for answer in [one for one in reversed(visit.answers) if one is not None]:
        known = stored_in(answer.question)
        if known is not None and (known is mine or known.digest == mine.digest):
            return known.image(at_hand=picture)
    return picture


def listed(visit: Visit) -> dict[str, Any] | None:
    """The results as the page lists them; None where there is but one."""
    with _LOCK:
        gone = visit.answers.count(None)
        del visit.answers[:gone]
        visit.at -= gone
        if len(visit.answers) < 2:
            return None
        items = [
            {
                "text": one.question.text,
                "similarity": one.explanation.similarity,
                "how": f"{one.question.method} on {one.question.model}",
                "now": place == visit.at,
            }
            for place, one in enumerate(visit.answers)
        ]
    return {"items": items}
