"""What a visitor does on the page, by clicks and keys, and what the page then shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SHOWN = """([id, text, ready]) => {
  const host = document.querySelector(`#${id} .iv`);
  const line = host && host.querySelector('.iv-words');
  return Boolean(line) && line.textContent === text && (host.dataset.ready === 'joint' || host.dataset.ready === ready);
}"""

_READ = """(id) => {
  const host = document.querySelector(`#${id} .iv`);
  const number = (text) => Number(text.replace('\\u2212', '-'));
  return {
    similarity: number(host.querySelector('.iv-number').textContent),
    words: [...host.querySelectorAll('.iv-words [data-word]')].map(
      (word) => [word.firstChild.textContent, number(word.dataset.score)]),
  };
}"""

# Begins a clock at the next press and stops it at the frame in which the drawing has changed.
_CLOCK = """([id, what]) => {
  const host = document.querySelector(`#${id} .iv`);
  const state = () => what === 'map' ? host.querySelector('canvas').toDataURL()
    : [...host.querySelectorAll('[data-word]')].map(w => w.style.background).join();
  const before = state();
  window.clocked = new Promise(done => {
    const start = () => {
      const began = performance.now();
      const look = () => state() !== before ? done(performance.now() - began) : requestAnimationFrame(look);
      requestAnimationFrame(look);
    };
    document.addEventListener('pointerdown', start, {capture: true, once: true});
  });
}"""


class Tab:
    """One tab of the page: its parts are named `PREFIX-picture`, `PREFIX-text`, ..."""

    prefix, name = "", ""

    def __init__(self, page: Any) -> None:
        self.page = page

    def open(self) -> None:
        """Go to the tab."""
        self.page.get_by_role("tab", name=self.name, exact=True).click()

    def part(self, name: str) -> Any:
        """A part of the tab by the end of its id."""
        return self.page.locator(f"#{self.prefix}-{name}")

    def give_picture(self, path: Path) -> None:
        """Choose a file, in place of the picture that is there."""
        part = self.part("picture")
        clear = part.get_by_role("button", name="Remove Image")
        if part.locator("img").count():
            clear.first.click()
        part.locator("input[type=file]").first.set_input_files(path)
        part.locator("img").first.wait_for()

    def give_text(self, text: str, name: str = "text") -> None:
        """Type a text over what is there."""
        self.part(name).locator("textarea, input").first.fill(text)

    def run(self) -> None:
        """Click the tab's main button."""
        self.part("run").click()


class Explain(Tab):
    """The tab Explain."""

    prefix, name = "explain", "Explain"

    def asked(self, picture: Path, text: str, ready: str = "map") -> dict[str, Any]:
        """Give both, click Explain, and wait for the answer; see `wait`."""
        self.give_picture(picture)
        self.give_text(text)
        self.run()
        return self.shown(text, ready)

    def wait(self, text: str, ready: str = "map") -> None:
        """Until the viewer shows this text; `ready` is "map", or "joint" for one whose words and regions answer."""
        self.page.wait_for_function(_SHOWN, arg=[f"{self.prefix}-viewer", text, ready], polling=50)

    def shown(self, text: str, ready: str = "map") -> dict[str, Any]:
        """What the viewer shows once it is about `text`: similarity, and words with their scores."""
        self.wait(text, ready)
        return dict(self.page.evaluate(_READ, f"{self.prefix}-viewer"))

    def words(self) -> Any:
        """The words of the sentence, which are buttons."""
        return self.part("viewer").locator(".iv-words [data-word]")

    def pad(self) -> Any:
        """What takes the pointer over the map."""
        return self.part("viewer").locator(".iv-pad")

    def pixels(self) -> str:
        """The heat map as it is drawn."""
        return str(self.part("viewer").locator("canvas").first.evaluate("canvas => canvas.toDataURL()"))

    def colours(self) -> list[str]:
        """Background of each word."""
        return list(self.words().evaluate_all("words => words.map(w => w.style.background)"))

    def clock(self, what: str) -> None:
        """Begin to wait for a press; see `clocked`. `what` is "map" or "words"."""
        self.page.evaluate(_CLOCK, [f"{self.prefix}-viewer", what])

    def clocked(self) -> float:
        """Milliseconds from the press to the frame in which the drawing was another."""
        return float(self.page.evaluate("() => window.clocked"))


class Contrast(Explain):
    """The tab Contrast."""

    prefix, name = "contrast", "Contrast"


class Cards(Tab):
    """A tab whose answer is a grid of cards."""

    where = "viewer"

    def cards(self) -> Any:
        """The cards, in their order."""
        return self.part(self.where).locator(".iv-card")

    def wait(self, count: int) -> None:
        """Until there are that many cards."""
        self.cards().nth(count - 1).wait_for()
        assert self.cards().count() == count

    def titles(self) -> list[str]:
        """Headings of the cards."""
        return [str(title) for title in self.part(self.where).locator(".iv-card h3").all_inner_texts()]


class Compare(Cards):
    """The tab Compare."""

    prefix, name = "compare", "Compare"


class Prompts(Cards):
    """The tab Prompts."""

    prefix, name = "prompts", "Prompts"


class Folder(Cards):
    """The tab Folder."""

    prefix, name, where = "folder", "Folder", "gallery"

    def give_files(self, paths: list[Path]) -> None:
        """Choose files, and wait until they are there."""
        self.part("files").locator("input[type=file]").first.set_input_files(paths)
        self.part("files").get_by_text(paths[-1].stem).first.wait_for()
