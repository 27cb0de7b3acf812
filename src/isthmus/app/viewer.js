/* The viewer: a picture and a text that answer each other. `isthmus.view(element, props, watch)` mounts it. */
(() => {
  "use strict";
  const { colour, solid, over, css, ink, paperOf, paint, signed, score } = window.isthmus;

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") node.textContent = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  const plain = (value) => value.toFixed(3).replace("-", "\u2212");
  const percent = (value) => `${(100 * value).toFixed(3)}%`;

  /* The picture with a canvas over what the model saw. */
  const stage = (view) => {
    if (!view.picture) return null;
    const image = make("img", { src: view.picture, alt: "", draggable: "false" });
    const frame = make("div", { class: "iv-frame", style: `--iv-aspect:${view.width / view.height}` }, image);
    if (!view.scores) return { frame };
    const [left, top, right, bottom] = view.crop;
    const place = `left:${percent(left)};top:${percent(top)};width:${percent(right - left)};height:${percent(bottom - top)}`;
    const wide = (right - left) * view.width, tall = (bottom - top) * view.height;
    const scale = (view.small ? 160 : 320) / Math.max(wide, tall);
    const canvas = make("canvas", {
      width: Math.max(1, Math.round(wide * scale)), height: Math.max(1, Math.round(tall * scale)),
      "data-rows": view.rows, "data-columns": view.columns, "aria-hidden": "true",
    });
    const crop = make("div", { class: `iv-crop${view.outlined ? " iv-outlined" : ""}`, style: place }, canvas);
    frame.append(crop);
    return { frame, crop, canvas };
  };

  const compared = (change) => (Math.abs(change) < 0.0005 ? "as before"
    : `${Math.abs(change).toFixed(3)} ${change > 0 ? "more" : "less"} than before`);

  const similarity = (view) => {
    if (view.similarity === null || view.similarity === undefined) return null;
    const filled = Math.max(0, Math.min(1, view.similarity));
    const change = view.change === undefined || view.change === null ? null
      : make("span", { class: "iv-change", text: compared(view.change) });
    return make("div", { class: "iv-similarity" },
      make("span", { class: "iv-label", text: view.similarityLabel || "similarity" }),
      make("span", { class: "iv-number", text: view.difference ? signed(view.similarity, 3) : plain(view.similarity) }),
      change,
      view.difference ? null : make("span", { class: "iv-meter", "aria-hidden": "true" },
        make("span", { style: `width:${percent(filled)}` })));
  };

  /* The text, each word made by `word(i)`, and what lies between as it is. Offsets count characters, as Python does,
     where JavaScript's own strings count an emoji as two. */
  const sentence = (view, word) => {
    const line = make("p", { class: "iv-words", dir: "auto" }), all = [...view.text];
    let end = 0;
    view.words.forEach((one, i) => {
      line.append(all.slice(end, one.start).join(""), word(one, i));
      end = one.end;
    });
    line.append(all.slice(end).join(""));
    return line;
  };

  const tint = (node, value, limit, map, positive, paper) => {
    const shown = positive ? Math.max(0, value) : value;
    const back = over(solid(colour(shown / limit, map, positive)), paper);
    node.style.background = shown === 0 && (positive || map !== "cividis") ? "transparent" : css(back);
    node.style.color = ink(back);
  };

  const heading = (view, open) => {
    if (open) return make("h3", {}, make("button", { type: "button", class: "iv-open", onclick: open, text: view.title || view.text }));
    return view.title ? make("h3", { text: view.title }) : null;
  };

  /* A small view of a grid, as the parts that stand in one line with those of its neighbours; `open` where a click
     opens it. */
  const still = (view, look, root, open) => {
    const parts = stage(view), paper = paperOf(root);
    if (parts && parts.canvas) paint(parts.canvas, { ...view, map: look.map, positive: look.positive });
    if (parts) Object.entries({ role: "img", "aria-label": view.alt }).forEach(([k, v]) => parts.frame.setAttribute(k, v));
    const words = view.words.length ? sentence(view, (one, i) => {
      const node = make("span", { class: "iv-word", "data-word": i, title: score(one.score, view.wordLimit), text: one.text },
        make("span", { class: "iv-spoken", text: ` ${score(one.score, view.wordLimit)}` }));
      tint(node, one.score, view.wordLimit, look.map, look.positive, paper);
      if (!one.was) return node;
      const whole = make("span", { class: "iv-swap" }, make("span", { class: "iv-spoken", text: "was " }), make("s", { text: one.was }), " ");
      whole.append(node);
      return whole;
    }) : null;
    const small = (text) => (text ? make("p", { class: "iv-small", text }) : null);
    return [
      [heading(view, open), small(view.subtitle)],
      [parts ? make("div", { class: "iv-stage" }, parts.frame) : null],
      [similarity(view)], [words],
      [small(view.absent), ...(view.cardFacts || []).map(small)],
    ].map((line) => line.filter(Boolean));
  };

  /* Small views side by side: their pictures in boxes of one shape, their parts in lines. */
  const cards = (views, look, root, open) => {
    const all = views.map((view, index) => still(view, look, root, open(index)));
    const used = all[0].map((_, line) => line).filter((line) => all.some((one) => one[line].length));
    const aspects = views.filter((view) => view.picture).map((view) => view.width / view.height);
    const mean = aspects.reduce((sum, one) => sum + one, 0) / aspects.length || 1;
    // Four in a row where three would leave one alone.
    const least = views.length % 3 === 1 && views.length % 4 !== 1 ? "190px" : "240px";
    return make("div", { class: "iv-grid", style: `--iv-box:${Math.max(0.8, Math.min(1.5, mean))};--iv-least:${least}` },
      ...all.map((one) => make("article", { class: "iv-card", style: `grid-row:span ${used.length}` },
        ...used.map((line) => make("div", { class: "iv-line" }, ...one[line])))));
  };

  const goTo = (node) => node.scrollIntoView({
    block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
  });

  window.isthmus.parts = { make, plain, percent, stage, similarity, sentence, tint, goTo };

  /* How maps are shown, alike everywhere on the page. */
  const look = { map: "red-blue", positive: false, opacity: 1, outline: true };
  const views = new Set();

  window.isthmus.look = (change = {}) => {
    Object.assign(look, change);
    const { style } = document.documentElement;
    style.setProperty("--iv-map", look.opacity);
    if (look.outline) style.removeProperty("--iv-outline");
    else style.setProperty("--iv-outline", "none");
    const drawn = "map" in change || "positive" in change || "theme" in change;
    views.forEach((view) => (drawn ? view.redraw() : view.settle()));
    return look;
  };
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(() => window.isthmus.look({ theme: true })).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  });

  const NARROW = 720;  // as in page.css: pixels up to which the answer lies below what asks for it

  window.isthmus.view = (root, props, watch, trigger) => {
    const host = root.querySelector(".iv") || root;
    let shown = null;
    const draw = () => {
      const value = props.value;
      host.classList.toggle("iv-empty", !value);
      if (!value) {
        host.replaceChildren(make("p", { class: "iv-hint", text: host.dataset.hint || "" }));
        shown = null;
      } else if (value.grid) {
        const open = (index) => (value.select ? () => trigger("select", { index }) : null);
        host.replaceChildren(value.title ? make("h2", { text: value.title }) : "", cards(value.grid, look, host, open));
        shown = null;
      } else if (shown && value.id !== undefined && shown.id === value.id) shown.update(value);
      else shown = window.isthmus.interactive(host, value);
    };
    const arrive = () => {
      const former = shown, empty = host.classList.contains("iv-empty");
      draw();
      if (innerWidth > NARROW || !props.value || (former && former === shown)) return;
      if (props.value.select && !empty) return;  // a gallery in another order
      if (!host.closest("[id$='-viewer']:not(#folder-viewer), [id$='-gallery']")) return;
      if (host.getBoundingClientRect().top > innerHeight / 3) requestAnimationFrame(() => goTo(host));
    };
    views.add({ redraw: () => (shown ? shown.repaint() : draw()), settle: () => shown?.display?.settle() });
    watch("value", arrive);
    draw();
  };
})();
