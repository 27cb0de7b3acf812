"""`isthmus methods`: what each method is, needs and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from isthmus.methods.registry import Method

_WIDTH = 96  # a narrower terminal breaks the lines, but no cell is cut

_LEGEND = {
    "sides": "what it explains",
    "sign": "scores may speak against the match",
    "sum": "the scores of all positions sum to the score lost, up to the delta that is reported",
    "score": "the map follows all that the score follows; else it shows another thing that the model computes",
    "random": "draws numbers, from a seed of its own; all others give the same bits on every run",
    "grad": "differentiates the model",
    "attn": "reads attention, and so needs a transformer of a known build",
    "fit": "by default reads statistics of the model's own reference set, on this side, once; asks for none",
    "bank": "compares with other texts (for a picture) or pictures (for a text): yours, or the reference set's",
    "unit": "score: units of the score; bits; - none",
    "forward, backward": "most runs of a side's encoder, or of its rest, for one input: n steps or samples, "
    "T positions, P patches or tokens",
}

_TABLE_1 = """\
The columns answer the criteria of the NIB paper's Table 1 for every method: no extra example (fit, bank), no \
randomness (random), no specific structure (attn), no information loss (sum, score). All explain the current model, \
gem and clip-surgery by a second path beside it; none trains a model or needs a downstream task. Of the systems in \
that table, M2IB is m2ib, NIB nib, TEXTSPAN textspan, COCOA target=Contrast(...), Hossain et al. isthmus.neighbors and \
FALCON isthmus.describe_direction; LICO trains another model and is not here."""


def methods(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Methods to tell all of: paper, options, presets.")
    ] = None,
) -> None:
    """List the attribution methods with what they need and cost; with NAME, its paper, options and presets."""
    from isthmus.cli.screen import output
    from isthmus.methods import METHODS, registry

    console = output()
    if names:
        for name in names:
            _print_one(console, registry.get(name))
        return
    console.width = max(console.width, _WIDTH)
    listed = [METHODS[name] for name in sorted(METHODS)]
    _print_table(console, listed)
    _print_legend(console)
    console.print()
    console.print(_TABLE_1, style="dim", markup=False)
    console.print()
    _print_costs(console)
    console.print("isthmus methods NAME tells its paper, options and presets.", markup=False)


def _print_table(console: Console, listed: Sequence[Method]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True, style="bold")
    for name in ("sides", "sign", "sum", "score", "random", "grad", "attn", "fit", "bank", "unit"):
        table.add_column(name, no_wrap=True)
    for name in ("forward", "backward"):
        table.add_column(name, no_wrap=True, justify="right")
    for method in listed:
        table.add_row(method.name, *facts(method))
    console.print(table)


def _print_legend(console: Console) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for name, meaning in _LEGEND.items():
        table.add_row(name, meaning)
    console.print(table, style="dim")


def facts(method: Method) -> list[str]:
    """The cells of a method's row."""
    answers = (method.signed, method.complete, method.explains_score, method.random, method.needs_gradients)
    return [
        _named(method.sides),
        *("yes" if answer else "-" for answer in (*answers, method.needs_attention)),
        _named(method.needs_fit),
        "yes" if method.needs_bank else "-",
        method.units or "-",
        *method.passes,
    ]


def _named(sides: Sequence[str]) -> str:
    return "both" if len(sides) > 1 else next(iter(sides), "-")


def _print_costs(console: Console) -> None:
    """The paper's Table 8, with our counts beside theirs."""
    from rich.table import Table

    from isthmus.methods.published import TABLE_8

    console.print(
        "Passes of a pair, forward and backward: the NIB paper's Table 8, and counted by hooks on the model (one a "
        "side's input, both sides; preset paper).",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("in the paper", "here", "Table 8", "counted"):
        table.add_column(name, no_wrap=True)
    for here, cost in TABLE_8.items():
        table.add_row(cost.name, here, *("{} + {}".format(*one) for one in (cost.theirs, cost.ours)))
    console.print(table)
    console.print()


def _print_one(console: Console, method: Method) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    kind = "random, seeded" if method.random else "the same result on every run"
    forward, backward = method.passes
    said = [
        method.paper,
        f"Explains {' and '.join(method.sides)}; {kind}; {forward} passes forward and {backward} backward a side.",
    ]
    if method.joint is not None:
        said.append(f"Gives joint maps of words and regions; they take {', '.join(method.joint_options)}.")
    console.print(Text.assemble((method.name, "bold"), f"  {method.title}"))
    for line in said:
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    table = Table.grid(padding=(0, 2, 0, 0))
    presets = {f"preset {name}": meaning for name, meaning in method.presets.items()}
    for name, meaning in {**method.options, **presets}.items():
        table.add_row(Text(name, style="cyan"), Text(meaning))
    console.print(Padding(table, (0, 0, 0, 4)))
