"""What the command line prints: tables for people, plain text where the output is piped."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from isthmus.explanation import Explanation, Word

_BAR = 6


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave to the command line what a reader that went away means."""
        raise BrokenPipeError(errno.EPIPE, "the reader of the output has gone")


def output() -> Console:
    """The console of results."""
    return _Output(highlight=False, soft_wrap=False)


def messages() -> Console:
    """The console of progress and notes, standard error."""
    return Console(stderr=True, highlight=False)


def print_table(found: Sequence[Explanation]) -> None:
    """A row for each text: similarity, strongest words with signed bars, deltas, time."""
    console = output()
    with_probability = any(one.probability is not None for one in found)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 1, 0))
    table.add_column("text", ratio=1, overflow="fold", min_width=10)
    table.add_column("similarity", justify="right", no_wrap=True)
    if with_probability:
        table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("strongest words", no_wrap=True)
    table.add_column("delta", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    words = [one.text.top(4) if one.text is not None else () for one in found]
    limit = max((abs(word.score) for row in words for word in row), default=0.0) or 1.0
    mark = "█" if (console.encoding or "").lower().replace("-", "").startswith("utf") else "#"
    for one, top in zip(found, words, strict=True):
        row: list[Text] = [Text(one.caption), Text("" if one.similarity is None else f"{one.similarity:.3f}")]
        if with_probability:
            row.append(Text("" if one.probability is None else f"{one.probability:.1%}"))
        row += [_bars(top, limit, mark), Text(_deltas(one)), Text(f"{one.provenance.seconds:.2f} s")]
        table.add_row(*row)
    console.print(table)
    for one in found:
        for side in (one.image, one.text):
            for note in side.notes if side is not None else ():
                messages().print(Text(f"Note on {one.caption!r}: {note}."))


def _bars(words: Sequence[Word], limit: float, mark: str) -> Text:
    lines = Text()
    for i, word in enumerate(words):
        shown = word.text if len(word.text) <= 12 else word.text[:11] + "…"
        bar = mark * max(1, round(_BAR * abs(word.score) / limit)) if word.score else ""
        lines.append(("\n" if i else "") + f"{shown:<12} ")
        lines.append(f"{bar:<{_BAR}}", style="red" if word.score > 0 else "blue")
        lines.append(f" {word.score:+.3f}")
    return lines


def _deltas(one: Explanation) -> str:
    lines = []
    for name, side in (("image", one.image), ("text", one.text)):
        if side is not None and side.completeness.relative_delta is not None:
            lines.append(f"{name:<5} {side.completeness.relative_delta:.1%}")
    return "\n".join(lines)


def print_files(paths: Sequence[Path], folder: Path) -> None:
    """The files written, one folder a line."""
    console = output()
    by_folder: dict[Path, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path.name)
    console.print(f"Written to {folder}:", style="bold", markup=False, soft_wrap=True)
    for parent, names in by_folder.items():
        where = "" if parent == folder else f"{parent.relative_to(folder)}/: "
        console.print(f"  {where}{', '.join(names)}", markup=False, soft_wrap=True)
