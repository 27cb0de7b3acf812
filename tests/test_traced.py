"""Characters of a cleaned text are found where they stand in the user's."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.encoders.traced import extents


def shown(text: str, cleaned: str) -> list[str]:
    return [text[start:end] for start, end in extents(text, cleaned)]


@pytest.mark.parametrize(
    ("text", "cleaned", "expected"),
    [
        ("A  Dog\t", "a dog", ["A", " ", "D", "o", "g"]),
        (" a\n\ncat", "a cat", ["a", "\n", "c", "a", "t"]),
        ("x &amp; y", "x & y", ["x", " ", "&amp;", " ", "y"]),
        ("&amp;lt;b", "<b", ["&amp;lt;", "b"]),
        ("&#x41;&#66;", "ab", ["&#x41;", "&#66;"]),
        ("caf&eacute;s", "cafés", ["c", "a", "f", "&eacute;", "s"]),
        ("&notit", "¬it", ["&not", "i", "t"]),
        ("a & b; c", "a & b; c", ["a", " ", "&", " ", "b", ";", " ", "c"]),
        ("Don't, stop_it!", "dont stop it", ["D", "o", "n", "t", " ", "s", "t", "o", "p", "_", "i", "t"]),
        ("a - b", "a b", ["a", " ", "b"]),
        ("it’s", "it's", ["i", "t", "’", "s"]),
        ("ﬁsh", "fish", ["ﬁ", "ﬁ", "s", "h"]),
        ("cafe\u0301 x", "café x", ["c", "a", "f", "e\u0301", " ", "x"]),
        ("ΟΔΟΣ ab", "οδος ab", ["Ο", "Δ", "Ο", "Σ", " ", "a", "b"]),
        ("sch√∂n ab", "schön ab", ["s", "c", "h", "√∂", "n", " ", "a", "b"]),
        ("ab", "ab!", ["a", "b", ""]),
    ],
)
def test_places(text: str, cleaned: str, expected: list[str]) -> None:
    assert shown(text, cleaned) == expected


@given(st.text(st.characters(codec="utf-8", exclude_characters="&İ"), max_size=40))
def test_lower_case_and_white_space_are_exact(text: str) -> None:
    """Each character of what is left shows the one that it was made of."""
    cleaned = " ".join(text.split()).lower()
    if len(cleaned) == len(" ".join(text.split())):
        kept = [one for one in zip(cleaned, shown(text, cleaned), strict=True) if not one[0].isspace()]
        assert all(own.lower() == character or own.casefold() == character.casefold() for character, own in kept)
        assert "".join(own for _, own in kept) == "".join(text.split())


@given(st.text(max_size=60), st.text(max_size=60))
def test_places_are_in_order_and_within_the_text_whatever_is_given(text: str, cleaned: str) -> None:
    found = extents(text, cleaned)
    assert len(found) == len(cleaned)
    assert all(0 <= start <= end <= len(text) for start, end in found)
    assert [start for start, _ in found] == sorted(start for start, _ in found)


@given(st.text("ab&;#amplgt1 x", max_size=30))
def test_references_are_read_as_html_reads_them(text: str) -> None:
    cleaned = html.unescape(html.unescape(text))
    found = extents(text, cleaned)
    assert len(found) == len(cleaned)
    for (start, end), character in zip(found, cleaned, strict=True):
        assert character in html.unescape(html.unescape(text[start:end]))
