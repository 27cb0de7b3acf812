"""Attribution along an adversarial path: MFABA and AGI.

Both walk from the input towards where the model decides otherwise and sum, step by step, the change of the input
times a gradient. A decision needs classes: they are the target (for a pair, the partner) and the items of a bank, with
probabilities `softmax(scale * <unit embedding, class>)`.

One thing is not as published: a sign step rises linearly from -1 to 1 where a gradient is under a thousandth of the
largest. A plain sign turns around where a gradient is rounded across zero, so that a batch and its singles, or two
devices, would walk different paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isthmus.encoders.layout import TokenLayout
from isthmus.encoders.tower import Inputs, Tower, unit
from isthmus.errors import ModelError, OptionError
from isthmus.methods.checks import positive, whole
from isthmus.methods.registry import Attribution, Method, register
from isthmus.methods.walk import Classes, Pass, Room, Walk


def mfaba(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    bank: Tensor,
    step: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    epsilon: float | None = None,
    scale: float | None = None,
    preset: str | None = None,
    memory: int | None = None,
) -> Attribution:
    """MFABA (Zhu et al., AAAI 2024): minus the sum of `(x_{j+1} - x_j) g_j` down the slope of the probability.

    With p the probability of the target among itself and the bank, and g_j its gradient at x_j, a step goes to
    `x_j - eta sgn(g_j)`, or along `g_j / |g_j|`, within a box around the input and within what pixels can be, until
    an item of the bank is more probable (looked at after each step, so that there is one at least) or `steps` are
    taken. Lengths are in units of the range of what enters: from black to white for pixels, from the lowest to the
    highest entry of the text's own word vectors. Special positions of a text stay and get 0. Never negative, in units
    of the probability: what speaks against the target counts as much as what speaks for it.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is.
        bank: `(M, D)` unit embeddings of the other side; items that are the target itself do not count.
        step: "sign" (default) or "normalised", whose length over all values is 100 eta, as in the published code.
        steps: most steps, default 50.
        eta: size of a step, default 0.001.
        epsilon: how far a value may move in all, default 0.3.
        scale: of the cosines in the softmax, default 100, at which CLIP caps its own learned one.
        preset: "paper" is the NIB paper's comparison, another algorithm: 10 sign steps of 0.01 down the plain score,
            no softmax, no bounds, no stop, so that it is `0.01 * sum over j of |g_j|`. It walks in the vectors that
            the picture's embedding gives before the first LayerNorm (CLS and positions included), not in pixels; and
            in the rows of the table of token vectors, BOS and EOS included: a repeated token is one row, whose
            gradient is the sum over its places, and each place gets the row's whole score. Its min-max map is in
            `published`; it does not depend on the batch. `steps` and `eta` given beside it apply.
        memory: budget in bytes.

    Raises:
        OptionError: an option out of its range, or one that the preset has no use for.
        ModelError: the preset needs a tower with a stem.
    """
    if preset == "paper":
        if not (step is None and epsilon is None and scale is None):
            raise OptionError('preset="paper" has no use for step, epsilon and scale: leave them out.')
        steps, eta = 10 if steps is None else steps, 0.01 if eta is None else eta
        return _published(tower, inputs, target, layouts, steps=steps, eta=eta, memory=memory)
    step = "sign" if step is None else step
    if step not in ("sign", "normalised"):
        raise OptionError(f'There is no step {step!r}: choose "sign" or "normalised".')
    used: dict[str, Any] = {"step": step, "steps": whole("steps", 50 if steps is None else steps, 1)}
    for name, given, default in (("eta", eta, 0.001), ("epsilon", epsilon, 0.3), ("scale", scale, 100.0)):
        used[name] = positive(name, default if given is None else given)
    entrance = tower.enter(inputs)
    classes = Classes.of(entrance, target, bank, used["scale"])
    room = Room.of(entrance, layouts, used["epsilon"])
    owners = torch.arange(len(target), device=entrance.hidden.device)

    def advance(state: Tensor, rows: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        run = Pass.of(entrance, state, rows)
        logits = classes.logits(run.found.detach(), rows)
        gradient = room.free(run.slope(classes.towards(logits, torch.zeros_like(rows), rows)), rows)
        on = logits[:, 0] >= logits[:, 1:].amax(1)
        after = state - used["eta"] * room.direction(gradient, rows, step=step)
        return room.held(after, rows), gradient, torch.ones_like(on) if number == 0 else on

    walk = Walk(entrance, owners, layouts, used["steps"], memory)
    scores, taken = walk.follow(advance)
    options = tuple({**used, "steps_taken": one, "flipped": one < used["steps"]} for one in taken.tolist())
    return Attribution(scores, classes.open, None, options, classes.notes)


def agi(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    *,
    layouts: Sequence[TokenLayout],
    bank: Tensor,
    classes: int = 15,
    steps: int = 20,
    epsilon: float = 0.05,
    scale: float = 100.0,
    memory: int | None = None,
) -> Attribution:
    """Adversarial Gradient Integration (Pan et al., IJCAI 2021): the target's probability along paths to other classes.

    For each of some false classes a path climbs that class's probability by steps `epsilon * sign`, within what
    pixels can be, until that class is the most probable of all or `steps` are taken; a class that is so from the
    start has no path. A position gets minus the sum, over paths and steps, of the change times the gradient of the
    *target's* probability there. Signed, in units of the probability.

    It differs from the paper in its classes, which are those of the bank most similar to the input, not random ones,
    and from the authors' code in its path: there each step starts anew from the input, here from where the last one
    ended, as in the paper. Steps are in the units of `mfaba`; special positions of a text stay and get 0.

    Args:
        tower, inputs, target: see `isthmus.methods.nib.nib`.
        layouts: what each position is.
        bank: `(M, D)` unit embeddings of the other side; items that are the target itself do not count.
        classes: most false classes; all of the bank take part in the softmax.
        steps: most steps of a path.
        epsilon: size of a step.
        scale: of the cosines in the softmax, see `mfaba`.
        memory: budget in bytes.
    """
    for name, number in (("classes", classes), ("steps", steps)):
        whole(name, number, 1)
    for name, size in (("epsilon", epsilon), ("scale", scale)):
        positive(name, size)
    entrance = tower.enter(inputs)
    labels = Classes.of(entrance, target, bank, scale)
    room = Room.of(entrance, layouts, None)
    wanted, there = labels.nearest(classes)
    count = wanted.shape[1]
    owners = torch.arange(len(target), device=wanted.device).repeat_interleave(count)
    wanted, there = wanted.flatten(), there.flatten()

    def advance(state: Tensor, paths: Tensor, _: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, false = owners[paths], wanted[paths]
        run = Pass.of(entrance, state, rows)
        logits = labels.logits(run.found.detach(), rows)
        upward = room.free(run.slope(labels.towards(logits, false, rows)), rows)
        gradient = run.slope(labels.towards(logits, torch.zeros_like(false), rows))
        after = room.held(state + epsilon * room.direction(upward, rows, step="sign"), rows)
        return after, gradient, there[paths] & (logits.argmax(1) != false)

    scores, taken = Walk(entrance, owners, layouts, steps, memory).follow(advance)
    used = {"classes": count, "steps": steps, "epsilon": epsilon, "scale": scale}
    options = tuple({**used, "steps_taken": tuple(one)} for one in taken.view(-1, count).tolist())
    return Attribution(scores.view(-1, count, scores.shape[1]).sum(1), labels.open, None, options, labels.notes)


def _published(
    tower: Tower,
    inputs: Inputs,
    target: Tensor,
    layouts: Sequence[TokenLayout],
    *,
    steps: int,
    eta: float,
    memory: int | None,
) -> Attribution:
    """The NIB paper's comparison; see `mfaba`."""
    whole("steps", steps, 1)
    positive("eta", eta)
    if tower.lookup is None:
        if tower.stem is None:
            raise ModelError(f"This {tower.side} tower has no stem, where the preset walks: leave the preset out.")
        tower = replace(tower, lookup=tower.stem)  # what the stem gives enters like vectors of tokens
    entrance = tower.enter(inputs)
    if entrance.hidden.shape[1:] != entrance.shape:
        raise ModelError(f"The stem of this {tower.side} tower gives no vectors of positions: leave the preset out.")
    first = _first_of_equals(entrance.hidden) if tower.side == "text" else None
    target = target.to(entrance.hidden.device)

    def advance(state: Tensor, rows: Tensor, _: int) -> tuple[Tensor, Tensor, Tensor]:
        run = Pass.of(entrance, state, rows)
        gradient = run.slope(target[rows].to(run.found))
        if first is not None:
            gradient = _shared(gradient, first[rows])
        return state - eta * gradient.sign(), gradient, torch.ones_like(rows, dtype=torch.bool)

    owners = torch.arange(len(target), device=target.device)
    scores, _ = Walk(entrance, owners, layouts, steps, memory).follow(advance)
    scores = scores * _not_padding(layouts, scores)
    opened = (unit(entrance.embedding) * target).sum(-1)
    return Attribution(scores, opened, None, ({"steps": steps, "eta": eta},) * len(target), published=True)


def _first_of_equals(vectors: Tensor) -> Tensor:
    """`(B, T)` the first position of each text with the same vector: places of one token share a row of the table."""
    _, row = torch.unique(vectors.float().flatten(0, 1), dim=0, return_inverse=True)
    row = row.view(vectors.shape[:2])
    same: Tensor = row[:, :, None] == row[:, None]
    return same.to(torch.uint8).argmax(-1)


def _shared(gradient: Tensor, first: Tensor) -> Tensor:
    """The gradient `(N, T, d)` by rows of the table: at each place the sum over the places of its row."""
    same = (first[:, :, None] == first[:, None]).to(gradient.dtype)
    # Places of one row must not drift apart by rounding, so all take the sum of the first.
    return (same @ gradient).gather(1, first[..., None].expand_as(gradient))


def _not_padding(layouts: Sequence[TokenLayout], scores: Tensor) -> Tensor:
    mask = torch.zeros_like(scores)
    for row, layout in zip(mask, layouts, strict=True):
        row[[*layout.content, *(position for _, position in layout.special)]] = 1
    return mask


_SHARED = {
    "bank": "texts (for a picture) or pictures (for a text) to decide against, default the reference set's",
    "scale": "of the cosines in the softmax, default 100",
    "memory": "memory budget in bytes",
}

register(
    Method(
        name="mfaba",
        title="MFABA",
        paper="Zhu et al., MFABA, AAAI 2024 (arXiv:2312.13630)",
        function=mfaba,
        options={
            "step": "sign (default) or normalised",
            "steps": "most steps, default 50",
            "eta": "size of a step as a share of the range of what enters, default 0.001",
            "epsilon": "how far a value may move in all, as a share of that range, default 0.3",
            **_SHARED,
        },
        presets={"paper": "the NIB paper's comparison, ten sign steps down the plain score, with its min-max map"},
        units="",
        signed=False,
        needs_bank=True,
        needs_layouts=True,
        passes=("1 + n", "n"),
    )
)
register(
    Method(
        name="agi",
        title="Adversarial Gradient Integration",
        paper="Pan et al., AGI, IJCAI 2021 (arXiv:2105.12310)",
        function=agi,
        options={
            "classes": "most false classes of the bank, the most similar first, default 15",
            "steps": "most steps towards each, default 20",
            "epsilon": "size of a step as a share of the range of what enters, default 0.05",
            **_SHARED,
        },
        units="",
        needs_bank=True,
        needs_layouts=True,
        passes=("1 + 15n", "30n"),
    )
)
