"""Metrics of models that are no CLIP: SigLIP, whose texts are padded and read, and NaFlex, whose pictures differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
import zoo
from conftest import picture
from isthmus.benchmark.plan import Plan, metrics_of
from isthmus.benchmark.run import run
from isthmus.benchmark.spec import specs_of
from isthmus.datasets import Sample
from isthmus.errors import InputError, ModelError
from isthmus.metrics import measure
from isthmus.metrics.pairs import judged, pairs_of
from isthmus.metrics.trivial import TRIVIAL, trivial

NAMES = [name for name in ("siglip", "siglip2", "align", "vit-bert") if name in zoo.ZOO]
PICTURES = [picture(0, (90, 60)), picture(1, (48, 80))]
TEXTS = ["a dog", "a small bird sits near the river"]


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    built = zoo.ZOO[request.param]()
    processor = {"image_processor": built.image_processor, "tokenizer": built.tokenizer}
    model = isthmus.load(built.model, processor=processor)
    return request.param, model, isthmus.explain(model, PICTURES, TEXTS, method="input-x-gradient")


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("metric", ["insertion", "deletion", "sensitivity-n", "infidelity"])
def test_a_pair_is_judged_beside_others_as_alone(case: tuple[str, Any, Any], metric: str, side: Any) -> None:
    _, model, found = case
    values = measure(found, model, metric, side, images=PICTURES)
    alone = [measure(one, model, metric, side, images=[p])[0] for one, p in zip(found, PICTURES, strict=True)]
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("replacement", ["mean", "blur", "zero", "black"])
def test_sound_confidence_runs_on_pictures(case: tuple[str, Any, Any], replacement: str) -> None:
    _, model, found = case
    drops = measure(
        found, model, "confidence-drop", "image", images=PICTURES, protocol="sound", replacement=replacement
    )
    assert np.isfinite(drops).all()
    assert (drops >= 0).all()


def test_paper_confidence_scales_what_enters(case: tuple[str, Any, Any]) -> None:
    """A map of ones leaves a picture as it is, and one of zeros leaves the mean colour of the training set."""
    _, model, found = case
    judged_ = judged(found, model, PICTURES)
    assert np.isfinite(measure(judged_, model, "confidence-drop", "image")).all()
    flat = trivial(judged_.pairs, "flat")
    drops = measure(flat, model, "confidence-drop", "image")
    assert drops.max() < 3  # 0.99 everywhere takes next to nothing away
    assert set(TRIVIAL) >= {"flat"}


def test_paper_confidence_of_texts_needs_ends(case: tuple[str, Any, Any]) -> None:
    name, model, found = case
    if name.startswith("siglip"):
        with pytest.raises(ModelError, match=r'start and end token off a text.*protocol="sound"'):
            measure(found, model, "confidence-drop", "text", images=PICTURES)
        with pytest.raises(ModelError, match="without an attention mask"):
            measure(found, model, "confidence-drop", "text", images=PICTURES, protocol="sound", replacement="remove")
    else:
        assert np.isfinite(measure(found, model, "confidence-drop", "text", images=PICTURES)).all()


def test_regions_are_those_of_the_models_input(case: tuple[str, Any, Any]) -> None:
    name, model, found = case
    height, width = found[0].image.input_size
    regions = np.zeros((1, height, width), dtype=bool)
    regions[:, : height // 2] = True
    pairs = pairs_of(model, PICTURES[:1], TEXTS[:1], regions=regions)
    value = measure(trivial(pairs, "centre"), model, "energy-inside", "image")
    np.testing.assert_allclose(value, [0.5], atol=0.05)
    if name == "siglip2":
        both = pairs_of(model, PICTURES, TEXTS, regions=np.zeros((2, height, width), dtype=bool))
        with pytest.raises(InputError, match="inputs of these pictures have 2 sizes"):
            measure(trivial(both, "centre"), model, "energy-inside", "image")


def test_evaluate_measures_what_the_model_can_serve(tmp_path: Path) -> None:
    """The command of NaFlex pictures of two shapes, with a metric that SigLIP's texts cannot serve."""
    if "siglip2" not in zoo.ZOO:
        pytest.skip("the installed transformers has no SigLIP 2")
    built = zoo.ZOO["siglip2"]()
    model = isthmus.load(
        built.model, processor={"image_processor": built.image_processor, "tokenizer": built.tokenizer}
    )
    samples = [Sample(f"s{i}", one, (text,)) for i, (one, text) in enumerate(zip(PICTURES, TEXTS, strict=True))]
    metrics = metrics_of(["insertion", "deletion", "confidence-drop"])
    plan = Plan(model, "two", samples, specs_of(["input-x-gradient"], trivial=["random"]), metrics)
    outcome = run(plan, tmp_path)
    assert not outcome.failed
    assert not outcome.refused
    rows = outcome.rows.to_pylist()
    assert {(row["metric"], row["side"]) for row in rows} >= {("insertion", "image"), ("deletion", "text")}
    assert {row["side"] for row in rows if row["metric"] == "confidence-drop" and row["variant"] == "paper"} == {
        "image"
    }
    assert "confidence-drop (text, paper)" in outcome.skipped
    assert {row["variant"] for row in rows if not np.isfinite(row["value"])} <= {
        "cosine normalised",
        "margin normalised",
    }
