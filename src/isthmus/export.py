"""Saves an Explanation and reads it back: all files appear, or none."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import OptionError, SaveError
from isthmus.explanation import (
    Box,
    Completeness,
    Explanation,
    ImageAttribution,
    Provenance,
    Special,
    TextAttribution,
    Token,
    Word,
)
from isthmus.joint import JointAttribution

Writer = Callable[[Path], object]
FORMAT = 1
STEM = "explanation"
_JOINT = ("matrix", "text_alone", "image_alone")
FORMATS = ("png", "svg", "html", "npz", "json")  # the JSON last, since it vouches for the NPZ


def save(explanation: Explanation, folder: Path, *, formats: tuple[str, ...] | None = None) -> tuple[Path, ...]:
    """Write an explanation into a folder; see `Explanation.save`."""
    chosen = FORMATS if formats is None else tuple(formats)
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown:
        raise OptionError(f"There is no format {unknown[0]!r}: choose among {', '.join(FORMATS)}.")
    writers = _writers(explanation)
    return write_files(folder, {f"{STEM}.{name}": writers[name] for name in FORMATS if name in chosen})


def write_files(folder: Path, files: Mapping[str, Writer]) -> tuple[Path, ...]:
    """Write files into a folder so that all of them appear or none; older ones are replaced at the end.

    Raises:
        SaveError: the folder cannot be written to, or the disk is full.
    """
    try:
        made = _make(folder)
    except OSError as error:
        raise SaveError(f"The folder {str(folder)!r} cannot be made ({error.strerror}): choose another one.") from error
    try:
        with tempfile.TemporaryDirectory(prefix=".isthmus-", dir=folder) as temporary:
            for name, write in files.items():
                write(Path(temporary) / name)
            for name in files:
                (Path(temporary) / name).replace(folder / name)
    except BaseException as error:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise SaveError(
                f"Nothing was saved in {str(folder)!r} ({error.strerror or error}): free some space or choose "
                "another folder."
            ) from error
        raise
    return tuple(folder / name for name in files)


def _make(folder: Path) -> list[Path]:
    """Make a folder with its parents; return those that were not there, the outermost first."""
    missing = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _writers(explanation: Explanation) -> dict[str, Writer]:
    from isthmus.drawing import page, to_png, to_svg

    def written(make: Callable[[], bytes]) -> Writer:
        return lambda path: path.write_bytes(make())

    return {
        "png": written(lambda: to_png(explanation)),
        "svg": written(lambda: to_svg(explanation)),
        "html": written(lambda: page(explanation).encode()),
        "json": lambda path: path.write_text(to_json(explanation, _digest(path.with_suffix(".npz"))), encoding="utf-8"),
        "npz": lambda path: np.savez_compressed(path, **arrays_of(explanation)),
    }


def arrays_of(explanation: Explanation) -> dict[str, Any]:
    """The arrays of an explanation by the names that they have in its NPZ file."""
    arrays: dict[str, Any] = {}
    if explanation.picture is not None:
        arrays["picture"] = explanation.picture
    if explanation.image is not None:
        arrays["image_scores"] = explanation.image.scores
        if explanation.image.published is not None:
            arrays["image_published"] = explanation.image.published
    if explanation.joint is not None:
        arrays |= {f"joint_{name}": getattr(explanation.joint, name) for name in _JOINT}
    if explanation.text is not None:
        arrays["token_scores"] = np.array([token.score for token in explanation.text.tokens])
        arrays["word_scores"] = np.array([word.score for word in explanation.text.words])
        if explanation.text.published is not None:
            arrays["text_published"] = explanation.text.published
    return arrays


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def to_json(explanation: Explanation, arrays: str | None = None) -> str:
    """Everything but the picture and the published maps; `arrays` is the digest of the NPZ file that has them."""
    image, text = explanation.image, explanation.text
    small = replace(
        explanation,
        picture=None,
        image=None if image is None else replace(image, published=None),
        text=None if text is None else replace(text, published=None),
    )
    # The joint map's arrays are written in full: a reader of the JSON alone gets them too.
    data = {"format": FORMAT, "arrays": arrays, **_plain(small)}
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": _plain(value.tolist())}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN and no infinity
    return value


def load(folder: Path) -> Explanation:
    """Read an explanation back from its folder or its JSON file; see `Explanation.load`."""
    path = folder / f"{STEM}.json" if folder.is_dir() else folder
    if path.suffix != ".json" or not path.is_file():
        raise SaveError(f"There is no explanation in {str(folder)!r}: give the folder that save() wrote.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_hook=_revived)
        if data["format"] > FORMAT:
            raise SaveError(f"{str(path)!r} was written by a newer Isthmus: update with pip install -U isthmus.")
        return _explanation(data, _read_arrays(path.with_suffix(".npz"), data["arrays"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise SaveError(f"{str(path)!r} is damaged or no explanation: save it again.") from error


def _revived(item: dict[str, Any]) -> Any:
    return float(item["float"]) if item.keys() == {"float"} else item


def _read_arrays(path: Path, digest: str | None) -> dict[str, Any]:
    if digest is None:
        return {}
    if _digest(path) != digest:
        raise ValueError("the arrays beside it are of another result")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _explanation(data: dict[str, Any], arrays: Mapping[str, Any]) -> Explanation:
    image, text = data["image"], data["text"]
    return Explanation(
        image=None if image is None else _image(image, arrays.get("image_published")),
        text=None if text is None else _text(text, arrays.get("text_published")),
        picture=arrays.get("picture"),
        caption=data["caption"],
        source=data["source"],
        similarity=data["similarity"],
        probability=data["probability"],
        provenance=Provenance(**_tuples(data["provenance"])),
        joint=_joint(data.get("joint")),
    )


def _joint(data: dict[str, Any] | None) -> JointAttribution | None:
    if data is None:
        return None
    arrays = {name: _array(data[name]) for name in _JOINT}
    return JointAttribution(**{**_tuples({k: v for k, v in data.items() if k not in _JOINT}), **arrays})


def _array(data: dict[str, Any]) -> Any:
    return np.array(data["values"], dtype=data["dtype"])


def _image(data: dict[str, Any], published: Any) -> ImageAttribution:
    return ImageAttribution(
        scores=_array(data["scores"]),
        crop=Box(**data["crop"]),
        size=tuple(data["size"]),
        input_size=tuple(data["input_size"]),
        **_common(data, published),
    )


def _text(data: dict[str, Any], published: Any) -> TextAttribution:
    return TextAttribution(
        text=data["text"],
        tokens=tuple(Token(**token) for token in data["tokens"]),
        words=tuple(Word(**{**word, "tokens": tuple(word["tokens"])}) for word in data["words"]),
        **_common(data, published),
    )


def _common(data: dict[str, Any], published: Any) -> dict[str, Any]:
    return {
        "special": tuple(Special(**one) for one in data["special"]),
        "completeness": Completeness(**data["completeness"]),
        "target": data["target"],
        "options": _tuples(data["options"]),
        "published": published,
        "notes": tuple(data["notes"]),
    }


def _tuples(value: Any) -> Any:
    """Lists in options were tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
