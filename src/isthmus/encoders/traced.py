"""Where each character of a cleaned text stands in the text that it was cleaned from.

Tokenizers that know no offsets read a text after it was cleaned: mended, HTML references replaced, put in lower case,
white space joined, punctuation dropped.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Iterator

Extent = tuple[int, int]

_REFERENCE = re.compile(r"&(?:amp;)*#?\w{1,32};?")


def extents(text: str, cleaned: str) -> list[Extent]:
    """`(start, end)` in `text` of each character of `cleaned`; empty for one that came from nowhere."""
    source = list(_read(text))
    return _in_step(source, cleaned) or _matched(source, cleaned, len(text))


def _read(text: str) -> Iterator[tuple[str, Extent]]:
    """The characters of a text, HTML references replaced, each with its place."""
    start = 0
    for match in _REFERENCE.finditer(text):
        yield from ((text[i], (i, i + 1)) for i in range(start, match.start()))
        yield from _replaced(match.group(), match.start())
        start = match.end()
    yield from ((text[i], (i, i + 1)) for i in range(start, len(text)))


def _replaced(reference: str, at: int) -> Iterator[tuple[str, Extent]]:
    """What a reference stands for; what only follows one ("&notit" begins with "&not") keeps its own places."""
    found = html.unescape(html.unescape(reference))
    same = 0
    while same < min(len(found), len(reference)) and found[-1 - same] == reference[-1 - same]:
        same += 1
    end = len(reference) - same
    yield from ((character, (at, at + end)) for character in found[: len(found) - same])
    yield from ((reference[i], (at + i, at + i + 1)) for i in range(end, len(reference)))


def _in_step(source: list[tuple[str, Extent]], cleaned: str) -> list[Extent] | None:
    """Places, where cleaning dropped nothing but white space and signs; else None."""
    found, i = list[Extent](), 0
    for character in cleaned:
        while i < len(source) and not _same(source[i][0], character):
            if source[i][0].isalnum():
                return None
            i += 1
        if i == len(source):
            return None
        found.append(source[i][1])
        i += 1
    return found


def _same(one: str, cleaned: str) -> bool:
    if cleaned.isspace():
        return one.isspace() or one == "_"
    return one == cleaned or one.casefold() == cleaned.casefold()


def _matched(source: list[tuple[str, Extent]], cleaned: str, length: int) -> list[Extent]:
    """Places by the longest common parts; what stands for something else has the place of all of that."""
    folded = [character.casefold() for character, _ in source]
    matcher = difflib.SequenceMatcher(None, folded, [one.casefold() for one in cleaned], autojunk=False)
    found: list[Extent] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        own = [extent for _, extent in source[a:b]]
        if kind == "equal" or (kind == "replace" and b - a == d - c):
            found += own
        elif kind == "replace":
            found += [(own[0][0], own[-1][1])] * (d - c)
        elif kind == "insert":
            at = source[a][1][0] if a < len(source) else length
            found += [(at, at)] * (d - c)
    return found
