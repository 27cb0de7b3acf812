"""`isthmus models`."""

from __future__ import annotations

from typing import Any


def models() -> None:
    """List the models that are at hand."""
    from rich.text import Text

    from isthmus.cli.screen import output

    console = output()
    console.print(Text.assemble(("mini", "bold"), "  bundled: a small CLIP for demonstration and tests; no network"))
    for name in cached_models():
        console.print(Text.assemble((name, "bold"), "  in the local Hugging Face cache"))
    console.print(
        "Any dual encoder of transformers works by its hub name (such as openai/clip-vit-base-patch32 or\n"
        "google/siglip-base-patch16-224) or local folder:\n"
        "  isthmus explain PICTURE TEXT --model NAME\n"
        "So does a model of open_clip (pip install 'isthmus[open_clip]') by its name and weights:\n"
        "  isthmus explain PICTURE TEXT --model open_clip:RN50/openai",
        markup=False,
        soft_wrap=True,
    )


def cached_models() -> list[str]:
    """Hub names of the dual encoders in the local cache."""
    import json

    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from isthmus.encoders.hub import is_dual_encoder

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return []
    found = []
    for repository in repositories:
        configs: list[Any] = [f for r in repository.revisions for f in r.files if f.file_name == "config.json"]
        try:
            kinds = [json.loads(f.file_path.read_text(encoding="utf-8")).get("model_type") for f in configs]
        except (OSError, ValueError, AttributeError):
            continue
        if any(is_dual_encoder(kind) for kind in kinds):
            found.append(str(repository.repo_id))
    return sorted(found)
