"""`isthmus app`: the page in the browser."""

from __future__ import annotations

from typing import Annotated

import typer


def app(
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that the page offers, as `isthmus explain --model`. Several with commas, or repeated.",
            show_default="mini",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes any free one.", show_default="the first free one from 7860"),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
) -> None:
    """Open a page where anyone drops a picture, types a text and sees what passes between them."""
    from isthmus.app import launch

    names = [name.strip() for given in models or ["mini"] for name in given.split(",") if name.strip()]
    launch(names, host=host, port=port, open_page=open_page, device=device, dtype=dtype)
