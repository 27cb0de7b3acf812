"""A tower cut at any layer gives what the whole model gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
from isthmus.encoders.tower import Tower, unit
from isthmus.errors import ModelError, OptionError
from state import untouched


def inputs_of(model: Any, side: str, batch: int = 3, length: int = 9) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    if side == "image":
        size = model.model.config.vision_config.image_size
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=generator).to(model.dtype)}
    ids = torch.randint(10, 8000, (batch, length), generator=generator)
    ids[:, -1] = 8191
    mask = torch.ones_like(ids)
    if length > 4:
        ids[0, -3:], mask[0, -2:] = torch.tensor([8191, 0, 0]), 0  # one text is shorter
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny()


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_resuming_from_the_hidden_state_gives_the_models_embedding(tiny: Any, side: str, layer: int) -> None:
    tower, inputs = tiny.tower(side), inputs_of(tiny, side)
    split = tower.split(inputs, layer)
    torch.testing.assert_close(split.embedding, tower.embed(inputs), rtol=0, atol=0)
    torch.testing.assert_close(split.resume(split.hidden), split.embedding, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_replacements_equal_a_hook_that_pays_the_prefix_again(tiny: Any, side: str, layer: int) -> None:
    """The oracle substitutes the state in the unshortened model, one replacement at a time."""
    tower, inputs = tiny.tower(side), inputs_of(tiny, side)
    split = tower.split(inputs, layer)
    noise = torch.randn(5, *split.hidden.shape[1:], generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([2, 0, 1, 1, 2])
    found = split.resume(noise, rows)
    for i, row in enumerate(rows.tolist()):
        value = noise[i : i + 1]
        if layer < tower.depth:
            handle = tower.blocks[layer].register_forward_pre_hook(
                lambda _, args, v=value: (v, *args[1:]), with_kwargs=False
            )
        else:
            handle = tower.blocks[-1].register_forward_hook(
                lambda _module, _given, out, v=value: (v, *out[1:]) if isinstance(out, tuple) else v  # transformers 4
            )
        try:
            expected = tower.encode({k: v[row : row + 1] for k, v in inputs.items()})
        finally:
            handle.remove()
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-5, atol=1e-6)


def test_prefix_is_skipped_when_resuming(tiny: Any) -> None:
    tower, ran = tiny.image, []
    split = tower.split(inputs_of(tiny, "image"), 2)
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in [
            *((str(i), b) for i, b in enumerate(tower.blocks)),
            ("stem", getattr(*tower.stem)),
        ]
    ]
    try:
        split.resume(split.hidden)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == ["2"]


def test_default_rows_run_through_the_batch_in_turn(tiny: Any) -> None:
    split = tiny.text.split(inputs_of(tiny, "text"), 1)
    twice = split.resume(torch.cat([split.hidden, split.hidden]))
    torch.testing.assert_close(twice, torch.cat([split.embedding] * 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["image", "text"])
def test_gradients_reach_the_replacement_alone(tiny: Any, side: str) -> None:
    tower = tiny.tower(side)
    split = tower.split(inputs_of(tiny, side), 1)
    state = split.hidden.clone().requires_grad_(True)
    with untouched(tiny.model):
        unit(split.resume(state)).sum().backward()
    assert state.grad is not None
    assert float(state.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("given", "expected"), [(0, 0), (3, 3), (-1, 3), (-2, 2), (-4, 0), (0.75, 2), (0.5, 2), (2.0, 2)]
)
def test_layers_have_one_meaning(tiny: Any, given: float, expected: int) -> None:
    assert tiny.image.resolve(given) == expected


@pytest.mark.parametrize("layer", [4, -5, 1.5, -0.5, "9", True, None])
def test_layers_out_of_range_are_refused(tiny: Any, layer: Any) -> None:
    with pytest.raises(OptionError, match=r"layer"):
        tiny.image.resolve(layer)


def test_train_mode_and_learning_parameters_come_back(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    model.model.train()
    model.model.text_model.eval()
    next(model.model.parameters()).requires_grad_(False)
    with untouched(model.model):
        split = model.image.split(inputs_of(model, "image"), 1)
        split.resume(split.hidden)


def test_everything_comes_back_after_an_exception(tiny: Any) -> None:
    split = tiny.image.split(inputs_of(tiny, "image"), 1)
    with untouched(tiny.model), pytest.raises(RuntimeError):
        split.resume(torch.zeros(2, 3, 7))
    with untouched(tiny.model), pytest.raises((RuntimeError, ValueError)):
        tiny.image.split({"pixel_values": torch.zeros(1, 3, 10, 10)}, 1)


def test_a_users_own_hooks_stay(tiny: Any) -> None:
    seen: list[int] = []
    handle = tiny.image.blocks[2].register_forward_hook(lambda *_: seen.append(1))
    try:
        split = tiny.image.split(inputs_of(tiny, "image"), 1)
        with untouched(tiny.model):
            split.resume(split.hidden)
    finally:
        handle.remove()
    assert len(seen) >= 2


def test_weights_that_are_not_finite_are_named(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    with torch.no_grad():
        model.model.vision_model.encoder.layers[1].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"not finite.*float32"):
        isthmus.explain(model, torch.rand(3, 80, 80), "a dog")


def test_a_model_that_cannot_be_resumed_is_refused(tiny: Any) -> None:
    """A model whose later part looks back at its own input would give maps of something else."""
    calls: list[int] = []

    def encode(inputs: Any) -> torch.Tensor:
        calls.append(1)
        embedding = tiny.image.encode(inputs)
        return embedding if len(calls) == 1 else -embedding

    broken = Tower(
        side="image",
        model=tiny.model,
        encode=encode,
        owner=tiny.image.owner,
        stack="layers",
        stem=tiny.image.stem,
    )
    with pytest.raises(ModelError, match="cannot be cut at layer 1"):
        broken.split(inputs_of(tiny, "image"), 1)


def test_threads_do_not_see_each_others_cut(tiny: Any) -> None:
    inputs = inputs_of(tiny, "image")
    expected = tiny.image.embed(inputs)
    wrong: list[float] = []

    def work(layer: int) -> None:
        for _ in range(10):
            split = tiny.image.split(inputs, layer)
            wrong.append(float((split.resume(split.hidden) - expected).abs().max()))

    threads = [threading.Thread(target=work, args=(layer,)) for layer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40
    assert max(wrong) < 1e-4


def test_works_within_inference_mode_and_autocast(tiny: Any) -> None:
    image = torch.rand(3, 80, 80)
    outside = isthmus.explain(tiny, image, "a dog")
    with torch.inference_mode():
        inside = isthmus.explain(tiny, image.clone(), "a dog")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = isthmus.explain(tiny, image, "a dog")
    with torch.no_grad():
        without = isthmus.explain(tiny, image, "a dog")
    for other in (inside, mixed, without):
        assert (other.image.scores == outside.image.scores).all()


def test_sdpa_and_eager_agree(make_tiny: Callable[..., Any]) -> None:
    picture = torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(0))
    sdpa, eager = (
        isthmus.explain(make_tiny(attention=attention), picture, ["a dog", "two cats on a red sofa"], layer=1)
        for attention in ("sdpa", "eager")
    )
    assert make_tiny(attention="eager").model.config._attn_implementation == "eager"
    for one, other in zip(sdpa, eager, strict=True):
        np.testing.assert_allclose(one.image.scores, other.image.scores, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            [token.score for token in one.text.tokens],
            [token.score for token in other.text.tokens],
            rtol=1e-4,
            atol=1e-6,
        )


def test_one_model_loaded_twice_has_one_lock(make_tiny: Callable[..., Any]) -> None:
    """A cut changes the model's stack: two doors to one model must not cut it at once."""
    first = make_tiny(depth=4)
    processing = first.processing
    processor = {
        "image_processor": processing.of_pictures._image_processor,
        "tokenizer": processing.of_texts._tokenizer,
    }
    doors = [first, *(isthmus.load(first.model, processor=processor) for _ in range(3))]
    picture = torch.rand(3, 80, 80)
    expected = [isthmus.explain(first, picture, "a dog", layer=layer, steps=4) for layer in range(4)]
    failures: list[object] = []

    def work(door: Any, layer: int) -> None:
        try:
            for _ in range(5):
                loaded = isthmus.load(first.model, processor=processor)
                found = isthmus.explain(door, picture, "a dog", layer=layer, steps=4)
                if loaded.image.depth != 4 or not (found.image.scores == expected[layer].image.scores).all():
                    failures.append((layer, loaded.image.depth))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(door, layer)) for layer, door in enumerate(doors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(first.model.vision_model.encoder.layers) == 4


def test_changed_weights_are_seen(make_tiny: Callable[..., Any]) -> None:
    model, picture = make_tiny(seed=3), torch.rand(3, 80, 80)
    isthmus.explain(model, picture, ["a dog", "a cat"])
    revision, scale = model.revision, model.logit_scale
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(1.1)
    fresh = make_tiny(seed=3)
    fresh.model.load_state_dict(model.model.state_dict())
    again, expected = (isthmus.explain(one, picture, ["a dog", "a cat"]) for one in (model, fresh))
    assert model.revision != revision
    assert model.logit_scale != scale
    for one, other in zip(again, expected, strict=True):
        np.testing.assert_array_equal(one.image.scores, other.image.scores)
        assert one.probability == other.probability
