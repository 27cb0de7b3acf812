"""Foils: captions in which one word is wrong for the picture (FOIL it!, Shekhar et al., ACL 2017).

A thing is swapped for another of its COCO supercategory, a colour for a colour, a number for a number. What the caption
mentions, or the picture is known to hold, is never put in. The words are in `isthmus.metrics.swap_words`.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from isthmus.metrics import swap_words as words

_T = TypeVar("_T")


@dataclass(frozen=True)
class Swap:
    """A caption with a wrong word.

    Attributes:
        text: the caption; its `text[start:end]` is `wrong`.
        start, end: where the wrong word is, or the words of a name such as "traffic light".
        right: what stood there.
        wrong: what stands there now.
        kind: "object", "colour" or "number".
    """

    text: str
    start: int
    end: int
    right: str
    wrong: str
    kind: str


def wrong_captions(text: str, *, seed: int, id: str, present: Collection[str] = (), all: bool = False) -> list[Swap]:
    """Captions that differ from a text in one content word.

    An article before the word follows its sound; number and capitals are kept.

    Args:
        text: an English caption.
        seed: of the draws.
        id: the picture's name; what is drawn follows from seed, id and text alone.
        present: names of things that the picture holds, such as those of its regions.
        all: a swap for every word that can be swapped; by default at most one of each kind.

    Returns:
        The swaps, objects first, then colours and numbers; none where there is nothing to swap.
    """
    digest = hashlib.sha256(f"{seed}/{id}/{text}".encode("utf-8", "surrogatepass")).digest()
    draw = random.Random(int.from_bytes(digest, "big"))
    places = {"object": _objects(text, present), "colour": _colours(text, present), "number": _numbers(text)}
    found = [[_swapped(text, one, _one(one.options, draw), kind) for one in some] for kind, some in places.items()]
    if not all:
        found = [[_one(swaps, draw)] for swaps in found if swaps]
    return [swap for swaps in found for swap in swaps]


@dataclass(frozen=True)
class _Place:
    """A word that can be swapped, `text[start:end]`, and for what."""

    start: int
    end: int
    options: tuple[str, ...]


def _one(values: Sequence[_T], draw: random.Random) -> _T:
    """A drawn value; `random()` alone is promised to stay the same over versions of Python."""
    return values[int(draw.random() * len(values))]


def _pattern(forms: Iterable[str]) -> re.Pattern[str]:
    """Any of the forms as whole words, the longest first; no part of a word with a hyphen, such as "red-haired"."""
    ordered = sorted(forms, key=len, reverse=True)
    inner = "|".join(re.escape(form).replace(r"\ ", r"[\s-]+") for form in ordered)
    return re.compile(rf"(?<![\w-])(?<!\w['’])(?:{inner})(?![\w-])", re.IGNORECASE)


def _plain(text: str) -> str:
    return " ".join(re.split(r"[\s-]+", text.casefold()))


def _forms(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Singular and plural of each name, with what it stands for: `{"bike": "bicycle", "bikes": "bicycle"}`."""
    return {form: what for name, what in names for form in (words.plural(name), name)}


_GROUP = {name: group for group, names in words.SUPERCATEGORIES.items() for name in names}
_NAMES = [(name, name) for name in _GROUP] + [(name, what) for what, some in words.SYNONYMS.items() for name in some]
_THINGS = _forms(_NAMES)
_SINGULAR = frozenset(name for name, _ in _NAMES if name not in words.PLURAL_ONLY)
_HINTS = _forms((name, name) for name in words.HINTS)
_THING = _pattern({*_THINGS, *_HINTS})
_COLOUR = _pattern((*words.COLOURS, "grey"))
_NUMBER = re.compile(rf"{_pattern(words.NUMBERS).pattern}|(?<![\w.,:/#$£€'’-])(?:[2-9]|10)(?![\w%°/'’-]|[.,:]\d)", re.I)

_ONE = frozenset({"a", "an", "one", "another", "this", "each", "every"})
_MANY = frozenset({*words.NUMBERS, "some", "many", "several", "these", "those", "few", "all", "both", "multiple"})
# Words that are no part of a noun's phrase.
_FUNCTION = frozenset(
    {
        *("and", "or", "but", "of", "with", "without", "in", "on", "at", "by", "to", "near", "next", "from", "for"),
        *("is", "are", "was", "were", "has", "have", "that", "which", "who", "while", "as", "beside", "behind"),
        *("under", "over", "inside", "into", "onto", "above", "below", "between", "through", "sitting", "standing"),
        *("lying", "laying", "the", "a", "an", "his", "her", "their", "its", "it", "up", "down", "out", "off"),
    }
)
_TIMES = frozenset({"o", "am", "pm", "percent", "degrees", "th", "d"})
_LABELS = frozenset({"number", "no", "route", "bus", "train", "flight", "gate", "platform", "channel", "player"})


def _before(text: str, start: int) -> list[str]:
    """The words right before a place, the nearest first, as far as blanks alone part them."""
    line = re.search(r"(?:[^\W_]+\s+)*$", text[max(0, start - 60) : start].casefold())
    return line.group().split()[::-1] if line else []


def _after(text: str, end: int) -> str:
    """The word right after a place, "" where there is none or a sign comes first."""
    found = re.match(r"\s+([^\W\d_]+)", text[end:].casefold())
    return found.group(1) if found else ""


def _objects(text: str, present: Collection[str]) -> list[_Place]:
    found = [(match.start(), match.end(), _plain(match.group())) for match in _THING.finditer(text)]
    taken = _meant([form for _, _, form in found] + [_plain(name) for name in present])
    places = []
    for start, end, form in found:
        what = _THINGS.get(form)
        if what is None or not _is_thing(text, start, end, form):
            continue
        one = _is_one(text, start, end, form)
        sisters = [name for name in words.SUPERCATEGORIES[_GROUP[what]] if name not in taken]
        barred = words.PLURAL_ONLY if one else words.UNCOUNTED
        options = tuple(_shown(name if one else words.plural(name)) for name in sisters if name not in barred)
        if options:
            places.append(_Place(start, end, options))
    return places


def _meant(forms: Iterable[str]) -> set[str]:
    """The categories that words name or hint at."""
    found: set[str] = set()
    for form in forms:
        found.update(words.HINTS[_HINTS[form]] if form in _HINTS else ())
        found.update((_THINGS[form],) if form in _THINGS else ())
    return found


def _is_thing(text: str, start: int, end: int, form: str) -> bool:
    """Whether a category's name is used as a noun of its own."""
    before, after = _before(text, start), _after(text, end)
    if after in words.HEADS or before[:1] == ["to"]:
        return False
    if form == "orange":
        return _orange(text, start, end) == "fruit"
    return form != "remote" or not after or after in _FUNCTION


def _is_one(text: str, start: int, end: int, form: str) -> bool:
    """Whether a name is meant in the singular; "sheep" is looked at with the words around it."""
    if form not in _SINGULAR or words.plural(form) != form:
        return form in _SINGULAR
    for word in _before(text, start)[:3]:
        if word in _ONE or word in _MANY:
            return word in _ONE
        if word in _FUNCTION - {"the"}:
            break
    return _after(text, end) in ("is", "was", "has")


def _orange(text: str, start: int, end: int) -> str:
    """Whether "orange" is a "colour" or a "fruit"; "" where that cannot be told."""
    before, after = _before(text, start)[:1], _after(text, end)
    pair = re.match(r"\s*(?:,|and|or)\s+([^\W\d_]+)", text[end:].casefold())
    if (pair and pair.group(1) in {*words.COLOURS, "grey"}) or before in (["bright"], ["dark"], ["light"], ["neon"]):
        return "colour"
    if after and after not in _FUNCTION:
        return "" if after in words.HEADS else "colour"
    return "fruit" if before and before[0] in {*_ONE, "the", "half"} else ""


def _colours(text: str, present: Collection[str]) -> list[_Place]:
    found = [(match.start(), match.end(), _plain(match.group())) for match in _COLOUR.finditer(text)]
    named = {"gray" if colour == "grey" else colour for _, _, colour in found}
    # "black and white" may speak of the photograph.
    films = [match.span() for match in re.finditer(r"black\s+and\s+white|black\s*&\s*white", text, re.IGNORECASE)]
    fruit = {"orange"} if "orange" in _meant(_plain(name) for name in present) else set()
    places = []
    for start, end, colour in found:
        if any(a <= start < b for a, b in films) or (colour == "orange" and _orange(text, start, end) != "colour"):
            continue
        barred = {*named, *fruit, *words.CLOSE["gray" if colour == "grey" else colour]}
        options = tuple(other for other in words.COLOURS if other not in barred)
        if options:
            places.append(_Place(start, end, options))
    return places


def _numbers(text: str) -> list[_Place]:
    values = {**{name: i for i, name in enumerate(words.NUMBERS, 2)}, **{str(i): i for i in range(2, 11)}}
    found = [(match.start(), match.end(), match.group().casefold()) for match in _NUMBER.finditer(text)]
    named = {values[form] for _, _, form in found}
    places = []
    for start, end, form in found:
        digit, after, before = form.isdecimal(), _after(text, end), _before(text, start)[:1]
        if after in _TIMES or (digit and (not after or (before and before[0] in _LABELS))):
            continue
        options = tuple(o for o, value in values.items() if value not in named and o.isdecimal() == digit)
        places.append(_Place(start, end, options))
    return [place for place in places if place.options]


def _shown(name: str) -> str:
    return name.replace("tv", "TV") if name in ("tv", "tvs") else name


def _swapped(text: str, place: _Place, option: str, kind: str) -> Swap:
    right = text[place.start : place.end]
    wrong = _in_case_of(right, option)
    head = re.sub(r"(?<![\w'’-])(an?)(?=\s+$)", lambda m: _article(m.group(), wrong), text[: place.start], flags=re.I)
    return Swap(head + wrong + text[place.end :], len(head), len(head) + len(wrong), right, wrong, kind)


def _in_case_of(right: str, wrong: str) -> str:
    if right.casefold() in ("tv", "tvs") or right.isdecimal():
        return wrong
    if right.isupper():
        return wrong.upper()
    if right.istitle() and len(right.split()) > 1:
        return wrong.title()
    return wrong[0].upper() + wrong[1:] if right[0].isupper() else wrong


def _article(old: str, word: str) -> str:
    new = "an" if word[0].casefold() in "aeiou8" else "a"
    if old.casefold() == new:
        return old
    if old[0].islower():
        return new
    return new.upper() if word.isupper() and len(word) > 1 and word != "TV" else new.capitalize()
