"""Corpus targets (COCOA; Lin et al., ICLR 2023): a corpus against a foil, both lists of texts or of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from conftest import EXAMPLES, picture
from isthmus import Contrast
from isthmus.encoders.pictures import open_picture

WORDS = ["dog", "cat", "bus", "tree", "house", "sea", "bird", "pizza", "horse", "bear", "laptop", "sky"]


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny()


@pytest.fixture(scope="module")
def tiny64(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny(dtype=torch.float64)


def texts_of(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(1, 8)))) for _ in range(count)]


def unit_mean(model: Any, side: str, items: list[Any]) -> np.ndarray:
    """Mean of unit embeddings by the model's own code; texts of one length run together, without padding."""
    found: list[torch.Tensor] = []
    with torch.no_grad():
        if side == "text":
            by_length: dict[int, list[list[int]]] = {}
            for ids in model.processing.of_texts._tokenizer(items)["input_ids"]:
                by_length.setdefault(len(ids), []).append(ids)
            found = [embedded(model.model.get_text_features(torch.tensor(same))) for same in by_length.values()]
        else:
            inputs = [model.processing.pictures([open_picture(item)])[0] for item in items]
            found = [embedded(model.model.get_image_features(**one)) for one in inputs]
    vectors = torch.cat(found).double().numpy()
    assert len(vectors) == len(items)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).mean(0)


def embedded(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out.pooler_output


def opened(model: Any, *arguments: Any, **options: Any) -> tuple[Any, float]:
    """The map, and the score that it explains."""
    one = isthmus.explain(model, *arguments, method="nib", **options)
    side = one.image if one.image is not None else one.text
    return one, side.completeness.open


@contextmanager
def rows_through(module: Any) -> Iterator[list[int]]:
    """Within it, the batch size of every run of a module is kept."""
    sizes: list[int] = []
    hook = module.register_forward_hook(lambda _, __, out: sizes.append(len(out.pooler_output)))
    try:
        yield sizes
    finally:
        hook.remove()


def test_a_corpus_of_one_text_is_the_pair(tiny64: Any) -> None:
    pair = isthmus.explain(tiny64, picture(), "a small dog", sides="image")
    corpus = isthmus.explain(tiny64, picture(), target=Contrast(["a small dog"], []))
    np.testing.assert_allclose(corpus.image.scores, pair.image.scores, rtol=0, atol=1e-12)
    assert corpus.image.completeness.open == pytest.approx(pair.similarity, abs=1e-12)


def test_a_corpus_of_one_picture_is_the_pair(tiny64: Any) -> None:
    pair = isthmus.explain(tiny64, picture(), "a small dog", sides="text")
    corpus = isthmus.explain(tiny64, None, "a small dog", target=Contrast([picture()], []))
    assert [t.score for t in corpus.text.tokens] == pytest.approx([t.score for t in pair.text.tokens], abs=1e-12)


@pytest.mark.parametrize("method", ["nib", "hirescam", "integrated-gradients", "occlusion", "rise", "textspan"])
def test_swapping_corpus_and_foil_negates_the_map(tiny64: Any, method: str) -> None:
    corpus, foil = ["a dog", "a cat on a mat"], ["a house", "the sea", "grass"]
    few = {"samples": 32} if "samples" in isthmus.METHODS[method].options else {}
    maps = [
        isthmus.explain(tiny64, picture(), method=method, target=Contrast(a, b), **few).image.scores
        for a, b in ((corpus, foil), (foil, corpus))
    ]
    np.testing.assert_allclose(maps[0], -maps[1], rtol=0, atol=1e-6)
    assert np.abs(maps[0]).max() > 1e-5


def test_a_corpus_map_is_the_mean_of_its_texts_maps(tiny64: Any) -> None:
    corpus, foil = texts_of(4, 0), texts_of(3, 1)
    whole = isthmus.explain(tiny64, picture(), target=Contrast(corpus, foil)).image.scores
    each = [isthmus.explain(tiny64, picture(), text, sides="image").image.scores for text in corpus + foil]
    np.testing.assert_allclose(whole, np.mean(each[:4], axis=0) - np.mean(each[4:], axis=0), rtol=0, atol=1e-10)


def test_a_corpus_map_of_a_text_is_the_mean_of_its_pictures_maps(tiny64: Any) -> None:
    corpus, foil, text = [picture(0), picture(1)], [picture(2)], "a dog in the grass"
    whole = isthmus.explain(tiny64, None, text, target=Contrast(corpus, foil)).text
    each = [
        [token.score for token in isthmus.explain(tiny64, one, text, sides="text").text.tokens] for one in corpus + foil
    ]
    expected = np.mean(each[:2], axis=0) - each[2]
    np.testing.assert_allclose([token.score for token in whole.tokens], expected, rtol=0, atol=1e-10)


def test_the_score_is_that_of_the_means_of_unit_embeddings(tiny: Any) -> None:
    """COCOA's sizes: a corpus of 100 and a foil of 1,500."""
    corpus, foil = texts_of(100, 2), texts_of(1500, 3)
    found, score = opened(tiny, picture(), target=Contrast(corpus, foil))
    u = unit_mean(tiny, "image", [picture()])
    expected = u @ (unit_mean(tiny, "text", corpus) - unit_mean(tiny, "text", foil))
    assert score == pytest.approx(expected, abs=1e-6)
    assert found.image.completeness.delta == pytest.approx(0, abs=1e-3)


def test_a_folder_of_pictures_is_a_corpus(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    picture(3).save(tmp_path / "deeper" / "3.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    _, score = opened(tiny, None, "a dog", target=Contrast([tmp_path], [EXAMPLES / "bear.jpg"]))
    files = [tmp_path / "0.png", tmp_path / "1.png", tmp_path / "2.png", tmp_path / "deeper" / "3.jpg"]
    mean = unit_mean(tiny, "image", files) - unit_mean(tiny, "image", [EXAMPLES / "bear.jpg"])
    assert score == pytest.approx(unit_mean(tiny, "text", ["a dog"]) @ mean, abs=1e-6)


def test_a_corpus_is_embedded_once_however_many_batches_there_are(tiny: Any) -> None:
    corpus, foil = texts_of(100, 4), texts_of(130, 5)
    pictures = [picture(i) for i in range(7)]
    with rows_through(tiny.model.text_model) as sizes:
        found = isthmus.explain(tiny, pictures, method="hirescam", target=Contrast(corpus, foil), batch_size=2)
    assert len(found) == 7
    assert sizes == [64, 36, 64, 64, 2]
    singles = [isthmus.explain(tiny, one, method="hirescam", target=Contrast(corpus, foil)) for one in pictures]
    for a, b in zip(found, singles, strict=True):
        np.testing.assert_allclose(a.image.scores, b.image.scores, atol=2e-6)


def test_a_foil_of_pairs_is_embedded_once_too(tiny: Any) -> None:
    with rows_through(tiny.model.text_model) as sizes:
        isthmus.explain(
            tiny, [picture(0), picture(1)], ["a dog", "a cat"], method="hirescam", sides="image",
            against=texts_of(70, 6), batch_size=1,
        )  # fmt: skip
    assert sorted(sizes) == [1, 1, 6, 64]


def test_passes_are_counted_without_the_corpus(tiny: Any) -> None:
    few, many = (isthmus.explain(tiny, picture(), method="hirescam", target=Contrast(texts_of(n, 7))) for n in (1, 90))
    assert few.provenance.passes == many.provenance.passes


def test_a_corpus_of_both_kinds_is_refused() -> None:
    with pytest.raises(isthmus.IsthmusError, match="texts or pictures, not both"):
        Contrast(["a dog"], [EXAMPLES])


def test_a_kept_contrast_is_embedded_once_for_a_model(make_tiny: Callable[..., Any], monkeypatch: Any) -> None:
    """As large as 1,500 texts, over methods, calls and a comparison; again only where weights change."""
    model, runs = make_tiny(), []
    embed = type(model.text).embed

    def counting(tower: Any, inputs: Any, **options: Any) -> Any:
        runs.extend([1] * (tower.side == "text"))
        return embed(tower, inputs, **options)

    monkeypatch.setattr(type(model.text), "embed", counting)
    target = isthmus.Contrast(for_=["a dog"], against=[f"a thing of the kind {i}" for i in range(1500)])
    for method in ("saliency", "gradcam"):
        isthmus.explain(model, picture(), target=target, method=method)
    isthmus.compare(model, picture(), target=target, methods=["hirescam", "legrad"])
    assert len(runs) == 1 + 24  # batches of 64
    with torch.no_grad():
        next(model.text.model.parameters()).add_(0.01)
    isthmus.explain(model, picture(), target=target, method="gradcam")
    assert len(runs) == 2 * 25
