/* The interactive view of one answer: words ask for regions, regions ask for words. */
(() => {
  "use strict";
  const { maps, paint, ramp, signed, paperOf } = window.isthmus;
  const { make, percent, stage, similarity, sentence, tint, goTo } = window.isthmus.parts;

  const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

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
      this.view = view;
      if (!this.answers) this.drop();  // it will not be prepared after all
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
      this.line = sentence(view, (one, i) => make("button", {
        type: "button", class: "iv-word", "data-word": i, "aria-pressed": "false",
        onclick: () => this.toggleWord(i),
        onpointerenter: () => this.tell(i), onfocus: () => this.tell(i), onpointerleave: () => this.tell(null),
        onblur: () => this.tell(null),
      }, one.text));
      this.line.addEventListener("keydown", (event) => { if (event.key === "Escape") this.clear(); });
      this.line.classList.toggle("iv-long", view.text.length > 90);
      this.line.classList.toggle("iv-longer", view.text.length > 300);
      this.buttons = [...this.line.querySelectorAll(".iv-word")];
      const side = make("div", { class: "iv-side" }, this.number(), this.legend, this.value, this.display());
      this.host.replaceChildren(
        make("div", { class: "iv-top" }, this.frame ? make("div", { class: "iv-stage" }, this.frame) : null, side),
        this.line, this.asked, this.facts);
      this.fillFacts();
    }

    /* The similarity, with a way to what an edit changed, which stands further below. */
    number() {
      const { view } = this, number = similarity(view);
      const onclick = () => goTo(this.host.closest(".isthmus-answer").querySelector("[id$='-changes']"));
      number?.querySelector(".iv-change")?.after(make("button", { type: "button", class: "iv-clear", text: "See what changed", onclick }));
      return number;
    }

    /* What takes the pointer and the keys over the map. */
    buildPad() {
      this.box = make("div", { class: "iv-box", hidden: true });
      this.pad = make("div", {
        class: "iv-pad", tabindex: "0", role: "application", "aria-roledescription": "heat map",
        "aria-label": `${this.view.alt} Arrow keys move over the regions, Enter asks for the words of one, Shift with arrows selects more, Escape clears.`,
        onpointerdown: (event) => this.press(event), onpointermove: (event) => this.move(event),
        onpointerup: (event) => this.release(event), onpointercancel: () => { this.held = null; },
        onpointerleave: () => { if (!this.held) this.point(null); },
        onkeydown: (event) => this.key(event), onblur: () => { this.cursor = null; this.point(null); },
      });
      this.crop.append(this.box, this.pad);
    }

    display() {
      if (!this.canvas) return null;
      const change = (name, read) => (event) => window.isthmus.look({ [name]: read(event.target) });
      const select = make("select", { onchange: change("map", (target) => target.value) },
        ...maps.map(([key, name]) => make("option", { value: key, text: name, selected: key === this.look.map })));
      const range = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: this.look.opacity,
        oninput: change("opacity", (target) => Number(target.value)) });
      const check = (name, label) => make("label", {}, make("input", { type: "checkbox", checked: this.look[name],
        onchange: change(name, (target) => target.checked) }), ` ${label}`);
      return make("details", { class: "iv-display" }, make("summary", { text: "Display" }),
        make("label", {}, "Opacity ", range), make("label", {}, "Colours ", select),
        check("positive", "Only what speaks for it"), check("outline", "Outline what the model saw"));
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
      this.buttons.forEach((button, i) => {
        const score = this.shownWords.scores[i];
        tint(button, score, this.shownWords.limit, look.map, look.positive, paper);
        button.setAttribute("aria-pressed", this.words.has(i));
        button.classList.toggle("iv-coming", this.coming && this.words.has(i));
        button.setAttribute("aria-label", `${view.words[i].text}, ${signed(score)}`);
        button.dataset.score = signed(score);
      });
      if (this.canvas) {
        this.shownRegions = this.regionsNow();
        paint(this.canvas, { ...this.shownRegions, rows: view.rows, columns: view.columns, map: look.map, positive: look.positive });
      }
      this.legend.replaceChildren(...this.bars(paper));
      this.sayAsked();
      this.showBox();
      this.host.dataset.ready = view.joint ? "joint" : "map";
    }

    bars(paper) {
      const { positive } = this.look;
      const bar = (name, limit, words) => make("div", { class: "iv-scale" },
        make("span", { class: "iv-label", text: name }),
        make("span", { class: "iv-ramp", style: `background:${ramp(this.look.map, positive, paper, words)}`, "aria-hidden": "true" }),
        make("span", { class: "iv-ends" }, make("span", { text: positive ? "0" : `\u2212${limit.toPrecision(2)}` }, positive ? "" : make("i", { text: " against" })),
          make("span", {}, make("i", { text: "for " }), `+${limit.toPrecision(2)}`)));
      return [this.canvas ? bar("per region", this.shownRegions.limit, false) : null, this.view.words.length ? bar("per word", this.shownWords.limit, true) : null].filter(Boolean);
    }

    sayAsked() {
      const { view } = this, bold = (text) => make("b", { text });
      this.asked.replaceChildren();
      const clear = make("button", { type: "button", class: "iv-clear", text: "Clear", onclick: () => this.clear() });
      if (this.words.size) {
        const chosen = bold([...this.words].sort((a, b) => a - b).map((i) => view.words[i].text).join(" + "));
        if (this.coming) this.asked.append("The regions for ", chosen, " come as soon as they are prepared \u2026 ", clear);
        else this.asked.append("The picture shows the regions for ", chosen, ". ", clear);
      } else if (this.region) {
        const where = bold(this.named(this.region));
        if (this.coming) this.asked.append("The words for ", where, " come as soon as they are prepared \u2026 ", clear);
        else this.asked.append("The words are lit by the region of ", where, ". ", clear);
      } else this.asked.append(view.joint ? "Click a word for its regions, or drag over the picture for its words." : (view.waiting || ""));
    }

    named(region) {
      const [r0, c0, r1, c1] = this.bounds(region).map((n) => n + 1);
      return r0 === r1 && c0 === c1 ? `row ${r0}, column ${c0}` : `rows ${r0} to ${r1}, columns ${c0} to ${c1}`;
    }

    toggleWord(i) {
      if (!this.answers) return;
      this.region = null;
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
      this.value.replaceChildren(`${this.view.words[i].text} `, make("b", { text: signed(this.shownWords.scores[i]) }));
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
        this.value.append(`${this.named(whole ? this.region : [...cell, ...cell])} `, make("b", { text: signed(sum, 5) }));
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

    cellAt(event) {
      const place = this.pad.getBoundingClientRect(), { rows, columns } = this.view;
      const at = (value, start, size, count) => Math.max(0, Math.min(count - 1, Math.floor((value - start) / size * count)));
      return [at(event.clientY, place.top, place.height, rows), at(event.clientX, place.left, place.width, columns)];
    }

    press(event) {
      if (event.button) return;
      this.held = this.cellAt(event);
      this.before = this.region;
      this.pad.setPointerCapture(event.pointerId);
    }

    move(event) {
      const cell = this.cellAt(event);
      if (this.held && this.answers && (this.dragged || cell.join() !== this.held.join())) {
        this.dragged = true;
        this.choose([...this.held, ...cell]);
      }
      this.point(cell);
    }

    release(event) {
      if (!this.held) return;
      const region = [...this.held, ...this.cellAt(event)], again = this.before && !this.dragged && this.before.join() === region.join();
      this.held = null;
      this.dragged = false;
      if (this.answers) this.choose(again ? null : region);
    }

    choose(region) {
      this.words.clear();
      this.region = region;
      this.repaint();
      this.point(this.pointed);
    }

    key(event) {
      const step = KEYS[event.key], { rows, columns } = this.view;
      if (step) {
        const within = (n, count) => Math.max(0, Math.min(count - 1, n));
        const cell = this.cursor ? [within(this.cursor[0] + step[0], rows), within(this.cursor[1] + step[1], columns)] : [0, 0];
        if (event.shiftKey && this.answers) this.choose([...(this.region || this.cursor || cell).slice(0, 2), ...cell]);
        this.cursor = cell;
        this.point(cell);
      } else if ((event.key === "Enter" || event.key === " ") && this.cursor && this.answers) this.choose([...this.cursor, ...this.cursor]);
      else if (event.key === "Escape") this.clear();
      else return;
      event.preventDefault();
    }
  }

  window.isthmus.interactive = (host, view) => new Interactive(host, view);
})();
