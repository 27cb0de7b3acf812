"""The 100 pairs of the completeness table: real pictures with a caption each, from the team's shared data."""

from __future__ import annotations

import json
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"


def hundred_pairs() -> list[tuple[Path, str]]:
    """40 of COCO, 20 of Flickr8k, 20 of Conceptual Captions, 10 of RSICD, 10 of Tiny-ImageNet: the first of each."""
    data = SHARED / "data"

    def index(name: str) -> list[dict]:
        return json.loads((data / f"{name}.json").read_text(encoding="utf-8"))

    pairs = [(data / "coco" / f"{e['id']:012d}.jpg", e["captions"][0]) for e in index("coco")[:40]]
    pairs += [(data / "flickr8k" / e["file"], e["captions"][0]) for e in index("flickr8k")[:20]]
    pairs += [(data / "cc" / f"{e['key']}.jpg", e["caption"]) for e in index("cc")[:20]]
    pairs += [(data / "rsicd" / e["file"], e["captions"][0]) for e in index("rsicd")[:10]]
    pairs += [(data / "tinyimagenet" / e["file"], e["caption"]) for e in index("tinyimagenet")[::100]]
    return pairs
