"""A worker's rows are those of `isthmus.explain`; what fails is found, whatever else is in its batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from given import TEXTS, damaged, encoded, table

import isthmus
from isthmus.datasets.records import Failure
from isthmus.errors import ModelError, OptionError
from isthmus.scale.job import Job, decoders_for
from isthmus.scale.pieces import Piece, pieces
from isthmus.scale.raw import Raw
from isthmus.scale.schema import Where
from isthmus.scale.source import plan
from isthmus.scale.stored import scores_of
from isthmus.scale.worker import Done, Worker


def piece_of(path: Path, size: int = 512, **options: Any) -> Piece:
    (shard,) = plan(path, **options).shards
    return next(pieces(shard, size))


def done(tiny: Any, piece: Piece, **options: Any) -> Done:
    with Worker(Job(**{"batch_size": 4, **options}), model=tiny) as worker:
        return worker.run(piece)


@pytest.mark.parametrize("form", ["float32", "int8", "vectors"])
def test_the_rows_are_those_of_explain(tiny: Any, tmp_path: Path, form: str) -> None:
    options = {"steps": 3, "layer": 1}
    piece = piece_of(table(tmp_path / "in", 3), prompts=TEXTS[:2])
    found = done(tiny, piece, stored=form, options=options)
    rows, maps = found.table.to_pylist(), scores_of(found.table)
    assert (found.pairs, found.records, found.failures) == (6, 3, ())
    assert [row["id"] for row in rows] == [name for item in piece.items for name in item.ids]  # type: ignore[union-attr]
    loose = {"float32": 1e-5, "int8": 0.005, "vectors": 2e-3}[form]
    for row, scores in zip(rows, maps, strict=True):
        one = isthmus.explain(tiny, row["where"]["file"], row["text"], **options)
        assert isinstance(one, isthmus.Explanation)
        assert one.image is not None
        assert one.text is not None
        assert row["similarity"] == pytest.approx(one.similarity, abs=1e-5)
        wanted = one.image.scores
        if form == "vectors":
            wanted = isthmus.prompt_free(tiny, [row["where"]["file"]], **options).maps([row["text"]])[0, 0]
        assert np.allclose(scores, wanted, atol=loose * float(np.abs(wanted).max()) + 1e-6)
        assert row["words"] == [word.text for word in one.text.words]
        assert np.allclose(row["word_scores"], [word.score for word in one.text.words], atol=1e-5)
        assert row["image_size"] == list(one.image.size)
        assert row["picture"] == Path(row["where"]["file"]).relative_to(tmp_path / "in").as_posix()


def test_several_methods_give_a_row_each(tiny: Any, tmp_path: Path) -> None:
    piece = piece_of(table(tmp_path / "in", 3))
    found = done(tiny, piece, methods=("nib", "gradcam"), options={"steps": 2})
    rows = found.table.to_pylist()
    names = [f"pictures/000{n}.jpg" for n in range(3)]
    assert [(row["id"], row["method"]) for row in rows] == [(n, m) for n in names for m in ("nib", "gradcam")]


def test_a_piece_gives_the_same_rows_again(tiny: Any, tmp_path: Path) -> None:
    piece = piece_of(table(tmp_path / "in", 6))
    first, again = (done(tiny, piece, options={"steps": 2}).table for _ in range(2))
    assert first.equals(again)


def test_bad_records_fail_alone(tiny: Any) -> None:
    long = " ".join(["dog"] * 200)
    items: list[Raw | Failure] = [
        raw("good", encoded(1), "a dog", "a cat"),
        raw("cut", damaged(1), "a dog", "a cat"),
        Failure("unread", "It names no picture."),
        raw("long", encoded(2), "a dog", long),
    ]
    found = done(tiny, Piece(0, 0, tuple(items), last=True), options={"steps": 2})
    assert [row["id"] for row in found.table.to_pylist()] == ["good", "good:2", "long"]
    reasons = {one.id: one.reason for one in found.failures}
    assert set(reasons) == {"unread", "cut", "cut:2", "long:2"}
    assert "tokens" in reasons["long:2"]
    again = done(tiny, Piece(0, 0, tuple(items), last=True), options={"steps": 2}, truncate=True)
    assert again.table.num_rows == 4


def raw(name: str, picture: bytes, *texts: str) -> Raw:
    return Raw(name, picture, texts, name, Where(name))


def many(count: int) -> Piece:
    items = tuple(raw(f"p{n}", encoded(n), "deadly" if n == 5 else TEXTS[n % 5]) for n in range(count))
    return Piece(0, 0, items, last=True)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DefaultCPUAllocator: can't allocate memory"), ValueError("whatever"), ModelError("Not finite.")],
)
def test_any_error_is_followed_to_its_pair(tiny: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    explain, sizes = isthmus.explain, []

    def failing(model: Any, pictures: Any, texts: Any, **options: Any) -> Any:
        sizes.append(len(texts))
        if "deadly" in texts:
            raise error
        return explain(model, pictures, texts, **options)

    monkeypatch.setattr("isthmus.scale.worker.explain", failing)
    found = done(tiny, many(9), batch_size=8, options={"steps": 1})
    assert [row["id"] for row in found.table.to_pylist()] == [f"p{n}" for n in range(9) if n != 5]
    assert [one.id for one in found.failures] == ["p5"]
    assert max(sizes) == 8
    assert sizes.count(1) <= 3


def test_errors_that_are_not_of_a_pair_end_the_run(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> Any:
        def explain(*_: Any, **__: Any) -> Any:
            raise error

        return explain

    cases = [
        (RuntimeError("CUDA error: device-side assert triggered"), ModelError, "The device failed"),
        (TypeError("a bug"), ModelError, "could explain none of 4 pairs"),
        (ModelError("This model gives NaN."), ModelError, "gives NaN"),
        (OptionError("There is no such layer."), OptionError, "no such layer"),
        (KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
    ]
    for error, kind, message in cases:
        monkeypatch.setattr("isthmus.scale.worker.explain", failing(error))  # type: ignore[arg-type]
        with pytest.raises(kind, match=message):
            done(tiny, many(9))


class Kept:
    """A store that keeps word of one piece."""

    def __init__(self) -> None:
        self.told: dict[str, Any] | None = None

    def trying(self, shard: int, piece: int) -> dict[str, Any] | None:
        before, self.told = self.told, {"tries": 1}
        return before

    def clear(self, shard: int, piece: int) -> None:
        self.told = None


def test_a_piece_that_a_process_died_at(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process does it, to the same rows; what kills that one is found, and nothing else is blamed."""
    monkeypatch.setattr("isthmus.scale.quarantine.BEFORE", "import poison; poison.patch()")
    kept, job = Kept(), Job(model=tiny.name, device="cpu", batch_size=8, options={"steps": 1})
    with Worker(job, store=kept, model=tiny) as worker:
        usual = worker.run(many(9))
        kept.clear(0, 0)
        assert usual.table.num_rows == 9
        kept.told = {"tries": 1}
        found = worker.run(many(9))
        assert [one.id for one in found.failures] == ["p5"]
        assert "ended the process" in found.failures[0].reason
        names = [row["id"] for row in found.table.to_pylist()]
        assert names == [f"p{n}" for n in range(9) if n != 5]
        monkeypatch.setattr("isthmus.scale.quarantine.BEFORE", "")
        kept.told = {"tries": 7}
        assert worker.run(many(9)).table.equals(usual.table)


def test_a_model_without_a_name_is_not_watched(make_tiny: Callable[..., Any]) -> None:
    kept, job = Kept(), Job(model="nowhere/no-such-model", batch_size=8, options={"steps": 1})
    kept.told = {"tries": 1}
    with Worker(job, store=kept, model=make_tiny()) as worker:
        assert worker.run(many(9)).table.num_rows == 9


def test_only_a_process_that_dies_leaves_word(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        assert kept.told is not None
        raise KeyboardInterrupt

    kept = Kept()
    monkeypatch.setattr("isthmus.scale.worker.explain", interrupted)
    with Worker(Job(batch_size=4), store=kept, model=tiny) as worker, pytest.raises(KeyboardInterrupt):
        worker.run(many(9))
    assert kept.told is None


def test_jobs_that_make_no_sense() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 0}, "batch_size must be"),
        ({"decoders": 0}, "workers must be"),
        ({"methods": ()}, "one method at least"),
        ({"methods": ("nib", "nib")}, "none twice"),
        ({"methods": ("none",)}, "There is no method"),
        ({"options": {"nonsense": 1}}, "has no option 'nonsense'"),
        ({"preset": "none"}, "has no preset"),
        ({"stored": "none"}, "no stored form"),
        ({"stored": "vectors", "methods": ("nib", "gradcam")}, "vectors of nib's path"),
        ({"stored": "vectors", "methods": ("gradcam",)}, "vectors of nib's path: leave the method"),
        ({"stored": "vectors", "preset": "paper"}, "vectors of nib's path: leave the method"),
        ({"methods": ("cam",), "sides": ("text",)}, "not defined for the text side"),
    ]
    for options, message in cases:
        if options.get("methods") == ("cam",):
            options["methods"] = (_image_only(),)
        with pytest.raises(OptionError, match=message):
            Job(**options).check()
    Job().check()
    assert decoders_for("cpu", 64) == 1
    assert decoders_for("cuda", 16) == 8


def _image_only() -> str:
    return next(name for name, method in isthmus.METHODS.items() if method.sides == ("image",))
