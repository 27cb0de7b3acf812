"""The table of docs/scale-output.md, from the schema itself: `python tests/scale/schema_page.py` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from isthmus.scale.schema import COLUMNS, FORMS, schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale-output.md"
TABLE = re.compile(r"(?<=\n)\| column \| type \| \|\n.*?(?=\n\n)", re.DOTALL)


def table() -> str:
    """A line for each column, in the order of the schema."""
    kinds = {}
    for form in reversed(FORMS):
        kinds.update({field.name: str(field.type).replace("element: ", "") for field in schema(form)})
    lines = ["| column | type | |", "|---|---|---|"]
    for one in COLUMNS:
        only = "" if one.forms == FORMS else f" Only in {', '.join(f'`{form}`' for form in one.forms)}."
        kind = kinds[one.name].replace("item: ", "").replace("halffloat", "float16")
        kind = re.sub(r"\bfloat\b", "float32", kind)
        if one.kind == "map":
            kind = "list<float32>` or `list<float16>` or `list<int8>"
        lines.append(f"| `{one.name}` | `{kind}` | {one.says.replace('|', chr(92) + '|')}{only} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
