"""The support table, `docs/support.md`: written and read back, so that a test can compare each cell with the models.

A page is rows of models; a cell is "yes", or for each side that refuses the number of a reason. Methods that run on
every model on every side that they have share one sentence.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import transformers

from conftest import ROOT
from isthmus.methods import METHODS

PAGE = ROOT / "docs" / "support.md"
Refusals = Mapping[str, Mapping[str, Mapping[str, str]]]  # by model, method and side: why, "" where it runs

FAMILIES = {
    "aimv2": "AIMv2",
    "align": "ALIGN (EfficientNet)",
    "altclip": "AltCLIP",
    "blip": "BLIP",
    "blip-retrieval": "BLIP for retrieval",
    "blip_2": "BLIP-2",
    "chinese_clip": "Chinese-CLIP",
    "clip": "CLIP, MetaCLIP",
    "clip-eos2": "CLIP of OpenAI",
    "clip-roberta": "two towers: CLIP and RoBERTa",
    "clipseg": "CLIPSeg",
    "dinov2-bert": "two towers: DINOv2 with registers and BERT",
    "flava": "FLAVA",
    "groupvit": "GroupViT",
    "metaclip_2": "MetaCLIP 2",
    "owlv2": "OWLv2",
    "owlvit": "OWL-ViT",
    "siglip": "SigLIP",
    "siglip2": "SigLIP 2 NaFlex",
    "siglip2-fixed": "SigLIP 2 of one size",
    "tipsv2": "TIPS v2",
    "vit-bert": "two towers: ViT and BERT",
}
_VERSION = re.compile(r"transformers (\d[\w.]*)")


def neutral(reason: str) -> str:
    """A reason without the side and the number of the block that it names: the cell tells the side."""
    reason = re.sub(r"\b(image|text) tower\b", "tower", reason)
    return re.sub(r"\b([Bb])lock \d+ of the tower", r"\1lock of the tower", reason)


def rendered(refusals: Refusals, unread: Mapping[str, str]) -> str:
    """The page.

    Args:
        refusals: of the models that are read.
        unread: why the others are refused as a whole.
    """
    partly = [name for name in sorted(METHODS) if any(any(row[name].values()) for row in refusals.values())]
    always = [name for name in sorted(METHODS) if name not in partly]
    reasons: dict[str, int] = {}

    def number(reason: str) -> int:
        return reasons.setdefault(neutral(reason), len(reasons) + 1)

    sentence = (
        f"These run on every model that is read, on all sides that they have: {', '.join(map('`{}`'.format, always))}."
    )
    lines = [
        _HEAD.format(version=transformers.__version__, always=textwrap.fill(sentence, 120, break_on_hyphens=False))
    ]
    lines.append("| model | " + " | ".join(f"`{name}`" for name in partly) + " |")
    lines.append("|" + "---|" * (len(partly) + 1))
    for model in sorted(FAMILIES, key=lambda name: FAMILIES[name].lower()):
        if model in refusals:
            cells = [_cell(refusals[model][name], number) for name in partly]
        elif model in unread:
            cells = [f"[{number(unread[model])}]"] * len(partly)
        else:
            continue
        lines.append(f"| {FAMILIES[model]} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{n}. {reason}" for reason, n in reasons.items()), ""]
    return "\n".join(lines)


def _cell(sides: Mapping[str, str], number: object) -> str:
    assert callable(number)
    refused = {side: number(reason) for side, reason in sides.items() if reason}
    if not refused:
        return "yes"
    if len(set(refused.values())) == 1 and len(refused) == len(sides):
        return f"[{next(iter(refused.values()))}]"
    return ", ".join(f"{side} [{refused[side]}]" if side in refused else f"{side} yes" for side in sides)


def table() -> dict[str, dict[str, dict[str, str]]]:
    """By model and method what the page says of each side: "" where it runs, else the reason."""
    text = PAGE.read_text(encoding="utf-8")
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    names = {family: model for model, family in FAMILIES.items()}
    methods = [cell.strip("`") for cell in rows[0][1:]]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for first, *cells in rows[2:]:
        said = dict(zip(methods, cells, strict=True))
        found[names[first]] = {method: _read(said.get(method, "yes"), method, reasons) for method in METHODS}
    return found


def _read(cell: str, method: str, reasons: Mapping[str, str]) -> dict[str, str]:
    sides = METHODS[method].sides
    numbers = dict(re.findall(r"(image|text) \[(\d+)\]", cell))
    whole = re.fullmatch(r"\[(\d+)\]", cell)
    return {side: reasons.get(whole[1] if whole else numbers.get(side, ""), "") for side in sides}


def version() -> str:
    """The version of transformers that the page was made with."""
    found = _VERSION.search(PAGE.read_text(encoding="utf-8"))
    return found[1] if found else ""


def write(text: str) -> Path:
    PAGE.write_text(text, encoding="utf-8")
    return PAGE


_HEAD = """# Which method runs on which model

Made by `tests/test_matrix.py` with transformers {version}: each model is built small, with random weights, and every
method is run on it. Where it runs, a batch gives what its pairs give alone, the same call gives the same bits, and the
model is left as it was. Where it refuses, the number is that of the reason below, which is also the error that you get.

{always}

The others, for the picture and the text ("yes" means both, or the one side that the method has):
"""
