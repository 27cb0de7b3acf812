"""The command line: one command a verb, and one line for every error."""

from __future__ import annotations

import os
import sys

import typer

from isthmus.cli.checks import doctor
from isthmus.cli.explain import explain
from isthmus.cli.lists import methods, models
from isthmus.errors import IsthmusError

app = typer.Typer(
    name="isthmus",
    help="See what passes between an image and a text: which regions and words make a CLIP-like model say that "
    "they match, and which speak against it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(explain)
app.command()(models)
app.command()(methods)
app.command()(doctor)


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
    try:
        app(arguments, prog_name="isthmus")
    except IsthmusError as error:
        typer.echo(f"isthmus: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("isthmus: interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; so do we
        sys.exit(0)
