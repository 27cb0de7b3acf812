"""Running out of memory: chunks and pairs halve, go on, and are remembered for the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import picture
from isthmus.encoders.memory import Rows, in_chunks, pairs_in_chunks, rows_at_once
from isthmus.encoders.pictures import open_picture
from isthmus.errors import ModelError
from isthmus.targets import embeddings_of


@pytest.fixture
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny()


def small(model: Any, monkeypatch: pytest.MonkeyPatch, limit: int, side: str = "image") -> list[int]:
    """Let the last block hold no more than `limit` rows; tells how many it was asked for each time."""
    block, asked = model.tower(side).blocks[-1], []
    original = block.forward

    def forward(states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        asked.append(len(states))
        if len(states) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(states, *args, **kwargs)

    monkeypatch.setattr(block, "forward", forward)
    return asked


def test_pairs_halve_go_on_and_are_remembered(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = [picture(i) for i in range(11)], [f"a dog {'far ' * (i % 3)}away" for i in range(11)]
    options: dict[str, Any] = {"method": "gradcam", "batch_size": 8}
    whole = isthmus.explain(tiny, images, texts, **options)
    asked, done = small(tiny, monkeypatch, limit=3), []
    found = isthmus.explain(tiny, images, texts, progress=lambda *n: done.append(n), **options)
    for a, b in zip(whole, found, strict=True):
        assert a.caption == b.caption
        np.testing.assert_allclose(a.image.scores, b.image.scores, atol=2e-6)
        np.testing.assert_allclose([t.score for t in a.text.tokens], [t.score for t in b.text.tokens], atol=2e-6)
    assert done == [(8, 11), (11, 11)]
    assert [n for n in asked if n > 3] == [8, 4], "8, 4, then no more than 2, in the second batch too"
    asked.clear()
    isthmus.explain(tiny, images, texts, **options)
    assert max(asked) == 2, "and in the next call"


def test_other_models_keep_their_pairs(
    tiny: Any, make_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tiny, monkeypatch, limit=1)
    images = [picture(i) for i in range(4)]
    isthmus.explain(tiny, images, "a dog", method="gradcam")
    other = make_tiny()
    asked = small(other, monkeypatch, limit=99)
    isthmus.explain(other, images, "a dog", method="gradcam")
    assert max(asked) == 4


def test_what_is_published_for_a_batch_is_not_cut(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tiny, monkeypatch, limit=2)
    with pytest.raises(ModelError, match="these 4 pairs, on which a published result depends"):
        isthmus.explain(tiny, [picture(i) for i in range(4)], "a dog", preset="paper", layer=2)


@pytest.mark.parametrize("side", ["text", "image"])
def test_banks_halve_too(tiny: Any, make_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    items: list[Any] = [f"a dog and {n} cats" if side == "text" else picture(n) for n in range(11)]
    whole = embeddings_of(make_tiny(), items)[0]
    asked = small(tiny, monkeypatch, limit=3, side=side)
    torch.testing.assert_close(embeddings_of(tiny, items)[0], whole)
    assert [n for n in asked if n > 3] == [11, 5]


def test_not_even_one_pair(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tiny, monkeypatch, limit=0)
    with pytest.raises(ModelError, match="memory does not hold one pass"):
        isthmus.explain(tiny, [picture(i) for i in range(4)], "a dog", method="gradcam")


def test_one_row_that_does_not_fit_beside_many_pairs_fits_beside_few(tiny: Any) -> None:
    """The chunks of a method may be down to one row while the states of all pairs fill the memory."""
    seen = []

    def run(part: slice) -> None:
        def one(_: slice) -> None:
            if part.stop - part.start > 2:
                raise torch.OutOfMemoryError("out of memory")
            seen.append((part.start, part.stop))

        in_chunks(one, 1, 1)

    pairs_in_chunks(run, 5, tiny.model)
    assert seen == [(0, 2), (2, 4), (4, 5)]


def test_chunks_are_remembered_in_bytes(tiny: Any) -> None:
    """A layer further on, where a row takes less, more rows fit into what is known to fit."""
    inputs = tiny.processing.pictures([open_picture(picture())])[0]
    splits = [tiny.image.split(inputs, layer) for layer in (0, 2)]
    whole = [rows_at_once(split, None) for split in splits]
    fits = whole[0] // 5

    def run(part: slice) -> None:
        if part.stop - part.start > fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    in_chunks(run, 2 * whole[0], whole[0])
    after = [rows_at_once(split, None) for split in splits]
    assert after[0] == whole[0] // 8
    assert after[1] == pytest.approx(whole[1] / 8, abs=3)
    assert rows_at_once(splits[0], 1 << 40) == after[0], "a stated budget is no promise that the machine keeps"
    assert rows_at_once(splits[0], 1) == 1


def test_rows_that_keep_no_graph_are_more(tiny: Any) -> None:
    rows = Rows.of(10, tiny.model, 100.0)
    assert (rows.times(8), rows.times(8).each, rows.times(8).at_most(64).each) == (80, 12.5, 12.5)
    assert rows.at_most(4) == 4
    assert Rows.of(0, tiny.model, 1.0) == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def run(_: slice) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        in_chunks(run, 4, 2)
