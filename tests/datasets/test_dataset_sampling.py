"""Fixed samples: by a seed, by a list of ids, and from the front of a stream."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from isthmus.datasets import Dataset, Failure, Sample, read_ids, sampled, write_ids
from isthmus.errors import InputError, OptionError, SaveError


def dataset(names: list[str], *, streams: bool = False, bad: tuple[str, ...] = ()) -> Dataset:
    items: list[Any] = [
        Failure(n, "It is bad.") if n in bad else Sample(n, f"{n}.jpg", (f"text of {n}",)) for n in names
    ]
    return Dataset("toy", lambda: iter(items), streams=streams)


def ids(samples: list[Sample]) -> list[str]:
    return [sample.id for sample in samples]


NAMES = [f"picture {n}" for n in range(50)]


def test_a_sample_is_what_the_digests_say_whatever_the_order() -> None:
    expected = sorted(NAMES, key=lambda name: hashlib.sha256(f"7/{name}".encode()).hexdigest())
    for order in (NAMES, NAMES[::-1], random.Random(0).sample(NAMES, 50)):
        samples, failures = sampled(dataset(order), limit=8, seed=7)
        assert ids(samples) == expected[:8]
        assert samples[0].texts == (f"text of {expected[0]}",)
        assert not failures
    assert ids(sampled(dataset(NAMES), limit=20, seed=7)[0])[:8] == expected[:8]  # a smaller one begins a larger one
    assert ids(sampled(dataset(NAMES), seed=7)[0]) == expected
    assert ids(sampled(dataset(NAMES), limit=8, seed=8)[0]) != expected[:8]
    assert ids(sampled(dataset(NAMES), limit=500, seed=7)[0]) == expected


def test_bad_records_are_counted_and_replaced() -> None:
    whole = ids(sampled(dataset(NAMES), limit=5)[0])
    samples, failures = sampled(dataset(NAMES, bad=(whole[0],)), limit=5)
    assert failures == [Failure(whole[0], "It is bad.")]
    assert ids(samples)[:4] == whole[1:]
    assert len(samples) == 5


def test_ids_choose_exactly() -> None:
    chosen = ["picture 3", "picture 40", "picture 9"]
    samples, _ = sampled(dataset(NAMES), ids=chosen)
    assert sorted(ids(samples)) == sorted(chosen)
    assert ids(sampled(dataset(NAMES[::-1]), ids=set(chosen))[0]) == ids(samples)
    assert ids(sampled(dataset(NAMES), ids=chosen, limit=2)[0]) == ids(samples)[:2]
    with pytest.raises(InputError, match=r"lacks 2 of the wanted ids, 'none', 'picture 4' \(It is bad.\)"):
        sampled(dataset(NAMES, bad=("picture 4",)), ids=["picture 4", "none", "picture 5"])


def test_a_stream_is_read_from_its_front_and_no_further() -> None:
    read: list[str] = []

    def items() -> Any:
        for name in NAMES:
            read.append(name)
            yield Sample(name, "a.jpg", ("a",))

    stream = Dataset("stream", items, streams=True)
    assert ids(sampled(stream, limit=3)[0]) == NAMES[:3]
    assert len(read) == 3
    read.clear()
    assert ids(sampled(stream, ids=["picture 4"])[0]) == ["picture 4"]
    assert len(read) == 5


def test_a_stream_of_nothing_but_bad_records_ends() -> None:
    def endless() -> Any:
        while True:
            yield Failure("x", "It names a URL.")

    with pytest.raises(
        InputError, match=r"None of 1,000 records of stream can be used; the first, 'x': It names a URL."
    ):
        sampled(Dataset("stream", endless, streams=True), limit=3)


def test_ids_that_repeat_are_told_apart() -> None:
    found = list(dataset(["a", "b", "a", "c\nd", "a"]))
    assert [item.id for item in found] == ["a", "b", "a#2", "c\\x0ad", "a#3"]
    assert [item.id for item in dataset(["a", "b", "a"], bad=("b",))] == ["a", "b", "a#2"]


def test_what_cannot_be_sampled() -> None:
    for limit in (0, -1):
        with pytest.raises(OptionError, match="limit must be at least 1"):
            sampled(dataset(NAMES), limit=limit)
    with pytest.raises(OptionError, match="list of ids is empty"):
        sampled(dataset(NAMES), ids=[])
    with pytest.raises(InputError, match="has no records"):
        sampled(dataset([]))
    with pytest.raises(InputError, match="None of 2 records"):
        sampled(dataset(["a", "b"], bad=("a", "b")))


def test_a_list_of_ids_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ids.txt"
    names = ["#1", "a b", "café/1.jpg", "x#2"]
    write_ids(path, names, dataset="coco", seed=3)
    assert path.read_text(encoding="utf-8").startswith("# dataset: coco\n# seed: 3\n")
    assert read_ids(path) == tuple(names)
    (tmp_path / "hand.txt").write_text("# mine\none\n\n two \none\n")
    assert read_ids(tmp_path / "hand.txt") == ("one", "two")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    for name in ("empty.txt", "none.txt"):
        with pytest.raises(InputError, match="one id a line"):
            read_ids(tmp_path / name)
    with pytest.raises(SaveError, match="cannot be written"):
        write_ids(tmp_path / "hand.txt" / "x", names, dataset="coco", seed=3)
