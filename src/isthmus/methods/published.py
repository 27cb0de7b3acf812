"""What the NIB paper says that methods cost (Zhu et al., ICLR 2025, Table 8), beside counts by hooks on the model.

The paper counts calls, some of one side and some of both, and counts `autograd.grad` as nothing for three methods. Ours
are runs of an encoder, or of what is left of it behind a cut, on one input: for one pair, both sides, the similarity
included, with `preset="paper"` of the method that computes what the paper's code does under the name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Passes forward and backward: `theirs` of Table 8, `ours` as counted."""

    name: str
    theirs: tuple[int, int]
    ours: tuple[int, int]


# By the method's name here; a test counts `ours` anew.
TABLE_8 = {
    "nib": Cost("NIB", (12, 10), (26, 20)),
    "m2ib": Cost("M2IB", (22, 20), (184, 180)),
    "rise": Cost("RISE", (301, 0), (6204, 0)),
    "hirescam": Cost("Grad-CAM", (3, 2), (6, 2)),
    "chefer": Cost("Chefer et al.", (3, 0), (6, 2)),
    "attention-gradient": Cost("SM", (3, 0), (6, 2)),
    "mfaba": Cost("MFABA", (21, 10), (24, 20)),
    "attention-x-gradient": Cost("FastIG", (3, 0), (6, 2)),
}
