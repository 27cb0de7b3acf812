"""`isthmus doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import typer

_PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "pillow",
    "matplotlib",
    "safetensors",
    "regex",
    "typer",
    "rich",
)
_EXTRAS = {
    "evaluate": ("pyarrow", "scipy", "scikit-image", "torchmetrics"),
    "datasets": ("datasets", "webdataset"),
    "open_clip": ("open_clip_torch",),
    "app": ("gradio",),
}
_FOR = {
    "evaluate": "isthmus evaluate",
    "datasets": "Hugging Face datasets and shards",
    "open_clip": "models of open_clip",
    "app": "isthmus app",
}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def doctor() -> None:
    """Check this machine: versions, devices, caches, the bundled model, and what is missing."""
    from rich.table import Table
    from rich.text import Text

    from isthmus.cli.screen import output

    problems = []
    table = Table(box=None, show_header=False, pad_edge=False)
    for kind, name, finding, mend in checks():
        table.add_row(Text(name), Text(finding, style="red" if mend and kind == "problem" else ""))
        if mend:
            problems.append((kind, mend))
    console = output()
    console.print(table)
    for kind, mend in problems:
        console.print(Text(f"{'Fix' if kind == 'problem' else 'Hint'}: {mend}"), soft_wrap=True)
    if any(kind == "problem" for kind, _ in problems):
        raise typer.Exit(1)
    console.print("Isthmus is ready.")


def checks() -> Iterator[tuple[str, str, str, str]]:
    """Yield `(kind, name, finding, mend)`; kind is "ok", "hint" or "problem", mend "" where nothing is due."""
    from isthmus import __version__

    yield "ok", "isthmus", __version__, ""
    yield "ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    for package in _PACKAGES:
        try:
            yield "ok", package, importlib.metadata.version(package), ""
        except importlib.metadata.PackageNotFoundError:
            yield "problem", package, "missing", f"pip install {package}"
    yield from _extras()
    yield from _devices()
    yield from _bundled()
    yield from _places()


def _extras() -> Iterator[tuple[str, str, str, str]]:
    """What only some commands need."""
    for extra, packages in _EXTRAS.items():
        for package in packages:
            try:
                yield "ok", package, importlib.metadata.version(package), ""
            except importlib.metadata.PackageNotFoundError:
                yield "hint", package, "missing", f"for {_FOR[extra]}: pip install 'isthmus[{extra}]'"


def _devices() -> Iterator[tuple[str, str, str, str]]:
    try:
        import torch
    except ImportError:
        return
    from isthmus.encoders.precision import bfloat16_unit

    unit = bfloat16_unit(torch.device("cpu"))
    half = f"bfloat16 in hardware ({unit}; dtype auto)" if unit else "no bfloat16 in hardware"
    yield "ok", "cpu", f"{torch.get_num_threads()} threads, {half}", ""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gib = torch.cuda.get_device_properties(i).total_memory / 2**30
            yield "ok", f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {gib:.0f} GiB", ""
    elif Path("/proc/driver/nvidia").exists():
        yield (
            "hint",
            "cuda",
            "no",
            "there is an NVIDIA GPU, but this PyTorch has no CUDA: see pytorch.org/get-started",
        )
    else:
        yield "ok", "cuda", "no", ""
    yield "ok", "mps", "yes" if torch.backends.mps.is_available() else "no", ""


def _bundled() -> Iterator[tuple[str, str, str, str]]:
    from isthmus.errors import IsthmusError

    try:
        from isthmus.explainer import load

        yield "ok", "model mini", f"there, weights {load('mini', device='cpu').revision}", ""
    except (IsthmusError, ImportError) as error:
        mend = "pip install --force-reinstall --no-deps isthmus"
        yield "problem", "model mini", str(error), mend


def _places() -> Iterator[tuple[str, str, str, str]]:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return
    cache = Path(HF_HUB_CACHE)
    size = (
        sum(f.stat().st_size for f in cache.rglob("*") if f.is_file() and not f.is_symlink()) if cache.is_dir() else 0
    )
    yield "ok", "hub cache", f"{cache} ({size / 2**30:.1f} GiB)", ""
    offline = [f"{name}={os.environ[name]}" for name in _OFFLINE if os.environ.get(name)]
    mend = "these variables keep hub models from being fetched: unset them to fetch one" if offline else ""
    yield "hint" if offline else "ok", "offline", ", ".join(offline) or "no", mend
    here = Path.cwd()
    if os.access(here, os.W_OK):
        yield "ok", "this folder", f"{here} can be written", ""
    else:
        yield "problem", "this folder", f"{here} cannot be written", "change to another folder, or give --out"
