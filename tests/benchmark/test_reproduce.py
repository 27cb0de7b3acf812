"""The paper's tables by name: its grid, its figures beside ours, and what stands in the way in one sentence."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from conftest import EXAMPLES, picture
from isthmus.benchmark import explaining
from isthmus.benchmark.figures import draw
from isthmus.benchmark.paper import DATASETS, MEASURES, figures, placed, specs_of_table, theirs_of
from isthmus.benchmark.plan import Plan, metrics_of
from isthmus.benchmark.reproduce import Line, Reproduction, grids, reproduce, save
from isthmus.benchmark.run import run as evaluated
from isthmus.benchmark.spec import Spec
from isthmus.datasets import open_dataset, sampled
from isthmus.errors import InputError, OptionError
from isthmus.methods.published import TABLE_8

TITLES = ("Conceptual Captions", "ImageNet", "Flickr8k")
TRIVIAL = ("random", "flat", "centre")
CHEAP: dict[str, dict[str, Any]] = {"rise": {"samples": 8}, "m2ib": {"steps": 2, "copies": 2}, "mfaba": {"steps": 2}}
# As the paper prints them (METHODS 4.1, paper's tables 2 to 8).
STEPS = {"table3": (5, 10, 15, 20), "table6": (3, 8, 13, 18)}
LAYERS = {"table4": (3, 6, 9), "table7": (2, 4, 5, 6, 7, 8)}
BETAS = (*(n / 100 for n in range(1, 10)), *(n / 10 for n in range(1, 10)))
COLUMNS = {"Chefer et al.": "Chefer"}  # table 2 names a method in another way than table 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small to gain from more, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(make_tiny: Any) -> Any:
    return make_tiny(depth=10)  # the paper's layer is 9


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records), encoding="utf-8")
    path.with_suffix("").mkdir(parents=True)
    for record in records:
        name = record.get("file") or f"{record['key']}.jpg"
        picture(len(name) + int(name[-5]), (record.get("width", 90), 70)).save(path.with_suffix("") / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's three datasets, of three pictures each, as indexes."""
    found = tmp_path_factory.mktemp("root")
    texts = ["a dog", "a cat on a mat", "snow", "two birds", "a red car"]
    write(found / "flickr8k.json", [{"file": f"f{i}.jpg", "captions": texts[i:] + texts[:i]} for i in range(3)])
    write(found / "cc.json", [{"key": f"00000{i}", "caption": f"the number {i}"} for i in range(3)])
    box = {"wnid": "n0", "box": [0, 0, 20, 20]}
    write(
        found / "tinyimagenet.json",
        [{"file": f"val_{i}.jpg", "caption": f"a photo of a {n}", **box} for i, n in enumerate(("cat", "dog", "owl"))],
    )
    return found


@pytest.fixture(scope="module")
def flickr(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one dataset."""
    found = tmp_path_factory.mktemp("flickr")
    shutil.copy(root / "flickr8k.json", found)
    shutil.copytree(root / "flickr8k", found / "flickr8k")
    return found


def cells(found: Reproduction) -> dict[tuple[str, str, str], Line]:
    by = {(line.dataset, line.label, line.measure): line for line in found.lines}
    assert len(by) == len(found.lines)
    return by


@pytest.mark.parametrize("table", ["table3", "table4", "table6", "table7"])
def test_the_grids_of_nib_are_the_papers(table: str) -> None:
    specs = specs_of_table(table)
    if table in STEPS:
        expected = [(f"steps {n}", {"layer": 9, "steps": n}) for n in STEPS[table]]
    else:
        expected = [(f"layer {n}", {"layer": n, "steps": 10}) for n in LAYERS[table]]
    own = [spec for spec in specs if not spec.trivial]
    assert [(spec.label, spec.options) for spec in own] == expected
    assert {(spec.method, spec.preset) for spec in own} == {("nib", "paper")}
    assert tuple(spec.label for spec in specs if spec.trivial) == TRIVIAL


def test_the_grids_cover_what_the_issue_names() -> None:
    assert sorted(n for table in STEPS for n in STEPS[table]) == [3, 5, 8, 10, 13, 15, 18, 20]
    layers = {spec.options["layer"] for table in LAYERS for spec in specs_of_table(table) if not spec.trivial}
    assert layers == set(range(2, 10))


def test_the_grid_of_m2ib_is_the_papers() -> None:
    own = [spec for spec in specs_of_table("table5") if not spec.trivial]
    assert [spec.options for spec in own] == [{"beta": pytest.approx(beta)} for beta in BETAS]
    assert [spec.label for spec in own] == [f"beta {beta:g}" for beta in BETAS]
    assert {(spec.method, spec.preset) for spec in own} == {("m2ib", "paper")}


@pytest.mark.parametrize("table", ["table2", "table8"])
def test_the_methods_are_the_papers(table: str) -> None:
    own = [spec for spec in specs_of_table(table) if not spec.trivial]
    assert {spec.label: spec.method for spec in own} == {
        "NIB": "nib",
        "M2IB": "m2ib",
        "RISE": "rise",
        "Grad-CAM": "hirescam",
        "Chefer et al.": "chefer",
        "SM": "attention-gradient",
        "MFABA": "mfaba",
        "FastIG": "attention-x-gradient",
    }
    assert all(spec.preset == "paper" and not spec.options for spec in own)


@pytest.mark.parametrize("table", ["table2", "table3", "table4", "table5", "table6", "table7"])
def test_every_figure_of_the_paper_has_its_cell(table: str) -> None:
    labels = [spec.label for spec in specs_of_table(table) if not spec.trivial]
    measures = (*MEASURES, "fps") if table == "table2" else tuple(MEASURES)
    found = {(one.dataset, one.label, one.measure): one.value for one in theirs_of(table)}
    assert set(found) == {(title, label, measure) for title in TITLES for label in labels for measure in measures}
    assert all(math.isfinite(value) for value in found.values())


def test_the_figures_are_those_that_are_printed() -> None:
    found = {
        t: {(o.dataset, o.label, o.measure): o.value for o in theirs_of(t)} for t in ("table2", "table3", "table5")
    }
    assert found["table2"]["Conceptual Captions", "NIB", "image_confidence_drop"] == 0.9439
    assert found["table2"]["Flickr8k", "NIB", "text_confidence_increase"] == 55.3
    assert found["table2"]["ImageNet", "Chefer et al.", "fps"] == 2.7867
    assert found["table3"]["ImageNet", "steps 20", "image_confidence_increase"] == 54.3
    assert found["table5"]["Flickr8k", "beta 0.9", "text_confidence_drop"] == 3.3289


def test_the_figures_are_the_teams(shared: Path) -> None:
    assert dict(figures()) == json.loads((shared / "paper_tables.json").read_text(encoding="utf-8"))


def test_table3_fills_the_grid(tiny: Any, root: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    found = reproduce("table3", tiny, tmp_path, root=root, limit=2, progress=lambda *one: told.append(one))
    by = cells(found)
    labels = tuple(f"steps {n}" for n in STEPS["table3"])
    assert set(by) == {(t, label, m) for t in TITLES for label in (*labels, *TRIVIAL) for m in MEASURES}
    printed = {
        (row["dataset"], f"steps {row['num_steps']:g}", measure): row[measure]
        for row in figures()["table3"]
        for measure in MEASURES
    }
    for place, line in by.items():
        assert line.pairs == 2
        if place[1] in TRIVIAL:
            assert (line.paper, line.difference) == (None, None)
        else:
            assert line.paper == printed[place]
            assert line.difference == pytest.approx(line.ours - printed[place])
        if place[2].endswith("increase"):
            assert line.ours in (0, 50, 100)
    flat = by["Flickr8k", "flat", "image_confidence_drop"]
    assert 0 <= flat.ours < 0.5  # next to nothing is taken away
    assert not found.failed
    assert not found.refused
    assert {one[1] for one in told} == {7}
    assert "2 pairs of 2 samples of cc.json" in found.about["Conceptual Captions"]
    assert tiny.revision in found.about["Model"]
    assert "clip-vit-base-patch32" in found.about["The paper's model"]


@pytest.mark.parametrize("sides", [("image", "text"), ("text",)])
def test_shared_steps_give_what_each_gives_alone(tiny: Any, root: Path, tmp_path: Path, sides: Any) -> None:
    samples, _ = sampled(open_dataset(root / "flickr8k.json"), limit=3)
    metrics = metrics_of(["confidence-drop", "confidence-increase"])
    specs = [spec for spec in specs_of_table("table3") if not spec.trivial]

    def values(name: str, *of: Spec) -> dict[tuple[str, ...], float]:
        plan = Plan(tiny, "flickr8k", samples, of, metrics, sides=sides, only=("paper",), batch_size=2)
        rows = evaluated(plan, tmp_path / name).rows.to_pylist()
        keys = ("pair", "method", "metric", "side")
        return {tuple(row[k] for k in keys): row["value"] for row in rows if row["metric"] != "seconds"}

    together = values("together", *specs)
    alone = {place: value for n, spec in enumerate(specs) for place, value in values(str(n), spec).items()}
    passes = {place for place in together if place[2] in ("forward", "backward")}
    assert set(together) == set(alone)
    for place in set(together) - passes:
        assert together[place] == pytest.approx(alone[place], abs=1e-3)
    spent = sum(together[place] for place in passes)
    assert spent < 0.75 * sum(alone[place] for place in passes)


def test_a_second_time_nothing_is_explained(
    tiny: Any, flickr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reproduce("table4", tiny, tmp_path, root=flickr)
    monkeypatch.setattr(explaining, "explain", None)
    assert reproduce("table4", tiny, tmp_path, root=flickr).lines == first.lines
    with pytest.raises(OptionError, match="another sample, samples, texts: give another --out, or --overwrite"):
        reproduce("table4", tiny, tmp_path, root=flickr, limit=2)


def test_table2_has_every_method_beside_the_papers(tiny: Any, root: Path, tmp_path: Path) -> None:
    found = reproduce("table2", tiny, tmp_path, root=root, limit=2, options=CHEAP)
    by = cells(found)
    labels = [cost.name for cost in TABLE_8.values()]
    expected = {(t, label, m) for t in TITLES for label in (*labels, *TRIVIAL) for m in MEASURES}
    assert set(by) == expected | {(t, label, "fps") for t in TITLES for label in labels}
    printed = {(row["dataset"], row["metric"]): row for row in figures()["table2"]}
    for (title, label, measure), line in by.items():
        own = None if label in TRIVIAL else printed[title, measure][COLUMNS.get(label, label)]
        assert line.paper == own
        assert math.isfinite(line.ours)
    speed = by["Flickr8k", "NIB", "fps"]
    assert 0 < speed.low <= speed.ours <= speed.high
    assert found.about["Not the paper's setting of rise"] == "samples 8"
    assert found.about["Not the paper's setting of m2ib"] == "steps 2, copies 2"

    paths = save(found, tmp_path)
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv"]
    head, *rows = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert head.startswith("# ")
    assert "samples 8" in head
    table = list(csv.DictReader(rows))
    assert len(table) == len(found.lines)
    for row in table:
        line = by[row["dataset"], row["method"], row["measure"]]
        assert float(row["ours"]) == line.ours
        assert int(row["pairs"]) == 2
        if line.paper is None:
            assert (row["paper"], row["difference"]) == ("", "")
        else:
            assert float(row["difference"]) == pytest.approx(line.ours - line.paper)
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    line = by["ImageNet", "RISE", "image_confidence_drop"]
    assert f"{line.ours:.3f} (1.001; {line.ours - 1.001:+.3f})" in markdown
    assert "- Not the paper's setting of rise: samples 8\n" in markdown
    assert markdown.count("| flat |") == 3
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    assert [(caption.split(":")[0], len(rows)) for caption, _, rows in grids(found)] == [(t, 11) for t in TITLES]


def test_the_papers_caption_is_chosen_on_flickr8k_alone(tiny: Any, root: Path, tmp_path: Path) -> None:
    reproduce("table4", tiny, tmp_path, root=root, limit=2)
    chosen = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["choice_of_captions"]
        for path in tmp_path.glob("*/run.json")
    }
    assert chosen == {"conceptual-captions": "best", "tiny-imagenet-200": "best", "flickr8k": "paper"}


def test_table8_counts_the_passes(tiny: Any, flickr: Path, tmp_path: Path) -> None:
    found = reproduce("table8", tiny, tmp_path, root=flickr, limit=1, options={"rise": {"samples": 8}})
    assert {line.measure for line in found.lines} == {"forward", "backward"}
    counted = {line.label: [0, 0] for line in found.lines}
    theirs = {line.label: [0.0, 0.0] for line in found.lines}
    for line in found.lines:
        counted[line.label][line.measure == "backward"] = line.ours
        theirs[line.label][line.measure == "backward"] = line.paper or 0
    expected = {cost.name: list(cost.ours) for cost in TABLE_8.values()}
    expected["RISE"] = [expected["RISE"][0] - 6000 - 200 + 2 * 8, 0]  # masks of the picture and of the text
    assert counted == expected
    assert theirs == {cost.name: list(cost.theirs) for cost in TABLE_8.values()}
    assert found.about["ImageNet"] == "not run"


def test_datasets_are_found_by_their_names(root: Path, flickr: Path, tmp_path: Path) -> None:
    captions, imagenet, flickr8k = DATASETS
    assert placed(root, flickr8k) == root / "flickr8k.json"
    assert placed(root, captions) == root / "cc.json"
    assert placed(root, imagenet) == root / "tinyimagenet.json"
    assert placed(flickr, captions) is None
    assert placed(None, captions) is None
    for name in ("cc3m", "Flickr8k", "tiny-imagenet-200"):
        (tmp_path / name).mkdir()
    assert placed(tmp_path, captions) == tmp_path / "cc3m"
    assert placed(tmp_path, imagenet) == tmp_path / "tiny-imagenet-200"
    assert placed(tmp_path, flickr8k) == tmp_path / "Flickr8k"
    # The root may be the dataset itself.
    assert placed(tmp_path / "Flickr8k", flickr8k) == tmp_path / "Flickr8k"
    assert placed(flickr / "flickr8k", flickr8k) == flickr / "flickr8k.json"
    assert placed(flickr / "flickr8k.json", flickr8k) == flickr / "flickr8k.json"
    assert placed(flickr / "flickr8k.json", captions) is None


def test_a_dataset_that_is_not_there_is_told(tiny: Any, flickr: Path, tmp_path: Path) -> None:
    found = reproduce("table4", tiny, tmp_path, root=flickr, limit=1)
    assert {line.dataset for line in found.lines} == {"Flickr8k"}
    assert found.about["Conceptual Captions"] == found.about["ImageNet"] == "not in the root"


@pytest.mark.parametrize("name", ["empty", "absent", None])
def test_a_root_without_datasets_is_one_sentence(tiny: Any, tmp_path: Path, name: str | None) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        reproduce("table2", tiny, tmp_path / "out", root=None if name is None else tmp_path / name)
    told = str(caught.value)
    for one in (*TITLES, "conceptual-captions or cc", "tiny-imagenet-200", "flickr8k", "--dataset-root"):
        assert one in told
    assert "None" not in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        ("table9", {}, "There is no table 'table9': choose one of table2, table3, table4, table5, table6, table7, tab"),
        ("table3", {"rise": {"samples": 8}}, "There are options for 'rise', which table3 does not have: leave them ou"),
        ("table2", {"magic": {"x": 1}}, "There are options for 'magic', which table2 does not have: leave them out."),
        ("table2", {"rise": {"sample": 8}}, "rise has no option 'sample': it has "),
        ("table3", {"nib": {"steps": 5}}, "table3 sets 'steps' of nib itself: leave it out."),
        ("table7", {"nib": {"layer": 5}}, "table7 sets 'layer' of nib itself: leave it out."),
        ("table2", {"nib": {"preset": "paper"}}, "table2 sets 'preset' of nib itself: leave it out."),
    ],
)
def test_wrong_options_are_one_sentence(tiny: Any, flickr: Path, table: str, options: Any, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        reproduce(table, tiny, flickr / "out", root=flickr, options=options)
    assert str(caught.value).startswith(sentence)
    assert not (flickr / "out").exists()


def test_bad_pictures_are_told(tiny: Any, flickr: Path, tmp_path: Path) -> None:
    shutil.copytree(flickr, tmp_path / "in")
    (tmp_path / "in" / "flickr8k" / "f1.jpg").write_bytes(b"no picture")
    found = reproduce("table4", tiny, tmp_path / "out", root=tmp_path / "in")
    assert [one.id for one in found.failed] == ["f1.jpg"]
    assert {line.pairs for line in found.lines} == {2}


def test_a_mean_that_is_not_defined_is_said_so() -> None:
    nan = math.nan
    lines = [
        Line("Flickr8k", "fps", "NIB", nan, nan, nan, 0, 2.5),
        Line("Flickr8k", "fps", "x", nan, nan, nan, 0, None),
    ]
    ((_, header, rows),) = grids(Reproduction("table2", lines, {}, [], {}))
    assert header == ["method", "fps"]
    assert [[str(getattr(cell, "text", cell)) for cell in row] for row in rows] == [["NIB", "n/a (2.5)"], ["x", "n/a"]]


def pictures(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"
            found[path.name] = image.size
    return found


def test_figures_of_a_picture_of_ones_own(tiny: Any, tmp_path: Path) -> None:
    options = {"m2ib": {"steps": 2, "copies": 2}, "nib": {"steps": 2}}
    dog = EXAMPLES / "dog.jpg"
    paths = draw("figure1", tiny, tmp_path / "1", root=None, image=dog, texts=["a dog", "a cat"], options=options)
    assert [path.name for path in paths] == ["figure1-1.png", "figure1-2.png"]
    draw("figure2", tiny, tmp_path / "2", root=None, image=dog, texts=["a dog"], options={"nib": {"steps": 2}})
    found = pictures(tmp_path / "1") | pictures(tmp_path / "2")
    assert set(found) == {"figure1-1.png", "figure1-2.png", "figure2-1.png"}
    assert all(min(size) > 200 for size in found.values())


def test_figures_of_the_datasets(tiny: Any, tmp_path: Path) -> None:
    boxes = [{"name": "person", "box": [0, 0, 30, 30]}, {"name": "apple", "box": [40, 0, 70, 30]}]
    pets = [{"name": "cat", "box": [0, 0, 30, 30]}, {"name": "dog", "box": [40, 0, 70, 30]}]
    for name in "abc":
        (tmp_path / "coco" / name).mkdir(parents=True)
        picture(ord(name)).save(tmp_path / "coco" / name / "1.jpg")
    records = [
        {"file": f"{name}/1.jpg", "captions": ["x"], "objects": things}
        for name, things in (("a", boxes), ("b", pets), ("c", pets[:1]))
    ]
    (tmp_path / "coco.json").write_text(json.dumps(records), encoding="utf-8")
    cheap = {"m2ib": {"steps": 2, "copies": 2}, "nib": {"steps": 2}}
    draw("figure1", tiny, tmp_path / "one", root=tmp_path, limit=1, options=cheap)
    assert set(pictures(tmp_path / "one")) == {"figure1-b_1.jpg-dog.png", "figure1-b_1.jpg-cat.png"}  # as in the paper
    draw("figure1", tiny, tmp_path / "two", root=tmp_path, options=cheap)
    assert set(pictures(tmp_path / "two")) == {
        f"figure1-{name}_1.jpg-{thing}.png"
        for name, thing in (("a", "person"), ("a", "apple"), ("b", "dog"), ("b", "cat"))
    }
    write(tmp_path / "rsicd.json", [{"file": f"beach_{i}.jpg", "captions": ["a beach", "sea"]} for i in range(5)])
    draw("figure2", tiny, tmp_path / "sea", root=tmp_path, options={"nib": {"steps": 2}})
    found = pictures(tmp_path / "sea")
    assert len(found) == 4
    assert set(found) < {f"figure2-beach_{i}.png" for i in range(5)}


def test_a_dataset_without_a_fitting_picture_is_one_sentence(tiny: Any, tmp_path: Path) -> None:
    write(tmp_path / "coco.json", [{"file": "s1.jpg", "captions": ["x"], "objects": []}])
    with pytest.raises(InputError, match=r"^figure1 finds no picture with two named things on it in "):
        draw("figure1", tiny, tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("figure", "more", "sentence"),
    [
        ("figure3", {}, "There is no figure 'figure3': choose one of figure1, figure2."),
        ("figure1", {}, "figure1 needs coco in --dataset-root, and it is not in "),
        ("figure2", {}, "figure2 needs rsicd in --dataset-root, and it is not in "),
        ("figure1", {"image": "dog.jpg"}, "A picture of your own needs a text or two: give them after --image with -"),
        ("figure1", {"texts": ["a dog"]}, "Texts of your own need a picture of your own: give it with --image."),
        ("figure2", {"options": {"m2ib": {}}}, "There are options for 'm2ib', which figure2 does not show: leave them"),
        ("figure1", {"options": {"nib": {"images": 3}}}, "nib has no option 'images': it has "),
    ],
)
def test_wrong_figures_are_one_sentence(
    tiny: Any, tmp_path: Path, figure: str, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((InputError, OptionError)) as caught:
        draw(figure, tiny, tmp_path / "out", root=tmp_path, **more)
    assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def call(run: Callable[..., Any], tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command line with the tiny model under the name of mini."""
    monkeypatch.setattr("isthmus.explainer.load", lambda *_, **__: tiny)
    return run


def test_the_command_prints_the_table_whole(call: Any, root: Path, tmp_path: Path) -> None:
    arguments = ["reproduce", "table2", "--dataset-root", root, "--limit", "2", "--out", tmp_path]
    options = [f"{name}.{key}={value}" for name, own in CHEAP.items() for key, value in own.items()]
    code, printed, said = call(*arguments, *(part for option in options for part in ("--option", option)))
    assert code == 0, said
    with (tmp_path / "table.csv").open(encoding="utf-8") as stream:
        next(stream)
        table = list(csv.DictReader(stream))
    assert len(table) == 3 * (11 * 4 + 8)
    for row in table:
        half = (float(row["high"]) - float(row["low"])) / 2
        spread = f" ±{half:.3f}" if half == half and row["measure"] != "fps" else ""
        theirs = f" ({float(row['paper']):g}; {float(row['difference']):+.3f})" if row["paper"] else ""
        assert f"{float(row['ours']):.3f}{spread}{theirs}" in printed
    assert "…" not in printed
    assert printed.count("Chefer et al.") == 3
    assert "Not the paper's setting of rise: samples 8" in printed
    for name in ("table.md", "table.tex", "table.csv"):
        assert name in printed


def test_the_command_tells_what_failed(call: Any, flickr: Path, tmp_path: Path) -> None:
    shutil.copytree(flickr, tmp_path / "in")
    (tmp_path / "in" / "flickr8k" / "f1.jpg").write_bytes(b"no picture")
    arguments = ["reproduce", "table2", "--dataset-root", tmp_path / "in", "--out", tmp_path / "out"]
    cheap = [f"{name}.{key}={value}" for name, own in CHEAP.items() for key, value in own.items()]
    options = [part for option in cheap for part in ("--option", option)]
    code, printed, said = call(*arguments, *options, "--limit", "3", "--option", "hirescam.layer=99")
    assert code == 2
    assert "1 failed:\n  f1.jpg: " in printed
    assert "Grad-CAM has no result: layer=99 is out of range" in said
    assert "Traceback" not in said


def test_the_command_draws_a_figure(call: Any, tmp_path: Path) -> None:
    arguments = ["reproduce", "figure2", "--image", EXAMPLES / "dog.jpg", "--text", "a dog", "--out", tmp_path]
    code, printed, _ = call(*arguments, "--option", "nib.steps=2")
    assert code == 0
    assert "figure2-1.png" in printed
    assert set(pictures(tmp_path)) == {"figure2-1.png"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["table2"],
            "isthmus: No dataset of the paper is given: give --dataset-root a folder with Conceptual",
        ),
        (["table2", "--image", "dog.jpg"], "isthmus: --image and --text are for figures: leave them out.\n"),
        (["table3", "--option", "rise.samples=8"], "isthmus: There are options for 'rise', which table3 does not have"),
        (["table3", "--option", "rise"], "isthmus: --option takes METHOD.NAME=VALUE, such as nib.layer=9, not 'rise'."),
        (["figure1", "--text", "a dog"], "isthmus: Texts of your own need a picture of your own: give it with --image"),
    ],
)
def test_errors_of_the_command_are_one_line(call: Any, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    code, printed, said = call("reproduce", *arguments, "--out", tmp_path / "out")
    assert code == 1
    assert said.splitlines()[-1].startswith(sentence.strip())
    assert "Traceback" not in printed + said
    assert not (tmp_path / "out").exists()


def test_an_unknown_table_is_wrong_usage(call: Any) -> None:
    code, _, said = call("reproduce", "table9")
    assert code == 2
    assert "table9" in said
