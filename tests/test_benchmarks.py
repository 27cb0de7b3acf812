"""The speed benchmarks run, and what they count is right."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import isthmus
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
speed: Any = importlib.import_module("speed")
floor: Any = importlib.import_module("speed_floor")
models: Any = importlib.import_module("speed_models")
plain: Any = importlib.import_module("speed_plain")
captum: Any = importlib.import_module("speed_captum")
device: Any = importlib.import_module("speed_device")
machine: Any = importlib.import_module("speed_machine")
doc: Any = importlib.import_module("speed_doc")

TINY = models.SHAPES["tiny"]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return models.encoder_of(models.clip(TINY), TINY)


def test_a_quick_run_measures_every_part_and_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed.py", "--quick", "--out", str(out)])
    speed.main()
    shown, kept = capsys.readouterr().out, json.loads(out.read_text())
    assert kept["machine"]["torch"] == torch.__version__
    assert {key.split("/")[0] for key in kept["points"]} == {"ratio", "floor", "memory", "scaling"}
    rows = kept["points"]["ratio/tiny/3"]["contestants"]
    assert all(row["seconds"] > 0 for row in rows.values())
    assert all(steps >= 1 for name in ("zero", "mean") for steps in rows[name]["steps"].values())
    assert "captum `LayerIntegratedGradients`, 10 Gauss-Legendre nodes" in shown
    speed.main()
    again = capsys.readouterr().out
    assert "ratio/tiny/3: there already" in again
    assert again.endswith(doc.tables(kept["machine"], kept["points"]) + "\n")


def test_tables_go_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "speed.md"
    page.write_text(doc.DOC.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(doc, "DOC", page)
    point = {"seconds": 2.0, "pairs": 4, "rate": 2.0}
    texts = []
    for _ in range(2):
        doc.write("cuda", machine.machine("cpu"), {"scaling/pairs/4": point, "scaling/pairs/32": point})
        texts.append(page.read_text(encoding="utf-8"))
    after = texts[1]
    assert after == texts[0], "written twice is written once"
    inside = after.split("<!-- speed-cuda -->")[1].split("<!-- /speed-cuda -->")[0]
    assert inside.index("| 4 | 2.000 | 2.00 |") < inside.index("| 32 | 2.000 | 2.00 |"), "by number, not by letter"
    assert after.count("<!-- speed-cpu -->") == 1


def test_the_plain_loop_is_the_paper_preset(encoder: Any) -> None:
    pairs = models.pairs_of(TINY, 3)
    maps = plain.published(encoder.model, pairs.pixels, pairs.ids, TINY.layer)
    assert any(parameter.grad is not None for parameter in encoder.model.parameters()), "gradients of weights are on"
    encoder.model.zero_grad(set_to_none=True)
    found = isthmus.explain(encoder, pairs.pictures, pairs.texts, preset="paper", layer=TINY.layer)
    for one, image, text in zip(found, maps.image_scores, maps.text_scores, strict=True):
        torch.testing.assert_close(torch.tensor(one.image.scores).flatten(), image[1:], rtol=1e-3, atol=1e-6)
        scores = torch.tensor([token.score for token in one.text.tokens])
        torch.testing.assert_close(scores, text[1:-1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("side", ["image", "text"])
def test_captum_gives_the_same_integral(encoder: Any, side: str) -> None:
    pairs = models.pairs_of(TINY, 3)
    theirs = captum.integrated(encoder, pairs, side, layer=TINY.layer, steps=6, rows=2)
    options = {"layer": TINY.layer, "closed": "zero", "special": "closed", "rule": "gauss-legendre", "steps": 6}
    found = isthmus.explain(encoder, pairs.pictures, pairs.texts, sides=side, **options)
    for one, scores in zip(found, theirs, strict=True):
        total = getattr(one, side).completeness.total
        torch.testing.assert_close(float(scores.sum()), total, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("setting", "most"), [("default", 3), ("light", 5)])
def test_what_is_needed_is_part_of_what_is_done(encoder: Any, setting: str, most: float) -> None:
    """Isthmus may run the last block whole, which in "light" is the only one: more is done than needed, never less."""
    pairs = models.pairs_of(TINY, 2)
    options = models.options_of(TINY, setting)
    found: list[Any] = []
    done = floor.performed(
        lambda: found.extend(isthmus.explain(encoder, pairs.pictures, pairs.texts, sides=("image", "text"), **options))
    )
    needed = floor.needed_by(TINY, pairs, found)
    assert needed < done < most * needed


def test_operations_of_a_block_are_those_that_torch_counts() -> None:
    stack, positions = models.Stack(64, 1, 2, 256), 17
    layer = torch.nn.TransformerEncoderLayer(64, 2, 256, batch_first=True, activation=torch.nn.functional.silu).train()
    state = torch.randn(1, positions, 64)
    assert floor.performed(lambda: layer(state)) == floor.block(stack, positions)


def test_a_leak_is_seen_and_maps_are_compared() -> None:
    held: list[int] = []
    assert device.leaked(lambda: held.append(0), lambda: len(held), 5) == 5
    assert device.leaked(lambda: None, lambda: 7, 5) == 0
    rows = {name: rest for name, *rest in device.check("cpu", lambda: 0, 1, ["gradcam", "rise"])}
    assert rows["gradcam"] == [0, 0.0, ""]
    assert rows["rise"][1] is None, "random maps are not compared"


def test_figures_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    known = machine.machine("cpu")
    machine.Results(tmp_path / "a.json", known).put("x", {"seconds": 1.0})
    assert not machine.Results(tmp_path / "a.json", known).missing("x")
    assert machine.Results(tmp_path / "a.json", known, again=True).missing("x")
    with pytest.raises(SystemExit, match="another machine"):
        machine.Results(tmp_path / "a.json", {**known, "cpu": "another"})
