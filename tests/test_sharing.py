"""Nothing is computed twice within a call: pictures, texts and prefixes, counted where the model itself runs."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isthmus
import isthmus.call
import isthmus.preparing
from cheap import CHEAP
from conftest import picture
from isthmus.encoders.counting import counted
from isthmus.encoders.sharing import Shared, Store, digests_of, sharing
from isthmus.errors import InputError, OptionError
from isthmus.methods import METHODS
from isthmus.preparing import planned
from state import untouched
from test_tower import inputs_of

WORDS = ["dog", "cat", "grass", "wet", "small", "red", "runs"]
TEXTS = [f"a {WORDS[i % 7]} {WORDS[(i // 7) % 7]} {'over there ' * (i % 4)}" for i in range(49)] + ["a bird"]


@pytest.fixture
def tiny(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny()


@contextmanager
def counting(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts rows in the first block of each tower, and pictures and texts that are prepared."""
    seen: Counter[str] = Counter()
    processor, reader = model.processing.of_pictures, model.processing.of_texts

    def watch(owner: Any, name: str, what: str, size: Callable[..., int]) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seen[what] += size(*args, **kwargs)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched, raising=False)

    watch(model.image.blocks[0], "forward", "picture rows", lambda states, *_, **__: len(states))
    watch(model.text.blocks[0], "forward", "text rows", lambda states, *_, **__: len(states))
    watch(processor, "pictures", "pictures", len)
    watch(reader, "texts", "texts", lambda texts, **_: len(texts))
    try:
        yield seen
    finally:
        monkeypatch.undo()


def equal(a: isthmus.Explanation, b: isthmus.Explanation) -> None:
    np.testing.assert_allclose(a.image.scores, b.image.scores, atol=2e-6)
    np.testing.assert_allclose([t.score for t in a.text.tokens], [t.score for t in b.text.tokens], atol=2e-6)
    assert (a.caption, a.source) == (b.caption, b.source)


@pytest.mark.parametrize("size", [8, 64])
def test_one_picture_with_fifty_texts_runs_its_prefix_once(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The cut is at layer 2 of 3: what is resumed there leaves the first block out."""
    options: dict[str, Any] = {"method": "gradcam", "layer": 2, "batch_size": size}
    isthmus.explain(tiny, picture(), "warm", **options)  # the cut is proved once for a model
    with counting(tiny, monkeypatch) as seen:
        found = isthmus.explain(tiny, picture(), TEXTS, **options)
    assert seen["picture rows"] == 1, "the run that embeds it keeps what enters block 2"
    assert seen["text rows"] == 50
    assert (seen["pictures"], seen["texts"]) == (1, 50)
    assert [one.caption for one in found] == TEXTS, "in the caller's order"
    for place in (0, 17, 49):
        alone = isthmus.explain(tiny, picture(), TEXTS[place], **options)
        equal(found[place], alone)
        assert found[place].provenance.passes == alone.provenance.passes, "what a pair needs, whoever ran it"


def test_all_pictures_with_all_texts_run_each_prefix_once(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [picture(i) for i in range(5)]
    options: dict[str, Any] = {"method": "gradcam", "layer": 2, "pairing": "all"}
    isthmus.explain(tiny, picture(), "warm", method="gradcam", layer=2)
    for size, count in ((4, 9), (32, 9), (32, 40)):
        texts = TEXTS[:count]
        with counting(tiny, monkeypatch) as seen:
            found = isthmus.explain(tiny, pictures, texts, batch_size=size, **options)
        assert seen == {"picture rows": 5, "text rows": count, "pictures": 5, "texts": count}
        assert [one.caption for one in found] == texts * 5
        equal(found[count + 3], isthmus.explain(tiny, pictures[1], texts[3], method="gradcam", layer=2))


def test_equal_pictures_and_texts_are_found_by_their_content(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same picture as a file of two names, and as two objects; a text in pairs of its own."""
    for name in ("one.png", "other.png"):
        picture(3).save(tmp_path / name)
    images = [tmp_path / "one.png", str(tmp_path / "one.png"), tmp_path / "other.png", picture(3), picture(4)]
    options: dict[str, Any] = {"method": "gradcam", "layer": 2, "batch_size": 2}
    isthmus.explain(tiny, picture(), "warm", **options)
    with counting(tiny, monkeypatch) as seen:
        found = isthmus.explain(tiny, images, ["a dog"] * 5, **options)
    assert seen == {"picture rows": 2, "text rows": 1, "pictures": 4, "texts": 1}
    assert [one.source for one in found] == [str(tmp_path / "one.png")] * 2 + [str(tmp_path / "other.png"), "", ""]
    assert all(one.image.scores.tobytes() == found[0].image.scores.tobytes() for one in found[:4])
    assert not np.array_equal(found[4].image.scores, found[0].image.scores)


@pytest.mark.parametrize("preset", [None, "paper"])
@pytest.mark.parametrize("method", sorted(name for name, one in METHODS.items() if one.cut))
def test_the_run_that_embeds_an_input_keeps_what_enters_the_cut(
    monkeypatch: pytest.MonkeyPatch, method: str, preset: str | None
) -> None:
    """By a method's own default layer and by its preset's; what it gives is what it gives without that help."""
    if preset not in (None, *METHODS[method].presets):
        pytest.skip(f"{method} has no such preset")
    mini, options = isthmus.load("mini"), {**CHEAP.get(method, {}), "method": method, "preset": preset}
    first = isthmus.explain(mini, picture(1), "a dog", **options)
    with counting(mini, monkeypatch) as seen:
        again = isthmus.explain(mini, picture(1), "a dog", **options)
    if again.image.options["layer"] > 0:
        assert (seen["picture rows"], seen["text rows"]) == (1, 1)
    assert (again.image, again.text) == (first.image, first.text)
    monkeypatch.setattr(isthmus.call.Call, "cut", lambda *_: None)
    with counting(mini, monkeypatch) as seen:
        alone = isthmus.explain(mini, picture(1), "a dog", **options)
    assert seen["picture rows"] > 1
    assert (alone.image, alone.text, alone.provenance.passes) == (first.image, first.text, first.provenance.passes)


def test_a_layer_that_does_not_exist_is_refused_as_before(tiny: Any) -> None:
    with pytest.raises(OptionError, match="layer=9 is out of range"):
        isthmus.explain(tiny, picture(), "a dog", layer=9)
    with pytest.raises(OptionError, match="layer"):
        isthmus.explain(tiny, picture(), "a dog", layer=math.nan)


def test_gates_of_two_kinds_at_one_layer_share_a_prefix(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"nib": {"layer": 2}, "m2ib": {"layer": 2}}
    isthmus.compare(tiny, picture(), "warm", methods=[*methods], options=methods)  # cuts are proved once for a model
    with counting(tiny, monkeypatch) as seen:
        found = isthmus.compare(tiny, picture(1), "a dog", methods=[*methods], options=methods)
    assert (seen["picture rows"], seen["text rows"]) == (2, 2), "an embedding and one prefix each, of four calls"
    for row in found.rows:
        alone = isthmus.explain(tiny, picture(1), "a dog", method=row.method, layer=2)
        assert row.explanation.image == alone.image
        assert row.explanation.provenance.passes == alone.provenance.passes, "of a pair alone, whatever is shared"


@pytest.mark.parametrize("method", ["rise", "lime", "occlusion"])
def test_one_picture_is_masked_once_for_all_its_texts(tiny: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    options = {"method": method, **CHEAP.get(method, {})}
    masks = 49 if method == "occlusion" else 12
    texts = ["a dog", "a small dog runs", "a dog", "two cats"]
    isthmus.explain(tiny, picture(), "warm", **options)
    with counting(tiny, monkeypatch) as seen:
        found = isthmus.explain(tiny, picture(), texts, **options)
    assert seen["picture rows"] == 1 + masks, "its embedding and its masked copies; what enters needs no block"
    for place, one in enumerate(found):
        equal(one, isthmus.explain(tiny, picture(), texts[place], **options))
    pictures = [picture(0), picture(1), picture(0)]
    with counting(tiny, monkeypatch) as seen:
        isthmus.explain(tiny, pictures, texts[:3], **options)
    assert seen["picture rows"] == 2 * (1 + masks), "pictures that differ have copies of their own"


def test_a_bank_and_texts_against_are_embedded_once_for_the_weights(
    make_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny(seed=5)
    against = ["a cat", "a bird in the sky"]
    with counting(tiny, monkeypatch) as seen:
        first = isthmus.explain(tiny, picture(), "a dog", method="gradcam", layer=2, against=against)
        rows = seen["text rows"]
        again = isthmus.explain(tiny, picture(), "a dog", method="gradcam", layer=2, against=against)
        assert seen["text rows"] == rows + 1, "the pair's own, embedded and cut in one run"
        assert (again.image, again.text) == (first.image, first.text)
        bank = {side: tiny.tower(side).reference_embeddings() for side in ("image", "text")}
        rows = seen["text rows"]
        assert tiny.text.reference_embeddings() is bank["text"]
        assert seen["text rows"] == rows
    with torch.no_grad():
        tiny.model.text_projection.weight.mul_(1.5).add_(0.01)
    assert not torch.allclose(tiny.text.reference_embeddings(), bank["text"])
    other = isthmus.explain(tiny, picture(), "a dog", method="gradcam", layer=2, against=against)
    assert not np.allclose(other.image.scores, first.image.scores)


def test_what_is_shared_follows_inputs_layers_and_weights(tiny: Any) -> None:
    inputs = tiny.processing.pictures([isthmus.encoders.pictures.open_picture(picture(i)) for i in (0, 1, 0)])[0]
    fresh = tiny.image.split(inputs, 1)
    with sharing():
        first = tiny.image.split(inputs, 1)
        with counted() as passes, sharing():
            again = tiny.image.split(inputs, 1)
            assert torch.equal(again.hidden, first.hidden)
            assert passes == {"forward": 3, "backward": 0}, "three pictures need three passes, whoever paid"
        torch.testing.assert_close(first.hidden, fresh.hidden)
        assert torch.equal(first.hidden[0], first.hidden[2])
        assert not torch.equal(tiny.image.split(inputs, 2).hidden, first.hidden)
        inputs["pixel_values"][1] += 0.5
        moved = tiny.image.split(inputs, 1)
        assert torch.equal(moved.hidden[0], first.hidden[0])
        assert not torch.allclose(moved.hidden[1], first.hidden[1])
        before = tiny.image.embed(inputs)
        other = replace(tiny.image, encode=lambda x: -tiny.image.encode(x))
        assert torch.equal(other.embed(inputs), -before), "another tower of the same blocks"
        with torch.no_grad():
            tiny.model.visual_projection.weight.mul_(2)
        torch.testing.assert_close(tiny.image.embed(inputs), 2 * before)
        tiny.model.visual_projection.weight.data.mul_(0.5)


def test_a_run_that_is_watched_is_not_left_out(tiny: Any) -> None:
    inputs = tiny.processing.pictures([isthmus.encoders.pictures.open_picture(picture())])[0]
    seen: list[int] = []
    with sharing():
        tiny.image.embed(inputs)
        hook = tiny.image.blocks[1].register_forward_hook(lambda *_: seen.append(1))
        tiny.image.embed(inputs)
        hook.remove()
        tiny.image.embed(inputs)
    assert seen == [1]


def test_a_store_drops_what_was_not_used_for_longest() -> None:
    store = Store(10)
    store.put("a", 1, 4)
    store.put("b", 2, 4)
    assert store.get("a") == 1
    store.put("c", 3, 4)
    assert [store.get(key) for key in "abc"] == [1, None, 3]
    store.put("d", 4, 11)
    assert [store.get(key) for key in "acd"] == [None, None, None]


def test_digests_tell_rows_apart_by_type_shape_and_bytes() -> None:
    rows = torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    one, same, other = digests_of(rows)
    assert one == same != other
    assert one not in digests_of(rows.view(torch.int32)) + digests_of(rows[:, :, None])
    shared = Shared()
    assert shared.digests({"x": rows})[0] == shared.digests({"x": rows.clone()})[1]
    assert shared.digests({"x": rows, "large": True})[0] != shared.digests({"x": rows, "large": False})[0]


def test_batches_keep_pictures_together_and_texts_of_like_length() -> None:
    texts = ["x" * n for n in (9, 1, 8, 2, 7, 3)]
    each = [(i, i) for i in range(6)]
    assert planned(each, [object() for _ in each], texts, 2) == [[1, 3], [5, 4], [2, 0]]
    assert planned(each, [object() for _ in each], texts, 6) == [[0, 1, 2, 3, 4, 5]]
    every = [(i, j) for i in range(2) for j in range(6)]
    assert planned(every, ["a", "b"], texts, 4) == [[1, 3, 5], [4, 2, 0], [7, 9, 11], [10, 8, 6]]
    assert planned(every, ["a", "a"], texts, 12) == [[*range(12)]]


def test_the_next_pictures_are_opened_while_the_model_runs(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch waits, in the model, for a picture of the second; it would wait in vain for one of the third."""
    images = [picture(i) for i in range(6)]
    opened = {id(one): threading.Event() for one in images}
    original = isthmus.preparing.open_picture

    def opening(item: Any) -> Any:
        assert threading.current_thread().name.startswith("isthmus")
        opened[id(item)].set()
        return original(item)

    waited: list[bool] = []
    block = tiny.image.blocks[0]
    forward = block.forward

    def waiting(*args: Any, **kwargs: Any) -> Any:
        if not waited:
            waited.append(opened[id(images[3])].wait(60) and not opened[id(images[5])].is_set())
        return forward(*args, **kwargs)

    monkeypatch.setattr(isthmus.preparing, "open_picture", opening)
    monkeypatch.setattr(block, "forward", waiting)
    found = isthmus.explain(tiny, images, "a dog", method="gradcam", batch_size=2)
    assert waited == [True]
    monkeypatch.undo()
    for one, image in zip(found, images, strict=True):
        equal(one, isthmus.explain(tiny, image, "a dog", method="gradcam"))


def test_a_bad_picture_among_many_is_named_and_ends_the_threads(tiny: Any, tmp_path: Path) -> None:
    picture().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    images = [tmp_path / "good.png"] * 5 + [tmp_path / "bad.png"] + [tmp_path / "good.png"] * 5
    done: list[int] = []
    with pytest.raises(InputError, match=r"bad\.png"):
        isthmus.explain(
            tiny, images, ["a dog"] * 11, method="gradcam", batch_size=2, progress=lambda n, _: done.append(n)
        )
    assert done, "those before it were explained"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("isthmus")]


def test_an_interrupt_ends_the_threads(tiny: Any) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isthmus.explain(tiny, [picture(i) for i in range(40)], "a dog", method="gradcam", batch_size=2, progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("isthmus")]


def test_inputs_that_rows_do_not_tell_are_not_shared(tiny: Any) -> None:
    """A tensor without a batch, or an array, whose `repr` leaves numbers out."""
    inputs = tiny.processing.texts(["a dog", "a cat"], truncate=False)[0]
    runs: list[int] = []

    def encode(given: Any) -> Any:
        runs.append(1)
        return tiny.text.encode({name: given[name] for name in inputs})

    tower = replace(tiny.text, encode=encode)
    for beside, expected in (({}, 1), ({"scale": torch.tensor(0.5)}, 2), ({"many": np.arange(5000)}, 2)):
        runs.clear()
        with sharing():
            first, again = (tower.embed({**inputs, **beside}) for _ in range(2))
        assert torch.equal(first, again)
        assert len(runs) == expected


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_prefix_of_an_embedded_input_ends_at_its_cut(
    tiny: Any, side: Any, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, inputs = tiny.tower(side), inputs_of(tiny, side)
    whole = tower.split(inputs, layer)  # and the cut is proved
    ran: list[int] = []
    for number, block in enumerate(tower.blocks):
        original = block.forward

        def watched(*args: Any, number: int = number, original: Any = original, **kwargs: Any) -> Any:
            ran.append(number)
            return original(*args, **kwargs)

        monkeypatch.setattr(block, "forward", watched, raising=False)
    with sharing(), untouched(tiny.model):
        embedding = tower.embed(inputs)
        assert ran == [0, 1, 2]
        ran.clear()
        split = tower.split(inputs, layer)
        assert ran == [*range(layer)]
    assert torch.equal(split.hidden, whole.hidden)
    assert torch.equal(split.embedding, embedding)
    assert split.as_tuple == whole.as_tuple
