/* The list of former results; a click goes back to one. */
(() => {
  "use strict";
  const { make } = window.isthmus.parts;

  window.isthmus.history = (root, props, watch, trigger) => {
    const host = root.querySelector(".iv") || root;
    const draw = () => {
      const items = props.value ? props.value.items : [];
      host.replaceChildren(...items.map((one, index) => make("button", {
        type: "button", class: "iv-past", "aria-current": one.now ? "true" : false, "data-index": index,
        onclick: () => trigger("select", { index }),
      }, make("span", { class: "iv-past-text", dir: "auto", text: one.text }),
        make("span", { class: "iv-label", text: `${one.similarity === null ? "" : one.similarity.toFixed(3)} \u00b7 ${one.how}` }))));
    };
    watch("value", draw);
    draw();
  };
})();
