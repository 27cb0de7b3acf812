/* The pointer and the keys over the map of an interactive view: methods of it. */
(() => {
  "use strict";
  const { make } = window.isthmus.parts;

  const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  window.isthmus.parts.hand = {
    /* What takes the pointer and the keys over the map. */
    buildPad() {
      this.box = make("div", { class: "iv-box", hidden: true });
      this.pad = make("div", {
        class: "iv-pad", tabindex: "0", role: "application", "aria-roledescription": "heat map",
        onpointerdown: (event) => this.press(event), onpointermove: (event) => this.move(event),
        onpointerup: (event) => this.release(event), onpointercancel: () => { this.held = null; },
        onpointerleave: () => { if (!this.held) this.point(null); },
        onkeydown: (event) => this.key(event), onblur: () => { this.cursor = null; this.point(null); },
      });
      this.crop.append(this.box, this.pad);
    },

    cellAt(event) {
      const place = this.pad.getBoundingClientRect(), { rows, columns } = this.view;
      const at = (value, start, size, count) => Math.max(0, Math.min(count - 1, Math.floor((value - start) / size * count)));
      return [at(event.clientY, place.top, place.height, rows), at(event.clientX, place.left, place.width, columns)];
    },

    press(event) {
      if (event.button) return;
      this.held = this.cellAt(event);
      this.before = this.region;
      this.pad.setPointerCapture(event.pointerId);
    },

    move(event) {
      const cell = this.cellAt(event);
      if (this.held && this.answers && (this.dragged || cell.join() !== this.held.join())) {
        this.dragged = true;
        this.choose([...this.held, ...cell]);
      }
      this.point(cell);
    },

    release(event) {
      if (!this.held) return;
      const region = [...this.held, ...this.cellAt(event)], again = this.before && !this.dragged && this.before.join() === region.join();
      this.held = null;
      this.dragged = false;
      if (this.answers) this.choose(again ? null : region);
    },

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
    },
  };
})();
