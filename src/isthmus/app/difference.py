"""A former result beside the new one, and what has changed between them."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from isthmus.app.question import Answer
from isthmus.app.view import View, grid, payload, strongest, strongest_words
from isthmus.explanation import Explanation, Word


def before_and_after(former: Answer | None, now: Answer | None) -> View | None:
    """Both on one scale, and their difference; None where they do not compare: another picture, model or method."""
    if former is None or now is None or not _compare(former, now):
        return None
    old, new = (
        payload(one, title=title, small=True, with_scale=(former, now))
        for one, title in ((former, "Before"), (now, "Now"))
    )
    return grid([old, new, changed(former, now)]) | {"title": "What the edit changed"}


def similarity_change(former: Answer | None, now: Answer) -> float | None:
    """By how much the similarity rose since the former result; None where the two do not compare."""
    if former is None or not _compare(former, now):
        return None
    return _less(now.explanation.similarity, former.explanation.similarity)


def changed(former: Answer, now: Answer) -> View:
    """The difference as a view: regions and words by how much their score rose; new words with what they replace."""
    one, two = former.explanation, now.explanation
    view = payload(now, title="Difference", small=True)
    view |= {
        "difference": True,
        "similarity": _less(two.similarity, one.similarity),
        "similarityLabel": "similarity changed by",
        "words": word_changes(one, two),
    }
    view["wordLimit"] = _limit([word["score"] for word in view["words"]])
    said = [f"Difference of the two heat maps. Similarity changed by {view['similarity']:+.3f}."]
    if one.image is not None and two.image is not None:
        rise = two.image.scores.astype("float64") - one.image.scores
        scores = rise.ravel().tolist()
        view |= {"scores": scores, "limit": _limit(scores)}
        said.append(f"Regions that changed most: {strongest(rise)}.")
    if view["words"]:
        words = [(f"{w['text']} (was {w['was']})" if "was" in w else w["text"], w["score"]) for w in view["words"]]
        said.append(f"Words that changed most: {strongest_words(words)}.")
    view["alt"] = " ".join(said)
    return view


def word_changes(one: Explanation, two: Explanation) -> list[dict[str, Any]]:
    """The words of `two`, each with its score less that of the word of `one` whose place it has."""
    old, new = (side.text.words if side.text is not None else () for side in (one, two))
    partner: dict[int, Word] = {}
    matcher = SequenceMatcher(None, [w.text.casefold() for w in old], [w.text.casefold() for w in new], autojunk=False)
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        partner |= dict(zip(range(j1, j2), old[i1:i2], strict=False))
    found = []
    for place, word in enumerate(new):
        was = partner.get(place)
        entry = {
            "text": word.text,
            "start": word.start,
            "end": word.end,
            "score": word.score - (was.score if was is not None else 0.0),
        }
        if was is not None and was.text.casefold() != word.text.casefold():
            entry["was"] = was.text
        found.append(entry)
    return found


def _compare(former: Answer, now: Answer) -> bool:
    a, b = former.question, now.question
    same = a.picture is b.picture and a.model == b.model and a.method == b.method and dict(a.options) == dict(b.options)
    one, two = former.explanation.image, now.explanation.image
    return (
        same and (one is None) == (two is None) and (one is None or two is None or one.scores.shape == two.scores.shape)
    )


def _less(two: float | None, one: float | None) -> float:
    return (two or 0.0) - (one or 0.0)


def _limit(values: list[float]) -> float:
    return max(map(abs, values), default=0.0) or 1.0
