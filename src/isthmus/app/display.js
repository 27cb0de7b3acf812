/* What tells and changes how a map is shown: the scales, and the controls, which all viewers of the page share. */
(() => {
  "use strict";
  const { maps, ramp, amount } = window.isthmus;
  const { make } = window.isthmus.parts;

  /* The controls; `settle` sets them to what holds, which another viewer's may have changed. */
  const display = (look) => {
    const change = (name, read) => (event) => window.isthmus.look({ [name]: read(event.target) });
    const select = make("select", { onchange: change("map", (target) => target.value) },
      ...maps.map(([value, text]) => make("option", { value, text })));
    const range = make("input", { type: "range", min: 0, max: 1, step: 0.05, oninput: change("opacity", (target) => Number(target.value)) });
    const box = (name) => make("input", { type: "checkbox", onchange: change(name, (target) => target.checked) });
    const positive = box("positive"), outline = box("outline");
    const element = make("details", { class: "iv-display" }, make("summary", { text: "Display" }),
      make("label", {}, "Opacity ", range), make("label", {}, "Colours ", select),
      make("label", {}, positive, " Only what speaks for it"), make("label", {}, outline, " Outline what the model saw"));
    const settle = () => {
      select.value = look.map;
      range.value = look.opacity;
      positive.checked = look.positive;
      outline.checked = look.outline;
    };
    settle();
    return { element, settle };
  };

  /* A scale with its name and unit; `words` where it is that of words. */
  const bar = (name, limit, { unit, look, paper, words }) => {
    const end = amount(limit), { map, positive } = look;
    return make("div", { class: "iv-scale" },
      make("span", { class: "iv-label", text: unit ? `${name} (${unit})` : name }),
      make("span", { class: "iv-ramp", style: `background:${ramp(map, positive, paper, words)}`, "aria-hidden": "true" }),
      make("span", { class: "iv-ends" },
        make("span", { text: positive ? "0" : `\u2212${end}` }, positive ? "" : make("i", { text: " against" })),
        make("span", {}, make("i", { text: "for " }), `+${end}`)));
  };

  Object.assign(window.isthmus.parts, { display, bar });
})();
