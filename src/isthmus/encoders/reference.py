"""The reference set: 18 pictures and 32 captions whose mean hidden state stands for "nothing in particular"."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from isthmus.encoders.dual import Processing
from isthmus.encoders.pictures import open_picture
from isthmus.encoders.tower import Inputs, Side

_FOLDER = Path(__file__).parent / "reference_set"


def reference_inputs(processing: Processing, side: Side) -> tuple[Inputs, Tensor]:
    """Inputs of the reference set for one side, and a mask `(B, T)` of its patches or words."""
    if side == "image":
        pictures = [open_picture(path) for path in sorted(_FOLDER.glob("*.jpg"))]
        inputs, _, layouts = processing.pictures(pictures)
        length = layouts[0].length
        content = [layout.patches for layout in layouts]
    else:
        texts = (_FOLDER / "captions.txt").read_text(encoding="utf-8").splitlines()
        inputs, layouts, _ = processing.texts(texts, truncate=True)
        length = int(inputs["input_ids"].shape[1])
        content = [tuple(piece.position for piece in layout.pieces) for layout in layouts]
    mask = torch.zeros(len(content), length, dtype=torch.bool)
    for row, positions in enumerate(content):
        mask[row, list(positions)] = True
    return inputs, mask
