"""The columns of a run's rows, one row for each pair and method, every column with what it means.

`COLUMNS` is the one list that the Arrow schema, the rows and docs/scale.md are made of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from isthmus.errors import OptionError
from isthmus.explanation import Completeness
from isthmus.extras import needed

FORMAT = 1  # of the rows; a reader refuses a higher one
FORMS = ("float32", "float16", "int8", "vectors")
_MAPS = FORMS[:3]


@dataclass(frozen=True)
class Where:
    """What is needed to open a picture again.

    Attributes:
        file: the picture's path or URL, or that of the archive or table which holds it; `hf:NAME` of Hugging Face.
        member: its name in an archive, such as a WebDataset shard.
        row, column: its place in a Parquet file or a Hugging Face dataset.
    """

    file: str
    member: str | None = None
    row: int | None = None
    column: str | None = None


@dataclass(frozen=True)
class Column:
    """A column: its name, its type in Arrow's words, what it means, and the forms that have it."""

    name: str
    kind: str
    says: str
    forms: tuple[str, ...] = FORMS


COLUMNS = (
    Column("id", "string", "Unique in the run, but for `method`: one row for each id and method."),
    Column("text", "string", "The pair's text, as given."),
    Column(
        "picture",
        "string",
        "The picture's name: the same for all rows of one picture. Its path or URL; of a picture that has none, as in "
        "an archive or a column of bytes, a digest: the first 16 hexadecimal digits of its SHA-256.",
    ),
    Column("where", "where", "What is needed to open the picture again: `file`, and `member`, or `row` and `column`."),
    Column("method", "string", "The attribution method."),
    Column("model", "string", "The model, as it was named."),
    Column("revision", "string", "A digest of its weights, or its revision on the hub."),
    Column("similarity", "float", "Cosine of the two embeddings."),
    Column("probability", "float", "The model's own probability, null where it defines none for a pair alone."),
    Column(
        "image_scores",
        "map",
        "The map, row by row of the grid: signed, in units of the cosine. In `int8`, times `image_scale`.",
        _MAPS,
    ),
    Column("image_scale", "float", "What one step of an `int8` map is worth.", ("int8",)),
    Column("image_rows", "short", "Rows of the grid of patches."),
    Column("image_columns", "short", "Columns of the grid of patches."),
    Column("image_crop", "floats", "Left, top, right, bottom of what the model saw, in the picture's pixels."),
    Column("image_size", "ints", "Width and height of the upright picture in pixels."),
    Column("image_input", "ints", "Height and width of the model's input in pixels."),
    Column("image_rest", "float", "Sum of the scores of positions that are no patch, such as CLS."),
    Column("image_open", "float", "Score of the picture as it is."),
    Column("image_closed", "float", "Score with every feature closed, null where the method has no such state."),
    Column("image_total", "float", "Sum of the scores of all positions."),
    Column("image_delta", "float", "|total - (open - closed)| / |open - closed|, null where `image_closed` is."),
    Column(
        "vectors",
        "halves",
        "Patches x D: each patch's part in the picture's embedding, row by row. Null where the row above is of the "
        "same picture: its vectors hold for this one.",
        ("vectors",),
    ),
    Column("vectors_rest", "floats", "D: the parts of positions that are no patch. Null as `vectors`.", ("vectors",)),
    Column("vectors_closed", "floats", "D: the embedding of the closed state. Null as `vectors`.", ("vectors",)),
    Column("vectors_open", "floats", "D: the picture's embedding, not of length one. Null as `vectors`.", ("vectors",)),
    Column("text_embedding", "floats", "D: the text's embedding, of length one.", ("vectors",)),
    Column("tokens", "strings", "The text's pieces, as the model reads them."),
    Column("token_starts", "ints", "Where each piece starts in `text`, in characters."),
    Column("token_ends", "ints", "Where it ends."),
    Column("token_scores", "floats", "Each piece's score: signed, in units of the cosine."),
    Column("words", "strings", "The text's words: pieces joined."),
    Column("word_starts", "ints", "Where each word starts in `text`, in characters."),
    Column("word_ends", "ints", "Where it ends."),
    Column("word_scores", "floats", "The sum of the scores of its pieces."),
    Column("text_rest", "float", "Sum of the scores of positions outside the text, such as BOS and EOS."),
    Column("text_open", "float", "Score of the text as it is."),
    Column("text_closed", "float", "Score with every feature closed, null where the method has no such state."),
    Column("text_total", "float", "Sum of the scores of all positions."),
    Column("text_delta", "float", "As `image_delta`, of the text's side."),
    Column("notes", "strings", "What a reader should know, such as a delta that missed its tolerance."),
    Column("versions", "string", "JSON of the versions of the libraries that the rows depend on."),
)


def columns(form: str) -> tuple[Column, ...]:
    """The columns that the rows of a form have. Raises OptionError where there is no such form."""
    if form not in FORMS:
        raise OptionError(f"There is no stored form {form!r}: choose among {', '.join(FORMS)}.")
    return tuple(column for column in COLUMNS if form in column.forms)


def schema(form: str = "float32") -> Any:
    """The `pyarrow.Schema` of a form; each field's metadata has a `description`, the whole `isthmus` (JSON).

    Raises:
        OptionError: there is no such form, or pyarrow is not installed.
    """
    arrow = needed("pyarrow")
    fields = [arrow.field(one.name, _kind(one.kind, form), metadata={"description": one.says}) for one in columns(form)]
    about = {"format": FORMAT, "form": form}
    return arrow.schema(fields, metadata={"isthmus": json.dumps(about)})


def _kind(name: str, form: str) -> Any:
    arrow = needed("pyarrow")
    element = {"float16": arrow.float16, "int8": arrow.int8}.get(form, arrow.float32)
    kinds = {
        "string": arrow.string,
        "float": arrow.float32,
        "short": arrow.int16,
        "strings": lambda: arrow.list_(arrow.string()),
        "ints": lambda: arrow.list_(arrow.int32()),
        "floats": lambda: arrow.list_(arrow.float32()),
        "halves": lambda: arrow.list_(arrow.float16()),
        "map": lambda: arrow.list_(element()),
        "where": lambda: arrow.struct(
            [("file", arrow.string()), ("member", arrow.string()), ("row", arrow.int64()), ("column", arrow.string())]
        ),
    }
    return kinds[name]()


def text_leaves(kinds: Any) -> list[str]:
    """The paths, as Parquet names them, of the texts in the columns of a `pyarrow.Schema`."""
    types = needed("pyarrow.types")
    found = []
    for one in kinds:
        if types.is_string(one.type):
            found.append(one.name)
        elif types.is_list(one.type) and types.is_string(one.type.value_type):
            found.append(f"{one.name}.list.element")
        elif types.is_struct(one.type):
            found += [f"{one.name}.{part.name}" for part in one.type if types.is_string(part.type)]
    return found


def completeness_row(side: str, found: Completeness) -> dict[str, Any]:
    """What a row tells of how much of a side's score is accounted for."""
    return {
        f"{side}_open": found.open,
        f"{side}_closed": found.closed,
        f"{side}_total": found.total,
        f"{side}_delta": found.relative_delta,
    }
