"""The command line: one command a verb, and one line for every error."""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from isthmus.cli.app import app as web_app
from isthmus.cli.axioms import axioms
from isthmus.cli.checks import doctor
from isthmus.cli.compare import compare
from isthmus.cli.evaluate import evaluate
from isthmus.cli.explain import explain
from isthmus.cli.lists import datasets, metrics
from isthmus.cli.map import map as map_pairs
from isthmus.cli.methods import methods
from isthmus.cli.models import models
from isthmus.cli.reproduce import reproduce
from isthmus.cli.sanity import sanity
from isthmus.cli.summary import summary
from isthmus.errors import IsthmusError

app = typer.Typer(
    name="isthmus",
    help="See what passes between an image and a text: which regions and words make a CLIP-like model say that "
    "they match, and which speak against it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn an interrupt, a reader that went away and a full output into an exit code and at most one line."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            typer.echo("isthmus: interrupted.", err=True)
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print has no reader
            if error.errno == errno.ENOSPC:
                typer.echo("isthmus: nothing more can be written, the disk is full: free some space.", err=True)
            raise typer.Exit(0 if error.errno == errno.EPIPE else 1) from error

    return run


for _command in (
    explain,
    compare,
    map_pairs,
    web_app,
    evaluate,
    reproduce,
    axioms,
    sanity,
    summary,
    models,
    methods,
    metrics,
    datasets,
    doctor,
):
    app.command()(_guarded(_command))


def _version(wanted: bool) -> None:
    if wanted:
        from isthmus import __version__

        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Hold the options that come before a command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error, 2 wrong usage or some records failed, 130 interrupted."""
    # Threads that wait by spinning for long make a busy machine many times slower; torch reads this when imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character gets its number
    try:
        app(arguments, prog_name="isthmus")
    except IsthmusError as error:
        typer.echo(f"isthmus: {error}", err=True)
        sys.exit(1)
