"""The page: self-contained, escaped, with pictures opened again wherever they are; and the command."""

from __future__ import annotations

import html.parser
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_rows import fresh, made_row

from conftest import EXAMPLES, picture
from isthmus.datasets.records import Failure
from isthmus.errors import SaveError
from isthmus.scale.again import picture_again
from isthmus.scale.report import page_of, write_report
from isthmus.scale.rows import table_of
from isthmus.scale.schema import Where
from isthmus.scale.store import Store
from isthmus.scale.summary import summarise


def encoded(seed: int, size: tuple[int, int] = (90, 70)) -> bytes:
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def written(url: str, rows: list[dict[str, Any]], failures: tuple[Failure, ...] = ()) -> str:
    store = Store(url)
    store.prepare({"model": "mini"})
    store.put(0, 0, table_of(rows), failures, last=True)
    store.finish()
    return url


def test_pictures_are_opened_again_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(0))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name, seed in (("./x.png", 9), ("a/b.PNG", 1)):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(seed))
            archive.addfile(info, io.BytesIO(encoded(seed)))
    cells = [{"bytes": encoded(k), "path": None} for k in range(5)]
    pq.write_table(
        pa.table({"image": cells, "raw": [one["bytes"] for one in cells]}), tmp_path / "t.parquet", row_group_size=2
    )
    places = {
        0: [Where(str(tmp_path / "plain.png")), Where((tmp_path / "plain.png").as_uri())],
        1: [Where(str(tmp_path / "shard.tar"), member="a/b.png")],
        9: [Where(str(tmp_path / "shard.tar"), member="./x.png")],
        3: [Where(str(tmp_path / "t.parquet"), row=3, column=name) for name in ("image", "raw")],
    }
    for seed, many in places.items():
        for where in many:
            found = picture_again(vars(where), 100)
            assert found is not None, where
            np.testing.assert_array_equal(found, np.asarray(picture(seed)))
    small = picture_again(vars(places[0][0]), 45)
    assert small is not None
    assert small.shape == (35, 45, 3)


@pytest.mark.parametrize(
    "where",
    [
        None,
        vars(Where("/nowhere/a.jpg")),
        vars(Where("hf:some/data", row=3, column="image")),
        vars(Where("nosuch://a/b")),
        vars(Where(str(EXAMPLES / "dog.jpg"), member="x")),
        vars(Where(str(EXAMPLES / "dog.jpg"), row=1, column="x")),
        vars(Where(__file__)),
    ],
)
def test_a_picture_that_is_gone_is_none(where: Any) -> None:
    assert picture_again(where, 100) is None


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_escaped_and_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(0, (224, 224)))
    bad = "<script>alert('x')</script>\"&"
    rows = [made_row(f"r{i}", i) for i in range(60)]
    rows += [made_row(f"s{i}", i, method="gradcam", grid=(4, 6)) for i in range(20)]
    for row in rows:
        row["where"] = vars(Where(str(tmp_path / "plain.png")))
    words = {"words": [bad], "word_starts": [0], "word_ends": [len(bad)], "word_scores": np.ones(1, np.float32)}
    tokens = {"tokens": [bad], "token_starts": [0], "token_ends": [1], "token_scores": np.ones(1, np.float32)}
    evil = {"id": bad, "text": bad, "picture": bad, "similarity": -0.9, "method": bad, **words, **tokens}
    rows += [{**made_row("x", k), **evil, "id": f"{bad}{k}", "picture": str(k)} for k in range(6)]
    url = written(str(tmp_path / "a&b <i>"), rows, (Failure(bad, bad),))
    page = page_of(summarise(url))
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert not any(tag == "script" for tag, _ in reader.tags)
    assert bad in reader.text
    for tag, attributes in reader.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
    assert "http" not in re.sub(r"data:[^']*", "", page)
    assert "gradcam" in reader.text
    assert "picture not found" in reader.text, "those of the evil rows"
    assert reader.text.count("Pairs that stand out") == 3
    assert "Lowest similarity" in reader.text
    assert len(page) < 3_000_000


def test_a_watermark_is_told(tmp_path: Path) -> None:
    rows = [made_row(f"r{i}", i) for i in range(80)]
    for row in rows:
        row["image_scores"] = row["image_scores"].copy()
        row["image_scores"][6] += 0.3
    page = page_of(summarise(written(str(tmp_path / "out"), rows)))
    assert re.search(r"The top right corner carries [\d.]+ times what is usual", page)
    assert page.count("class='hint'") == 1


def test_positions_say_of_how_many_pictures_they_are(tmp_path: Path) -> None:
    rows = [made_row(f"r{i}", i, picture=f"p{i // 4}") for i in range(12)]
    page = page_of(summarise(written(str(tmp_path / "few"), rows)))
    assert "12 pairs of 3 pictures, each counting once." in page
    page = page_of(summarise(written(str(tmp_path / "own"), [made_row(f"r{i}", i) for i in range(12)])))
    assert "7 × 7 patches, 12 pairs." in page


def test_odd_rows_have_a_page(tmp_path: Path) -> None:
    rows = [
        made_row("infinite", 0, image_delta=float("inf"), text_delta=0.0),
        made_row("one side", 1, words=None, word_scores=None, tokens=None, token_scores=None, text_delta=None),
        made_row("no map", 2, image_scores=None, image_rows=None, image_columns=None, image_delta=None),
        made_row("nothing known", 3, similarity=None, image_closed=None, image_delta=None, where=None),
        made_row("flat", 4, image_scores=np.zeros(49), image_delta=1e300),
        made_row("none finite", 5, image_scores=np.full(49, np.nan)),
    ]
    summary = summarise(written(str(tmp_path / "out"), rows), least=1)
    json.loads(summary.json())
    assert "infinite" in page_of(summary)
    one = summarise(written(str(tmp_path / "one"), rows[1:2]), outliers=0)
    assert "stand out" not in page_of(one)


def test_it_is_written_where_the_rows_are_or_where_it_is_asked_for(tmp_path: Path) -> None:
    rows = [made_row(f"r{i}", i) for i in range(9)]
    url = written(fresh("memory"), rows)
    summary = summarise(url)
    page, numbers = write_report(summary)
    assert (page, numbers) == (f"{url}/summary.html", f"{url}/summary.json")
    assert json.loads(Store(url).files.read("summary.json") or b"")["rows"] == 9
    Store(url).prepare({"model": "mini"})  # goes on in spite of the report
    page, numbers = write_report(summary, tmp_path / "deep" / "page.html", pictures=False)
    assert Path(page).read_text().startswith("<!doctype html>")
    assert json.loads(Path(numbers).read_text())["rows"] == 9
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        write_report(summary, tmp_path / "file" / "page.html")


def test_the_command(tmp_path: Path, run: Callable[..., Any]) -> None:
    url = written(str(tmp_path / "out"), [made_row(f"r{i}", i) for i in range(40)])
    code, out, err = run("summary", url, "--least", 2, "--words", 4, "--outliers", 2)
    assert (code, err.strip()) == (0, "")
    assert "nib: 40 pairs" in out
    assert "median" in out
    assert (tmp_path / "out" / "summary.html").is_file()
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(told["methods"]["nib"]["words"]["most"]) == 4
    for row in (rows := [made_row(f"r{i}", i) for i in range(40)]):
        row["word_scores"] = row["word_scores"] / 1000
    _, out, _ = run("summary", written(str(tmp_path / "small"), rows), "--no-pictures")
    (line,) = [one for one in out.splitlines() if "carry most" in one]
    scores = re.findall(r"[+-][\d.e-]+", line)
    assert len(set(scores)) == 5, "small scores are told apart"
    code, out, _ = run("summary", url, "--out", tmp_path / "page.html", "--no-pictures")
    assert code == 0
    assert str(tmp_path / "page.json") in out.replace("\n", "")
    for arguments, said in (
        ((tmp_path / "nothing",), "There is no output of isthmus map"),
        ((url, "--out", tmp_path), "takes the path of a page"),
        ((url, "--storage-options", "{"), "takes a JSON object"),
        ((url, "--storage-options", "[]"), "takes a JSON object"),
        (("nosuch://x",), "cannot be opened"),
    ):
        code, out, err = run("summary", *arguments)
        assert code == 1
        assert said in err
        assert "Traceback" not in err
        assert err.count("\n") == 1
