"""What was asked, as Python and as a command: either makes the same numbers again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.explanation import Explanation

PICTURE = "picture.png"
FOLDER = "pictures"
_OWN = ("layer", "steps", "tolerance", "rule", "closed", "preset", "sides")  # options that the command line has by name
_LINE = 100


@dataclass(frozen=True)
class Asked:
    """One call of the library.

    Attributes:
        model: as it was named at the start of the server.
        texts: one, or several of one picture.
        against: the text that they are held against, "" for none.
        methods: one; several, or `compared`, are compared.
        options: of the one method; of compared ones by their names.
        joint: whether the joint map is asked for.
        batch_size: pairs at once, on which the last bits of a result may depend; None for the library's own.
        pictures: files that are explained one by one, for one text; else it is one picture.
        compared: whether methods are compared, be it a single one.
        loading: options of `isthmus.load`, on which the digits depend: see `loading_of`.
    """

    model: str
    texts: tuple[str, ...]
    against: str = ""
    methods: tuple[str, ...] = ("nib",)
    options: Mapping[str, Any] = field(default_factory=dict)
    joint: bool = False
    batch_size: int | None = None
    pictures: tuple[str, ...] = ()
    compared: bool = False
    loading: Mapping[str, str] = field(default_factory=dict)


def loading_of(one: Explanation) -> dict[str, str]:
    """How a result's model was loaded: the kind of its device, and its numbers where they are not float32."""
    dtype, _, autocast = one.provenance.dtype.partition(", matrix products in ")
    found = {"device": re.split(r"[: ]", one.provenance.device)[0], "dtype": dtype, "autocast": autocast}
    return {name: value for name, value in found.items() if value and (name, value) != ("dtype", "float32")}


def as_python(calls: Sequence[Asked]) -> str:
    """A program of these calls; several keep their results in a list `found`."""
    lines = ["import isthmus", "", f"model = {_loaded(calls[0])}"]
    files = f"the pictures are in {FOLDER}/" if calls[0].pictures else f"{PICTURE} is the picture of the page"
    lines.append(f"# {files}")
    for number, asked in enumerate(calls):
        name = "found" if len(calls) == 1 else f"found_{number + 1}"
        lines += _python(asked, name)
    return "\n".join(lines) + "\n"


def as_command(calls: Sequence[Asked]) -> str:
    """Commands of these calls, one a line, for a POSIX shell."""
    many = len(calls) > 1
    return "\n".join(shlex.join(_command(one, f"isthmus-out/{n}" if many else "")) for n, one in enumerate(calls, 1))


def _loaded(asked: Asked) -> str:
    given = [f"{name}={value!r}" for name, value in asked.loading.items()]
    return f"isthmus.load({', '.join([repr(asked.model), *given])})"


def _python(asked: Asked, name: str) -> list[str]:
    several = repr(list(asked.texts))
    if len(asked.texts) > 1 and len(several) > _LINE - 10:
        several = _listed(asked.texts, "    ")
    text = several if len(asked.texts) > 1 else repr(asked.texts[0])
    if asked.pictures:
        call = _written("isthmus.explain", ["model", f"{FOLDER + '/'!r} + name", text, *_arguments(asked)], "    ")
        names = _listed(asked.pictures)
        return [f"names = {names}", f"{name} = [", f"    {call}", "    for name in names", "]", *_shown(asked, name)]
    function = "isthmus.compare" if asked.compared else "isthmus.explain"
    return [f"{name} = " + _written(function, ["model", repr(PICTURE), text, *_arguments(asked)]), *_shown(asked, name)]


def _arguments(asked: Asked) -> list[str]:
    against = [f"against={asked.against!r}"] if asked.against else []
    if asked.compared:
        options = {name: dict(given) for name, given in asked.options.items() if given}
        return [f"methods={list(asked.methods)!r}", *against, *([f"options={options!r}"] if options else [])]
    given = [f"{name}={value!r}" for name, value in asked.options.items() if value is not None]
    size = [] if asked.batch_size is None else [f"batch_size={asked.batch_size}"]
    return [f"method={asked.methods[0]!r}", *against, *given, *(["joint=True"] if asked.joint else []), *size]


def _written(function: str, arguments: Sequence[str], indent: str = "") -> str:
    line = f"{function}({', '.join(arguments)})"
    if len(line) + len(indent) + 12 <= _LINE and "\n" not in line:
        return line
    return "\n".join([f"{function}(", *(f"{indent}    {argument}," for argument in arguments), f"{indent})"])


def _listed(names: Iterable[str], indent: str = "") -> str:
    return "[" + "".join(f"\n{indent}    {name!r}," for name in names) + f"\n{indent}]"


def _shown(asked: Asked, name: str) -> list[str]:
    if asked.compared:
        return [f"print({name})"]
    if len(asked.texts) == 1 and not asked.pictures:
        return [f"print({name}.similarity)"]
    return [f"for one in {name}:", "    print(one.similarity, one.caption, one.source)"]


def _command(asked: Asked, out: str) -> list[str]:
    if "autocast" in asked.loading:
        raise InputError("The command line has no autocast, with which this model was loaded: copy it as Python.")
    picture = FOLDER if asked.pictures else PICTURE
    words = ["isthmus", "compare" if asked.compared else "explain", f"--model={asked.model}"]
    words += [f"--{name}={value}" for name, value in asked.loading.items()]
    words += [f"--against={asked.against}"] if asked.against else []
    if asked.compared:
        words.append(f"--methods={','.join(asked.methods)}")
        given = {f"{name}.{key}": value for name, own in asked.options.items() for key, value in own.items()}
    else:
        words.append(f"--method={asked.methods[0]}")
        given = {**asked.options, **({"joint": True} if asked.joint else {})}
    for name, value in given.items():
        if value is not None:
            own = name in _OWN and not asked.compared and isinstance(value, (str, int, float))
            words.append(f"--{name}={value}" if own else f"--option={name}={json.dumps(value)}")
    words += [f"--batch-size={1 if asked.pictures else asked.batch_size}"] if asked.pictures or asked.batch_size else []
    words += [f"--out={out}"] if out else []
    # Behind the two dashes nothing is an option, whatever a text begins with.
    return [*words, *(["--"] if any(text.startswith("-") for text in asked.texts) else []), picture, *asked.texts]
