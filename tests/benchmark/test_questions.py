"""The pairs that a sample gives: which caption, where the named thing is, which word is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from conftest import EXAMPLES, picture
from isthmus.benchmark.choosing import chosen_texts
from isthmus.benchmark.questions import items_of, opened, seen_mask, some_of
from isthmus.datasets import BoxShape, Failure, MaskShape, Region, Sample, SegmentShape, Truth
from isthmus.encoders.dual import Frame
from isthmus.errors import OptionError
from isthmus.explanation import Box

SIDE = 56  # of the tiny model's input


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small to gain from more, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(make_tiny: Any) -> Any:
    return make_tiny(depth=1)


def scene(width: int, height: int, *regions: Region, name: str = "scene") -> Sample:
    return Sample(name, picture(size=(width, height)), ("a dog",), Truth(regions))


def mask_of(tiny: Any, sample: Sample) -> np.ndarray[Any, Any]:
    pairs, _ = opened(items_of([sample], "region", tiny), tiny)
    assert pairs is not None
    assert pairs.regions.shape == (1, SIDE, SIDE)
    return np.asarray(pairs.regions[0])


def drawn(left: int, top: int, right: int, bottom: int) -> np.ndarray[Any, Any]:
    found = np.zeros((SIDE, SIDE), dtype=bool)
    found[top:bottom, left:right] = True
    return found


@pytest.mark.parametrize(
    ("size", "box", "seen"),
    [
        # A picture of 224 x 112 is halved to 112 x 56, of which the model sees the columns 28 to 84.
        ((224, 112), (56, 0, 112, 112), (0, 0, 28, 56)),  # the left half of the square in the middle
        ((224, 112), (112, 28, 168, 56), (28, 14, 56, 28)),
        ((224, 112), (0, 0, 84, 112), (0, 0, 14, 56)),  # what is left of the square is not seen
        # One of 56 x 168 is not resized; the model sees the rows 56 to 112.
        ((56, 168), (7, 63, 21, 91), (7, 7, 21, 35)),
        ((56, 168), (0, 100, 56, 168), (0, 44, 56, 56)),
        ((56, 56), (0, 0, 56, 56), (0, 0, 56, 56)),
    ],
)
def test_the_mask_lies_where_the_model_sees_the_thing(
    tiny: Any, size: tuple[int, int], box: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    found = mask_of(tiny, scene(*size, Region("dog", BoxShape(*box))))
    assert (found == drawn(*seen)).all()


def test_a_mask_of_any_shape_is_seen_as_the_pixels_are(tiny: Any) -> None:
    """A picture that is white on the mask and black elsewhere: what the model's input shows is the mask."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.random((6, 10)) > 0.5, np.ones((28, 28), dtype=bool))  # 280 x 168
    image = Image.fromarray(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, -1))
    sample = Sample("s", image, ("a dog",), Truth((Region("dog", MaskShape(mask)),)))
    pairs, _ = opened(items_of([sample], "region", tiny), tiny)
    assert pairs is not None
    pixels = pairs.inputs["image"]["pixel_values"][0].mean(0).numpy()
    shown = pixels > (pixels.min() + pixels.max()) / 2
    assert 0.3 < shown.mean() < 0.7
    assert (shown == pairs.regions[0]).mean() > 0.97  # resizing moves an edge by less than a pixel


def test_things_of_one_name_are_one_region_and_others_ask_for_themselves(tiny: Any) -> None:
    dogs = (Region("dog", BoxShape(0, 0, 14, 14)), Region("dog", BoxShape(28, 28, 42, 42)))
    owl = Region("owl", BoxShape(14, 14, 28, 28))
    items = items_of([scene(56, 56, dogs[0], owl, dogs[1])], "region", tiny)
    assert [(item.id, item.text) for item in items] == [
        ("scene#dog", "a photo of a dog"),
        ("scene#owl", "a photo of an owl"),
    ]
    pairs, pictures = opened(items, tiny)
    assert pairs is not None
    assert pairs.ids == ("scene#dog", "scene#owl")
    assert len(pictures) == 2
    assert (pairs.regions[0] == (drawn(0, 0, 14, 14) | drawn(28, 28, 42, 42))).all()
    assert (pairs.regions[1] == drawn(14, 14, 28, 28)).all()


def test_a_thing_outside_the_crop_or_too_small_has_no_mask(tiny: Any) -> None:
    assert not mask_of(tiny, scene(224, 112, Region("dog", BoxShape(0, 0, 56, 112)))).any()
    assert not mask_of(tiny, scene(56, 56, Region("dog", BoxShape(0, 0, 5, 6)))).any()  # 30 of 3,136 pixels
    assert mask_of(tiny, scene(56, 56, Region("dog", BoxShape(0, 0, 8, 4)))).sum() == 32


def test_a_padded_picture_has_no_mask_on_its_border() -> None:
    frame = Frame(Box(-28.0, 0.0, 84.0, 112.0), (56, 112), (56, 56))  # the model sees 28 columns beyond either side
    found = seen_mask(np.ones((112, 56), dtype=bool), frame)
    assert (found == drawn(14, 0, 42, 56)).all()


def test_masks_that_cannot_be_read_are_told_and_left_out(tiny: Any, tmp_path: Path) -> None:
    lost = Region("dog", SegmentShape(tmp_path / "gone.png", 1))
    good = scene(56, 56, Region("cat", BoxShape(0, 0, 56, 28)), name="good")
    failed: list[Failure] = []
    items = items_of([scene(56, 56, lost, name="lost"), good], "region", tiny)
    pairs, pictures = opened(items, tiny, failed=failed.append)
    assert pairs is not None
    assert pairs.ids == ("good#cat",)
    assert len(pictures) == 1
    assert (pairs.regions[0] == drawn(0, 0, 56, 28)).all()
    assert [one.id for one in failed] == ["lost#dog"]
    assert "gone.png" in failed[0].reason


def test_what_cannot_be_read_is_told_and_left_out(tiny: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "dog.jpg", tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    samples = [
        Sample("cut", tmp_path / "cut.jpg", ("a dog",)),
        Sample("gone", tmp_path / "gone.jpg", ("a dog",)),
        Sample("silent", picture(), ("   ",)),
        Sample("good", picture(), ("a dog " * 60,)),  # too long, and cut
    ]
    failed: list[Failure] = []
    pairs, pictures = opened(items_of(samples, "caption", tiny), tiny, failed=failed.append)
    assert pairs is not None
    assert pairs.ids == ("good",)
    assert len(pictures) == 1
    assert {one.id: one.reason.split(":")[0].split("'")[0] for one in failed} == {
        "cut": "The picture ",
        "gone": "There is no picture ",
        "silent": "The text is empty",
    }
    assert opened(items_of(samples[:3], "caption", tiny), tiny, failed=failed.append) == (None, [])


def test_swaps_tell_where_the_wrong_word_is(tiny: Any) -> None:
    regions = (Region("dog", BoxShape(0, 0, 28, 28)), Region("cat", BoxShape(28, 28, 56, 56)))
    samples = [
        Sample("a", picture(0), ("two dogs on the red grass",), Truth(regions)),
        Sample("b", picture(1), ("nothing here can be exchanged",)),
        Sample("c", picture(2), ("a black bicycle",)),
    ]
    items = items_of(samples, "swap", tiny, seed=3)
    assert len({item.id for item in items}) == len(items)
    assert {item.sample.id for item in items} == {"a", "c"}
    kinds = {item.id: item for item in items}
    assert set(kinds) == {"a#object", "a#colour", "a#number", "c#object", "c#colour"}
    for item in items:
        right = item.sample.texts[0]
        start, end = item.wrong or (0, 0)
        wrong = item.text[start:end]
        assert wrong
        assert wrong not in right.split()
        tail = len(item.text) - end
        assert item.text[end:] == right[len(right) - tail :]
        assert item.text[:start].rstrip("an ") == right[: len(item.text[:start].rstrip("an "))]
    swapped = kinds["a#object"].text[slice(*(kinds["a#object"].wrong or (0, 0)))]
    assert swapped not in ("dogs", "cats")  # a cat is on the picture too
    pairs, _ = opened(items, tiny, seed=3)
    assert pairs is not None
    assert pairs.wrong == tuple(item.wrong for item in items)
    assert [text[a:b] for text, (a, b) in zip(pairs.texts, pairs.wrong, strict=True)] == [
        item.text[slice(*(item.wrong or ()))] for item in items
    ]
    assert [i.text for i in items_of(samples, "swap", tiny, seed=3)] == [i.text for i in items]
    assert pairs.regions is None


def test_some_pairs_of_a_batch_keep_what_is_theirs(tiny: Any) -> None:
    names, boxes = ("dog", "owl", "cat"), ((0, 0, 14, 56), (14, 0, 28, 56), (28, 0, 56, 56))
    regions = [Region(name, BoxShape(*box)) for name, box in zip(names, boxes, strict=True)]
    pairs, pictures = opened(items_of([scene(56, 56, *regions)], "region", tiny), tiny, seed=7)
    assert pairs is not None
    some, own = some_of(pairs, pictures, [0, 2])
    assert some.ids == ("scene#dog", "scene#cat")
    assert some.texts == ("a photo of a dog", "a photo of a cat")
    assert own == [pictures[0], pictures[2]]
    assert (some.regions == np.stack([drawn(*boxes[0]), drawn(*boxes[2])])).all()
    assert some.seed == 7
    assert some.wrong is None
    torch.testing.assert_close(some.embeddings["text"], pairs.embeddings["text"][[0, 2]], atol=1e-5, rtol=0)
    assert some_of(pairs, pictures, [0, 2])[0] is some  # read once for all methods
    swaps, seen = opened(items_of([Sample("s", picture(), ("two red dogs",))], "swap", tiny), tiny)
    assert swaps is not None
    assert len(swaps) > 1
    last, _ = some_of(swaps, seen, [len(swaps) - 1])
    assert (last.wrong, last.regions) == ((swaps.wrong[-1],), None)


TEXTS = ("a pizza on a table", "a laptop on a desk", "two horses in a field")


def asked(*names: str, texts: tuple[str, ...] = TEXTS) -> list[Sample]:
    return [Sample(name, EXAMPLES / f"{name}.jpg", texts) for name in names]


@pytest.fixture(scope="module")
def cosines(mini: Any) -> dict[tuple[str, str], float]:
    """By `isthmus.explain`, which has no part in the choice."""
    names = ("pizza", "laptop", "horses")
    images = [EXAMPLES / f"{name}.jpg" for name in names]
    found = isthmus.explain(mini, images, list(TEXTS), pairing="all", method="attention-gradient", sides="text")
    places = [(name, text) for name in names for text in TEXTS]
    return {place: one.similarity for place, one in zip(places, found, strict=True)}


def best(cosines: dict[tuple[str, str], float], name: str) -> str:
    return max(TEXTS, key=lambda text: cosines[name, text])


def test_the_best_caption_is_that_of_the_highest_cosine(mini: Any, cosines: Any) -> None:
    names = ("pizza", "laptop", "horses")
    expected = [(best(cosines, name),) for name in names]
    assert len(set(expected)) == 3  # else nothing is shown
    for size in (1, 2, 32):
        assert chosen_texts(mini, asked(*names), choice="best", batch_size=size) == expected


def test_the_paper_compares_with_the_first_picture_of_the_batch(mini: Any, cosines: Any) -> None:
    names = ("pizza", "laptop", "horses")
    of = {name: (best(cosines, name),) for name in names}
    found = {size: chosen_texts(mini, asked(*names), choice="paper", batch_size=size) for size in (1, 2, 3)}
    assert found[3] == [of["pizza"]] * 3
    assert found[2] == [of["pizza"], of["pizza"], of["horses"]]
    assert found[1] == [of[name] for name in names]
    turned = chosen_texts(mini, asked("laptop", "pizza"), choice="paper")
    assert turned == [of["laptop"]] * 2


def test_first_and_all_look_at_no_picture(tiny: Any) -> None:
    samples = [Sample("a", "gone.jpg", TEXTS), Sample("b", "gone.jpg", TEXTS[1:])]
    assert chosen_texts(tiny, samples, choice="first") == [TEXTS[:1], TEXTS[1:2]]
    assert chosen_texts(tiny, samples, choice="all") == [TEXTS, TEXTS[1:]]
    single = [Sample("a", "gone.jpg", ("a dog",))]
    assert chosen_texts(tiny, single, choice="best") == [("a dog",)]
    items = items_of(samples, "caption", tiny, choice="all")
    assert [item.text for item in items] == [*TEXTS, *TEXTS[1:]]
    assert len({item.id for item in items}) == 5


@pytest.mark.parametrize("question", ["caption", "swap"])
def test_texts_that_were_chosen_already_are_not_chosen_again(tiny: Any, question: Any) -> None:
    samples = [Sample("a", "gone.jpg", TEXTS), Sample("b", "gone.jpg", TEXTS)]
    failed: list[Failure] = []
    items = items_of(samples, question, tiny, failed=failed.append, texts=[TEXTS[2:], ()])
    assert not failed
    assert {item.sample.id for item in items} == {"a"}
    assert [item.text for item in items] == [TEXTS[2]] or question == "swap"
    assert not items_of(samples, question, tiny, failed=failed.append)
    assert {one.id for one in failed} == {"a", "b"}


def test_a_second_record_of_an_id_is_no_second_caption(tiny: Any) -> None:
    """A dataset names the second record of an id `a#2`."""
    samples = [Sample("a", "gone.jpg", TEXTS), Sample("a#2", "gone.jpg", ("a dog",))]
    items = items_of(samples, "caption", tiny, choice="all")
    assert len({item.id for item in items}) == len(items) == 4


def test_bad_pictures_and_texts_are_told_while_choosing(mini: Any, cosines: Any) -> None:
    samples = [
        Sample("gone", "gone.jpg", TEXTS),
        Sample("silent", EXAMPLES / "bird.jpg", (" ", "\t")),
        Sample("half", EXAMPLES / "horses.jpg", (" ", "a dog")),
        *asked("pizza"),
    ]
    failed: list[Failure] = []
    found = chosen_texts(mini, samples, failed=failed.append)
    assert found == [(), (), ("a dog",), (best(cosines, "pizza"),)]
    assert [one.id for one in failed] == ["gone", "silent"]
    assert [item.id for item in items_of(samples, "caption", mini)] == ["half", "pizza"]
    # The paper's first picture is then the first that can be read.
    assert chosen_texts(mini, [samples[0], *asked("laptop")], choice="paper") == [
        (best(cosines, "laptop"),),
        (best(cosines, "laptop"),),
    ]


def test_an_unknown_choice_is_refused(tiny: Any) -> None:
    with pytest.raises(OptionError, match=r"no choice 'worst' of captions: choose one of best, first, all, paper\."):
        chosen_texts(tiny, asked("laptop"), choice="worst")
