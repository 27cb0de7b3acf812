"""Eight browsers at once on the web app: is an answer lost, is one another's, does memory grow?

    python benchmarks/app_load.py              8 browsers, 50 explanations each, on the bundled model
    python benchmarks/app_load.py --write      the same, and put the figures into docs/app.md
    python benchmarks/app_load.py --browsers 2 --rounds 3

Each browser is a process of its own and asks about pictures and texts that no other asks about; what the page then
shows is compared with what `isthmus.explain` gives for them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from isthmus.benchmark.table import grid_markdown
from speed_machine import described, machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

DOC, MARK = ROOT / "docs" / "app.md", "load"
KINDS = ("dog", "bear", "bird", "horse", "pizza", "laptop", "elephant", "cat", "boat", "tree")
PLACES = ("grass", "table", "beach", "street", "snow", "sofa", "hill", "wall", "floor", "field")
LOOKS = ("small", "brown", "old", "large", "white", "wet", "happy", "dark", "young", "red")
CLOSE = 2e-3  # of a cosine: the page shows three decimals, and batches round


def question(browser: int, number: int, folder: Path) -> tuple[Path, str]:
    """A picture, made in `folder`, and a text: no two of a thousand are the same."""
    rng = random.Random(browser * 1000 + number)
    examples = sorted((ROOT / "examples").glob("*.jpg"))
    with Image.open(rng.choice(examples)) as whole:
        side = rng.randint(120, 300)
        left, top = rng.randint(0, whole.width - side), rng.randint(0, whole.height - side)
        part = whole.convert("RGB").crop((left, top, left + side, top + side))
    path = folder / f"{browser}-{number}.png"
    part.save(path)
    return path, f"a {LOOKS[browser % 10]} {rng.choice(KINDS)} {number} on the {rng.choice(PLACES)}"


def browse(url: str, browser: int, rounds: int, folder: str) -> list[dict[str, Any]]:
    """One browser's whole session: what each answer showed, and how long it took. Written line by line too."""
    from playwright.sync_api import sync_playwright

    from app.acting import Explain
    from app.browsing import FLAGS, chromium

    found: list[dict[str, Any]] = []
    with sync_playwright() as playwright, (Path(folder) / f"{browser}.jsonl").open("a", encoding="utf-8") as log:
        chrome = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = chrome.new_page()
        page.set_default_timeout(180_000)
        page.goto(url)
        explain = Explain(page)
        for number in range(rounds):
            picture, text = question(browser, number, Path(folder))
            explain.give_picture(picture)
            explain.give_text(text)
            began = time.monotonic()
            explain.run()
            shown = explain.shown(text)
            took = time.monotonic() - began
            found.append({"picture": str(picture), "text": text, "seconds": took, **shown})
            log.write(json.dumps({"seconds": took}) + "\n")
            log.flush()
        chrome.close()
    return found


class Memory(threading.Thread):
    """Notes the server's memory, once a second, beside the number of answers given so far."""

    def __init__(self, server: Any, folder: Path) -> None:
        super().__init__(daemon=True)
        self.server, self.folder, self.points = server, folder, list[tuple[int, int]]()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(1):
            answers = sum(len(path.read_text().splitlines()) for path in self.folder.glob("*.jsonl"))
            self.points.append((answers, self.server.resident()))

    def at(self, answers: int) -> float:
        """MiB at the first point with that many answers."""
        return next((held for count, held in self.points if count >= answers), self.points[-1][1]) / 2**20


def expected(found: Sequence[dict[str, Any]]) -> list[Any]:
    """What the library itself says of the same pairs."""
    import isthmus

    model = isthmus.load("mini", device="cpu")
    pictures, texts = [one["picture"] for one in found], [one["text"] for one in found]
    return [isthmus.explain(model, picture, text) for picture, text in zip(pictures, texts, strict=True)]


def own(shown: dict[str, Any], right: Any) -> bool:
    """Whether what the page showed is the explanation of this pair."""
    words = [(word.text, word.score) for word in right.text.words]
    if abs(shown["similarity"] - right.similarity) > CLOSE or len(shown["words"]) != len(words):
        return False
    pairs = zip(shown["words"], words, strict=True)
    return all(one[0] == two[0] and abs(one[1] - two[1]) < CLOSE for one, two in pairs)


def measure(browsers: int, rounds: int) -> dict[str, Any]:
    """Run it all."""
    from app.server import running

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder / "server") as server, ProcessPoolExecutor(browsers, get_context("spawn")) as pool:
            memory = Memory(server, folder)
            memory.start()
            began = time.monotonic()
            sessions = [pool.submit(browse, server.url, n, rounds, name) for n in range(browsers)]
            found = [answer for session in sessions for answer in session.result()]
            whole = time.monotonic() - began
            time.sleep(5)
            memory.over.set()
            memory.join()
            quarters = [memory.at(browsers * rounds * part // 4) for part in range(5)]
            said = server.said
        mixed = sum(not own(shown, right) for shown, right in zip(found, expected(found), strict=True))
    seconds = sorted(one["seconds"] for one in found)
    return {
        "browsers": browsers,
        "rounds": rounds,
        "answers": len(found),
        "mixed": mixed,
        "median": statistics.median(seconds),
        "late": seconds[int(0.95 * (len(seconds) - 1))],
        "slowest": seconds[-1],
        "rate": len(found) / whole,
        "memory": quarters,
        "end": memory.points[-1][1] / 2**20,
        "failures": said.count("Traceback"),
    }


def table(point: dict[str, Any]) -> str:
    """The figures as Markdown, with the machine."""
    asked = point["browsers"] * point["rounds"]
    waits = ", ".join(f"{point[part]:.1f}" for part in ("median", "late", "slowest"))
    rows = [
        ["browsers at once, explanations each", f"{point['browsers']}, {point['rounds']}"],
        ["answers, lost", f"{point['answers']}, {asked - point['answers']}"],
        ["answers that were another's", str(point["mixed"])],
        ["failures on the server", str(point["failures"])],
        ["seconds from click to answer: median, 95 of 100, slowest", waits],
        ["answers a second, all together", f"{point['rate']:.2f}"],
        ["MiB of the server at the start, after each quarter", ", ".join(f"{m:,.0f}" for m in point["memory"])],
        ["MiB of the server when all had left", f"{point['end']:,.0f}"],
    ]
    return f"{described(machine('cpu'))}; the browsers ran on the same machine.\n\n{grid_markdown(['', ''], rows)}"


def write(text: str) -> None:
    """Put the table between its marks in docs/app.md."""
    head, rest = DOC.read_text(encoding="utf-8").split(f"<!-- {MARK} -->\n")
    _, tail = rest.split(f"<!-- /{MARK} -->")
    DOC.write_text(f"{head}<!-- {MARK} -->\n\n{text.strip()}\n\n<!-- /{MARK} -->{tail}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/app.md")
    options = parser.parse_args()
    point = measure(options.browsers, options.rounds)
    print(json.dumps(point))
    print(table(point))
    if options.write:
        write(table(point))
    sys.exit(bool(point["mixed"] or point["failures"] or point["answers"] < options.browsers * options.rounds))


if __name__ == "__main__":
    main()
