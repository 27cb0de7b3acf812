"""Results that a visitor can go back to, within the page."""

from __future__ import annotations

from typing import Any

from PIL import Image

from isthmus.app.question import Answer
from isthmus.app.work import Visit


def keep(visit: Visit, answer: Answer, most: int) -> None:
    """Show an answer after the one that is shown now; what was undone is forgotten, and the oldest beyond `most`."""
    visit.answers[visit.at + 1 :] = [answer]
    del visit.answers[:-most]
    visit.at = len(visit.answers) - 1


def improve(visit: Visit, former: Answer, answer: Answer) -> None:
    """Put an answer in the place of the same one that knew less."""
    if former in visit.answers:
        visit.answers[visit.answers.index(former)] = answer


def shown(visit: Visit) -> Answer | None:
    """The answer that is shown."""
    found: Answer | None = visit.answers[visit.at] if 0 <= visit.at < len(visit.answers) else None
    return found


def before(visit: Visit) -> Answer | None:
    """The one before it."""
    found: Answer | None = visit.answers[visit.at - 1] if 0 < visit.at < len(visit.answers) else None
    return found


def move(visit: Visit, to: Any) -> Answer | None:
    """Go to the result at a place; a place that is not there changes nothing."""
    if isinstance(to, int) and not isinstance(to, bool) and 0 <= to < len(visit.answers):
        visit.at = to
    return shown(visit)


def same_picture(visit: Visit, picture: Image.Image) -> Image.Image:
    """The picture, as the object that is kept already where it is the same, so that it is kept once."""
    for answer in reversed(visit.answers):
        known: Image.Image = answer.question.picture
        if known.size == picture.size and known.tobytes() == picture.tobytes():
            return known
    return picture


def listed(visit: Visit) -> dict[str, Any] | None:
    """The results as the page lists them; None where there is but one."""
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
