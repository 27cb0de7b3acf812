"""Inputs of every kind for the tests, and what is found in an output."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conftest import picture

TEXTS = ("a dog", "two horses on the grass", "a small red car", "a bowl of soup", "somebody reads beside a window")


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    """A small picture, as a file's bytes."""
    stream = io.BytesIO()
    picture(seed, (60 + seed % 7, 50 + seed % 5)).save(stream, kind)
    return stream.getvalue()


def damaged(seed: int) -> bytes:
    """A picture whose second half is missing."""
    whole = encoded(seed)
    return whole[: len(whole) // 2]


def table(folder: Path, count: int, *, bad: Sequence[int] = ()) -> Path:
    """A table of `count` pictures of their own with a text each; those of `bad` are damaged."""
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for n in range(count):
        name = f"pictures/{n:04d}.jpg"
        (folder / name).write_bytes(damaged(n) if n in bad else encoded(n))
        rows.append(json.dumps({"id": f"pair-{n}", "image": name, "text": TEXTS[n % len(TEXTS)]}))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def parquet(
    path: Path, count: int, *, start: int = 0, group: int = 4, columns: Mapping[str, Any] | None = None
) -> Path:
    """A Parquet file of encoded pictures with a list of two captions each."""
    rows = [
        {"picture": {"bytes": encoded(n), "path": f"{n:04d}.jpg"}, "captions": [TEXTS[n % 5], TEXTS[(n + 1) % 5]]}
        for n in range(start, start + count)
    ]
    pq.write_table(pa.Table.from_pylist([{**row, **(columns or {})} for row in rows]), path, row_group_size=group)
    return path


def tar(path: Path, count: int, *, start: int = 0) -> Path:
    """A shard in the layout of WebDataset."""
    with tarfile.open(path, "w") as archive:
        for n in range(start, start + count):
            for name, content in ((f"{n:04d}.jpg", encoded(n)), (f"{n:04d}.txt", TEXTS[n % 5].encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def rows_in(output: Path | str) -> list[dict[str, Any]]:
    """The rows of an output, in order."""
    found: list[dict[str, Any]] = []
    for part in sorted(Path(output, "pairs").glob("part-*.parquet")):
        found += pq.read_table(part).to_pylist()
    return found


def errors_in(output: Path | str) -> dict[str, str]:
    """What failed, with why."""
    rows = pq.read_table(Path(output, "errors.parquet")).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["reason"] for row in rows}
