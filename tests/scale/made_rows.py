"""Rows for the tests of stores and summaries, without a model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.memory import MemoryFileSystem

from isthmus.scale.rows import table_of
from isthmus.scale.schema import Where

WORDS = ["a", "dog", "cat", "runs", "sleeps", "on", "the", "grass", "beside", "red", "blue", "ball", "tree", "sky"]


def made_row(
    name: str, seed: int, *, grid: tuple[int, int] = (7, 7), method: str = "nib", **given: Any
) -> dict[str, Any]:
    """A row such as `row_of` makes, of random numbers."""
    rng = np.random.default_rng(seed)
    words = [str(word) for word in rng.choice(WORDS, rng.integers(2, 7))]
    text = " ".join(words)
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1].tolist()
    ends = [start + len(word) for start, word in zip(starts, words, strict=True)]
    scores = rng.normal(0.01, 0.03, grid).astype(np.float32)
    own = rng.normal(0.02, 0.03, len(words)).astype(np.float32)
    similarity = float(np.float32(rng.normal(0.25, 0.05)))
    return {
        "id": name,
        "text": text,
        "picture": name,
        "where": vars(Where(f"/nowhere/{name}.jpg")),
        "method": method,
        "model": "mini",
        "revision": "abc",
        "similarity": similarity,
        "probability": None,
        "image_scores": scores.ravel(),
        "image_rows": grid[0],
        "image_columns": grid[1],
        "image_crop": [0.0, 0.0, 224.0, 224.0],
        "image_size": [224, 224],
        "image_input": [224, 224],
        "image_rest": 0.01,
        "image_open": similarity,
        "image_closed": 0.1,
        "image_total": float(scores.sum()),
        "image_delta": float(rng.gamma(1.0, 0.01)),
        "tokens": words,
        "token_starts": starts,
        "token_ends": ends,
        "token_scores": own,
        "words": words,
        "word_starts": starts,
        "word_ends": ends,
        "word_scores": own,
        "text_rest": 0.0,
        "text_open": similarity,
        "text_closed": 0.1,
        "text_total": float(own.sum()),
        "text_delta": float(rng.gamma(1.0, 0.02)),
        "notes": [],
        "versions": json.dumps({"isthmus": "0.1.0"}),
        **given,
    }


def made_table(names: Sequence[str], form: str = "float32", **given: Any) -> Any:
    return table_of([made_row(name, seed, **given) for seed, name in enumerate(names)], form)


class FlakyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A store in memory of its own of which one write in five fails, and every other time half-way."""

    protocol = "flaky"
    cachable = False
    every = 5

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.count = self.failed = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self._fail()
        super().pipe_file(path, value, mode=mode, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            self._fail()
        return super()._open(path, mode, **options)

    def _fail(self) -> None:
        self.count += 1
        if self.count % self.every == 0:
            self.failed += 1
            raise OSError("the store did not answer")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))


class StubbornFileSystem(FlakyFileSystem):
    """A store that does not move onto a file, as HDFS."""

    protocol = "stubborn"
    every = 10**9

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        if self.exists(path2):
            raise FileExistsError(path2)
        super().mv(path1, path2, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("stubborn://", "memory://"))


fsspec.register_implementation("stubborn", StubbornFileSystem, clobber=True)
fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


def fresh(protocol: str) -> str:
    """A URL in memory that no other test uses."""
    return f"{protocol}://{uuid.uuid4().hex}/out"
