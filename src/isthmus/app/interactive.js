/* The interactive view of one answer: words ask for regions, regions ask for words. */
(() => {
  "use strict";
  const { paint, score, strongest, paperOf } = window.isthmus;
  const { make, percent, stage, similarity, sentence, tint, goTo, display, bar, hand } = window.isthmus.parts;

  const NONE = "This method has no map of words with regions.";

  class Interactive {
    constructor(host, view) {
      Object.assign(this, { host, view, look: window.isthmus.look(), id: view.id, words: new Set(), region: null, cursor: null, held: null });
      this.build();
      this.repaint();
    }

    /* Whether a click answers, or will once words and regions are prepared; a line that ends with … says that they
       are on their way. */
    get answers() { return Boolean(this.view.joint) || this.coming; }

    get coming() { return !this.view.joint && /\u2026$/.test(this.view.waiting || ""); }

    update(view) {
      const answered = this.answers;
      this.view = view;
      if (!this.answers) this.drop();  // it will not be prepared after all
      if (answered !== this.answers) this.buildLine();
      this.fillFacts();
      this.repaint();
    }

    build() {
      const view = this.view, parts = stage(view) || {};
      Object.assign(this, parts);
      this.value = make("p", { class: "iv-value", "aria-live": "polite" });
      this.asked = make("p", { class: "iv-asked", "aria-live": "polite" });
      this.facts = make("div", { class: "iv-facts" });
      this.legend = make("div", { class: "iv-legend" });
      if (this.crop) this.buildPad();
      this.buildLine();
      this.display = this.canvas ? display(this.look) : null;
      const side = make("div", { class: "iv-side" }, this.number(), this.legend, this.value, this.display?.element);
      this.host.replaceChildren(
        make("div", { class: "iv-top" }, this.frame ? make("div", { class: "iv-stage" }, this.frame) : null, side),
        this.line, this.asked, this.facts);
      this.fillFacts();
    }

    /* The text. Where its words do not answer they are no buttons, yet tell their value to pointer and keys. */
    buildLine() {
      const { view } = this, former = this.line;
      const at = this.nodes ? this.nodes.indexOf(document.activeElement) : -1;
      this.line = sentence(view, (one, i) => {
        const tell = () => this.tell(i), leave = () => this.tell(null);
        const kind = this.answers ? { type: "button", "aria-pressed": "false", onclick: () => this.toggleWord(i) } : { tabindex: "0" };
        return make(this.answers ? "button" : "span", { class: "iv-word", "data-word": i, ...kind,
          onpointerenter: tell, onfocus: tell, onpointerleave: leave, onblur: leave }, one.text);
      });
      this.line.addEventListener("keydown", (event) => { if (event.key === "Escape") this.clear(); });
      this.line.classList.toggle("iv-long", view.text.length > 90);
      this.line.classList.toggle("iv-longer", view.text.length > 300);
      this.nodes = [...this.line.querySelectorAll(".iv-word")];
      former?.replaceWith(this.line);
      this.nodes[at]?.focus({ preventScroll: true });
    }

    /* The similarity, with a way to what an edit changed, which stands further below. */
    number() {
      const { view } = this, number = similarity(view);
      const onclick = () => goTo(this.host.closest(".isthmus-answer").querySelector("[id$='-changes']"));
      number?.querySelector(".iv-change")?.after(make("button", { type: "button", class: "iv-clear", text: "See what changed", onclick }));
      return number;
    }

    fillFacts() {
      const rows = this.view.origin.map(([name, text]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", { text })));
      const open = this.facts.querySelector("details")?.open;
      this.facts.replaceChildren(
        make("p", { class: "iv-small", text: this.view.facts.join("  ·  ") }),
        ...this.view.notes.map((note) => make("p", { class: "iv-small", text: `Note: ${note}` })),
        make("details", { open }, make("summary", { text: "Where this comes from" }), make("table", {}, make("tbody", {}, ...rows))));
    }

    /* Scores of the regions now: of the whole text, or of the chosen words together. */
    regionsNow() {
      const { view } = this;
      if (!this.words.size || !view.joint) return { scores: view.scores, limit: view.limit };
      const scores = view.scores.map((_, cell) => [...this.words].reduce((sum, i) => sum + view.joint.scores[i][cell], 0));
      return { scores, limit: Math.max(view.joint.limit, ...scores.map(Math.abs)) };
    }

    cells() {
      if (!this.region) return [];
      const [r0, c0, r1, c1] = this.bounds(this.region), found = [];
      for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) found.push(r * this.view.columns + c);
      return found;
    }

    bounds([r0, c0, r1, c1]) {
      return [Math.min(r0, r1), Math.min(c0, c1), Math.max(r0, r1), Math.max(c0, c1)];
    }

    /* Scores of the words now: with the whole picture, or with the chosen region. */
    wordsNow() {
      const { view } = this, cells = this.cells();
      if (!cells.length || !view.joint) return { scores: view.words.map((one) => one.score), limit: view.wordLimit };
      const scores = view.joint.scores.map((word) => cells.reduce((sum, cell) => sum + word[cell], 0));
      return { scores, limit: Math.max(view.joint.limit, ...scores.map(Math.abs)) };
    }

    repaint() {
      const { look, view } = this;
      const paper = paperOf(this.host);
      this.shownWords = this.wordsNow();
      this.nodes.forEach((word, i) => {
        tint(word, this.shownWords.scores[i], this.shownWords.limit, look.map, look.positive, paper);
        word.dataset.score = this.written(i);
        if (!this.answers) return;
        word.setAttribute("aria-pressed", this.words.has(i));
        word.classList.toggle("iv-coming", this.coming && this.words.has(i));
        word.setAttribute("aria-label", `${view.words[i].text}, ${this.written(i)}`);
      });
      if (this.canvas) {
        this.shownRegions = this.regionsNow();
        paint(this.canvas, { ...this.shownRegions, rows: view.rows, columns: view.columns, map: look.map, positive: look.positive });
      }
      this.legend.replaceChildren(...this.bars(paper));
      this.sayAsked();
      this.pad?.setAttribute("aria-label", this.label());
      this.showBox();
      this.display?.settle();
      this.host.dataset.ready = view.joint ? "joint" : "map";
    }

    bars(paper) {
      const { view, look } = this, given = { unit: view.unit, look, paper };
      return [this.canvas ? bar("per region", this.shownRegions.limit, { ...given, words: false }) : null,
        view.words.length ? bar("per word", this.shownWords.limit, { ...given, words: true }) : null].filter(Boolean);
    }

    /* The score of a word as it is written. */
    written(i) { return score(this.shownWords.scores[i], this.shownWords.limit); }

    /* The chosen words, and the regions that say most for them; "" while none is chosen, or none is there yet. */
    chosen() { return [...this.words].sort((a, b) => a - b).map((i) => this.view.words[i].text).join(" + "); }

    lit() {
      return this.words.size && this.view.joint ? strongest(this.shownRegions, this.view.rows, this.view.columns) : "";
    }

    /* The map in words: of the whole text, or of the chosen words; and its keys. */
    label() {
      const lit = this.lit();
      const keys = this.answers ? "Arrow keys move over the regions, Enter asks for the words of one, Shift with arrows selects more, Escape clears."
        : "Arrow keys move over the regions.";
      return `${lit ? `Heat map of the regions for ${this.chosen()}, strongest: ${lit}.` : this.view.alt} ${keys}`;
    }

    sayAsked() {
      const { view } = this, bold = (text) => make("b", { text });
      const focused = this.asked.contains(document.activeElement);
      this.asked.replaceChildren();
      const clear = make("button", { type: "button", class: "iv-clear", text: "Clear", onclick: () => this.clear() });
      if (this.words.size) {
        const chosen = bold(this.chosen());
        if (this.coming) this.asked.append("The regions for ", chosen, " come as soon as they are prepared \u2026 ", clear);
        else this.asked.append("The picture shows the regions for ", chosen, `. Strongest: ${this.lit()}. `, clear);
      } else if (this.region) {
        const where = bold(this.named(this.region));
        if (this.coming) this.asked.append("The words for ", where, " come as soon as they are prepared \u2026 ", clear);
        else this.asked.append("The words are lit by the region of ", where, ". ", clear);
      } else if (view.joint) this.asked.append("Click a word for its regions, or drag over the picture for its words.");
      else this.asked.append(view.waiting === "" ? NONE : view.waiting || "");  // undefined where nobody expects any
      // The Clear that had the focus has gone: to the one in its place, or to what was asked.
      if (focused) (this.asked.querySelector("button") || this.nodes[this.from] || this.pad || this.nodes[0])?.focus({ preventScroll: true });
    }

    named(region) {
      const [r0, c0, r1, c1] = this.bounds(region).map((n) => n + 1);
      return r0 === r1 && c0 === c1 ? `row ${r0}, column ${c0}` : `rows ${r0} to ${r1}, columns ${c0} to ${c1}`;
    }

    toggleWord(i) {
      if (!this.answers) return;
      this.region = null;
      this.from = i;
      if (!this.words.delete(i)) this.words.add(i);
      this.repaint();
      this.tell(i);
    }

    drop() {
      this.words.clear();
      this.region = null;
    }

    clear() {
      this.drop();
      this.repaint();
      this.point(this.pointed);
    }

    tell(i) {
      if (i === null) { this.point(null); return; }
      this.value.replaceChildren(`${this.view.words[i].text} `, make("b", { text: this.written(i) }));
    }

    /* The value of a region under the pointer; of the chosen one, its own sum, as long as the pointer is in it or
       nowhere. */
    point(cell) {
      this.pointed = cell;
      const whole = this.region && (!cell || this.cells().includes(cell[0] * this.view.columns + cell[1]));
      const told = whole ? this.cells() : cell ? [cell[0] * this.view.columns + cell[1]] : [];
      this.value.replaceChildren();
      if (told.length && this.shownRegions) {
        const sum = told.reduce((so, one) => so + this.shownRegions.scores[one], 0);
        this.value.append(`${this.named(whole ? this.region : [...cell, ...cell])} `, make("b", { text: score(sum, this.shownRegions.limit, 5) }));
      }
      this.showBox();
    }

    showBox() {
      if (!this.box) return;
      const region = this.region || (this.pointed && [...this.pointed, ...this.pointed]);
      this.box.hidden = !region;
      if (!region) return;
      const [r0, c0, r1, c1] = this.bounds(region), { rows, columns } = this.view;
      this.box.classList.toggle("iv-chosen", Boolean(this.region));
      Object.assign(this.box.style, { left: percent(c0 / columns), top: percent(r0 / rows), width: percent((c1 - c0 + 1) / columns), height: percent((r1 - r0 + 1) / rows) });
    }

    choose(region) {
      this.words.clear();
      this.region = region;
      this.from = null;
      this.repaint();
      this.point(this.pointed);
    }
  }

  Object.assign(Interactive.prototype, hand);

  window.isthmus.interactive = (host, view) => new Interactive(host, view);
})();
