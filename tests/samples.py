"""Explanations made by hand, for tests that need no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from isthmus.explanation import (
    Box,
    Completeness,
    Explanation,
    ImageAttribution,
    Provenance,
    Special,
    TextAttribution,
    Token,
    Word,
)


def image_side(scores: Any = None, *, size: tuple[int, int] = (60, 80), crop: Box | None = None, **more: Any) -> Any:
    if scores is None:
        scores = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32) / 50
    return ImageAttribution(
        scores=np.asarray(scores),
        special=(Special("CLS", 0, 0.125),),
        crop=crop or Box(0.0, 10.0, 60.0, 70.0),
        size=size,
        input_size=(30, 30),
        completeness=Completeness(0.3, -0.1, 0.39),
        target="cosine with 'a dog'",
        options={"layer": 0, "steps": 10, "closed": "mean", "sizes": (1, 2)},
        **more,
    )


def text_side(text: str = "a dog", values: Any = None, **more: Any) -> Any:
    spans, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    values = list(values) if values is not None else [0.01 * (-1) ** i * (i + 1) for i in range(len(spans))]
    tokens = tuple(Token(text[a:b], a, b, i + 1, v) for i, ((a, b), v) in enumerate(zip(spans, values, strict=True)))
    return TextAttribution(
        text=text,
        tokens=tokens,
        words=tuple(Word(t.text, t.start, t.end, t.score, (i,)) for i, t in enumerate(tokens)),
        special=(Special("BOS", 0, 0.01), Special("EOS", len(spans) + 1, -0.02)),
        completeness=Completeness(0.3, None, 0.1),
        target="cosine with the picture",
        options={"layer": 0},
        **more,
    )


def sample(text: str = "a dog", /, **changes: Any) -> Explanation:
    fields: dict[str, Any] = {
        "image": image_side(),
        "text": text_side(text) if text else None,
        "picture": np.random.default_rng(1).integers(0, 255, (80, 60, 3), dtype=np.uint8),
        "caption": text,
        "source": "dog.jpg",
        "similarity": 0.3,
        "probability": None,
        "provenance": Provenance(
            model="mini",
            revision="abc",
            method="nib",
            preset=None,
            options={"steps": 10, "against": ("a", "b")},
            versions={"isthmus": "0"},
            device="cpu",
            dtype="float32",
            seconds=0.5,
            passes={"forward": 12.0},
        ),
    }
    return Explanation(**{**fields, **changes})
