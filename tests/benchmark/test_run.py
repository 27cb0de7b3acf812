"""A run: each map once, killed anywhere it goes on, nothing repeated or lost, and what fails stops nothing else."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import isthmus.benchmark.choosing as choosing
import isthmus.benchmark.explaining as explaining
import isthmus.benchmark.rows as rowing
import isthmus.benchmark.run as running
import isthmus.benchmark.store as storing
from conftest import EXAMPLES, picture
from isthmus.benchmark.plan import Plan, metrics_of
from isthmus.benchmark.run import COSTS, Outcome, run
from isthmus.benchmark.spec import Spec, specs_of
from isthmus.benchmark.summary import fewer_pairs, summarise
from isthmus.datasets import BoxShape, Failure, Region, Sample, Truth
from isthmus.errors import InputError, IsthmusError, ModelError, OptionError, SaveError
from isthmus.methods import METHODS
from isthmus.methods.registry import Attribution, Method
from isthmus.metrics.registry import Metric

METHOD_NAMES = ("attention-gradient", "gradcam")
NAMES = ("bear", "bird", "dog", "pizza", "laptop")
COLUMNS = ("dataset", "pair", "method", "metric", "side", "variant")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small to gain from more, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(make_tiny: Any) -> Any:
    return make_tiny(depth=2)


def samples_of(names: Sequence[str] = NAMES, folder: Path = EXAMPLES) -> list[Sample]:
    return [Sample(name, folder / f"{name}.jpg", (f"a {name} on the grass",)) for name in names]


def measured(name: str, value: Callable[[Any, str], Any], **facts: Any) -> Metric:
    return Metric(name, name, "these tests", value, **facts)


MEAN = measured("mean-score", lambda judged, side: judged.scores(side).nanmean(1))
LARGEST = measured("largest-score", lambda judged, side: judged.scores(side).nan_to_num(-9).amax(1))


def plan_of(
    model: Any,
    samples: Sequence[Sample] | None = None,
    methods: Sequence[str] = METHOD_NAMES,
    metrics: Sequence[Metric] = (MEAN, LARGEST),
    trivial: Sequence[str] = ("random",),
    **more: Any,
) -> Plan:
    samples = samples_of() if samples is None else samples
    specs = specs_of(methods, trivial=trivial)
    return Plan(model, "toy", samples, specs, tuple(metrics), **{"batch_size": 2, **more})


def rows_of(outcome: Outcome, *, costs: bool = True) -> dict[tuple[str, ...], Any]:
    """By what a row is; a row that is there twice is an error."""
    found: dict[tuple[str, ...], Any] = {}
    for row in outcome.rows.to_pylist():
        key = tuple(row[name] for name in COLUMNS)
        assert key not in found, key
        if costs or row["metric"] not in COSTS:
            found[key] = (None if math.isnan(row["value"]) else row["value"], row["curve"])
    return found


def values_of(outcome: Outcome) -> dict[tuple[str, ...], Any]:
    """The rows but for the time that they took."""
    return {key: value for key, value in rows_of(outcome).items() if key[3] != "seconds"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The methods and numbers of pairs that were explained."""
    made: list[tuple[str, int]] = []

    def explain(model: Any, pictures: Any, texts: Any, *, method: str, **options: Any) -> Any:
        made.append((method, len(texts)))
        return real(model, pictures, texts, method=method, **options)

    real = explaining.explain
    monkeypatch.setattr(explaining, "explain", explain)
    return made


def test_every_row_is_there_once_and_each_map_is_made_once(tiny: Any, tmp_path: Path, calls: Any) -> None:
    told: list[tuple[int, int, str]] = []
    outcome = run(plan_of(tiny), tmp_path, progress=lambda *one: told.append(one))
    assert calls == [(name, size) for size in (2, 2, 1) for name in METHOD_NAMES]
    expected = {
        ("toy", pair, method, metric, side, "")
        for pair in NAMES
        for method in (*METHOD_NAMES, "random")
        for metric in ("mean-score", "largest-score")
        for side in ("image", "text")
    }
    costs = {("toy", pair, method, cost, "", "") for pair in NAMES for method in METHOD_NAMES for cost in COSTS}
    found = rows_of(outcome)
    assert set(found) == expected | costs
    assert all(value is not None for value, _ in found.values())
    assert found["toy", "dog", "gradcam", "forward", "", ""][0] > 0
    assert not outcome.failed
    assert not outcome.refused
    assert [one[0] for one in told] == [*range(9), 9]
    assert {one[1] for one in told} == {9}
    assert [one[2] for one in told] == [*METHOD_NAMES, "random"] * 3 + [""]


def test_the_numbers_are_those_of_explain_and_the_metric(tiny: Any, tmp_path: Path) -> None:
    import isthmus

    found = rows_of(run(plan_of(tiny), tmp_path))
    for sample in samples_of()[:3]:
        one = isthmus.explain(tiny, sample.image, sample.texts[0], method="gradcam")
        assert found["toy", sample.id, "gradcam", "mean-score", "image", ""][0] == pytest.approx(
            float(one.image.scores.mean()), abs=1e-6
        )
        assert found["toy", sample.id, "gradcam", "mean-score", "text", ""][0] == pytest.approx(
            sum(token.score for token in one.text.tokens) / len(one.text.tokens), abs=1e-6
        )


def test_what_the_folder_holds(tiny: Any, tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    folder = tmp_path / "layer=3" / "out"  # given such a path, pyarrow would add a column
    outcome = run(plan_of(tiny), folder)
    table = parquet.ParquetFile(folder / "rows.parquet").read()
    assert table.equals(outcome.rows.cast(table.schema))
    assert table.schema.names == ["dataset", "pair", "sample", *COLUMNS[2:], "value", "curve"]
    assert [table.schema.field(name).type for name in table.schema.names[:7]] == [arrow.string()] * 7
    assert table.schema.field("value").type == arrow.float64()
    assert table.schema.field("curve").type == arrow.list_(arrow.float32())
    assert (folder / "sample.txt").read_text(encoding="utf-8") == "".join(f"{name}\n" for name in NAMES)
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert settings["model"] == tiny.name
    assert settings["revision"] == tiny.revision
    assert (settings["dataset"], settings["samples"], settings["seed"]) == ("toy", 5, 0)
    assert not list(folder.rglob(".*"))
    assert rows_of(run(plan_of(tiny), folder)) == rows_of(outcome)


def test_a_second_run_computes_nothing_and_a_larger_one_what_is_new(
    tiny: Any, tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measurings: list[str] = []

    def counting(metric: Metric) -> Metric:
        def function(judged: Any, side: str) -> Any:
            measurings.append(f"{metric.name} {judged.method}")
            return metric.function(judged, side)

        return measured(metric.name, function)

    first, second = counting(MEAN), counting(LARGEST)
    before = rows_of(run(plan_of(tiny, metrics=[first], methods=["gradcam"]), tmp_path))
    real = running.opened

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("a picture was opened")

    calls.clear()
    measurings.clear()
    monkeypatch.setattr(running, "opened", nothing)
    assert rows_of(run(plan_of(tiny, metrics=[first], methods=["gradcam"]), tmp_path)) == before
    assert not calls
    assert not measurings

    monkeypatch.setattr(running, "opened", real)
    more = rows_of(run(plan_of(tiny, metrics=[first, second], methods=["gradcam"]), tmp_path))
    assert not calls  # the maps were kept
    assert set(measurings) == {"largest-score gradcam", "largest-score random"}
    assert {key: more[key] for key in before} == before
    assert len([key for key in more if key[3] == "largest-score"]) == 5 * 2 * 2

    measurings.clear()
    all_of_it = rows_of(run(plan_of(tiny, metrics=[first, second]), tmp_path))
    assert calls == [("attention-gradient", size) for size in (2, 2, 1)]
    assert set(measurings) == {"mean-score attention-gradient", "largest-score attention-gradient"}
    assert {key: all_of_it[key] for key in more} == more
    fresh = rows_of(run(plan_of(tiny), tmp_path / "fresh"))
    assert set(all_of_it) == set(fresh)


class Killed(BaseException):
    """A process that ends here."""


@pytest.mark.parametrize("written", [False, True])
def test_killed_at_any_write_it_goes_on_to_the_same_rows(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """A kill leaves a file that is not finished, or a finished one that nobody has heard of."""
    samples, real = [Sample(s.id, s.image, (*s.texts, "snow")) for s in samples_of(NAMES[:3])], Path.replace
    expected = values_of(run(plan_of(tiny, samples), tmp_path / "whole"))
    killed: list[str] = []

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == stop:
            killed.append(target.relative_to(folder).parts[-2] if len(target.relative_to(folder).parts) > 1 else "")
            if written:
                real(self, target)
            else:
                content = self.read_bytes()
                self.with_name(f".{target.name}.999999").write_bytes(content[: len(content) // 2])
            raise Killed
        return real(self, target)

    stop = 1
    while True:
        monkeypatch.setattr(Path, "replace", counted)
        count, folder = 0, tmp_path / str(stop)
        try:
            run(plan_of(tiny, samples), folder)
        except Killed:
            pass
        else:
            break
        monkeypatch.setattr(Path, "replace", real)
        outcome = run(plan_of(tiny, samples), folder)
        assert values_of(outcome) == expected, f"killed at write {stop}"
        assert not list(folder.rglob(".*")), f"killed at write {stop}"
        stop += 1
    assert {name: killed.count(name) for name in killed} == {
        "": 3,  # run.json, sample.txt, and all rows
        "texts": 2,
        "maps": 2 * 2,
        "rows": 2 * 3,  # the random map's too
    }


@pytest.mark.parametrize("kept", [0, 0.5, 0.98])
def test_damaged_parts_are_made_again(tiny: Any, tmp_path: Path, calls: list[Any], kept: float) -> None:
    expected = values_of(run(plan_of(tiny), tmp_path))
    (tmp_path / "parts" / "rows" / ".caption-00000-x.parquet.77").write_bytes(b"PAR1")
    (tmp_path / ".rows.parquet.77").write_bytes(b"PAR1")
    for kind in ("maps", "rows"):
        for part in (tmp_path / "parts" / kind).glob("caption-00001-gradcam*"):
            part.write_bytes(part.read_bytes()[: int(kept * part.stat().st_size)])
    calls.clear()
    assert values_of(run(plan_of(tiny), tmp_path)) == expected
    assert calls == [("gradcam", 2)]
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 3}, "batch size"),
        ({"choice": "first"}, "choice of captions"),
        ({"replacements": ("zero",)}, "replacements"),
        ({"samples": samples_of(NAMES[:3])}, "sample, samples, texts"),
        ({"samples": [Sample(s.id, s.image, ("another text",)) for s in samples_of()]}, "texts"),
    ],
)
def test_other_settings_are_refused_and_overwrite_begins_anew(
    tiny: Any, tmp_path: Path, calls: list[Any], change: dict[str, Any], named: str
) -> None:
    run(plan_of(tiny), tmp_path)
    calls.clear()
    with pytest.raises(OptionError) as caught:
        run(plan_of(tiny, **change), tmp_path)
    told = str(caught.value)
    assert told == f"The folder {str(tmp_path)!r} holds a run with another {named}: give another --out, or --overwrite."
    assert not calls
    outcome = run(plan_of(tiny, **change), tmp_path, overwrite=True)
    assert {name for name, _ in calls} == set(METHOD_NAMES)
    assert values_of(outcome) == values_of(run(plan_of(tiny, **change), tmp_path / "fresh"))


def test_options_of_a_metric_may_be_added_with_it_but_never_changed(
    tiny: Any, tmp_path: Path, calls: list[Any]
) -> None:
    samples = samples_of(NAMES[:2])

    def evaluate(folder: Path, names: Sequence[str], options: dict[str, Any]) -> dict[tuple[str, ...], Any]:
        metrics = metrics_of(names)
        plan = plan_of(tiny, samples, ["gradcam"], metrics, metric_options=options, sides=("text",))
        return rows_of(run(plan, folder))

    def metrics(folder: Path = tmp_path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]
        return found

    first = evaluate(tmp_path, ["completeness"], {})
    assert metrics() == {"completeness": {}}
    three, four = {"points": 3}, {"points": 4}
    second = evaluate(tmp_path, ["insertion"], {"insertion": three})  # an earlier one is left out
    assert metrics() == {"completeness": {}, "insertion": three}
    assert {len(line) for key, (_, line) in second.items() if key[3] == "insertion"} == {4}
    third = evaluate(tmp_path, ["deletion", "completeness"], {"deletion": four})
    assert metrics() == {"completeness": {}, "insertion": three, "deletion": four}
    assert {len(line) for key, (_, line) in third.items() if key[3] == "deletion"} == {5}
    for key, row in (first | second).items():
        assert repr(third[key]) == repr(row)  # curves may hold NaN
    assert calls == [("gradcam", 2)]
    before = (tmp_path / "run.json").read_bytes()
    told = f"The folder {str(tmp_path)!r} holds a run with another %s: give another --out, or --overwrite."
    for names, options, named in (
        (["insertion"], {"insertion": four}, "setting of insertion"),
        (["insertion"], {}, "setting of insertion"),  # its defaults are other options
        (["insertion", "deletion"], {}, "setting of insertion and deletion"),
    ):
        with pytest.raises(OptionError) as caught:
            evaluate(tmp_path, names, options)
        assert str(caught.value) == told % named
    assert (tmp_path / "run.json").read_bytes() == before
    evaluate(tmp_path / "defaults", ["insertion"], {})
    with pytest.raises(OptionError, match="another setting of insertion: "):  # measured without options before
        evaluate(tmp_path / "defaults", ["insertion"], {"insertion": three})
    old = json.loads((tmp_path / "defaults" / "run.json").read_text(encoding="utf-8"))
    del old["metrics"]
    (tmp_path / "defaults" / "run.json").write_text(json.dumps(old | {"metric_options": {}}), encoding="utf-8")
    with pytest.raises(OptionError, match="another setting of insertion: "):
        evaluate(tmp_path / "defaults", ["insertion"], {"insertion": three})
    evaluate(tmp_path / "defaults", ["insertion"], {})
    assert metrics(tmp_path / "defaults") == {"insertion": {}}


def test_another_model_dtype_or_dataset_is_refused(tiny: Any, make_tiny: Any, tmp_path: Path) -> None:
    samples = samples_of(NAMES[:2])
    run(plan_of(tiny, samples), tmp_path)
    half = make_tiny(depth=2, dtype=torch.bfloat16)
    with pytest.raises(OptionError, match=r"another .*dtype"):
        run(plan_of(half, samples), tmp_path)
    with pytest.raises(OptionError, match="another revision"):
        run(plan_of(make_tiny(depth=2, seed=1), samples), tmp_path)
    plan = plan_of(tiny, samples)
    with pytest.raises(OptionError, match="another dataset"):
        run(Plan(tiny, "other", samples, plan.specs, plan.metrics, batch_size=2), tmp_path)


def test_methods_of_an_earlier_run_in_the_folder_stay_in_the_rows(tiny: Any, tmp_path: Path) -> None:
    first = measured("first", lambda judged, side: judged.scores(side).nansum(1))
    before = rows_of(run(plan_of(tiny, metrics=[first], methods=["gradcam"]), tmp_path))
    after = rows_of(run(plan_of(tiny, metrics=[first], methods=["chefer"]), tmp_path))
    assert before.items() <= after.items()
    assert {key[2] for key in after if key not in before} == {"chefer"}


def test_other_options_under_a_label_are_refused_and_stand_beside_under_another(
    tiny: Any, tmp_path: Path, calls: list[Any]
) -> None:
    samples = samples_of(NAMES[:2])

    def plan(label: str, layer: int, preset: str | None = None) -> Plan:
        return Plan(tiny, "toy", samples, (Spec(label, "gradcam", {"layer": layer}, preset),), (MEAN,))

    first = values_of(run(plan("x", 0), tmp_path))
    for other in (plan("x", 1), plan("x", 0, "paper")):
        with pytest.raises(OptionError, match="holds a run with another setting of x: give another --out"):
            run(other, tmp_path)
    assert len(calls) == 1
    both = values_of(run(plan("y", 1), tmp_path))
    assert first.items() < both.items()
    assert {key[2] for key in both} == {"x", "y"}
    assert values_of(run(plan("x", 0), tmp_path)) == both
    assert len(calls) == 2
    told = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert told["methods"] == {"x": ["gradcam", {"layer": 0}, None], "y": ["gradcam", {"layer": 1}, None]}
    del told["methods"]  # as an older run left it
    (tmp_path / "run.json").write_text(json.dumps(told), encoding="utf-8")
    assert values_of(run(plan("x", 0), tmp_path)) == both


def test_the_oracle_is_of_so_many_pairs_and_goes_on_where_more_are_asked_for(tiny: Any, tmp_path: Path) -> None:
    def oracle_of(pairs: int, folder: str = "out") -> dict[tuple[str, ...], Any]:
        metrics = metrics_of(["insertion"])
        plan = plan_of(tiny, None, ["gradcam"], metrics, ("oracle",), oracle_pairs=pairs, sides=("text",))
        return {key: row for key, row in rows_of(run(plan, tmp_path / folder)).items() if key[2] == "oracle"}

    assert not oracle_of(0)
    three = oracle_of(3)
    assert {key[1] for key in three} == set(NAMES[:3])
    five = oracle_of(5)
    assert {key[1] for key in five} == set(NAMES)
    whole = oracle_of(5, "whole")
    for key, (value, _) in (three | five).items():
        assert value == pytest.approx(whole[key][0], abs=1e-5, nan_ok=True)


def test_a_picture_that_is_lost_later_takes_no_row_with_it(tiny: Any, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "in")
    samples = samples_of(NAMES[:3], tmp_path / "in")
    out, methods = tmp_path / "out", ["gradcam"]
    before = rows_of(run(plan_of(tiny, samples, methods, batch_size=3), out))
    whole = (tmp_path / "in" / "dog.jpg").read_bytes()
    (tmp_path / "in" / "dog.jpg").unlink()
    for one in (MEAN, LARGEST):  # all rows of these are there, so nothing needs the picture
        again = run(plan_of(tiny, samples, methods, [one], batch_size=3), out)
        assert rows_of(again) == before
        assert not again.failed
    third = measured("third", lambda judged, side: judged.scores(side).nansum(1))
    added = run(plan_of(tiny, samples, [*methods, "chefer"], [MEAN, third], batch_size=3), out)
    assert [one.id for one in added.failed] == ["dog"]
    found = rows_of(added)
    assert before.keys() < found.keys()
    assert {key: found[key] for key in before if key[3] not in COSTS} == {
        key: row for key, row in before.items() if key[3] not in COSTS
    }
    assert {key[1] for key in found if key[2] == "chefer" or key[3] == "third"} == {"bear", "bird"}
    assert fewer_pairs(added.rows) == {"chefer": (2, 3)}  # and the new metric is of the same two for all
    (tmp_path / "in" / "dog.jpg").write_bytes(whole)
    mended = run(plan_of(tiny, samples, [*methods, "chefer"], [MEAN, third], batch_size=3), out)
    assert not fewer_pairs(mended.rows)
    assert {key[1] for key in rows_of(mended) if key[3] == "third"} == set(NAMES[:3])


def test_a_folder_of_something_else_is_refused(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"images": "x", "model": "mini"}', encoding="utf-8")
    with pytest.raises(OptionError, match=r"the run\.json of something else: give another --out, or --overwrite\."):
        run(plan_of(tiny), tmp_path)
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    with pytest.raises(SaveError, match="cannot be made"):
        run(plan_of(tiny), tmp_path / "out")


def test_a_full_disk_is_no_refusal_of_a_method(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        if self.name.endswith(f"{storing.os.getpid()}") and ".npz" in self.name:
            raise OSError(28, "No space left on device")
        return real(self, content)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SaveError, match=r"cannot be written \(No space left on device\): free some space"):
        run(plan_of(tiny), tmp_path)
    monkeypatch.setattr(Path, "write_bytes", real)
    assert len(rows_of(run(plan_of(tiny), tmp_path), costs=False)) == 5 * 3 * 2 * 2


def test_bad_records_are_told_every_time_and_mended_ones_come_in(tiny: Any, tmp_path: Path, calls: list[Any]) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "in")
    whole = (tmp_path / "in" / "dog.jpg").read_bytes()
    (tmp_path / "in" / "dog.jpg").write_bytes(whole[:700])
    samples = samples_of(folder=tmp_path / "in")
    samples[4] = Sample("laptop", samples[4].image, (" ",))
    plan = plan_of(tiny, samples)
    outcome = run(plan, tmp_path / "out")
    for one in (outcome, run(plan, tmp_path / "out")):
        assert [(failure.id, failure.reason.split(" ")[1]) for failure in one.failed] == [
            ("dog", "picture"),
            ("laptop", "text"),
        ]
        assert {key[1] for key in rows_of(one)} == {"bear", "bird", "pizza"}
    assert rows_of(one) == rows_of(outcome)
    assert calls == [(name, size) for size in (2, 1) for name in METHOD_NAMES]
    (tmp_path / "in" / "dog.jpg").write_bytes(whole)
    mended = run(plan, tmp_path / "out")
    assert [failure.id for failure in mended.failed] == ["laptop"]
    assert values_of(mended) == values_of(run(plan, tmp_path / "fresh"))
    assert len(rows_of(mended, costs=False)) == 4 * 3 * 2 * 2


def test_a_mended_picture_shifts_no_batch_into_another(tiny: Any, tmp_path: Path) -> None:
    """With several captions a picture that cannot be read is in no batch, and comes between the others when mended."""
    shutil.copytree(EXAMPLES, tmp_path / "in")
    whole = (tmp_path / "in" / "bear.jpg").read_bytes()
    (tmp_path / "in" / "bear.jpg").write_bytes(b"")
    samples = [Sample(s.id, s.image, (*s.texts, "snow")) for s in samples_of(folder=tmp_path / "in")]
    plan = plan_of(tiny, samples)
    outcome = run(plan, tmp_path / "out")
    assert [failure.id for failure in outcome.failed] == ["bear"]
    assert {key[1] for key in rows_of(outcome)} == set(NAMES[1:])
    (tmp_path / "in" / "bear.jpg").write_bytes(whole)
    assert values_of(run(plan, tmp_path / "out")) == values_of(run(plan, tmp_path / "fresh"))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that were opened to choose a caption."""
    found: list[str] = []
    real = choosing.open_picture

    def opening(source: Any) -> Any:
        found.append(Path(source).stem)
        return real(source)

    monkeypatch.setattr(choosing, "open_picture", opening)
    return found


@pytest.mark.parametrize("choice", ["best", "paper"])
def test_captions_are_chosen_once_for_all_questions_and_runs(
    tiny: Any, tmp_path: Path, seen: list[str], choice: str
) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "in")
    texts = ("two dogs", "a bird", "a pizza", "a red laptop")
    samples = [Sample(s.id, s.image, texts) for s in samples_of(folder=tmp_path / "in")]
    out, metrics = tmp_path / "out", (*metrics_of(["swap-rank"]), MEAN)
    plan = plan_of(tiny, samples, ["gradcam"], metrics, choice=choice)
    first = run(plan, out)
    assert seen == list(NAMES)
    assert {key[3] for key in rows_of(first, costs=False)} == {"swap-rank", "mean-score"}
    seen.clear()
    assert rows_of(run(plan, out)) == rows_of(first)
    assert not seen
    kept = sorted((out / "parts" / "texts").iterdir())
    assert len(kept) == 3
    for content in (b"", kept[0].read_bytes(), b'{"ids": 3}', b"[]", b'{"ids": ["dog", "pizza"], "texts": {"dog": 1}}'):
        kept[1].write_bytes(content)  # cut, of other samples, of something else
        seen.clear()
        assert rows_of(run(plan, out)) == rows_of(first)
        assert seen == ["dog", "pizza"]
    seen.clear()
    run(plan, out, overwrite=True)
    assert seen == list(NAMES)
    whole = (tmp_path / "in" / "dog.jpg").read_bytes()
    (tmp_path / "in" / "dog.jpg").write_bytes(whole[:700])
    lame = run(plan, tmp_path / "lame")
    assert [one.id for one in run(plan, tmp_path / "lame").failed] == [one.id for one in lame.failed]
    assert "dog" in {one.id for one in lame.failed}
    (tmp_path / "in" / "dog.jpg").write_bytes(whole)
    seen.clear()
    assert values_of(run(plan, tmp_path / "lame")) == values_of(first)
    assert seen == ["dog", "pizza"]  # the batch in which one failed is chosen for again


def test_where_nothing_can_be_used_there_are_no_rows_but_reasons(tiny: Any, tmp_path: Path) -> None:
    samples = [Sample(name, tmp_path / f"{name}.jpg", ("a dog",)) for name in ("a", "b", "c")]
    outcome = run(plan_of(tiny, samples), tmp_path / "one")
    assert outcome.rows.num_rows == 0
    assert [one.id for one in outcome.failed] == ["a", "b", "c"]
    several = [Sample(s.id, s.image, ("a dog", "a cat")) for s in samples]
    with pytest.raises(InputError, match=r"None of the 3 samples of toy can be used \(the first, 'a': There is no"):
        run(plan_of(tiny, several), tmp_path / "several")


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], None]:
    """Registers a method for the length of a test."""
    monkeypatch.setattr("isthmus.methods.registry.METHODS", dict(METHODS))

    def add(name: str, function: Callable[..., Any]) -> None:
        from isthmus.methods import registry

        registry.register(Method(name, name, "these tests", function, needs_gradients=False))

    return add


def lengths(tower: Any, inputs: Any, target: Any) -> Attribution:
    hidden = tower.split(inputs, 0).hidden
    return Attribution(hidden.norm(dim=-1), torch.zeros(len(hidden)), None, ({},) * len(hidden))


@pytest.mark.parametrize("kind", [ModelError, OptionError])
def test_a_method_that_refuses_stops_no_other(tiny: Any, tmp_path: Path, plug_in: Any, calls: Any, kind: Any) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise kind("This model is not for me: take another.")

    plug_in("refuses", refuses)
    plug_in("lengths", lengths)
    outcome = run(plan_of(tiny, methods=["refuses", "lengths"]), tmp_path)
    assert outcome.refused == {"refuses": "This model is not for me: take another."}
    assert not outcome.failed
    assert {key[2] for key in rows_of(outcome)} == {"lengths", "random"}
    assert len(rows_of(outcome, costs=False)) == 5 * 2 * 2 * 2
    # An option is wrong for every batch; another reason may be one of the batch alone.
    assert calls.count(("refuses", 2)) == (1 if kind is OptionError else 2)


def test_a_method_that_fails_on_some_pairs_keeps_the_others(tiny: Any, tmp_path: Path, plug_in: Any) -> None:
    def fails(tower: Any, inputs: Any, target: Any) -> Any:
        if len(target) == 1 or fails.always:  # type: ignore[attr-defined]
            raise ModelError("The scores are not finite.")
        return lengths(tower, inputs, target)

    fails.always = False  # type: ignore[attr-defined]
    plug_in("fails", fails)
    plan = plan_of(tiny, methods=["fails", "gradcam"])
    outcome = run(plan, tmp_path)
    assert not outcome.refused
    assert outcome.failed == [Failure("laptop", "fails: The scores are not finite.")]
    assert {key[1] for key in rows_of(outcome) if key[2] == "fails"} == set(NAMES[:4])
    assert {key[1] for key in rows_of(outcome) if key[2] == "gradcam"} == set(NAMES)
    fails.always = True  # type: ignore[attr-defined]
    assert run(plan, tmp_path).failed == outcome.failed  # the four are there, and it is no refusal now


@pytest.fixture
def choosy(plug_in: Any) -> Any:
    """A method that fails with any batch that has a text with a word of `.bad`."""

    def method(tower: Any, inputs: Any, target: Any) -> Any:
        word = next((word for word in bad if any(word in text for text in texts)), None)
        if word is not None:
            raise kinds.get(word, ModelError)(f"No {word} can be explained.")
        return lengths(tower, inputs, target)

    bad: list[str] = []
    texts: list[str] = []
    kinds: dict[str, type[IsthmusError]] = {}
    plug_in("choosy", method)
    return SimpleNamespace(bad=bad, texts=texts, kinds=kinds)


@pytest.fixture
def tries(choosy: Any, calls: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The names of what was given to the method that is choosy, at each call."""
    made: list[tuple[str, ...]] = []
    real = explaining.explain

    def explain(model: Any, pictures: Any, texts: Any, *, method: str, **options: Any) -> Any:
        choosy.texts[:] = texts
        if method == "choosy":
            made.append(tuple(text.split()[1] for text in texts))
        return real(model, pictures, texts, method=method, **options)

    monkeypatch.setattr(explaining, "explain", explain)
    return made


def test_pairs_that_cannot_be_explained_take_no_other_with_them(
    tiny: Any, tmp_path: Path, choosy: Any, tries: list[Any]
) -> None:
    choosy.bad += ["bird", "pizza"]
    plan = plan_of(tiny, methods=["choosy", "gradcam"], batch_size=5)
    outcome = run(plan, tmp_path / "one")
    assert tries == [NAMES, *((name,) for name in NAMES)]
    assert not outcome.refused
    lost = [Failure(name, f"choosy: No {name} can be explained.") for name in ("bird", "pizza")]
    assert outcome.failed == lost
    part = next((tmp_path / "one" / "parts" / "rows").glob("*choosy*"))
    order = [row.pair for row in rowing.rows_of(rowing.table_at(part)) if row.metric == "mean-score"]
    assert order == ["bear", "dog", "laptop"] * 2  # of either side
    found = rows_of(outcome)
    assert (
        {key[1] for key in found if key[2] == "gradcam"} == {key[1] for key in found if key[2] == "random"} == {*NAMES}
    )
    choosy.bad.clear()
    whole = rows_of(run(plan, tmp_path / "whole"))
    for key, (value, _) in found.items():
        if key[3] not in COSTS:
            assert value == pytest.approx(whole[key][0], abs=1e-4), key
        elif key[3] == "forward":
            assert value > 0

    tries.clear()
    choosy.bad += ["bird", "pizza"]
    again = run(plan, tmp_path / "one")
    assert tries == [("bird",), ("pizza",)]  # no good pair is explained again
    assert again.failed == lost
    assert rows_of(again) == found
    choosy.bad.remove("bird")  # and where one is mended it comes in at its place
    tries.clear()
    mended = run(plan, tmp_path / "one")
    assert tries == [("bird",), ("pizza",)]
    assert mended.failed == lost[1:]
    assert {key[1] for key in rows_of(mended) if key[2] == "choosy"} == {"bear", "bird", "dog", "laptop"}
    for key, (value, _) in rows_of(mended, costs=False).items():
        assert value == pytest.approx(whole[key][0], abs=1e-4), key
    tries.clear()
    more = run(plan_of(tiny, methods=["choosy", "gradcam"], batch_size=5, metrics=[MEAN]), tmp_path / "one")
    assert tries == [("pizza",)]
    assert rows_of(more) == rows_of(mended)


def test_regions_and_wrong_words_stay_with_their_pairs_where_one_fails(
    tiny: Any, tmp_path: Path, choosy: Any, tries: list[Any]
) -> None:
    boxes = {"dog": BoxShape(0, 0, 45, 70), "bird": BoxShape(45, 0, 90, 70), "cat": BoxShape(0, 30, 90, 70)}
    truth = Truth(tuple(Region(name, box) for name, box in boxes.items()))
    samples = [Sample("s", picture(), ("two dogs and a red car",), truth)]
    metrics = metrics_of(["energy-inside", "swap-rank"])
    plan = plan_of(tiny, samples, ["choosy"], metrics, (), batch_size=8)
    whole = rows_of(run(plan, tmp_path / "whole"))
    swaps = [key[1] for key in whole if key[3] == "swap-rank"]
    assert len(set(swaps)) > 1
    choosy.bad += ["bird", "two"]
    outcome = run(plan, tmp_path / "one")
    found = rows_of(outcome)
    assert "s#bird" in {one.id for one in outcome.failed}
    assert {key[1] for key in found if key[3] == "energy-inside"} == {"s#dog", "s#cat"}
    assert {key[1] for key in found if key[3] == "swap-rank"} == {"s#number"}  # where the wrong word is the number
    for key, (value, _) in found.items():
        assert value == pytest.approx(whole[key][0], abs=1e-3), key


def test_a_preset_of_the_paper_is_not_explained_pair_by_pair(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def fails(*_: Any, **options: Any) -> Any:
        sizes.append(len(_[2]))
        raise ModelError("The scores are not finite.")

    monkeypatch.setattr(explaining, "explain", fails)
    paper = plan_of(tiny).specs[0]
    specs = (Spec("paper", paper.method, {}, "paper"), Spec("random", "random"))
    with pytest.raises(IsthmusError, match="not finite"):
        run(Plan(tiny, "toy", samples_of(), specs, (MEAN,), batch_size=2), tmp_path)
    assert sizes == [2, 2, 1]


def test_an_option_that_fails_late_is_of_its_pair_alone(
    tiny: Any, tmp_path: Path, choosy: Any, tries: list[Any]
) -> None:
    choosy.kinds["dog"] = OptionError
    choosy.bad.append("dog")
    outcome = run(plan_of(tiny, methods=["choosy"]), tmp_path)
    assert not outcome.refused
    assert outcome.failed == [Failure("dog", "choosy: No dog can be explained.")]
    assert tries == [NAMES[:2], NAMES[2:4], ("dog",), ("pizza",), ("laptop",)]


def test_settings_that_share_their_steps_fail_on_the_same_pairs_and_share_what_is_left(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = explaining.nib_sweep

    def sweep(tower: Any, inputs: Any, target: Any, **options: Any) -> Any:
        sizes.append(len(target))
        if len(target) > 1 or len(sizes) == 3:  # the second pair
            raise ModelError("The scores are not finite.")
        return real(tower, inputs, target, **options)

    monkeypatch.setattr(explaining, "nib_sweep", sweep)
    specs = tuple(Spec(f"nib {steps}", "nib", {"steps": steps}) for steps in (2, 3))
    plan = Plan(tiny, "toy", samples_of(NAMES[:3]), specs, (MEAN,), batch_size=3, sides=("text",))
    outcome = run(plan, tmp_path)
    assert sizes == [3, 1, 1, 1]
    assert [one.id for one in outcome.failed] == ["bird", "bird"]
    monkeypatch.setattr(explaining, "nib_sweep", real)
    fresh = values_of(run(plan, tmp_path / "fresh"))
    for key, (value, _) in values_of(outcome).items():
        if key[3] == "mean-score":
            assert value == pytest.approx(fresh[key][0], abs=1e-4)
    assert {key[1] for key in values_of(outcome)} == {"bear", "dog"}
    assert not run(plan, tmp_path).failed


def test_where_all_methods_refuse_the_run_stops_at_once(tiny: Any, tmp_path: Path, calls: Any) -> None:
    touched: list[str] = []
    metric = measured("touch", lambda judged, side: touched.append(judged.method) or judged.scores(side).nanmean(1))
    specs = (
        Spec("a", "gradcam", {"layer": 99}),
        Spec("b", "attention-gradient", {"layer": "top"}),
        Spec("random", "random"),
    )
    with pytest.raises(IsthmusError, match="layer=99 is out of range"):
        run(Plan(tiny, "toy", samples_of(), specs, (metric,), batch_size=2), tmp_path)
    assert calls == [("gradcam", 2), ("attention-gradient", 2)]
    assert not touched


def test_trivial_maps_alone_are_a_run(tiny: Any, tmp_path: Path, calls: list[Any]) -> None:
    outcome = run(plan_of(tiny, methods=[], trivial=("random", "flat", "centre")), tmp_path)
    assert not calls
    found = rows_of(outcome)
    assert {key[2] for key in found} == {"random", "flat", "centre"}
    for name in NAMES:
        assert found["toy", name, "flat", "largest-score", "image", ""][0] == pytest.approx(0.99)
        centre = found["toy", name, "centre", "mean-score", "image", ""][0]
        assert 0.2 < centre < 0.5  # a Gaussian with a standard deviation of a quarter
    assert len({found["toy", name, "random", "mean-score", "image", ""] for name in NAMES}) == 5


def test_a_side_that_is_added_later_is_explained(tiny: Any, tmp_path: Path, calls: list[Any]) -> None:
    one = run(plan_of(tiny, sides=("image",)), tmp_path)
    assert {key[4] for key in rows_of(one, costs=False)} == {"image"}
    both = run(plan_of(tiny), tmp_path)
    assert len(calls) == 2 * 2 * 3
    assert not both.failed
    assert values_of(both) == values_of(run(plan_of(tiny), tmp_path / "fresh"))
    calls.clear()
    run(plan_of(tiny, sides=("text",)), tmp_path)
    assert not calls


def test_the_oracle_is_there_for_its_pairs_and_metrics_alone(tiny: Any, tmp_path: Path) -> None:
    metrics = metrics_of(["insertion", "deletion", "insertion-deletion", "insertion-least-first", "completeness"])
    plan = plan_of(
        tiny,
        methods=["gradcam"],
        metrics=metrics,
        trivial=("random", "flat", "oracle"),
        oracle_pairs=3,
        sides=("text",),
    )
    found = rows_of(run(plan, tmp_path))
    pairs = {key[1] for key in found if key[2] == "oracle"}
    assert pairs == set(NAMES[:3])
    assert {key[3] for key in found if key[2] == "oracle"} == {metric.name for metric in metrics if metric.oracle}
    assert {key[3] for key in found if key[2] == "flat"} == {metric.name for metric in metrics}
    variants = ("cosine", "margin", "cosine normalised", "margin normalised")
    for variant in variants:
        for pair in pairs:
            of = {metric.name: found["toy", pair, "oracle", metric.name, "text", variant][0] for metric in metrics[:4]}
            if of["insertion"] is not None:  # normalised, where the whole differs from nothing
                assert of["insertion-deletion"] == pytest.approx(of["insertion"] - of["deletion"], abs=1e-6)
                # Walked backwards, the order that deletes best inserts the least important first.
                assert of["insertion-least-first"] == pytest.approx(of["deletion"], abs=1e-6)

    def mean(method: str) -> float:
        return sum(found["toy", pair, method, "insertion-deletion", "text", "cosine"][0] for pair in pairs)

    assert mean("oracle") > max(mean("random"), mean("gradcam"), mean("flat"))


def test_curves_come_with_insertion_and_deletion(tiny: Any, tmp_path: Path) -> None:
    plan = plan_of(
        tiny,
        samples_of(NAMES[:2]),
        methods=["gradcam"],
        metrics=metrics_of(["insertion", "deletion", "insertion-deletion"]),
        metric_options={name: {"points": 4} for name in ("insertion", "deletion")},
        replacements=("mean", "blur", "remove"),
        sides=("text",),
    )
    found = rows_of(run(plan, tmp_path))
    assert {key[5] for key in found if key[3] == "insertion"} == {
        *("cosine", "cosine, remove", "margin", "margin, remove"),
        *("cosine normalised", "cosine normalised, remove", "margin normalised", "margin normalised, remove"),
    }
    for (_, pair, method, metric, _, variant), (value, line) in found.items():
        if metric not in ("insertion", "deletion"):
            assert line is None
            continue
        assert len(line) == 5
        if value is not None:  # four steps of about a quarter of the tokens; 5 tokens are not 4 equal steps
            span = max(line) - min(line)
            area = sum((a + b) / 2 for a, b in itertools.pairwise(line)) / 4
            assert value / (1 if "normalised" in variant else 100) == pytest.approx(area, abs=0.2 * span + 1e-6)
        other = found["toy", pair, method, "deletion" if metric == "insertion" else "insertion", "text", variant][1]
        assert line[0] == pytest.approx(other[-1], abs=1e-6, nan_ok=True)
        if "normalised" in variant and value is not None:
            assert sorted((line[0], line[-1])) == pytest.approx([0, 1], abs=1e-6)


def test_the_oracle_has_curves_and_its_values_are_the_areas(tiny: Any, tmp_path: Path) -> None:
    metrics = metrics_of(["insertion", "deletion", "insertion-deletion"])
    plan = plan_of(tiny, samples_of(NAMES[:2]), ["gradcam"], metrics, ("random", "oracle"), sides=("text",))
    found = rows_of(run(plan, tmp_path))
    own = {key: one for key, one in found.items() if key[2] == "oracle" and key[5] in ("cosine", "margin")}
    assert {key[3] for key in own} == {"insertion", "deletion", "insertion-deletion"}
    for key, (value, line) in own.items():
        if key[3] == "insertion-deletion":
            assert line is None
            continue
        area = sum((a + b) / 2 for a, b in itertools.pairwise(line)) / (len(line) - 1)
        assert value == pytest.approx(100 * area, abs=1e-3)
        other = found[(*key[:2], "random", *key[3:])][1]  # the same ends, and another way between them
        assert (line[0], line[-1]) == pytest.approx((other[0], other[-1]), abs=1e-5)
        assert value >= found[(*key[:2], "random", *key[3:])][0] or key[3] == "deletion"
    rising, falling = (found["toy", "bear", "oracle", name, "text", "cosine"][1] for name in ("insertion", "deletion"))
    assert sum(rising) > sum(falling)


def test_regions_and_swaps_are_pairs_of_their_own(tiny: Any, tmp_path: Path) -> None:
    regions = (Region("dog", BoxShape(0, 0, 45, 70)), Region("cat", BoxShape(45, 0, 90, 70)))
    samples = [Sample(f"s{i}", picture(i), ("two dogs", "a cat"), Truth(regions)) for i in range(2)]
    plan = plan_of(
        tiny,
        samples,
        methods=["gradcam"],
        metrics=(*metrics_of(["pointing-game", "swap-rank"]), MEAN),
        choice="first",
    )
    found = rows_of(run(plan, tmp_path))
    by = {name: {key[1] for key in found if key[3] == name} for name in ("pointing-game", "swap-rank", "mean-score")}
    assert by["pointing-game"] == {f"s{i}#{name}" for i in range(2) for name in ("dog", "cat")}
    assert by["swap-rank"] == {f"s{i}#{kind}" for i in range(2) for kind in ("object", "number")}
    assert by["mean-score"] == {"s0", "s1"}
    assert {key[1] for key in found if key[3] == "seconds"} == {"s0", "s1"}
    hits = [found["toy", f"s0#{name}", "random", "pointing-game", "image", ""][0] for name in ("dog", "cat")]
    assert sorted(hits) in ([0, 0], [0, 1], [0, 100], [1, 1], [100, 100])


def samples_by_pair(outcome: Outcome) -> dict[str, str]:
    columns = (outcome.rows.column(name).to_pylist() for name in ("pair", "sample"))
    return dict(zip(*columns, strict=True))


def test_every_row_tells_its_sample(tiny: Any, tmp_path: Path) -> None:
    regions = (Region("dog", BoxShape(0, 0, 45, 70)), Region("cat", BoxShape(45, 0, 90, 70)))
    samples = [Sample(f"s{i}", picture(i), ("two dogs", "a cat"), Truth(regions)) for i in range(2)]
    metrics = (*metrics_of(["pointing-game", "swap-rank"]), MEAN)
    outcome = run(plan_of(tiny, samples, ["gradcam"], metrics, choice="all"), tmp_path)
    found = samples_by_pair(outcome)
    names = ("#dog", "#cat", "#text0", "#text1", "#text0#object", "#text0#number", "#text1#object")
    assert found == {f"s{i}{name}": f"s{i}" for i in range(2) for name in names}


def test_parts_of_a_run_without_samples_are_read_as_they_are(tiny: Any, tmp_path: Path, calls: list[Any]) -> None:
    import pyarrow.parquet as parquet

    samples = [Sample(f"s{i}", picture(i), ("two dogs", "a cat")) for i in range(2)]
    plan = plan_of(tiny, samples, choice="all")
    expected = rows_of(run(plan, tmp_path))
    for part in tmp_path.glob("parts/rows/*.parquet"):
        table = parquet.ParquetFile(part).read()
        parquet.write_table(table.drop_columns("sample"), part)
    calls.clear()
    outcome = run(plan, tmp_path)
    assert not calls
    assert rows_of(outcome) == expected
    assert samples_by_pair(outcome) == {name: name for name in ("s0#text0", "s0#text1", "s1#text0", "s1#text1")}


def test_the_rows_of_many_parts_are_written_some_at_once(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    expected = run(plan_of(tiny), tmp_path).rows
    held: list[int] = []
    real = arrow.concat_tables

    def concat(tables: Any) -> Any:
        found = real(tables)
        held.append(found.num_rows)
        return found

    monkeypatch.setattr(arrow, "concat_tables", concat)
    monkeypatch.setattr(rowing, "_GROUP", 30)
    again = run(plan_of(tiny), tmp_path).rows
    assert sum(held) == expected.num_rows == again.num_rows
    assert max(held) < 30 + 2 * (2 * 2 + 3)  # the rows of one part
    assert len(held) > 2
    assert parquet.ParquetFile(tmp_path / "rows.parquet").num_row_groups == len(held)
    assert again.to_pylist() == expected.to_pylist()
    assert [arrow.types.is_dictionary(again.schema.field(name).type) for name in ("sample", "method", "metric")] == [
        True
    ] * 3
    assert again.sort_by("pair").column("pair").to_pylist() == sorted(expected.column("pair").to_pylist())
    for one, other in zip(summarise(again), summarise(expected), strict=True):
        assert repr(one) == repr(other)


def test_metrics_that_the_dataset_cannot_serve_are_told(tiny: Any, tmp_path: Path) -> None:
    metrics = (*metrics_of(["pointing-game", "iou", "swap-rank"]), MEAN)
    outcome = run(plan_of(tiny, [Sample("s", picture(), ("nothing here",))], metrics=metrics), tmp_path)
    assert outcome.skipped == {
        "pointing-game": "The sample of toy has no masks or boxes",
        "iou": "The sample of toy has no masks or boxes",
        "swap-rank": "The sample of toy has no caption with a word that can be swapped",
    }
    assert {key[3] for key in rows_of(outcome, costs=False)} == {"mean-score"}
    with pytest.raises(InputError, match=r"^The sample of toy has no masks or boxes: choose another sample or other "):
        run(plan_of(tiny, metrics=metrics[:2]), tmp_path / "none")


def test_sides_that_nobody_asks_for_are_told(tiny: Any, tmp_path: Path, calls: list[Any]) -> None:
    samples = samples_of(NAMES[:2])
    plan = plan_of(
        tiny, samples, ["legrad", "gradcam"], (*metrics_of(["pointing-game"]), MEAN), sides=("text",)
    )  # legrad is for pictures
    outcome = run(plan, tmp_path / "text")
    assert outcome.skipped == {"pointing-game": "This judges the image alone"}
    assert outcome.refused == {"legrad": "legrad explains the image alone, which no metric asks for."}
    assert {key[2] for key in rows_of(outcome)} == {"gradcam", "random"}
    assert calls == [("gradcam", 2)]
    with pytest.raises(InputError, match=r"^This judges the image alone: choose another sample or other metrics\.$"):
        run(plan_of(tiny, samples, metrics=metrics_of(["iou"]), sides=("text",)), tmp_path / "none")
    with pytest.raises(IsthmusError, match=r"^legrad explains the image alone, which no metric asks for\.$"):
        run(plan_of(tiny, samples, ["legrad"], sides=("text",)), tmp_path / "nobody")


def variants(plan: Plan, side: str) -> list[str]:
    return list(plan.variants(plan.metrics[0], side))  # type: ignore[arg-type]


def test_replacements_make_variants_where_a_side_has_them(tiny: Any) -> None:
    plan = plan_of(tiny, metrics=metrics_of(["deletion"]), replacements=("mean", "blur", "remove"))
    names = ("cosine", "margin", "cosine normalised", "margin normalised")
    assert variants(plan, "image") == [v for name in names for v in (name, f"{name}, blur")]
    assert variants(plan, "text") == [v for name in names for v in (name, f"{name}, remove")]
    options = plan.variants(plan.metrics[0], "image")["margin, blur"]
    assert options == {"score": "margin", "replacement": "blur"}
    paper = plan_of(tiny, metrics=metrics_of(["confidence-drop"]), replacements=("zero", "blur"))
    assert variants(paper, "image") == ["paper", *(f"sound {m}% {r}" for r in ("mean", "blur") for m in (10, 25, 50))]
    assert variants(paper, "text") == ["paper", *(f"sound {m}% {r}" for r in ("mean", "remove") for m in (10, 25, 50))]
    only = plan_of(tiny, metrics=metrics_of(["confidence-drop"]), only=("paper",))
    assert variants(only, "text") == ["paper"]
    options = plan_of(tiny, metrics=metrics_of(["insertion"]), metric_options={"insertion": {"points": 7}})
    assert options.variants(options.metrics[0], "text")["cosine"] == {"points": 7, "replacement": "mean"}
    alone = plan_of(tiny, metrics=metrics_of(["insertion"]), sides=("image",))
    assert variants(alone, "text") == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"samples": []}, "There is nothing to evaluate: the sample is empty."),
        ({"metrics": []}, "There is nothing to evaluate: name at least one method and one metric."),
        ({"methods": [], "trivial": ()}, "There is nothing to evaluate: name at least one method and one metric."),
        ({"choice": "worst"}, "There is no choice 'worst' of captions: choose one of best, first, all, paper."),
        ({"replacements": ("noise",)}, "There is no replacement 'noise': choose from black, blur, mean, remove, zero."),
        (
            {"replacements": ("blur",)},
            "No replacement is for the text, not blur: add one of mean, zero, remove, or leave the text out.",
        ),
        (
            {"metric_options": {"deletion": {}}},
            "There are options for 'deletion', which is not measured: add it to the metrics.",
        ),
        (
            {"metric_options": {"insertion": {"pints": 4}}},
            "insertion has no option 'pints': it has first, score, replacement, normalised, points.",
        ),
        (
            {"metric_options": {"insertion": {"normalised": True}}},
            "The variants of insertion differ in 'normalised', so that it cannot be given: leave it out.",
        ),
    ],
)
def test_a_plan_refuses_what_cannot_be_in_one_sentence(tiny: Any, change: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"metrics": metrics_of(["insertion"]), **change}
    with pytest.raises(OptionError) as caught:
        plan_of(tiny, **given)
    assert str(caught.value) == sentence


def test_labels_and_names_are_checked(tiny: Any) -> None:
    two = (Spec("x", "gradcam"), Spec("x", "nib"))
    with pytest.raises(OptionError, match=r"^Two methods bear one label: give each a label of its own\.$"):
        Plan(tiny, "toy", samples_of(), two, (MEAN,))
    with pytest.raises(OptionError, match=r"^There is no metric 'insertoin': choose one of average-precision, "):
        metrics_of(["insertoin"])
    with pytest.raises(OptionError, match=r"no method 'magic'"):
        specs_of(["magic"])
    with pytest.raises(OptionError, match=r"^There are options for 'nib', which is not evaluated: add it to the met"):
        specs_of(["gradcam"], options={"nib": {"steps": 2}})
    with pytest.raises(OptionError, match=r"^gradcam has no option 'steps': it has layer, memory, relu\.$"):
        specs_of(["gradcam"], options={"gradcam": {"steps": 2}})
    assert [one.name for one in metrics_of(["insertion", "deletion", "insertion"])] == ["insertion", "deletion"]
    found = specs_of(["nib", "gradcam"], options={"nib": {"steps": 2, "preset": "paper"}}, preset="paper")
    assert [(s.label, s.preset) for s in found] == [
        ("nib", "paper"),
        ("gradcam", None),
        ("random", None),
        ("flat", None),
        ("centre", None),
    ]
    assert found[0].options == {"steps": 2}
    assert len({spec.label for spec in specs_of(["all"])}) == len(METHODS) + 3
